//! A flow that is followed while a trial judges it: from its SYN to two seconds after its
//! handshake, or to its end; less if a second passes without an answer, or if big packets do not
//! get through: what is wrong is then known, and shall be counted soon.
//!
//! Pure: the packet path and the timer call this on elements of a map, tests on the host.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::evidence::{BIG, End, NO_ANSWER, NO_REQUEST, Resent, response_bucket, wait_bucket};
use crate::wire::tcp_flags;

/// Records in the table: 1 MiB.
pub const TRACKS: u32 = 16_384;
/// How long a flow is followed after its handshake, ns.
pub const FOLLOWED_NS: u64 = 2_000_000_000;
/// How long a request may go unanswered before that is what is counted of its flow, ns.
pub const SILENCE_NS: u64 = 1_000_000_000;
/// Big packets sent again, with nothing acknowledged in between, that are a stall.
const STALL: u8 = 2;
/// How long a handshake may take before its record may be taken by another flow: a SYN that is
/// sent again comes after one second.
pub const HALF_OPEN_NS: u64 = 1_300_000_000;
/// How long a SYN that comes again is the same flow's: clients try after 1, 3 and 7 seconds. Were it
/// another flow, it would get the label of the first one, and labels that come in pairs are no
/// independent draws.
pub const RETRIES_NS: u64 = 8_000_000_000;
/// The request has not been answered yet, or there was none, [`Track::wait`].
const WAITING: u8 = 0xff;

/// Bits of [`Track::state`].
mod state {
    /// The SYN came again.
    pub(super) const RETRIED: u8 = 1;
    /// The client has sent a small packet again.
    pub(super) const SMALL: u8 = 2;
}

/// A record, one cache line.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Track {
    /// The flow, see [`crate::track_table::key`]; 0 = none.
    pub key: u64,
    /// Boot-clock ns of the first SYN.
    pub syn_ns: u64,
    /// Boot-clock ns of the handshake's third packet; 0 = not yet.
    pub established_ns: u64,
    /// Boot-clock ns of the first packet with data; 0 = none yet.
    pub request_ns: u64,
    /// Acknowledgement number of the handshake's third packet.
    pub first_ack: u32,
    /// Highest acknowledgement number.
    pub last_ack: u32,
    /// What had been acknowledged when the request was sent.
    pub request_ack: u32,
    /// Sequence number after the last byte that the client has sent.
    pub next_seq: u32,
    /// Member id of the backend.
    pub member: u32,
    /// Number of the VIP.
    pub vip: u16,
    /// 0 = control, [`crate::evidence::NEW`] = new.
    pub arm: u8,
    /// Short id of the change.
    pub change: u8,
    /// Step of the trial in which it began.
    pub stage: u8,
    state: u8,
    /// Big packets sent again since something was acknowledged.
    bigs: u8,
    wait: u8,
    /// Flows whose home this record is and that lie elsewhere, see [`crate::track_table`].
    pub away: u32,
}

/// Whom a flow belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// See [`Track::member`].
    pub member: u32,
    /// See [`Track::vip`].
    pub vip: u16,
    /// See [`Track::arm`].
    pub arm: u8,
    /// See [`Track::change`].
    pub change: u8,
    /// See [`Track::stage`].
    pub stage: u8,
}

/// What is read of a client's TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of payload.
    pub payload: u16,
    /// Bytes of the IP packet.
    pub ip_length: u16,
    /// Flags as in the header.
    pub flags: u8,
}

/// What a segment means for its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that is counted.
    Nothing,
    /// The handshake is complete.
    Completed,
    /// The flow is not followed any more.
    Ended(End),
}

/// How a flow was, in buckets of [`crate::evidence::Evidence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bucket of the response's bytes.
    pub response: usize,
    /// Bucket of the time to the first response.
    pub wait: usize,
    /// What was sent again.
    pub resent: Resent,
}

impl Track {
    /// Makes this the record of a flow at its SYN. [`Track::away`] is not the flow's, and other CPUs may
    /// add to it meanwhile.
    #[inline(always)]
    pub const fn begin(&mut self, key: u64, now: u64, whose: Whose) {
        self.syn_ns = now;
        self.established_ns = 0;
        self.request_ns = 0;
        self.first_ack = 0;
        self.last_ack = 0;
        self.request_ack = 0;
        self.next_seq = 0;
        self.member = whose.member;
        self.vip = whose.vip;
        self.arm = whose.arm;
        self.change = whose.change;
        self.stage = whose.stage;
        self.state = 0;
        self.bigs = 0;
        self.wait = WAITING;
        self.key = key;
    }

    /// Whether another flow may have this record.
    #[inline(always)]
    pub const fn is_over(&self, now: u64) -> bool {
        let (since, limit) = if self.established_ns == 0 {
            (self.syn_ns, HALF_OPEN_NS)
        } else {
            // The timer counts it before; this is for a timer that does not run.
            (self.established_ns, 2 * FOLLOWED_NS)
        };
        now.saturating_sub(since) > limit
    }

