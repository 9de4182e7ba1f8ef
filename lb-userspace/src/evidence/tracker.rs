//! From successive readings to the counts since a trial step began.

use std::collections::BTreeMap;

use lb_common::evidence::{ARMS, Evidence, MemberEvidence};

use super::counts::{Counts, MemberCounts, Raw, VipCounts};
use super::delta::{rise, rises};
use super::residue::{Residues, Span};

/// Times that the kernel counts by, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time in which a handshake has to be complete (250 to 900 ms).
    pub within_ns: u64,
    /// Time after which everything that will be known of an earlier step's flows is counted: until
    /// then ends are left out, since the arms of those flows were drawn with another share. 0 if
    /// the kernel tells these flows apart itself, and counts those of the step only.
    pub settle_ns: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            within_ns: 300_000_000,
            settle_ns: 0,
        }
    }
}

/// Keeps what earlier readings said. Times are boot-clock ns, read before the counters are; a
/// reading that takes longer than [`Tracker::LONGEST_READING_NS`] must be dropped by the caller.
///
/// One tracker serves one trial. Rounds before the first step do no harm and make its first seconds complete: residues that
/// were never read before give no flows at their first lap.
#[derive(Clone, Debug)]
pub struct Tracker {
    timing: Timing,
    began_ns: u64,
    last_ns: u64,
    vips: BTreeMap<u16, VipTrack>,
    members: BTreeMap<u32, MemberTrack>,
    counts: Counts,
}

#[derive(Clone, Debug)]
struct VipTrack {
    last: [Evidence; ARMS],
    residues: Residues,
    counts: [VipCounts; ARMS],
}

#[derive(Clone, Copy, Debug, Default)]
struct MemberTrack {
    last: [MemberEvidence; ARMS],
    counts: [MemberCounts; ARMS],
    /// `started` at an earlier round, and when; becomes `mature` once it is old enough.
    earlier: [u64; ARMS],
    earlier_ns: u64,
}

impl Tracker {
    /// Longest time that a reading may take.
    pub const LONGEST_READING_NS: u64 = 1_000_000_000;

    /// A tracker that has seen nothing.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            began_ns: 0,
            last_ns: 0,
            vips: BTreeMap::new(),
            members: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// A trial step has begun: the share was set before this reading. Counts are zero from here.
    pub fn begin_stage(&mut self, raw: &Raw, now_ns: u64) {
        self.round(raw, now_ns);
        self.counts.suspect = None;
        self.began_ns = now_ns;
        for track in self.vips.values_mut() {
            track.counts = Default::default();
        }
        for track in self.members.values_mut() {
            track.counts = Default::default();
            track.earlier = Default::default();
            track.earlier_ns = now_ns;
        }
        self.publish(raw);
    }

    /// Takes a reading in; the counts since the step began. A reading older than the one before
    /// changes nothing.
    pub fn round(&mut self, raw: &Raw, now_ns: u64) -> &Counts {
        if now_ns >= self.last_ns {
            self.last_ns = now_ns;
            self.take(raw, now_ns);
            self.publish(raw);
        }
        &self.counts
    }

    fn take(&mut self, raw: &Raw, now_ns: u64) {
        let span = Span::new(self.began_ns, now_ns, self.timing.within_ns);
        let settled = now_ns >= self.began_ns.saturating_add(self.timing.settle_ns);
        for (id, arms) in &raw.vips {
            let track = self.vips.entry(*id).or_insert_with(|| VipTrack::new(arms));
            if track.round(arms, span, settled) {
                self.counts.suspect = Some(format!("a counter of VIP {id} went backwards"));
            }
        }
        for (id, arms) in &raw.members {
            let track = self.members.entry(*id).or_insert_with(|| MemberTrack {
                last: *arms,
                earlier_ns: now_ns,
                ..MemberTrack::default()
            });
            if track.round(arms, now_ns, self.timing.within_ns) {
                self.counts.suspect = Some(format!("a counter of member {id} went backwards"));
            }
        }
    }

    /// Only what this reading had: what is missing must be seen to be missing.
    fn publish(&mut self, raw: &Raw) {
        self.counts.vips.retain(|id, _| raw.vips.contains_key(id));
        for id in raw.vips.keys() {
            if let Some(track) = self.vips.get(id) {
                self.counts.vips.insert(*id, track.counts);
            }
        }
        self.counts
            .members
            .retain(|id, _| raw.members.contains_key(id));
        for id in raw.members.keys() {
            if let Some(track) = self.members.get(id) {
                self.counts.members.insert(*id, track.counts);
            }
        }
    }
}

impl VipTrack {
    fn new(first: &[Evidence; ARMS]) -> Self {
        Self {
            last: *first,
            residues: Residues::new(),
            counts: Default::default(),
        }
    }

    /// Returns whether a counter fell.
    fn round(&mut self, raw: &[Evidence; ARMS], span: Span, settled: bool) -> bool {
        let mut fell = false;
        let handshakes = self.residues.round(raw, span);
        let arms = self.counts.iter_mut().zip(self.last.iter().zip(raw));
        for ((counts, (then, now)), [started, completed]) in arms.zip(handshakes) {
            fell |= started.into(&mut counts.started);
            fell |= completed.into(&mut counts.completed);
            fell |= at_once(counts, then, now);
            if settled {
                fell |= outcomes(counts, then, now);
            }
        }
        self.last = *raw;
        fell
    }
}

/// What is counted when a flow begins, or has nothing to do with flows.
fn at_once(counts: &mut VipCounts, then: &Evidence, now: &Evidence) -> bool {
    rise(&mut counts.flows, then.flows, now.flows)
        | rise(&mut counts.passed_over, then.passed_over, now.passed_over)
        | rise(&mut counts.untracked, then.untracked, now.untracked)
        | rise(&mut counts.hard, then.hard, now.hard)
}

/// What is counted later in a flow's life.
fn outcomes(counts: &mut VipCounts, then: &Evidence, now: &Evidence) -> bool {
    rises(&mut counts.latency, &then.latency, &now.latency)
        | rises(&mut counts.response, &then.response, &now.response)
        | rises(&mut counts.wait, &then.wait, &now.wait)
        | rises(&mut counts.end, &then.end, &now.end)
        | rises(&mut counts.resent, &then.resent, &now.resent)
        | rises(&mut counts.icmp, &then.icmp, &now.icmp)
        | rise(&mut counts.retried, then.retried, now.retried)
}

impl MemberTrack {
    /// Returns whether a counter fell.
    fn round(&mut self, raw: &[MemberEvidence; ARMS], now_ns: u64, within_ns: u64) -> bool {
        let mut fell = false;
        for (counts, (then, now)) in self.counts.iter_mut().zip(self.last.iter().zip(raw)) {
            fell |= rise(&mut counts.started, then.started, now.started)
                | rise(&mut counts.completed, then.completed, now.completed)
                | rise(&mut counts.icmp, then.icmp, now.icmp)
                | rise(&mut counts.early, then.early, now.early);
        }
        self.last = *raw;
        if now_ns > self.earlier_ns.saturating_add(within_ns) {
            for (counts, earlier) in self.counts.iter_mut().zip(&mut self.earlier) {
                counts.mature = *earlier;
                *earlier = counts.started;
            }
            self.earlier_ns = now_ns;
        }
        fell
    }
}
