//! What the tests of this and the neighbouring modules start from.

use jiff::Timestamp;

use super::Spec;
use crate::change::Now;
use crate::change::actor::Actor;
use crate::config::Digest;

/// Boot-time nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// A person.
pub fn operator() -> Actor {
    Actor {
        uid: 1000,
        user: "alice".into(),
        pid: 42,
        command: "lbguard".into(),
    }
}

/// The moment `seconds` after the boot.
pub fn now_at(seconds: u64) -> Now {
    Now {
        boot_ns: seconds * SECOND,
        wall: Timestamp::from_second(1_790_000_000 + i64::try_from(seconds).unwrap()).unwrap(),
    }
}

/// A change from generation 6 to 7 without evidence, to confirm within 120 s.
pub fn spec() -> Spec {
    Spec {
        change: 3,
        generation: 7,
        base: 6,
        digest: Digest::of(b"seven"),
        author: operator(),
        why: "add web-3".into(),
        forced: false,
        share_ppm: 1_000_000,
        canary_ppm: Vec::new(),
        evidence: false,
        confirm_auto: false,
        confirm_within_ms: 120_000,
        step_within_ms: Spec::TEN_MINUTES_MS,
        prepare_within_ms: Spec::TEN_MINUTES_MS,
    }
}

/// The same with two canary steps and evidence.
pub fn spec_with_evidence() -> Spec {
    Spec {
        canary_ppm: vec![100_000, 500_000],
        share_ppm: 900_000,
        evidence: true,
        ..spec()
    }
}
