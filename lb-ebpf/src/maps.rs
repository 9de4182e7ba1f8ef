//! Every map, and every constant that the loader sets.
//!
//! All maps but [`TIMER`] are frozen by the loader before first use: only the programs of this
//! object can write them. Sizes given here are the smallest; the loader sets the real ones.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lb_common::breaker::{BreakerState, WATCHED, Watched};
use lb_common::control::{Control, ControlRecord, RECORDS};
use lb_common::counter::{MemberCounters, Reasons, VipCounters};
use lb_common::evidence::{Evidence, MemberEvidence};
use lb_common::flow::{AGE_NS_SHIFT, Line};
use lb_common::packet::Packet;
use lb_common::policy::{HardEvents, Policy};
use lb_common::room::{FlowLocal, FlowRoom};
use lb_common::sample::{SAMPLES as KEPT, Sample};
use lb_common::slot::{
    Chunk, FILTER_WORDS, Member, Name, NextHop, Node, PoolEntry, SlotHeader, TableHeader, VipEntry,
};
use lb_common::track::{TRACKS as PLACES, Track};
use lb_common::{COUNTER_SETS, SLOTS};

use crate::control::View;
use crate::deadman::TimerCell;
use crate::gue::PIECE;
use crate::icmp::Allowance;
use crate::samples::SampleAllowance;

