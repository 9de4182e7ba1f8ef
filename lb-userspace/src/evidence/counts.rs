//! What is counted: raw readings, and the counts since a trial step began.

use std::collections::BTreeMap;

use lb_common::evidence::{ARMS, Evidence, LATENCIES, MemberEvidence, RESPONSES, WAITS};
use serde::Serialize;
use zerocopy::FromZeros;

/// Index of the control arm in every pair.
pub const CONTROL: usize = 0;
/// Index of the new arm in every pair.
pub const NEW: usize = 1;

/// One reading of the kernel's counters, summed over CPUs. They wrap.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// By VIP id: control, new.
    pub vips: BTreeMap<u16, [Evidence; ARMS]>,
    /// By member id: control, new.
    pub members: BTreeMap<u32, [MemberEvidence; ARMS]>,
}

impl Raw {
    /// Adds one CPU's counts of a VIP.
    pub fn add_vip(&mut self, vip: u16, control: &Evidence, new: &Evidence) {
        let zero = || [Evidence::new_zeroed(), Evidence::new_zeroed()];
        let [c, n] = self.vips.entry(vip).or_insert_with(zero);
        (*c, *n) = (c.plus(control), n.plus(new));
    }

    /// Adds one CPU's counts of a member.
    pub fn add_member(&mut self, member: u32, control: &MemberEvidence, new: &MemberEvidence) {
        let [c, n] = self.members.entry(member).or_default();
        (*c, *n) = (c.plus(control), n.plus(new));
    }
}

/// Counts of a VIP in one arm since the step began. Fields as in
/// [`lb_common::evidence::Evidence`]; what is counted at a flow's end is of flows of this step only,
/// since the kernel leaves out the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VipCounts {
    /// Flows of mature bins.
    pub started: u64,
    /// Those of them whose handshake was complete in time.
    pub completed: u64,
    /// Handshake times.
    pub latency: [u64; LATENCIES],
    /// Flows by bytes of response.
    pub response: [u64; RESPONSES],
    /// Flows by waiting time.
    pub wait: [u64; WAITS],
    /// Flows by how they ended.
    pub end: [u64; 4],
    /// Flows by what was sent again.
    pub resent: [u64; 4],
    /// ICMP errors.
    pub icmp: [u64; 4],
    /// Flows whose SYN came again.
    pub retried: u64,
    /// New flows that are followed, mature or not.
    pub flows: u64,
    /// New flows that are not: there are more than the trial follows, or the change does not move them.
    pub passed_over: u64,
    /// New flows that nothing more is known of.
    pub untracked: u64,
    /// Packets that had nowhere to go.
    pub hard: u64,
}

/// Counts of a member in one arm since the step began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemberCounts {
    /// Flows that began.
    pub started: u64,
    /// Of these, how many at least have had their time to complete.
    pub mature: u64,
    /// Handshakes complete in time, those of flows that are not in `mature` included.
    pub completed: u64,
    /// ICMP errors about it.
    pub icmp: u64,
    /// Flows that ended early.
    pub early: u64,
}

/// Both arms of every VIP.
pub type Vips = BTreeMap<u16, [VipCounts; ARMS]>;
/// Both arms of every member.
pub type Members = BTreeMap<u32, [MemberCounts; ARMS]>;

/// All counts since the step began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// By VIP id; only those that the last reading had.
    pub vips: Vips,
    /// By member id; only those that the last reading had.
    pub members: Members,
    /// Why these counts can't be trusted.
    pub suspect: Option<String>,
}