    /// Whether a SYN now is this flow's own, sent again.
    #[inline(always)]
    pub const fn is_tried(&self, now: u64) -> bool {
        self.is_half_open() && now.saturating_sub(self.syn_ns) <= RETRIES_NS
    }

    /// Whether the handshake is not complete.
    #[inline(always)]
    pub const fn is_half_open(&self) -> bool {
        self.established_ns == 0
    }

    /// Whether its SYN came again: then control has it, and it is not counted any further.
    #[inline(always)]
    pub const fn is_retried(&self) -> bool {
        self.state & state::RETRIED != 0
    }

    /// Notes that the SYN came again; true the first time.
    #[inline(always)]
    pub const fn retry(&mut self) -> bool {
        let first = !self.is_retried();
        self.state |= state::RETRIED;
        first
    }

    /// Whether it has been followed for long enough: two seconds, or one without an answer.
    #[inline(always)]
    pub const fn is_due(&self, now: u64) -> bool {
        let unanswered = self.request_ns != 0 && self.wait == WAITING;
        self.established_ns != 0
            && (now.saturating_sub(self.established_ns) > FOLLOWED_NS
                || (unanswered && now.saturating_sub(self.request_ns) > SILENCE_NS))
    }

    /// Whether big packets do not get through: there is no need to look any longer.
    #[inline(always)]
    const fn is_stalled(&self) -> bool {
        self.bigs >= STALL
    }

    /// Takes a segment of the client that is not a SYN.
    #[inline(always)]
    pub const fn segment(&mut self, segment: &Segment, now: u64) -> Step {
        if self.is_half_open() {
            return self.third(segment, now);
        }
        self.acknowledged(segment.ack, now);
        if segment.flags & tcp_flags::RST != 0 {
            return Step::Ended(End::Reset);
        }
        self.sent(segment, now);
        if segment.flags & tcp_flags::FIN != 0 {
            return Step::Ended(if self.response() == 0 {
                End::Empty
            } else {
                End::Closed
            });
        }
        if self.is_stalled() || self.is_due(now) {
            return Step::Ended(End::Alive);
        }
        Step::Nothing
    }

    /// The handshake's third packet. A reset is the client's answer to something else.
    #[inline(always)]
    const fn third(&mut self, segment: &Segment, now: u64) -> Step {
        if segment.flags & tcp_flags::RST != 0 || segment.flags & tcp_flags::ACK == 0 {
            return Step::Nothing;
        }
        self.established_ns = now;
        self.first_ack = segment.ack;
        self.last_ack = segment.ack;
        self.next_seq = segment.seq;
        self.sent(segment, now);
        Step::Completed
    }

    #[inline(always)]
    const fn acknowledged(&mut self, ack: u32, now: u64) {
        if ack.wrapping_sub(self.last_ack).cast_signed() <= 0 {
            return;
        }
        self.last_ack = ack;
        self.bigs = 0;
        if self.request_ns != 0 && self.wait == WAITING && ack != self.request_ack {
            self.wait = wait_bucket(now.saturating_sub(self.request_ns)) as u8;
        }
    }

    #[inline(always)]
    const fn sent(&mut self, segment: &Segment, now: u64) {
        if segment.payload == 0 {
            return;
        }
        let after = segment.seq.wrapping_add(segment.payload as u32);
        if self.request_ns == 0 {
            self.request_ns = now;
            self.request_ack = self.last_ack;
        } else if after.wrapping_sub(self.next_seq).cast_signed() <= 0 {
            if segment.ip_length > BIG {
                self.bigs = self.bigs.saturating_add(1);
            } else {
                self.state |= state::SMALL;
            }
        }
        if after.wrapping_sub(self.next_seq).cast_signed() > 0 {
            self.next_seq = after;
        }
    }

    /// Bytes that the client has got; the one of a FIN is none.
    #[inline(always)]
    const fn response(&self) -> u32 {
        match self.last_ack.wrapping_sub(self.first_ack) {
            1 => 0,
            bytes => bytes,
        }
    }

    /// How it was.
    #[inline(always)]
    pub const fn summary(&self) -> Summary {
        let wait = if self.request_ns == 0 {
            NO_REQUEST
        } else if self.wait == WAITING {
            NO_ANSWER
        } else {
            self.wait as usize
        };
        let resent = match (self.bigs, self.state & state::SMALL) {
            _ if self.is_stalled() => Resent::Stall,
            (0, 0) => Resent::Nothing,
            (0, _) => Resent::Small,
            _ => Resent::Big,
        };
        Summary {
            response: response_bucket(self.response()),
            wait,
            resent,
        }
    }
}

