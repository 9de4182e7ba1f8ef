//! The guard's walks over arrays: the same judges as in the kernel, and what they must come to,
//! said anew from the design without them.

use lb_common::guard::Refusal;
use lb_common::invariant::{
    Class, MILLION, Step, Tally, Verdict, classify, judge_member, judge_pool, judge_share, moved,
    ppm,
};
use lb_common::slot::{
    CHUNK_ENTRIES, Chunk, Member, NextHop, PoolEntry, forward_mode, member_state, next_hop_flag,
};

/// A pool with its table and its backends.
#[derive(Clone, Debug)]
pub struct PoolModel {
    /// Number.
    pub number: u16,
    /// As the guard stores it.
    pub entry: PoolEntry,
    /// Entries of its table.
    pub table: Vec<u16>,
    /// Backends, number 1 first.
    pub members: Vec<Member>,
    /// Next hops, number 0 (none) first.
    pub hops: Vec<NextHop>,
    /// Bit of the slot.
    pub bit: u8,
}

impl PoolModel {
    fn member(&self, number: u16) -> Option<&Member> {
        self.members.get(usize::from(number).checked_sub(1)?)
    }

    fn hop(&self, member: &Member) -> Option<&NextHop> {
        match member.next_hop {
            0 => None,
            number => self.hops.get(usize::from(number)),
        }
    }

    fn count(&self, number: u16) -> u32 {
        let entries = self.table.iter().filter(|entry| **entry == number);
        u32::try_from(entries.count()).expect("a small table")
    }

    fn size(&self) -> u32 {
        u32::try_from(self.table.len()).expect("a small table")
    }

    fn there(&self) -> u32 {
        let here = |member: &&Member| member.slots & self.bit != 0 && member.pool == self.number;
        u32::try_from(self.members.iter().filter(here).count()).expect("few")
    }

    /// K3 as the guard walks it.
    pub fn walk(&self) -> Verdict {
        let limit = self.entry.member_limit;
        let pool = u64::from(self.number);
        let beyond = self
            .table
            .iter()
            .rev()
            .find(|entry| u32::from(**entry) > limit);
        if let Some(number) = beyond {
            return Err((Refusal::BadEntry, [pool, u64::from(*number), 0, 0]));
        }
        let mut tally = Tally {
            holes: self.count(0),
            distinct: 0,
        };
        for (number, member) in (1u16..).zip(&self.members) {
            let count = self.count(number);
            if count == 0 {
                continue;
            }
            tally.distinct += 1;
            let relative = u32::from(number);
            let hop = self.hop(member);
            judge_member(self.number, relative, &self.entry, member, hop, self.bit)?;
            let cap = self.entry.max_share_ppm;
            judge_share(self.number, relative, count, self.size(), cap)?;
        }
        if self.there() != self.entry.members {
            let numbers = [3, u64::from(self.there()), u64::from(self.entry.members), 0];
            return Err((Refusal::Incomplete, numbers));
        }
        judge_pool(self.number, &self.entry, &tally)
    }

    /// K3 as the design has it: whether this pool may be sealed.
    pub fn sane(&self) -> bool {
        let named: std::collections::BTreeSet<u16> = self.table.iter().copied().collect();
        let good = |number: &u16| {
            self.member(*number)
                .is_some_and(|member| self.may_carry(member))
                && self.within_cap(*number)
        };
        named.iter().all(good)
            && named.len() >= (self.entry.min_backends as usize).max(1)
            && self.there() == self.entry.members
    }

    fn may_carry(&self, member: &Member) -> bool {
        let entry = &self.entry;
        let v4 = member.address.is_v4();
        let fits = match entry.forward {
            // The packet arrives as it is: of the backend's own family.
            forward_mode::L2 => entry.serves_v4 <= u8::from(v4) && entry.serves_v6 <= u8::from(!v4),
            // 4in4, 4in6, 6in6; not 6in4.
            forward_mode::IPIP | forward_mode::GUE => !(v4 && entry.serves_v6 == 1),
            _ => false,
        };
        let reached = self
            .hop(member)
            .is_some_and(|hop| hop.flags & next_hop_flag::RESOLVED != 0 && hop.interface != 0);
        member.slots & self.bit != 0
            && member.pool == self.number
            && member.forward == entry.forward
            && fits
            && (reached || member.state != member_state::UP)
    }

