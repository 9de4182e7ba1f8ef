//! Cases as data: a packet in, and all that must come of it.
#![allow(clippy::expect_used, reason = "all of it is tests")]
#![allow(clippy::missing_panics_doc, reason = "a failed case has to stop")]

use std::fmt::Write as _;
use std::net::IpAddr;

use lb_common::TEST_SET;
use lb_common::counter::Reason;
use lb_common::packet::FlowKey;
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::probe::{Action, Ask, Decision};

use crate::bench::Bench;
use crate::expect;

/// What the packet must look like afterwards.
#[derive(Clone, Debug)]
pub enum Out {
    /// As before, byte by byte.
    Untouched,
    /// New MAC addresses.
    L2,
    /// An outer header to a backend, for a packet of this flow.
    Ipip(FlowKey, IpAddr),
    /// The same with UDP between.
    Gue(FlowKey, IpAddr),
    /// These bytes.
    Exactly(Vec<u8>),
}

/// One case.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is about.
    pub about: &'static str,
    /// The packet.
    pub frame: Vec<u8>,
    /// The XDP verdict.
    pub verdict: Action,
    /// Why; also the counter that must rise by one.
    pub reason: Reason,
    /// Name of the VIP; empty = none.
    pub vip: &'static str,
    /// Name of the backend; empty = none.
    pub backend: &'static str,
    /// The packet afterwards.
    pub out: Out,
}

impl Row {
    /// Left to the stack.
    pub fn pass(about: &'static str, reason: Reason, frame: Vec<u8>) -> Self {
        let (verdict, vip, backend, out) = (Action::Pass, "", "", Out::Untouched);
        Self {
            about,
            frame,
            verdict,
            reason,
            vip,
            backend,
            out,
        }
    }

    /// Dropped.
    pub fn drop(about: &'static str, reason: Reason, vip: &'static str, frame: Vec<u8>) -> Self {
        Self {
            verdict: Action::Drop,
            vip,
            ..Self::pass(about, reason, frame)
        }
    }

    /// Answered with `answer`.
    pub fn reply(about: &'static str, reason: Reason, frame: Vec<u8>, answer: Vec<u8>) -> Self {
        Self {
            verdict: Action::Tx,
            out: Out::Exactly(answer),
            ..Self::pass(about, reason, frame)
        }
    }

    /// Sent on; `to` is VIP and backend.
    pub fn sent(
        about: &'static str,
        to: (&'static str, &'static str),
        out: Out,
        frame: Vec<u8>,
    ) -> Self {
        let (vip, backend) = to;
        let sent = Self::pass(about, Reason::Forwarded, frame);
        Self {
            verdict: Action::Tx,
            vip,
            backend,
            out,
            ..sent
        }
    }

    /// The same for another reason.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    /// The same for another VIP and backend.
    #[must_use]
    pub fn of(self, vip: &'static str, backend: &'static str) -> Self {
        Self {
            vip,
            backend,
            ..self
        }
    }
}

/// Runs every row in order and stops at the first that fails.
pub fn run(bench: &Bench, image: &Image, rows: &[Row]) {
    for row in rows {
        judge(bench, image, row, Ask::default());
    }
}

/// Runs one row and returns what the program said.
pub fn judge(bench: &Bench, image: &Image, row: &Row, ask: Ask) -> Decision {
    let count = || {
        bench
            .kernel
            .maps
            .reasons(TEST_SET)
            .expect("counters")
            .packets
    };
    let before = count();
    let got = bench.kernel.prober.run(&row.frame, ask).expect("test run");
    let after = count();
    let about = row.about;
    assert_eq!(
        (got.action, got.reason),
        (row.verdict, Some(row.reason)),
        "{about}: {got:x?}"
    );
    let vip = got
        .vip
        .and_then(|vip| image.vip_name(vip))
        .unwrap_or_default();
    let backend = got
        .member
        .and_then(|id| image.member_name(id))
        .unwrap_or_default();
    assert_eq!((vip, backend.1), (row.vip, row.backend), "{about}");
    let wanted = match &row.out {
        Out::Untouched => row.frame.clone(),
        Out::L2 => expect::l2(&row.frame),
        Out::Ipip(flow, to) => expect::ipip(&bench.kernel.node, &row.frame, flow, *to),
        Out::Gue(flow, to) => expect::gue(&bench.kernel.node, &row.frame, flow, *to),
        Out::Exactly(bytes) => bytes.clone(),
    };
    assert_eq!(
        hex(&got.packet),
        hex(&wanted),
        "{about}: the packet afterwards"
    );
    for reason in Reason::ALL {
        let place = *reason as usize;
        let rise = u64::from(*reason == row.reason);
        let counted = |all: &[u64]| all.get(place).copied().unwrap_or_default();
        assert_eq!(
            counted(&after) - counted(&before),
            rise,
            "{about}: counter {reason:?}"
        );
    }
    got
}

/// Bytes for people who compare.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        let end = if place % 16 == 15 { '\n' } else { ' ' };
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}{end}");
    }
    text
}
