//! Between changes there is no other arm: each backend is compared with the rest of its pool. The
//! lookup table hashes flows to backends, so if all are alike, whose flow it is does not depend on
//! what becomes of it. Events for people; nothing is done about them.

use std::collections::BTreeMap;
use std::f64::consts::LN_10;
use std::fmt;

use serde::Serialize;

use super::eprocess::Bet;
use super::number::{ppm, ratio, real};

/// Time after which counting starts anew, ns.
const WINDOW_NS: u64 = 60_000_000_000;
/// One false event in a thousand years of windows.
const WINDOWS: f64 = 1_000.0 * 525_600.0;
/// Smallest difference of failing shares that is worth an event.
const FLOOR: f64 = 0.05;

/// A backend's mature flows so far; they only rise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendFlows {
    /// Its name.
    pub name: String,
    /// Flows that had their time to complete.
    pub flows: u64,
    /// Those of them that completed.
    pub completed: u64,
}

/// Something that somebody should know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Odd {
    /// The pool.
    pub pool: String,
    /// The backend.
    pub backend: String,
    /// Its flows and failed ones in the window.
    pub own: (u64, u64),
    /// The other backends'.
    pub others: (u64, u64),
    /// ln E.
    pub ln_e: f64,
    /// ln E from which it is proof.
    pub ln_needed: f64,
    /// How much more often it fails, ppm of flows.
    pub effect_ppm: i64,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "backend {} of {}: {} of {} flows failed against {} of {} of the others (e = 10^{:.1}, needs 10^{:.1})",
            self.backend,
            self.pool,
            self.own.1,
            self.own.0,
            self.others.1,
            self.others.0,
            self.ln_e / LN_10,
            self.ln_needed / LN_10,
        )
    }
}

/// Watches the backends of one pool.
#[derive(Clone, Debug)]
pub struct PoolWatch {
    pool: String,
    began_ns: Option<u64>,
    base: BTreeMap<String, (u64, u64)>,
    told: BTreeMap<String, u64>,
}

