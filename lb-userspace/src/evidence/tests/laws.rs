//! Laws of the bets, and of the breaker's weights.

use proptest::prelude::*;

use crate::evidence::eprocess::{Bet, ln_e_shares};
use crate::evidence::weights::breaker;

/// The bettor label by label: his stake after each, by the definition.
fn one_by_one(w: f64, labels: &[(bool, usize)]) -> f64 {
    let (mut ln_e, mut seen) = (0.0, [[0.0, 0.0]; 4]);
    for (new, outcome) in labels {
        let [control, news] = &mut seen[*outcome];
        let p_new = (w + *news) / (1.0 + *news + *control);
        if *new {
            ln_e += (p_new / w).ln();
            *news += 1.0;
        } else {
            ln_e += ((1.0 - p_new) / (1.0 - w)).ln();
            *control += 1.0;
        }
    }
    ln_e
}

fn counted(labels: &[(bool, usize)]) -> [(u32, u32); 4] {
    let mut counts = [(0, 0); 4];
    for (new, outcome) in labels {
        let (news, controls) = &mut counts[*outcome];
        *(if *new { news } else { controls }) += 1;
    }
    counts
}

fn long(labels: &[(bool, usize)]) -> [(u64, u64); 4] {
    counted(labels).map(|(new, control)| (new.into(), control.into()))
}

/// All label sequences of this length: E times its probability sums to 1, for one outcome.
#[test]
fn a_bet_is_fair() {
    for w in [0.01_f64, 0.1, 0.5, 0.93] {
        let bet = Bet::new(w).unwrap();
        let mut expected = 0.0;
        for labels in 0_u32..1 << 10 {
            let new = f64::from(labels.count_ones());
            let chance = w.powf(new) * (1.0 - w).powf(10.0 - new);
            expected += chance * bet.ln_factor(new, 10.0 - new).exp();
        }
        assert!((expected - 1.0).abs() < 1e-9, "{expected}");
    }
}

/// Under "harmless" no weight sum gains: the expectation of its exponential is at most 1.
#[test]
fn the_breaker_does_not_gain() {
    for ppm in [
        1, 1_000, 10_000, 100_000, 500_000, 900_000, 990_000, 999_999,
    ] {
        let w = f64::from(ppm) / 1e6;
        let breaker = breaker(ppm, 3, 6_000).unwrap();
        for design in [breaker.total, breaker.half] {
            let e = |milli: i32| (f64::from(milli) / 1000.0).exp();
            let weights = design.weights;
            let failed = w * e(weights.failed_new) + (1.0 - w) * e(weights.failed_control);
            let completed = w * e(weights.completed_new) + (1.0 - w) * e(weights.completed_control);
            assert!(failed <= 1.0 + 1e-12 && completed <= 1.0 + 1e-12);
            assert!(failed > 0.998 && completed > 0.998);
            assert!(weights.failed_new >= 0 && weights.failed_control < 0);
            assert!(weights.completed_new < 0 && weights.completed_control >= 0);
        }
    }
}

proptest! {
    #[test]
    fn counts_are_enough(
        w in 0.001..0.999_f64,
        labels in prop::collection::vec((any::<bool>(), 0..4_usize), 0..200),
    ) {
        let bet = Bet::new(w).unwrap();
        let ln_e = bet.ln_e(long(&labels));
        prop_assert!((ln_e - one_by_one(w, &labels)).abs() < 1e-7);
        let ceiling: f64 = counted(&labels)
            .map(|(new, control)| bet.ceiling(new.into(), control.into()))
            .iter()
            .sum();
        prop_assert!(ln_e <= ceiling + 1e-7);
        // The composite null is never rejected sooner than a simple one.
        prop_assert!(bet.ln_e_any_share(long(&labels)) <= ln_e + 1e-7);
    }

    #[test]
    fn two_shares_are_a_bet(share in 0.01..0.99_f64, a in 0..1000_u32, b in 0..1000_u32) {
        let of = |a: u32, share: f64| (u64::from(a), share);
        let ln_e = ln_e_shares(&[of(a, share), of(b, 1.0 - share)]);
        // Bettor by bettor: his weight is 2 here, where that of a bet is 1.
        let (mut one_by_one, mut seen) = (0.0, [0.0, 0.0]);
        for (flows, class) in [(a, 0), (b, 1)] {
            let share = [share, 1.0 - share][class];
            for _ in 0..flows {
                let p = (2.0 * share + seen[class]) / (2.0 + seen[0] + seen[1]);
                one_by_one += (p / share).ln();
                seen[class] += 1.0;
            }
        }
        prop_assert!((ln_e - one_by_one).abs() < 1e-7);
    }

    #[test]
    fn finite_whatever_is_counted(
        w in 1e-6..0.999_999_f64,
        counts in prop::collection::vec((0..1_000_000_000_u64, 0..1_000_000_000_u64), 1..16),
    ) {
        let bet = Bet::new(w).unwrap();
        prop_assert!(bet.ln_e(counts.iter().copied()).is_finite());
        prop_assert!(!bet.ln_e_any_share(counts).is_nan());
    }
}
