//! How many new flows a second: from counters that only rise, over the last ten seconds.

use std::collections::{BTreeMap, VecDeque};

use super::number::real;

/// Time that a rate is about, ns.
const SPAN_NS: u64 = 10_000_000_000;
/// Shortest time that a rate is told of, ns.
const SHORTEST_NS: u64 = 1_500_000_000;

/// Rates by name. Times are boot-clock ns.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    samples: BTreeMap<String, VecDeque<(u64, u64)>>,
}

impl Rates {
    /// Takes what the counters are now. Names that are missing are forgotten; a counter that fell
    /// starts anew.
    pub fn round<'a>(&mut self, counters: impl IntoIterator<Item = (&'a str, u64)>, now_ns: u64) {
        let mut samples = BTreeMap::new();
        for (name, count) in counters {
            let mut known = self.samples.remove(name).unwrap_or_default();
            if known
                .back()
                .is_some_and(|(at, last)| *last > count || *at >= now_ns)
            {
                known.clear();
            }
            known.push_back((now_ns, count));
            // One from before the span stays, so that the span is whole.
            while known
                .get(1)
                .is_some_and(|(at, _)| now_ns.saturating_sub(*at) >= SPAN_NS)
            {
                known.pop_front();
            }
            samples.insert(name.to_owned(), known);
        }
        self.samples = samples;
    }

    /// New flows a second, of those names that are known for long enough.
    pub fn per_second(&self) -> BTreeMap<String, f64> {
        let rate = |(name, samples): (&String, &VecDeque<(u64, u64)>)| {
            let (from, first) = samples.front()?;
            let (to, last) = samples.back()?;
            let span = to.saturating_sub(*from);
            (span >= SHORTEST_NS).then(|| {
                let flows = real(last.saturating_sub(*first));
                (name.clone(), flows / (real(span) / 1e9))
            })
        };
        self.samples.iter().filter_map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(rates: &mut Rates, second: u64, count: u64) -> Option<f64> {
        rates.round([("shop", count)], second * SECOND);
        rates.per_second().get("shop").copied()
    }

    #[test]
    fn a_rate_is_about_the_last_ten_seconds() {
        let mut rates = Rates::default();
        assert_eq!(at(&mut rates, 1, 0), None);
        assert_eq!(at(&mut rates, 2, 50), None, "too short");
        assert_eq!(at(&mut rates, 3, 100), Some(50.0));
        for second in 4..=30 {
            at(&mut rates, second, 100);
        }
        assert_eq!(at(&mut rates, 31, 100), Some(0.0));
    }

    #[test]
    fn a_counter_that_fell_and_a_name_that_was_gone_start_anew() {
        let mut rates = Rates::default();
        at(&mut rates, 1, 0);
        at(&mut rates, 5, 1_000);
        assert_eq!(at(&mut rates, 9, 10), None);
        assert_eq!(at(&mut rates, 11, 30), Some(10.0));
        rates.round([("other", 1)], 12 * SECOND);
        assert_eq!(at(&mut rates, 13, 5_000), None);
    }

    proptest! {
        /// Steady traffic is told as it is, however the rounds fall.
        #[test]
        fn steady_traffic_is_told_as_it_is(per_second in 0u64..1_000_000, gaps in proptest::collection::vec(1u64..3_000, 4..60)) {
            let mut rates = Rates::default();
            let mut ms = 0;
            for gap in &gaps {
                ms += gap;
                rates.round([("shop", ms * per_second)], ms * 1_000_000);
            }
            let told = rates.per_second().get("shop").copied();
            let span: u64 = gaps.iter().skip(1).sum();
            if span > 13_000 {
                let exact = real(per_second) * 1_000.0;
                prop_assert!((told.unwrap() - exact).abs() <= exact * 1e-9);
            }
        }
    }
}