    fn within_cap(&self, number: u16) -> bool {
        let cap = u64::from(self.entry.max_share_ppm);
        let share = u64::from(self.count(number)) * MILLION;
        cap == 0 || share <= cap * u64::from(self.size())
    }
}

/// A VIP in one slot, as far as K4 asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipModel {
    /// Address, port and protocol, as one.
    pub key: u8,
    /// Pool number.
    pub pool: u16,
    /// Forwarding mode.
    pub forward: u8,
    /// Entries of the pool's table.
    pub table: Vec<u16>,
}

/// A table as it lies in elements.
pub fn elements(table: &[u16]) -> Vec<Chunk> {
    let element = |part: &[u16]| {
        let mut chunk: Chunk = [0; CHUNK_ENTRIES];
        chunk[..part.len()].copy_from_slice(part);
        chunk
    };
    table.chunks(CHUNK_ENTRIES).map(element).collect()
}

/// K4 as the guard computes it: what `new` does to `old`.
pub fn step(old: &[VipModel], new: &[VipModel]) -> Step {
    let mut step = Step::default();
    for vip in new {
        let Some(before) = old.iter().find(|before| before.key == vip.key) else {
            step.added += 1;
            continue;
        };
        step.encap += u32::from(before.forward != vip.forward);
        let share = share(before, vip);
        step.changed += u32::from(share > 0);
        step.moved_ppm = step.moved_ppm.max(share);
    }
    let gone = |before: &&VipModel| new.iter().all(|vip| vip.key != before.key);
    step.removed = u32::try_from(old.iter().filter(gone).count()).expect("few");
    step
}

fn share(old: &VipModel, new: &VipModel) -> u32 {
    if old.pool != new.pool || old.table.len() != new.table.len() {
        return 1_000_000;
    }
    let size = u32::try_from(new.table.len()).expect("a small table");
    let parts = elements(&old.table).into_iter().zip(elements(&new.table));
    let count = (0u32..)
        .step_by(CHUNK_ENTRIES)
        .zip(parts)
        .map(|(first, (old, new))| moved(&old, &new, size - first))
        .sum();
    ppm(count, size)
}

/// K4 as the design has it, in percent.
pub fn class(old: &[VipModel], new: &[VipModel], r1: u64, r2: u64) -> Class {
    let pair = |vip: &VipModel| old.iter().find(|before| before.key == vip.key).cloned();
    let moved: Vec<(u64, u64)> = new
        .iter()
        .filter_map(|vip| Some((pair(vip)?, vip)))
        .map(|(before, vip)| {
            let whole = vip.table.len() as u64;
            if before.pool != vip.pool || before.table.len() != vip.table.len() {
                return (whole, whole);
            }
            let pairs = before.table.iter().zip(&vip.table);
            (pairs.filter(|(a, b)| a != b).count() as u64, whole)
        })
        .filter(|(count, _)| *count > 0)
        .collect();
    let above = |percent: u64| moved.iter().any(|(count, of)| count * 100 > of * percent);
    let re_encapsulated = |vip: &VipModel| pair(vip).is_some_and(|b| b.forward != vip.forward);
    let removed = old.iter().any(|b| new.iter().all(|vip| vip.key != b.key));
    if removed || above(r2) || new.iter().any(re_encapsulated) {
        Class::R3
    } else if above(r1) || moved.len() > 1 || new.iter().any(|vip| pair(vip).is_none()) {
        Class::R2
    } else if moved.len() == 1 {
        Class::R1
    } else {
        Class::R0
    }
}

/// [`step`] and [`classify`] with limits in percent.
pub fn classified(old: &[VipModel], new: &[VipModel], r1: u32, r2: u32) -> Class {
    classify(&step(old, new), r1 * 10_000, r2 * 10_000)
}
