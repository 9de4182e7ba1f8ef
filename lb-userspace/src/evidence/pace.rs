//! How many new flows a trial follows where there are more than it has records for: what there is, shared
//! among the VIPs that the change moves. The kernel keeps to it by [`lb_common::pace`].

use lb_common::pace::MOST;

use super::number::{real, share};
use super::plan::Touched;
use super::proof::Seen;
use super::signals::Transport;

/// Flows of a VIP that the new arm gets in a second of the first step, where only such as are followed enter it.
/// A change that refuses all of them is put back half a second after the dozenth failure at most: some 18 are
/// hurt, however many come.
const MET_AT_FIRST: f64 = 15.0;
/// Flows of a VIP that are followed in a second of the first step, if there are so many, whatever the share:
/// what it takes to see a fault within two seconds.
const FOLLOWED_AT_FIRST: f64 = 100.0;

/// Flows a second of a VIP that are followed in a step, from 0 on, with this share of the new arm, if `pace` may
/// be.
pub fn in_step(pace: f64, step: usize, share_ppm: u32) -> f64 {
    if step == 0 {
        pace.min((MET_AT_FIRST / share(share_ppm)).max(FOLLOWED_AT_FIRST))
    } else {
        pace
    }
}

/// Flows a second that each of these VIPs may have followed, of `most` that there are, as fast as flows come now.
/// VIPs that are brand-new have nothing to be compared with, and no part of it.
pub fn of_vips(touched: &[Touched], seen: &Seen, most: u32) -> f64 {
    let followed = touched
        .iter()
        .filter(|vip| vip.in_control && vip.transport != Transport::Udp)
        .map(|vip| seen.flows_per_second.get(&vip.name).copied());
    fair(followed, f64::from(most))
}

/// The rate up to which every VIP is followed, so that all together have `most`: whoever has less is
/// followed whole, and what he leaves is for the others (max-min fairness). A rate that is not known may be
/// any.
pub fn fair(rates: impl IntoIterator<Item = Option<f64>>, most: f64) -> f64 {
    let mut rates: Vec<f64> = rates
        .into_iter()
        .map(|rate| rate.unwrap_or(f64::INFINITY))
        .collect();
    rates.sort_by(f64::total_cmp);
    let mut left = most;
    let mut vips = u64::try_from(rates.len()).unwrap_or(u64::MAX);
    for rate in rates {
        let part = left / real(vips.max(1));
        if rate > part {
            return part;
        }
        left -= rate;
        vips = vips.saturating_sub(1);
    }
    most
}

/// For the kernel.
pub fn of_kernel(flows_per_second: f64) -> u16 {
    // Between 0 and MOST.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded above and below, and saturating"
    )]
    let rate = flows_per_second.clamp(0.0, f64::from(MOST)) as u32;
    lb_common::pace::of_rate(rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    }

    #[test]
    fn who_has_less_is_followed_whole_and_leaves_the_rest() {
        for (rates, pace) in [
            (vec![], 2_500.0),
            (vec![Some(100_000.0)], 2_500.0),
            (vec![None], 2_500.0),
            (vec![Some(100.0), Some(2_000.0)], 2_500.0),
            (vec![Some(10.0), Some(100_000.0)], 2_490.0),
            (vec![Some(10.0), None, Some(100_000.0)], 1_245.0),
        ] {
            same(fair(rates, 2_500.0), pace);
        }
    }

    #[test]
    fn the_first_step_meets_few() {
        for (pace, share, followed) in [
            (2_500.0, 100_000, 150.0),
            (2_500.0, 10_000, 1_500.0),
            (2_500.0, 500_000, 100.0),
            (50.0, 500_000, 50.0),
        ] {
            same(in_step(pace, 0, share), followed);
            same(in_step(pace, 1, share), pace);
        }
    }

    #[test]
    fn the_kernel_gets_it_in_its_unit() {
        assert_eq!(of_kernel(2_500.0), lb_common::pace::of_rate(2_500));
        for odd in [-1.0, f64::NAN, 0.0] {
            assert_eq!(of_kernel(odd), u16::MAX, "{odd}");
        }
        assert_eq!(of_kernel(f64::INFINITY), of_kernel(f64::from(MOST)));
    }

    proptest! {
        /// All together have what there is, and no more; each has his part at least.
        #[test]
        fn all_together_have_what_there_is(
            rates in prop::collection::vec(0.0f64..50_000.0, 1..200),
            most in 10.0f64..2_500.0,
        ) {
            let pace = fair(rates.iter().copied().map(Some), most);
            let all: f64 = rates.iter().map(|rate| rate.min(pace)).sum();
            let wanted: f64 = rates.iter().sum();
            prop_assert!(all <= most * (1.0 + 1e-9));
            prop_assert!(all >= wanted.min(most) * (1.0 - 1e-9));
            prop_assert!(pace >= most / real(rates.len() as u64) * (1.0 - 1e-9));
        }
    }
}