impl PoolWatch {
    /// A watch that has seen nothing.
    pub fn new(pool: String) -> Self {
        Self {
            pool,
            began_ns: None,
            base: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Backends that are proven worse than the others and were not in the last two windows. A
    /// backend counts from the first window that it was there from the start.
    pub fn round(&mut self, backends: &[BackendFlows], now_ns: u64) -> Vec<Odd> {
        let odd = self.odd(backends, now_ns);
        let age = self.began_ns.map(|began| now_ns.saturating_sub(began));
        if age.is_none_or(|age| age >= WINDOW_NS) {
            self.began_ns = Some(now_ns);
            let all = |b: &BackendFlows| (b.name.clone(), (b.flows, b.completed));
            self.base = backends.iter().map(all).collect();
        }
        odd
    }

    /// Backends that were worse than the others within the last two windows.
    pub fn standing(&self, now_ns: u64) -> impl Iterator<Item = &str> {
        let lately = move |at: u64| now_ns.saturating_sub(at) <= WINDOW_NS.saturating_mul(2);
        let told = self.told.iter().filter(move |(_, at)| lately(**at));
        told.map(|(name, _)| name.as_str())
    }

    fn odd(&mut self, backends: &[BackendFlows], now_ns: u64) -> Vec<Odd> {
        let seen = self.window(backends);
        let total = seen.values().fold((0, 0), plus);
        let ln_needed = (WINDOWS * real(seen.len().max(1) as u64)).ln();
        let mut odd = Vec::new();
        for (name, own) in &seen {
            let others = (total.0.saturating_sub(own.0), total.1.saturating_sub(own.1));
            let found = self.compare(name, *own, others, ln_needed);
            let Some(found) = found else {
                continue;
            };
            let last = self.told.insert(name.clone(), now_ns);
            let quiet = WINDOW_NS.saturating_mul(2);
            if last.is_none_or(|last| now_ns.saturating_sub(last) > quiet) {
                odd.push(found);
            }
        }
        odd
    }

    /// Flows and failed flows in the window, by backend. Counters that fell have no part in it.
    fn window(&self, backends: &[BackendFlows]) -> BTreeMap<String, (u64, u64)> {
        let since = |b: &BackendFlows| {
            let (flows, completed) = self.base.get(&b.name)?;
            let flows = b.flows.checked_sub(*flows)?;
            let completed = b.completed.checked_sub(*completed)?;
            Some((b.name.clone(), (flows, flows.saturating_sub(completed))))
        };
        backends.iter().filter_map(since).collect()
    }

    fn compare(&self, name: &str, own: (u64, u64), others: (u64, u64), needed: f64) -> Option<Odd> {
        let effect = ratio(own.1, own.0) - ratio(others.1, others.0);
        if own.0 == 0 || others.0 == 0 || effect <= FLOOR {
            return None;
        }
        // The share that fits best takes the table's place: backends come and go.
        let bet = Bet::new(ratio(own.0, own.0.saturating_add(others.0)))?;
        let good = |(flows, failed): (u64, u64)| flows.saturating_sub(failed);
        let ln_e = bet.ln_e_any_share([(own.1, others.1), (good(own), good(others))]);
        (ln_e >= needed).then(|| Odd {
            pool: self.pool.clone(),
            backend: name.to_owned(),
            own,
            others,
            ln_e,
            ln_needed: needed,
            effect_ppm: ppm(effect),
        })
    }
}

fn plus(sum: (u64, u64), more: &(u64, u64)) -> (u64, u64) {
    (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn backends(seconds: u64, failing: [u64; 3]) -> Vec<BackendFlows> {
        let backend = |(number, failing): (usize, u64)| BackendFlows {
            name: format!("web-{number}"),
            flows: seconds * 100,
            completed: seconds * (100 - failing),
        };
        failing.into_iter().enumerate().map(backend).collect()
    }

    fn run(failing: [u64; 3]) -> Vec<(u64, Odd)> {
        let mut watch = PoolWatch::new("shop-web".to_owned());
        let round = |seconds: u64| {
            let odd = watch.round(&backends(seconds, failing), seconds * SECOND);
            odd.into_iter().map(move |odd| (seconds, odd))
        };
        (0..200).flat_map(round).collect()
    }

    #[test]
    fn a_backend_that_fails_is_told_once() {
        let odd = run([1, 60, 1]);
        assert_eq!(odd.len(), 1);
        let (after, odd) = &odd[0];
        assert!(*after <= 2, "{after}");
        assert!(
            odd.to_string().starts_with(
                "backend web-1 of shop-web: 60 of 100 flows failed against 2 of 200 of the others"
            ),
            "{odd}"
        );
    }

    #[test]
    fn it_stands_until_two_windows_were_quiet() {
        let mut watch = PoolWatch::new("shop-web".to_owned());
        let mut failing = [1, 60, 1];
        let mut stood = Vec::new();
        let mut now = backends(0, failing);
        for second in 0..400 {
            failing[1] = if second < 100 { 60 } else { 1 };
            for (backend, failing) in now.iter_mut().zip(failing) {
                backend.flows += 100;
                backend.completed += 100 - failing;
            }
            watch.round(&now, second * SECOND);
            if watch.standing(second * SECOND).eq(["web-1"]) {
                stood.push(second);
            }
        }
        assert!(stood[0] <= 3, "{stood:?}");
        let last = *stood.last().unwrap();
        // It is worse in what is left of its last bad window, too.
        assert!((220..=280).contains(&last), "{last}");
        assert_eq!(stood.len() as u64, last - stood[0] + 1, "without a gap");
    }

    #[test]
    fn what_all_have_or_is_small_is_not_told() {
        assert_eq!(run([60, 60, 60]), []);
        assert_eq!(run([1, 4, 1]), []);
        assert_eq!(run([0, 0, 0]), []);
    }

    #[test]
    fn counters_that_fall_are_no_event() {
        let mut watch = PoolWatch::new("shop-web".to_owned());
        watch.round(&backends(100, [1, 1, 1]), 0);
        assert_eq!(watch.round(&backends(10, [1, 90, 1]), SECOND), []);
    }
}
