//! Slots that must not be: each refused by its own name and with its numbers, and ACTIVE and LKG
//! the same afterwards, byte by byte.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test by panicking"
)]

mod keeps;
mod model;
mod seals;
mod trials;
mod walks;
mod writes;

use std::fmt::Write as _;

use lb_common::control::NO_SLOT;
use lb_common::guard::Refusal;
use lb_tests::bench::Bench;
use lb_tests::bpffs::Bpffs;
use lb_tests::draft::{Draft, Said};
use lb_tests::kept::{Keeper, Kept};
use lb_userspace::kernel::KernelError;

/// A VIP, its pool, and the pool's backends.
fn service(name: &str, address: &str, forward: &str, backends: &[&str]) -> String {
    let mut text = format!(
        "[[vip]]\nname = \"{name}\"\nservice = \"{name}\"\naddress = \"{address}\"\nport = 80\n\
         protocol = \"tcp\"\npool = \"{name}\"\n[[pool]]\nname = \"{name}\"\nservice = \"{name}\"\n\
         forward = \"{forward}\"\ntable_size = 251\n"
    );
    for (number, backend) in backends.iter().enumerate() {
        let _ = write!(
            text,
            "[[pool.backend]]\nname = \"{name}-{number}\"\naddress = \"{backend}\"\nweight = 100\n"
        );
    }
    text
}

const WEB: [&str; 4] = ["10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4"];

/// What ACTIVE and LKG have, but for `web`'s backends.
fn base(web: usize) -> String {
    String::from("version = 1\n")
        + &service("web", "203.0.113.10", "ipip", &WEB[..web])
        + &service("six", "2001:db8::10", "ipip", &["fd00::1", "fd00::2"])
        + &service("metal", "203.0.113.11", "l2", &["10.0.2.1", "10.0.2.2"])
}

/// A change: `new` is added.
fn change() -> String {
    base(4)
        + &service(
            "new",
            "203.0.113.20",
            "ipip",
            &["10.0.3.1", "10.0.3.2", "10.0.3.3"],
        )
}

/// A pinned balancer with a generation in ACTIVE and one in LKG.
struct Running {
    bpffs: Bpffs,
    bench: Bench,
}

impl Running {
    fn new() -> Self {
        let bpffs = Bpffs::new();
        let bench = Bench::pinned(&bpffs.pins());
        bench.commit(&base(3));
        bench.commit(&base(4));
        assert_ne!(bench.record().lkg, NO_SLOT);
        Self { bpffs, bench }
    }

    fn kept(&self) -> Kept {
        Keeper::read(
            &self.bpffs.pins(),
            self.bench.kernel.node,
            &self.bench.record(),
        )
    }

    /// One attempt: refused by `refusal` with these numbers, and nothing of what runs has changed.
    fn refuses(&self, what: &str, attempt: impl FnOnce(&mut Draft<'_>) -> (Said, Refused)) {
        let before = self.kept();
        let mut draft = Draft::of(&self.bench, &change());
        let (said, expected) = attempt(&mut draft);
        let refused = match said {
            Err(KernelError::Refused(refused)) => refused,
            Err(other) => panic!("{what}: {other}"),
            Ok(_) => panic!("{what}: taken"),
        };
        let (refusal, numbers) = expected;
        assert_eq!(refused.refusal, refusal, "{what}: {refused}");
        assert_eq!(
            refused.detail[..numbers.len()],
            numbers,
            "{what}: {refused}"
        );
        let after = self.kept();
        for (place, bytes) in &before {
            assert_eq!(after.get(place), Some(bytes), "{what}: {place:?}");
        }
        assert_eq!(after.len(), before.len(), "{what}");
    }
}

type Refused = (Refusal, Vec<u64>);

fn refused(refusal: Refusal, numbers: &[u64]) -> Refused {
    (refusal, numbers.to_vec())
}

/// Number of a pool as the guard tells it.
fn pool_of(draft: &mut Draft<'_>, name: &str) -> u64 {
    u64::from(draft.of_name(name).number)
}

#[test]
fn the_change_that_the_others_are_made_from_is_taken() {
    let running = Running::new();
    let before = running.kept();
    let draft = Draft::of(&running.bench, &change());
    let sealed = draft.sealed().expect("sealed");
    assert_eq!(sealed[..6], [2, 0, 1, 0, 0, 0], "R2: a VIP is added");
    assert_eq!(running.kept(), before);
    assert!(
        before.len() > 2_000,
        "{} elements are compared",
        before.len()
    );
}