/// The control word, the lock and the timer's clock.
#[btf_map]
pub static CONTROL: Array<Control, 1> = Array::new();
/// What this object was loaded with, for whoever comes later.
#[btf_map]
pub static NODE: Array<Node, 1> = Array::new();
/// What every change is held to.
#[btf_map]
pub static POLICY: Array<Policy, 1> = Array::new();
/// Hard events, by slot.
#[btf_map]
pub static HARD_EVENTS: Array<HardEvents, SLOTS> = Array::new();
/// The breaker of the trial that is on.
#[btf_map]
pub static BREAKER: Array<BreakerState, 1> = Array::new();
/// VIPs that it watches.
#[btf_map]
pub static WATCH_LIST: Array<Watched, { WATCHED as usize }> = Array::new();
/// Control records, a ring.
#[btf_map]
pub static RECORDS_RING: Array<ControlRecord, RECORDS> = Array::new();
/// Slot headers.
#[btf_map]
pub static SLOT_HEADERS: Array<SlotHeader, SLOTS> = Array::new();
/// Address filters: slot by slot, [`FILTER_WORDS`] words each.
#[btf_map]
pub static FILTERS: Array<u64, { FILTER_WORDS as usize * SLOTS }> = Array::new();
/// VIP tables: slot by slot, [`VIP_PLACES`] places each. One cache line a place.
#[btf_map]
pub static VIPS: Array<VipEntry, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Pools: slot by slot, [`POOLS_MAX`] each.
#[btf_map]
pub static POOLS: Array<PoolEntry, 1> = Array::new();
/// Members, by member id. One cache line each.
#[btf_map]
pub static MEMBERS: Array<Member, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Lookup tables: headers.
#[btf_map]
pub static TABLE_HEADERS: Array<TableHeader, 1> = Array::new();
/// Lookup tables: entries, 32 an element.
#[btf_map]
pub static TABLES: Array<Chunk, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Next hops.
#[btf_map]
pub static NEXT_HOPS: Array<NextHop, 1> = Array::new();
/// Names of VIPs, by VIP number.
#[btf_map]
pub static VIP_NAMES: Array<Name, 1> = Array::new();
/// VIP numbers that ACTIVE or LKG has, while a slot is staged: 1 = the number keeps its name.
#[btf_map]
pub static VIPS_TAKEN: Array<u32, 1> = Array::new();
/// Names of pools, by pool number.
#[btf_map]
pub static POOL_NAMES: Array<Name, 1> = Array::new();
/// Names of members, by member id.
#[btf_map]
pub static MEMBER_NAMES: Array<Name, 1> = Array::new();
/// The flow table.
#[btf_map]
pub static FLOWS: Array<Line, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// How full it is.
#[btf_map]
pub static FLOW_ROOM: Array<FlowRoom, 1> = Array::new();
/// What each CPU has put into it.
#[btf_map]
pub static FLOW_LOCAL: PerCpuArray<FlowLocal, 1> = PerCpuArray::new();
/// Packets per reason, by counter set.
#[btf_map]
pub static REASON_COUNTS: PerCpuArray<Reasons, COUNTER_SETS> = PerCpuArray::new();
/// Counters per VIP: set by set, [`VIPS_MAX`] each.
#[btf_map]
pub static VIP_COUNTS: PerCpuArray<VipCounters, 1> = PerCpuArray::new();
/// Counters per member: set by set, [`MEMBERS_MAX`] each.
#[btf_map]
pub static MEMBER_COUNTS: PerCpuArray<MemberCounters, 1> = PerCpuArray::new();
/// Flows that a trial follows. One cache line each.
#[btf_map]
pub static TRACKS: Array<Track, { PLACES as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();
/// What a trial is judged on: arm by arm, [`VIPS_MAX`] each.
#[btf_map]
pub static EVIDENCE: PerCpuArray<Evidence, 1> = PerCpuArray::new();
/// The same per backend: arm by arm, [`MEMBERS_MAX`] each.
#[btf_map]
pub static MEMBER_EVIDENCE: PerCpuArray<MemberEvidence, 1> = PerCpuArray::new();
/// Until when a VIP's pace is used up, by VIP number, see [`lb_common::pace`]; boot-clock ns.
#[btf_map]
pub static PACES: Array<u64, 1> = Array::new();
/// Samples of packets that did not get through, a ring.
#[btf_map]
pub static SAMPLES: Array<Sample, { KEPT as usize }> = Array::new();
/// How many were taken.
#[btf_map]
pub static SAMPLED: Array<u64, 1> = Array::new();
/// What a CPU may still sample.
#[btf_map]
pub static SAMPLE_ALLOWANCES: PerCpuArray<SampleAllowance, 1> = PerCpuArray::new();
/// The packet at hand: one that came by an interface, and one of a test run.
#[btf_map]
pub static PACKETS: PerCpuArray<Packet, 2> = PerCpuArray::new();
/// What it goes by.
#[btf_map]
pub static VIEWS: PerCpuArray<View, 2> = PerCpuArray::new();
/// A piece of a packet, while it is summed.
#[btf_map]
pub static SCRATCH: PerCpuArray<[u64; PIECE / 8], 1> = PerCpuArray::new();
/// What a CPU may still answer.
#[btf_map]
pub static ALLOWANCES: PerCpuArray<Allowance, 1> = PerCpuArray::new();
/// Entries per backend number, while the guard walks a table; VIPs per number, while it seals a slot.
#[btf_map]
pub static TALLIES: Array<u32, 65_536> = Array::new();
/// The timer, alone: a map with a timer cannot be frozen.
#[btf_map]
pub static TIMER: Array<TimerCell, 1> = Array::new();

/// Key of the hash that tags flows and chooses arms, drawn at load.
#[unsafe(no_mangle)]
pub static TAG_KEY: Global<u64> = Global::new(0);
/// Key of the hash that picks entries: the fleet's seed.
#[unsafe(no_mangle)]
pub static FLEET_KEY: Global<u64> = Global::new(0);
/// Token that marks a test run, drawn at load; 0 = none is taken.
#[unsafe(no_mangle)]
pub static PROBE_TOKEN: Global<u64> = Global::new(0);
/// Places of a slot's VIP table, a power of two.
#[unsafe(no_mangle)]
pub static VIP_PLACES: Global<u32> = Global::new(1);
/// VIP numbers.
#[unsafe(no_mangle)]
pub static VIPS_MAX: Global<u32> = Global::new(1);
/// Pool numbers.
#[unsafe(no_mangle)]
pub static POOLS_MAX: Global<u32> = Global::new(1);
/// Member ids.
#[unsafe(no_mangle)]
pub static MEMBERS_MAX: Global<u32> = Global::new(1);
/// Lookup tables.
#[unsafe(no_mangle)]
pub static TABLES_MAX: Global<u32> = Global::new(1);
/// Elements of lookup tables.
#[unsafe(no_mangle)]
pub static CHUNKS_MAX: Global<u32> = Global::new(1);
/// Next hops.
#[unsafe(no_mangle)]
pub static NEXT_HOPS_MAX: Global<u32> = Global::new(1);
/// Lines of the flow table, a power of two.
#[unsafe(no_mangle)]
pub static FLOW_LINES: Global<u32> = Global::new(8);
/// New flows a second and CPU that are remembered when the table has as many as it is meant for; 0 = all.
#[unsafe(no_mangle)]
pub static FLOOD_RATE: Global<u32> = Global::new(0);
/// Boot-clock nanoseconds to the age of flows, for the timer; other than this in tests alone.
#[unsafe(no_mangle)]
pub static AGE_SHIFT: Global<u32> = Global::new(AGE_NS_SHIFT);
/// Outer IPv4 source, network order as loaded.
#[unsafe(no_mangle)]
pub static SOURCE_V4: Global<u32> = Global::new(0);
/// Bits of [`SOURCE_V4`] that entropy fills.
#[unsafe(no_mangle)]
pub static SOURCE_V4_MASK: Global<u32> = Global::new(0);
/// Outer IPv6 source, network order as loaded.
#[unsafe(no_mangle)]
pub static SOURCE_V6: Global<[u32; 4]> = Global::new([0; 4]);
/// Bits of the last word of [`SOURCE_V6`] that entropy fills.
#[unsafe(no_mangle)]
pub static SOURCE_V6_MASK: Global<u32> = Global::new(0);

/// The VIP at a place of a slot.
#[inline(always)]
pub fn vip(slot: u32, place: u32) -> Option<&'static VipEntry> {
    let places = VIP_PLACES.load();
    VIPS.get(slot * places + (place & (places - 1)))
}

/// The pool of a slot.
#[inline(always)]
pub fn pool(slot: u32, pool: u32) -> Option<*mut PoolEntry> {
    let limit = POOLS_MAX.load();
    if pool >= limit {
        return None;
    }
    POOLS.get_ptr_mut(slot * limit + pool)
}
