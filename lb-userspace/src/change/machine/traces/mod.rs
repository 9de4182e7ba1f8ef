//! Random traces of events against the promises in the module's head.
//!
//! Two kinds. *Soup*: any event at any time, biased towards the straight road,
//! watched by a witness that knows nothing of the machine's insides. *Model*: a
//! small kernel that carries the effects out, loses answers, kills the agent and
//! lets it adopt; at the end machine, journal and kernel must agree.
//!
//! `LB_TRACES=1000000 cargo test -p lb-userspace traces` runs a million soups
//! instead of 100,000, and a tenth as many models: 90 s in a debug build, so not
//! by default.

mod model;
mod soup;

use super::testing::{spec, spec_with_evidence};
use super::*;

/// `SplitMix64` (Steele et al., OOPSLA 2014): a failing trace is its seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn traces() -> u64 {
    std::env::var("LB_TRACES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000)
}

fn any_spec(rng: &mut Rng) -> Spec {
    if rng.one_in(2) {
        spec()
    } else {
        Spec {
            confirm_auto: rng.one_in(2),
            ..spec_with_evidence()
        }
    }
}

const MINE: u64 = 7;
const BASE: u64 = 6;

fn seeded(
    what: &str,
    seed: u64,
    trace: impl FnOnce(u64) -> State + std::panic::UnwindSafe,
) -> State {
    std::panic::catch_unwind(|| trace(seed)).unwrap_or_else(|_| panic!("{what}({seed}) failed"))
}
