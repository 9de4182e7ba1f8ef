//! The maps, opened for reading.

use std::os::fd::AsFd;

use aya::maps::{Array, IterableMap as _, Map, MapData, PerCpuArray};
use lb_common::control::{Control, ControlRecord, place};
use lb_common::counter::{MemberCounters, Reasons, VipCounters};
use lb_common::evidence::{Evidence, MemberEvidence};
use lb_common::flow::Line;
use lb_common::policy::{HardEvents, Policy};
use lb_common::room::{FlowLocal, FlowRoom};
use lb_common::sample::Sample;
use lb_common::slot::{
    CHUNK_ENTRIES, Chunk, Member, Name, NextHop, Node, PoolEntry, SlotHeader, TableHeader,
    VipEntry, chunks,
};
use zerocopy::FromBytes;

use super::KernelError;
use super::pins::Pins;
use crate::sys::MappedArray;

/// Every map of the object but the timer's, all frozen.
pub const FROZEN: [&str; 37] = [
    "CONTROL",
    "POLICY",
    "HARD_EVENTS",
    "BREAKER",
    "WATCH_LIST",
    "NODE",
    "RECORDS_RING",
    "SLOT_HEADERS",
    "FILTERS",
    "VIPS",
    "POOLS",
    "MEMBERS",
    "TABLE_HEADERS",
    "TABLES",
    "NEXT_HOPS",
    "VIP_NAMES",
    "VIPS_TAKEN",
    "POOL_NAMES",
    "MEMBER_NAMES",
    "FLOWS",
    "FLOW_ROOM",
    "FLOW_LOCAL",
    "REASON_COUNTS",
    "VIP_COUNTS",
    "MEMBER_COUNTS",
    "TRACKS",
    "PACES",
    "EVIDENCE",
    "MEMBER_EVIDENCE",
    "SAMPLES",
    "SAMPLED",
    "SAMPLE_ALLOWANCES",
    "PACKETS",
    "VIEWS",
    "SCRATCH",
    "ALLOWANCES",
    "TALLIES",
];

/// The one map that cannot be frozen.
pub const TIMER: &str = "TIMER";

