//! Simulated trials with the shipped code. A fast set runs with the tests, `cargo xtask soak evidence`
//! runs the whole and prints the tables of docs/EVIDENCE.md.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod run;
mod soak;
mod traffic;

use run::{Until, run};
use traffic::{Fault, Model};

const CALM: Model = Model {
    rate: 100.0,
    share_ppm: 100_000,
    failing: 0.01,
    fault: Fault::None,
    fault_at: 0,
    drift: true,
    floods: false,
    churn: false,
    counted_again: false,
    members: 0,
};
const STORMY: Model = Model {
    floods: true,
    churn: true,
    counted_again: true,
    ..CALM
};
const MINUTE: u64 = 600;

fn decided(slices: u64) -> Until {
    Until {
        slices,
        decided: true,
        steps: 4,
    }
}

#[test]
fn a_misroute_is_seen_at_once() {
    for seed in 0..50 {
        let fault = Fault::Dead(1.0);
        let outcome = run(Model { fault, ..STORMY }, seed, decided(MINUTE));
        let (after, signal, exposed) = outcome.failed.unwrap();
        assert!(["S1", "S2"].contains(&signal.as_str()), "{signal}");
        assert!(after <= 30 && exposed <= 60, "{after} {exposed}");
        assert!(outcome.tripped.unwrap() <= 60);
        assert_eq!(outcome.passed, None);
    }
}

#[test]
fn half_a_pool_and_wrong_answers_are_seen() {
    for seed in 0..30 {
        for (fault, signals) in [
            (Fault::Dead(0.5), ["S1", "S2"]),
            (Fault::OtherAnswers, ["S4", "S5"]),
        ] {
            let outcome = run(Model { fault, ..CALM }, seed, decided(MINUTE));
            let (after, by, _) = outcome.failed.unwrap();
            assert!(signals.contains(&by.as_str()), "{by}");
            assert!(after <= 150, "{after}");
            assert_eq!(outcome.passed, None);
        }
    }
}

#[test]
fn a_harmless_change_passes_and_is_never_put_back() {
    let mut passed = 0;
    for seed in 0..60 {
        let shares = [100_000, 500_000, 900_000];
        let model = Model {
            share_ppm: shares[seed as usize % 3],
            members: 10,
            ..STORMY
        };
        let until = Until {
            slices: 2 * MINUTE,
            decided: false,
            steps: 1,
        };
        let outcome = run(model, seed, until);
        assert_eq!(outcome.failed, None, "{seed}");
        assert_eq!(outcome.tripped, None, "{seed}");
        assert_eq!(outcome.inconclusive, None, "{seed}");
        passed += usize::from(outcome.passed.is_some());
    }
    assert!(passed >= 58, "{passed}");
}