const _: () = assert!(size_of::<Track>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn segment(seq: u32, ack: u32, payload: u16, flags: u8) -> Segment {
        Segment {
            seq,
            ack,
            payload,
            ip_length: payload + 40,
            flags: flags | tcp_flags::ACK,
        }
    }

    fn begun() -> Track {
        let mut track = Track::default();
        track.begin(7, MS, Whose::default());
        track
    }

    fn established() -> Track {
        let mut track = begun();
        assert_eq!(track.segment(&segment(1, 1, 0, 0), 2 * MS), Step::Completed);
        track
    }

    #[test]
    fn a_request_and_its_response() {
        let mut track = established();
        assert_eq!(track.segment(&segment(1, 1, 90, 0), 3 * MS), Step::Nothing);
        assert_eq!(
            track.segment(&segment(91, 501, 0, 0), 8 * MS),
            Step::Nothing
        );
        let end = track.segment(&segment(91, 502, 0, tcp_flags::FIN), 9 * MS);
        assert_eq!(end, Step::Ended(End::Closed));
        let expected = Summary {
            response: response_bucket(501),
            wait: wait_bucket(5 * MS),
            resent: Resent::Nothing,
        };
        assert_eq!(track.summary(), expected);
    }

    #[test]
    fn a_server_that_closes_at_once_gave_no_response() {
        let mut track = established();
        track.segment(&segment(1, 1, 90, 0), 3 * MS);
        let end = track.segment(&segment(91, 2, 0, tcp_flags::FIN), 9 * MS);
        assert_eq!(end, Step::Ended(End::Empty));
        assert_eq!(track.summary().response, 0);
    }

    #[test]
    fn silence_is_no_answer_and_nothing_asked_is_no_request() {
        let mut track = established();
        assert_eq!(track.summary().wait, NO_REQUEST);
        assert!(!track.is_due(2 * MS + SILENCE_NS + MS));
        track.segment(&segment(1, 1, 90, 0), 3 * MS);
        assert_eq!(track.summary().wait, NO_ANSWER);
        assert!(!track.is_due(3 * MS + SILENCE_NS));
        assert!(track.is_due(3 * MS + SILENCE_NS + 1));
        let late = track.segment(&segment(1, 1, 90, 0), 3 * MS + SILENCE_NS + 1);
        assert_eq!(late, Step::Ended(End::Alive));
        assert_eq!(track.summary().resent, Resent::Small);
    }

    #[test]
    fn what_has_been_answered_is_followed_for_two_seconds() {
        let mut track = established();
        track.segment(&segment(1, 1, 90, 0), 3 * MS);
        track.segment(&segment(91, 9, 0, 0), 4 * MS);
        assert!(!track.is_due(2 * MS + FOLLOWED_NS));
        assert!(track.is_due(2 * MS + FOLLOWED_NS + 1));
    }

    #[test]
    fn a_big_packet_that_is_sent_twice_more_with_nothing_acknowledged_is_a_stall_at_once() {
        let mut track = established();
        let big = segment(1, 1, 1_400, 0);
        assert_eq!(track.segment(&big, 3 * MS), Step::Nothing);
        assert_eq!(track.segment(&big, 4 * MS), Step::Nothing);
        assert_eq!(track.summary().resent, Resent::Big);
        assert_eq!(track.segment(&big, 5 * MS), Step::Ended(End::Alive));
        assert_eq!(track.summary().resent, Resent::Stall);
    }

    #[test]
    fn a_big_packet_that_got_there_is_no_stall() {
        let mut track = established();
        let big = |seq| segment(seq, 1, 1_400, 0);
        for (ms, seq) in [(3, 1), (4, 1), (6, 1_401)] {
            track.segment(&segment(seq, 300 * ms, 0, 0), (ms as u64) * MS);
            assert_eq!(track.segment(&big(seq), (ms as u64) * MS), Step::Nothing);
        }
        assert_eq!(track.summary().resent, Resent::Nothing);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut track = begun();
        track.segment(&segment(u32::MAX - 10, u32::MAX - 99, 0, 0), 2 * MS);
        track.segment(&segment(u32::MAX - 10, u32::MAX - 99, 100, 0), 3 * MS);
        track.segment(&segment(89, 200, 100, 0), 4 * MS);
        let summary = track.summary();
        assert_eq!(summary.response, response_bucket(300));
        assert_eq!(summary.resent, Resent::Nothing);
    }

    #[test]
    fn a_reset_completes_nothing_and_ends_what_is_established() {
        let mut track = begun();
        let reset = segment(1, 1, 0, tcp_flags::RST);
        assert_eq!(track.segment(&reset, 2 * MS), Step::Nothing);
        assert!(track.is_half_open());
        let mut track = established();
        assert_eq!(track.segment(&reset, 3 * MS), Step::Ended(End::Reset));
    }

    #[test]
    fn a_syn_that_comes_again_counts_once() {
        let mut track = begun();
        assert!(track.retry());
        assert!(!track.retry());
        assert!(track.is_retried());
        assert!(!track.is_over(MS + HALF_OPEN_NS));
        assert!(track.is_over(2 * MS + HALF_OPEN_NS));
        assert!(track.is_tried(MS + RETRIES_NS));
        assert!(!track.is_tried(2 * MS + RETRIES_NS));
    }
}
