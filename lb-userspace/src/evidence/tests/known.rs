//! Known values. Those of the bets, weights and flow numbers were computed with mpmath, 40 digits.

use std::time::Duration;

use crate::evidence::eprocess::{Bet, ln_e_shares};
use crate::evidence::forecast::{Forecast, Traffic, forecast};
use crate::evidence::noninferiority::{Arm, Margin};
use crate::evidence::weights::breaker;

fn bet(w: f64) -> Bet {
    Bet::new(w).unwrap()
}

fn near(a: f64, b: f64, by: f64) {
    assert!((a - b).abs() < by, "{a} is not {b}");
}

#[test]
fn evidence_of_counts() {
    near(
        bet(0.1).ln_e([(11, 1), (0, 94)]),
        27.811_275_748_333_1,
        1e-10,
    );
    near(
        bet(0.9).ln_e([(5, 5), (895, 95)]),
        -1.296_795_533_132_33,
        1e-10,
    );
    near(
        bet(0.01).ln_e([(3, 2), (97, 9898)]),
        -0.150_546_612_367_858,
        1e-10,
    );
    near(bet(0.5).ln_e([(0, 0), (0, 0)]), 0.0, 1e-15);
}

#[test]
fn evidence_of_a_billion_flows() {
    let even = bet(0.1).ln_e([(100_000_000, 900_000_000)]);
    near(even, -10.882_893_445_460_4, 1e-4);
    let odd = bet(0.1).ln_e([(100_010_000, 899_990_000), (30, 270)]);
    near(odd, -13.699_415_243_074_9, 1e-4);
}

#[test]
fn evidence_against_shares() {
    let shares = [0.5, 0.25, 0.25];
    let counts = |flows: [u64; 3]| ln_e_shares(&[0, 1, 2].map(|i| (flows[i], shares[i])));
    near(counts([30, 10, 20]), -1.602_882_032_364_13, 1e-10);
    near(counts([100, 0, 0]), 63.194_876_783_777_5, 1e-10);
    assert!(ln_e_shares(&[(10, 1.0), (1, 0.0)]).is_infinite());
}

#[test]
fn no_bet_without_two_arms() {
    for w in [0.0, 1.0, -0.1, 1.5, f64::NAN] {
        assert_eq!(Bet::new(w), None);
    }
    assert_eq!(breaker(0, 1, 1), None);
    assert_eq!(breaker(1_000_000, 1, 1), None);
}

#[test]
fn flows_that_a_proof_takes() {
    let needed = |delta| {
        let margin = Margin { delta, beta: 1e-3 };
        margin.flows_needed(0.01)
    };
    assert_eq!(
        [0.02, 0.05, 0.10, 0.20].map(needed),
        [Some(750), Some(207), Some(85), Some(36)]
    );
    assert_eq!(needed(0.99), None);
}

#[test]
fn a_proof_ends_at_that_number() {
    let margin = Margin {
        delta: 0.05,
        beta: 1e-3,
    };
    let control = Arm {
        flows: 9_999,
        failed: 100,
    };
    let new = |flows, failed| margin.standing(Arm { flows, failed }, control);
    assert!(!new(206, 2).proven);
    assert!(new(220, 2).proven);
    // Worse by delta, however many; and what it says it needs is what it needs.
    assert!(!new(10_000, 600).proven);
    assert_eq!(new(10_000, 600).needed, None);
    let needed = new(100, 0).needed.unwrap();
    assert!(new(needed, 0).proven && !new(needed - 1, 0).proven);
    // Control is not known yet.
    let few = Arm {
        flows: 30,
        failed: 0,
    };
    let standing = margin.standing(
        Arm {
            flows: 500,
            failed: 0,
        },
        few,
    );
    assert!(!standing.proven);
    assert!(standing.control_needed > 30);
}

#[test]
fn weights_of_the_breaker() {
    let total = |ppm| {
        let w = breaker(ppm, 1, 6_000).unwrap().total.weights;
        [
            w.failed_new,
            w.failed_control,
            w.completed_new,
            w.completed_control,
        ]
    };
    assert_eq!(total(100_000), [2129, -1732, -2876, 99]);
    assert_eq!(total(500_000), [672, -3189, -2333, 643]);
    assert_eq!(total(900_000), [103, -3758, -1051, 1924]);
    let half = breaker(100_000, 1, 6_000).unwrap().half;
    let w = half.weights;
    assert_eq!(
        [
            w.failed_new,
            w.failed_control,
            w.completed_new,
            w.completed_control
        ],
        [1995, -1224, -623, 50]
    );
    assert_eq!(half.threshold, 20_213);
}

#[test]
fn forecasts() {
    let margin = Margin {
        delta: 0.05,
        beta: 1e-3,
    };
    let at = |rate, ppm| {
        let traffic = Traffic {
            flows_per_second: rate,
            failing: 0.01,
        };
        forecast(margin, [((ppm, Duration::from_mins(10)), traffic)])
    };
    assert_eq!(at(100.0, 100_000).to_string(), "about 22 s");
    assert_eq!(at(10.0, 100_000).to_string(), "about 4 min");
    assert_eq!(at(1.0, 100_000), Forecast::NotAtThisRate);
    assert_eq!(at(0.0, 100_000), Forecast::NotAtThisRate);
    assert_eq!(at(100.0, 0), Forecast::NotAtThisRate);
    assert_eq!(at(100.0, 1_000_000), Forecast::NotAtThisRate);
}
