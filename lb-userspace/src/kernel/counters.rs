//! Counters, summed over CPUs.

use lb_common::counter::{MemberCounters, Reasons, VipCounters};
use lb_common::evidence::{ARMS, Evidence, MemberEvidence};
use lb_common::room::FlowLocal;
use lb_common::slot::Node;
use zerocopy::FromZeros;

use super::KernelError;
use super::maps::{Maps, lacking};

impl Maps {
    /// Packets per reason in a counter set, over all CPUs.
    pub fn reasons(&self, set: u32) -> Result<Reasons, KernelError> {
        let per_cpu = self
            .reasons
            .get(&set, 0)
            .map_err(|e| lacking("REASON_COUNTS", e))?;
        let mut sum = Reasons {
            packets: [0; lb_common::counter::REASONS],
        };
        for cpu in per_cpu.iter() {
            for (total, count) in sum.packets.iter_mut().zip(cpu.packets) {
                *total = total.wrapping_add(count);
            }
        }
        Ok(sum)
    }

    /// What was put into the flow table, over all CPUs.
    pub fn flow_counts(&self) -> Result<FlowLocal, KernelError> {
        let per_cpu = self.flow_local.get(&0, 0);
        let per_cpu = per_cpu.map_err(|e| lacking("FLOW_LOCAL", e))?;
        Ok(per_cpu
            .iter()
            .fold(FlowLocal::default(), |sum, cpu| sum.plus(*cpu)))
    }

    /// Counters of a VIP in a counter set, over all CPUs.
    pub fn vip_counters(
        &self,
        node: &Node,
        set: u32,
        vip: u16,
    ) -> Result<VipCounters, KernelError> {
        let index = set.saturating_mul(node.vips).saturating_add(u32::from(vip));
        let per_cpu = self
            .vip_counts
            .get(&index, 0)
            .map_err(|e| lacking("VIP_COUNTS", e))?;
        Ok(per_cpu
            .iter()
            .fold(VipCounters::default(), |sum, cpu| sum.plus(*cpu)))
    }

    /// Counters of a member in a counter set, over all CPUs.
    pub fn member_counters(
        &self,
        node: &Node,
        set: u32,
        member: u32,
    ) -> Result<MemberCounters, KernelError> {
        let index = set.saturating_mul(node.members).saturating_add(member);
        let per_cpu = self
            .member_counts
            .get(&index, 0)
            .map_err(|e| lacking("MEMBER_COUNTS", e))?;
        Ok(per_cpu
            .iter()
            .fold(MemberCounters::default(), |sum, cpu| sum.plus(*cpu)))
    }
}

impl Maps {
    /// What trials have counted about a VIP, over all CPUs: control arm, new arm.
    pub fn evidence(&self, node: &Node, vip: u16) -> Result<[Evidence; ARMS], KernelError> {
        let mut arms = [Evidence::new_zeroed(); ARMS];
        for (arm, sum) in (0_u32..).zip(&mut arms) {
            let index = arm.saturating_mul(node.vips).saturating_add(u32::from(vip));
            let per_cpu = self.evidence.get(&index, 0);
            let per_cpu = per_cpu.map_err(|e| lacking("EVIDENCE", e))?;
            *sum = per_cpu.iter().fold(*sum, Evidence::plus);
        }
        Ok(arms)
    }

    /// The same about a member.
    pub fn member_evidence(
        &self,
        node: &Node,
        member: u32,
    ) -> Result<[MemberEvidence; ARMS], KernelError> {
        let mut arms = [MemberEvidence::default(); ARMS];
        for (arm, sum) in (0_u32..).zip(&mut arms) {
            let index = arm.saturating_mul(node.members).saturating_add(member);
            let per_cpu = self.member_evidence.get(&index, 0);
            let per_cpu = per_cpu.map_err(|e| lacking("MEMBER_EVIDENCE", e))?;
            *sum = per_cpu.iter().fold(*sum, MemberEvidence::plus);
        }
        Ok(arms)
    }
}
