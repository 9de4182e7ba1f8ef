//! What a trial is judged on: counters per arm and VIP, and the record of a flow that is followed.
//!
//! A balancer whose answers go straight to the client sees the client's half of a connection, and
//! that is enough: the third packet of the handshake proves that a backend answered, and the
//! client's acknowledgement numbers count the bytes that it got.
//!
//! All counters only rise and wrap; a reader takes differences. A VIP has one address, so a
//! counter per VIP is one per family, too.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bins of the handshake counters: flows that began in the same 134 ms, modulo 4.3 s.
pub const BINS: usize = 32;
/// Boot-clock ns to bins.
pub const BIN_NS_SHIFT: u32 = 27;
/// Buckets of [`Evidence::latency`].
pub const LATENCIES: usize = 12;
/// Buckets of [`Evidence::response`].
pub const RESPONSES: usize = 16;
/// Buckets of [`Evidence::wait`]; the last one is not used.
pub const WAITS: usize = 8;
/// Bucket of [`Evidence::wait`]: no response within a second.
pub const NO_ANSWER: usize = 5;
/// Bucket of [`Evidence::wait`]: the client asked for nothing while it was followed.
pub const NO_REQUEST: usize = 6;
/// The new arm's index; control's is 0.
pub const NEW: u32 = 1;
/// Arms.
pub const ARMS: usize = 2;

/// Counts of one VIP in one arm, on one CPU, during trials.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Evidence {
    /// S1: flows that began, by the bin of their first SYN (of their first Initial, for QUIC).
    pub started: [u32; BINS],
    /// S1: those of them whose handshake was complete in time, by the same bin.
    pub completed: [u32; BINS],
    /// Handshake times, see [`latency_bucket`].
    pub latency: [u32; LATENCIES],
    /// S4: flows by bytes of response, see [`response_bucket`].
    pub response: [u32; RESPONSES],
    /// S5: flows by the time from the first request to the first response, see [`wait_bucket`].
    pub wait: [u32; WAITS],
    /// S3: flows by how they ended, see [`End`].
    pub end: [u32; 4],
    /// S6: flows by what the client sent again, see [`Resent`].
    pub resent: [u32; 4],
    /// S7: ICMP errors from backends and routers, see [`IcmpError`].
    pub icmp: [u32; 4],
    /// S2: flows whose SYN came again.
    pub retried: u32,
    /// S15: new flows that were followed.
    pub flows: u32,
    /// New flows that are not followed: their VIP's pace was used up, or the change does not move them.
    pub passed_over: u32,
    /// New flows for which there was no room: they went to control, uncounted otherwise.
    pub untracked: u32,
    /// S8 and S9: packets without next hop, without backend, for a VIP that is gone.
    pub hard: u32,
    /// Zero.
    pub reserved: u32,
}

/// Counts of one backend in one arm, on one CPU, during trials.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MemberEvidence {
    /// Flows that began (S11, S12).
    pub started: u32,
    /// Handshakes complete in time.
    pub completed: u32,
    /// S7: ICMP errors about it.
    pub icmp: u32,
    /// Flows that ended early.
    pub early: u32,
}

impl Evidence {
    /// The sum, as over CPUs. Counters only rise, so wrapping is right.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        add(&mut self.started, &other.started);
        add(&mut self.completed, &other.completed);
        add(&mut self.latency, &other.latency);
        add(&mut self.response, &other.response);
        add(&mut self.wait, &other.wait);
        add(&mut self.end, &other.end);
        add(&mut self.resent, &other.resent);
        add(&mut self.icmp, &other.icmp);
        self.retried = self.retried.wrapping_add(other.retried);
        self.flows = self.flows.wrapping_add(other.flows);
        self.passed_over = self.passed_over.wrapping_add(other.passed_over);
        self.untracked = self.untracked.wrapping_add(other.untracked);
        self.hard = self.hard.wrapping_add(other.hard);
        self
    }
}

fn add<const N: usize>(sum: &mut [u32; N], more: &[u32; N]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
}