/// Where maps come from: a loaded object, or its pins.
pub(super) trait Source {
    /// The map of that name.
    fn map(&mut self, name: &'static str) -> Result<Map, KernelError>;
}

impl Source for aya::Ebpf {
    fn map(&mut self, name: &'static str) -> Result<Map, KernelError> {
        self.take_map(name)
            .ok_or_else(|| lacking(name, "the object has none of that name"))
    }
}

impl Source for &Pins {
    fn map(&mut self, name: &'static str) -> Result<Map, KernelError> {
        let path = Pins::map(self, name);
        if !path.exists() {
            return Err(KernelError::NotLoaded(path));
        }
        let data = MapData::from_pin(&path).map_err(|e| lacking(name, e))?;
        Map::from_map_data(data).map_err(|e| lacking(name, e))
    }
}

/// What is read of pinned maps before it is known whose they are.
pub(super) struct Adoptable {
    /// The control element.
    pub control: Control,
    /// Id of its map.
    pub control_id: u32,
    /// What the object was loaded with.
    pub node: Node,
}

impl Adoptable {
    /// Reads the two maps that every version has.
    pub fn read(pins: &Pins) -> Result<Self, KernelError> {
        let mut source = pins;
        let control = array::<Control>(&mut source, "CONTROL")?;
        let node = array::<Node>(&mut source, "NODE")?;
        let info = control.map().info().map_err(|e| lacking("CONTROL", e))?;
        Ok(Self {
            control: control.get(&0, 0).map_err(|e| lacking("CONTROL", e))?,
            control_id: info.id(),
            node: node.get(&0, 0).map_err(|e| lacking("NODE", e))?,
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "callers pass errors on")]
pub(super) fn lacking(name: &'static str, why: impl ToString) -> KernelError {
    KernelError::Map {
        name,
        why: why.to_string(),
    }
}

/// The maps.
pub struct Maps {
    control: Array<MapData, Control>,
    node: Array<MapData, Node>,
    policy: Array<MapData, Policy>,
    hard_events: Array<MapData, HardEvents>,
    records: Array<MapData, ControlRecord>,
    headers: Array<MapData, SlotHeader>,
    pools: Array<MapData, PoolEntry>,
    table_headers: Array<MapData, TableHeader>,
    next_hops: Array<MapData, NextHop>,
    vip_names: Array<MapData, Name>,
    pool_names: Array<MapData, Name>,
    member_names: Array<MapData, Name>,
    pub(super) reasons: PerCpuArray<MapData, Reasons>,
    pub(super) vip_counts: PerCpuArray<MapData, VipCounters>,
    pub(super) member_counts: PerCpuArray<MapData, MemberCounters>,
    pub(super) evidence: PerCpuArray<MapData, Evidence>,
    pub(super) member_evidence: PerCpuArray<MapData, MemberEvidence>,
    pub(super) samples: Array<MapData, Sample>,
    pub(super) sampled: Array<MapData, u64>,
    vips: MappedArray<VipEntry>,
    members: MappedArray<Member>,
    tables: MappedArray<Chunk>,
    flows: MappedArray<Line>,
    room: Array<MapData, FlowRoom>,
    pub(super) flow_local: PerCpuArray<MapData, FlowLocal>,
    /// Held open: the kernel stops the timer of a map that is neither pinned nor open.
    _timer: Map,
}

fn array<T: aya::Pod>(
    source: &mut impl Source,
    name: &'static str,
) -> Result<Array<MapData, T>, KernelError> {
    Array::try_from(source.map(name)?).map_err(|e| lacking(name, e))
}

fn per_cpu<T: aya::Pod>(
    source: &mut impl Source,
    name: &'static str,
) -> Result<PerCpuArray<MapData, T>, KernelError> {
    PerCpuArray::try_from(source.map(name)?).map_err(|e| lacking(name, e))
}

fn mapped<T: Copy + FromBytes>(
    source: &mut impl Source,
    name: &'static str,
) -> Result<MappedArray<T>, KernelError> {
    let Map::Array(data) = source.map(name)? else {
        return Err(lacking(name, "not an array"));
    };
    let info = data.info().map_err(|e| lacking(name, e))?;
    if info.value_size() as usize != size_of::<T>() {
        return Err(lacking(
            name,
            format!("values of {} bytes", info.value_size()),
        ));
    }
    MappedArray::new(data.fd().as_fd(), info.max_entries() as usize)
        .map_err(|e| KernelError::io(format!("map {name} for reading"), e))
}

impl Maps {
    /// The pinned maps.
    pub fn open(pins: &Pins) -> Result<Self, KernelError> {
        Self::from_source(&mut &*pins)
    }

    pub(super) fn from_source(source: &mut impl Source) -> Result<Self, KernelError> {
        Ok(Self {
            control: array(source, "CONTROL")?,
            node: array(source, "NODE")?,
            policy: array(source, "POLICY")?,
            hard_events: array(source, "HARD_EVENTS")?,
            records: array(source, "RECORDS_RING")?,
            headers: array(source, "SLOT_HEADERS")?,
            pools: array(source, "POOLS")?,
            table_headers: array(source, "TABLE_HEADERS")?,
            next_hops: array(source, "NEXT_HOPS")?,
            vip_names: array(source, "VIP_NAMES")?,
            pool_names: array(source, "POOL_NAMES")?,
            member_names: array(source, "MEMBER_NAMES")?,
            reasons: per_cpu(source, "REASON_COUNTS")?,
            vip_counts: per_cpu(source, "VIP_COUNTS")?,
            member_counts: per_cpu(source, "MEMBER_COUNTS")?,
            evidence: per_cpu(source, "EVIDENCE")?,
            member_evidence: per_cpu(source, "MEMBER_EVIDENCE")?,
            samples: array(source, "SAMPLES")?,
            sampled: array(source, "SAMPLED")?,
            vips: mapped(source, "VIPS")?,
            members: mapped(source, "MEMBERS")?,
            tables: mapped(source, "TABLES")?,
            flows: mapped(source, "FLOWS")?,
            room: array(source, "FLOW_ROOM")?,
            flow_local: per_cpu(source, "FLOW_LOCAL")?,
            _timer: source.map(TIMER)?,
        })
    }

    /// The control element.
    pub fn control(&self) -> Result<Control, KernelError> {
        self.control.get(&0, 0).map_err(|e| lacking("CONTROL", e))
    }

    /// The current control record; `None` before the guard has started.
    pub fn record(&self) -> Result<Option<ControlRecord>, KernelError> {
        // A record may be overwritten while it is read if 64 are published meanwhile: read again.
        for _ in 0..8 {
            let word = self.control()?.word;
            if word == 0 {
                return Ok(None);
            }
            let record = self
                .records
                .get(&place(word), 0)
                .map_err(|e| lacking("RECORDS_RING", e))?;
            if record.number == word {
                return Ok(Some(record));
            }
        }
        Err(KernelError::NoAnswer(
            "the control record changes faster than it can be read".to_owned(),
        ))
    }

    /// What the object was loaded with.
    pub fn node(&self) -> Result<Node, KernelError> {
        self.node.get(&0, 0).map_err(|e| lacking("NODE", e))
    }

    /// What every change is held to.
    pub fn policy(&self) -> Result<Policy, KernelError> {
        self.policy.get(&0, 0).map_err(|e| lacking("POLICY", e))
    }

    /// Hard events of a slot since the last trial began.
    pub fn hard_events(&self, slot: u8) -> Result<HardEvents, KernelError> {
        self.hard_events
            .get(&u32::from(slot), 0)
            .map_err(|e| lacking("HARD_EVENTS", e))
    }

    /// Header of a slot.
    pub fn header(&self, slot: u8) -> Result<SlotHeader, KernelError> {
        self.headers
            .get(&u32::from(slot), 0)
            .map_err(|e| lacking("SLOT_HEADERS", e))
    }

    /// A pool of a slot.
    pub fn pool(&self, node: &Node, slot: u8, pool: u16) -> Result<PoolEntry, KernelError> {
        let index = u32::from(slot)
            .saturating_mul(node.pools)
            .saturating_add(u32::from(pool));
        self.pools.get(&index, 0).map_err(|e| lacking("POOLS", e))
    }

    /// Header of a lookup table.
    pub fn table_header(&self, table: u32) -> Result<TableHeader, KernelError> {
        self.table_headers
            .get(&table, 0)
            .map_err(|e| lacking("TABLE_HEADERS", e))
    }

    /// Next hop by number.
    pub fn next_hop(&self, number: u32) -> Result<NextHop, KernelError> {
        self.next_hops
            .get(&number, 0)
            .map_err(|e| lacking("NEXT_HOPS", e))
    }

    /// The VIP at a place of a slot.
    pub fn vip(&self, node: &Node, slot: u8, place: u32) -> Option<VipEntry> {
        let index = u64::from(slot) * u64::from(node.vip_places) + u64::from(place);
        self.vips.get(usize::try_from(index).ok()?)
    }

    /// A member by id.
    pub fn member(&self, id: u32) -> Option<Member> {
        self.members.get(id as usize)
    }

    /// An element of the lookup tables.
    pub fn chunk(&self, index: u32) -> Option<Chunk> {
        self.tables.get(index as usize)
    }

    /// The entries of a lookup table whose first element is `start`.
    pub fn entries(&self, start: u32, size: u32) -> Option<Vec<u16>> {
        let length = usize::try_from(size).ok()?;
        let mut entries = Vec::with_capacity(length.saturating_add(CHUNK_ENTRIES));
        for index in 0..chunks(size) {
            entries.extend(self.chunk(start.checked_add(index)?)?);
        }
        entries.truncate(length);
        Some(entries)
    }

    /// One of them.
    pub fn table_entry(&self, start: u32, place: u32) -> Option<u16> {
        let place = usize::try_from(place).ok()?;
        let element = u32::try_from(place / CHUNK_ENTRIES).ok()?;
        let chunk = self.chunk(start.checked_add(element)?)?;
        chunk.get(place % CHUNK_ENTRIES).copied()
    }

    /// A line of the flow table.
    pub fn flow_line(&self, index: u32) -> Option<Line> {
        self.flows.get(index as usize)
    }

    /// How full the flow table is.
    pub fn flow_room(&self) -> Result<FlowRoom, KernelError> {
        self.room.get(&0, 0).map_err(|e| lacking("FLOW_ROOM", e))
    }

    /// Name of a VIP by number, empty if it never had one.
    pub fn vip_name(&self, vip: u16) -> Result<String, KernelError> {
        self.vip_names
            .get(&u32::from(vip), 0)
            .map(text)
            .map_err(|e| lacking("VIP_NAMES", e))
    }

    /// Name of a pool by number.
    pub fn pool_name(&self, pool: u16) -> Result<String, KernelError> {
        self.pool_names
            .get(&u32::from(pool), 0)
            .map(text)
            .map_err(|e| lacking("POOL_NAMES", e))
    }

    /// Name of a member by id.
    pub fn member_name(&self, id: u32) -> Result<String, KernelError> {
        self.member_names
            .get(&id, 0)
            .map(text)
            .map_err(|e| lacking("MEMBER_NAMES", e))
    }
}

/// A stored name as text.
fn text(name: Name) -> String {
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned()
}

/// Text as a stored name, cut to what fits.
pub fn name(text: &str) -> Name {
    let mut name = [0u8; lb_common::slot::NAME_LEN];
    for (place, byte) in name
        .iter_mut()
        .zip(text.bytes().take(lb_common::slot::NAME_LEN - 1))
    {
        *place = byte;
    }
    name
}