impl MemberEvidence {
    /// The sum, as over CPUs. Counters only rise, so wrapping is right.
    #[must_use]
    pub const fn plus(self, other: &Self) -> Self {
        Self {
            started: self.started.wrapping_add(other.started),
            completed: self.completed.wrapping_add(other.completed),
            icmp: self.icmp.wrapping_add(other.icmp),
            early: self.early.wrapping_add(other.early),
        }
    }
}

/// S3: how a flow was when it was no longer followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// Alive.
    Alive = 0,
    /// Closed by the client after it got an answer.
    Closed = 1,
    /// Closed by the client without an answer.
    Empty = 2,
    /// Reset by the client.
    Reset = 3,
}

/// S6: what the client sent again while the flow was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Resent {
    /// Nothing.
    Nothing = 0,
    /// Small packets.
    Small = 1,
    /// A packet of more than [`BIG`] bytes.
    Big = 2,
    /// Big ones, twice or more, and nothing was acknowledged in between: what a path with too
    /// small an MTU looks like.
    Stall = 3,
}

/// S7: what an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IcmpError {
    /// The backend does not decapsulate.
    Protocol = 0,
    /// Nothing listens.
    Port = 1,
    /// No way to the backend.
    Host = 2,
    /// Does not fit.
    TooBig = 3,
}

/// IP bytes above which a packet is big.
pub const BIG: u16 = 1_200;

/// Bin of a boot-clock time.
#[inline(always)]
pub const fn bin(now_ns: u64) -> usize {
    (now_ns >> BIN_NS_SHIFT) as usize & (BINS - 1)
}

/// Bucket of a handshake time: 0 is below 1 ms, k below 2^k ms, the last one all above. Times are whole jiffies
/// ([`crate::clock`]).
#[inline(always)]
pub const fn latency_bucket(ns: u64) -> usize {
    let ms = ns >> 20;
    bounded(u64::BITS - ms.leading_zeros(), LATENCIES)
}

/// Bucket of a response: 0 is none, 1 below 64 bytes, k below 2^(k + 5), the last one all above.
#[inline(always)]
pub const fn response_bucket(bytes: u32) -> usize {
    if bytes == 0 {
        return 0;
    }
    bounded(u32::BITS - (bytes >> 6).leading_zeros() + 1, RESPONSES)
}

/// Bucket of the time to the first response: 0 is below 4 ms, k below 4^(k + 1), and
/// [`NO_ANSWER`] from a second on.
#[inline(always)]
pub const fn wait_bucket(ns: u64) -> usize {
    let ms = ns >> 20;
    bounded(
        (u64::BITS - (ms >> 2).leading_zeros()).div_ceil(2),
        NO_ANSWER + 1,
    )
}

#[inline(always)]
const fn bounded(bucket: u32, buckets: usize) -> usize {
    let bucket = bucket as usize;
    if bucket < buckets {
        bucket
    } else {
        buckets - 1
    }
}

const _: () = assert!(size_of::<Evidence>() == 472);
const _: () = assert!(size_of::<MemberEvidence>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_begin_where_they_say() {
        let ms = |ms: u64| ms << 20;
        assert_eq!(
            [0, 1, 2, 3, 4].map(|t| latency_bucket(ms(t))),
            [0, 1, 2, 2, 3]
        );
        assert_eq!(latency_bucket(u64::MAX), LATENCIES - 1);
        assert_eq!(
            [0, 1, 63, 64, 127, 128].map(response_bucket),
            [0, 1, 1, 2, 2, 3]
        );
        assert_eq!(response_bucket(u32::MAX), RESPONSES - 1);
        assert_eq!(
            [3, 4, 15, 16, 1023].map(|t| wait_bucket(ms(t))),
            [0, 1, 1, 2, 4]
        );
        assert_eq!(
            [1024, u64::MAX >> 20].map(|t| wait_bucket(ms(t))),
            [NO_ANSWER; 2]
        );
    }

    proptest! {
        #[test]
        fn buckets_never_fall(a: u64, b: u64, c: u32, d: u32) {
            prop_assert!(latency_bucket(a.min(b)) <= latency_bucket(a.max(b)));
            prop_assert!(wait_bucket(a.min(b)) <= wait_bucket(a.max(b)));
            prop_assert!(response_bucket(c.min(d)) <= response_bucket(c.max(d)));
        }
    }
}
