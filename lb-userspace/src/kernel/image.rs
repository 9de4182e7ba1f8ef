//! A configuration as it will lie in the kernel: every number, entry and byte of a slot.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lb_common::address::Address;
use lb_common::flow::{AGE_NS_SHIFT, AGES};
use lb_common::hash;
use lb_common::slot::{
    Member, Name, Node, PoolEntry, VIP_PROBES, VipEntry, chunks, forward_mode, member_state,
    on_dead, vip_flag, vip_kind,
};
use zerocopy::FromZeros;

use super::KernelError;
use super::kept::Kept;
use super::maps::{Maps, name};
use super::numbers::{Numbers, Region};
use super::server_ids;
use crate::config::{
    Backend, BackendState, Config, Digest, FleetSeed, Forward, OnDead, Pool, Protocol, Vip, VipFlag,
};
use crate::lookup::lookup_table;

/// A lookup table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableImage {
    /// Table id.
    pub id: u32,
    /// First element.
    pub start: u32,
    /// Entries.
    pub entries: Vec<u16>,
    /// Whether ACTIVE or LKG has the very same one, so that it need not be written.
    pub shared: bool,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct MemberImage {
    /// Member id.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Whether it drains in this generation.
    pub drain: bool,
    /// As stored.
    pub member: Member,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct PoolImage {
    /// Number.
    pub number: u16,
    /// Name.
    pub name: String,
    /// As stored, but for what the guard fills in.
    pub entry: PoolEntry,
    /// Its lookup table.
    pub table: TableImage,
    /// Its index of QUIC server ids, if its backends have any.
    pub ids: Option<TableImage>,
    /// Its backends.
    pub members: Vec<MemberImage>,
}

/// A VIP.
#[derive(Clone, Debug)]
pub struct VipImage {
    /// Place in the VIP table.
    pub place: u32,
    /// Name.
    pub name: String,
    /// As stored, but for what the guard fills in.
    pub entry: VipEntry,
}

/// A whole slot.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the configuration.
    pub digest: Digest,
    /// Pools, by name.
    pub pools: Vec<PoolImage>,
    /// VIPs, by name.
    pub vips: Vec<VipImage>,
    /// Addresses of VIPs.
    pub addresses: Vec<VipImage>,
}

/// Next-hop number of a backend, and whether it is resolved.
pub type HopOf<'a> = &'a dyn Fn(&Pool, &Backend) -> Option<u16>;

impl Image {
    /// Lays a configuration out beside what the kernel holds.
    pub fn build(
        config: &Config,
        seed: FleetSeed,
        maps: &Maps,
        next_hop: HopOf<'_>,
    ) -> Result<Self, KernelError> {
        Self::after(None, config, seed, maps, next_hop)
    }

    /// The same, when it is known what ACTIVE holds: tables of pools that are in both alike are taken from
    /// there, and not computed again.
    pub fn after(
        committed: Option<&Config>,
        config: &Config,
        seed: FleetSeed,
        maps: &Maps,
        next_hop: HopOf<'_>,
    ) -> Result<Self, KernelError> {
        // Hashing the whole configuration takes as long as laying it out.
        std::thread::scope(|scope| {
            let digest = scope.spawn(|| config.digest());
            let mut image = Self::lay_out(committed, config, seed, maps, next_hop)?;
            image.digest = digest
                .join()
                .map_err(|_| KernelError::NoAnswer("the digest's thread".to_owned()))?;
            Ok(image)
        })
    }

    /// All but the digest.
    fn lay_out(
        committed: Option<&Config>,
        config: &Config,
        seed: FleetSeed,
        maps: &Maps,
        next_hop: HopOf<'_>,
    ) -> Result<Self, KernelError> {
        let kept = Kept::new(committed, seed, maps)?;
        let mut numbers = Numbers::read(maps)?;
        let node = maps.node()?;
        let mut pools = Vec::with_capacity(config.pools.len());
        for pool in &config.pools {
            pools.push(pool_image(pool, seed, maps, &kept, &mut numbers, next_hop)?);
        }
        let by_name: BTreeMap<&str, &PoolImage> = pools
            .iter()
            .map(|pool| (pool.name.as_str(), pool))
            .collect();
        let mut places = Places::new(&node);
        let mut vips = Vec::with_capacity(config.vips.len());
        let mut addresses: BTreeMap<IpAddr, VipImage> = BTreeMap::new();
        for vip in &config.vips {
            let pool = by_name.get(vip.pool.as_str()).ok_or_else(|| {
                KernelError::Capacity(format!("VIP {} names no pool of this file", vip.name))
            })?;
            let number = numbers.vip(&vip.name)?;
            vips.push(places.put(vip_entry(vip, number, pool.number), &vip.name)?);
            if let Entry::Vacant(vacant) = addresses.entry(vip.address) {
                vacant.insert(places.put(address_entry(vip.address), "")?);
            }
        }
        let addresses = addresses.into_values().collect();
        Ok(Self {
            digest: Digest([0; 32]),
            pools,
            vips,
            addresses,
        })
    }

    /// Name of the VIP with this number.
    pub fn vip_name(&self, vip: u16) -> Option<&str> {
        self.vips
            .iter()
            .find(|image| image.entry.vip == vip)
            .map(|image| image.name.as_str())
    }

    /// Pool and name of the backend with this member id.
    pub fn member_name(&self, id: u32) -> Option<(&str, &str)> {
        self.pools.iter().find_map(|pool| {
            let member = pool.members.iter().find(|member| member.id == id)?;
            Some((pool.name.as_str(), member.name.as_str()))
        })
    }

    /// Members of all pools.
    pub fn members(&self) -> impl Iterator<Item = &MemberImage> {
        self.pools.iter().flat_map(|pool| &pool.members)
    }
}

/// A name as stored.
pub fn stored_name(text: &str) -> Name {
    name(text)
}

fn pool_image(
    pool: &Pool,
    seed: FleetSeed,
    maps: &Maps,
    kept: &Kept<'_>,
    numbers: &mut Numbers,
    next_hop: HopOf<'_>,
) -> Result<PoolImage, KernelError> {
    let number = numbers.pool(&pool.name)?;
    let present: Vec<&Backend> = pool
        .backends
        .iter()
        .filter(|backend| backend.state != BackendState::Disabled)
        .collect();
    let region = numbers.region(number, present.len())?;
    let mut members = Vec::with_capacity(present.len());
    for backend in present {
        members.push(member_image(
            pool, number, region, backend, numbers, next_hop,
        )?);
    }
    let table = match kept.table(pool, number, region, &members)? {
        Some(table) => table,
        None => table_image(pool, number, region, seed, &members, maps, numbers)?,
    };
    let ids = ids_image(pool, number, region, &members, maps, numbers)?;
    let entry = PoolEntry {
        ids_table: ids.as_ref().map_or(0, |ids| ids.id),
        quic_bytes: pool.quic_id_bytes.unwrap_or(0),
        member_base: region.base,
        member_limit: region.limit,
        table: table.id,
        members: u32::try_from(members.len()).unwrap_or(u32::MAX),
        min_backends: pool.min_backends,
        max_share_ppm: pool.max_share_ppm.unwrap_or(0),
        forward: mode(pool.forward),
        on_dead: when_dead(pool.on_dead),
        idle: pool.idle_timeout.map_or(0, idle_steps),
        mtu: pool.mtu.unwrap_or(0),
        ..PoolEntry::new_zeroed()
    };
    Ok(PoolImage {
        number,
        name: pool.name.clone(),
        entry,
        table,
        ids,
        members,
    })
}

/// The kernel's number of a forwarding mode.
pub const fn mode(forward: Forward) -> u8 {
    match forward {
        Forward::L2 => forward_mode::L2,
        Forward::Ipip => forward_mode::IPIP,
        Forward::Gue => forward_mode::GUE,
    }
}

/// The kernel's number of what becomes of a dead backend's flows.
const fn when_dead(policy: OnDead) -> u8 {
    match policy {
        OnDead::Move => on_dead::MOVE,
        OnDead::Keep => on_dead::KEEP,
        OnDead::Reset => on_dead::RESET,
    }
}

/// Steps of the flow table's age that a time is. One more than fit in it: the first may be almost
/// over when the flow is noted.
fn idle_steps(timeout: Duration) -> u8 {
    let step = 1u128 << AGE_NS_SHIFT;
    let steps = timeout.as_nanos().div_ceil(step).saturating_add(1);
    let most = u8::try_from(AGES.saturating_sub(1)).unwrap_or(u8::MAX);
    u8::try_from(steps).map_or(most, |steps| steps.min(most))
}

/// The kernel's bits of a VIP's flags.
pub fn flag_bits(flags: &BTreeSet<VipFlag>) -> u8 {
    let bit = |flag: &VipFlag| match flag {
        VipFlag::ClientAffinity => vip_flag::CLIENT_AFFINITY,
        VipFlag::Stateless => vip_flag::STATELESS,
        VipFlag::HashDport => vip_flag::HASH_DPORT,
        VipFlag::Quic => vip_flag::QUIC,
    };
    flags.iter().map(bit).fold(0, |bits, bit| bits | bit)
}

/// What makes a backend the same one: name, address, mode.
fn identity(pool: &Pool, backend: &Backend) -> u64 {
    let text = format!(
        "{}\0{}\0{}",
        backend.name,
        backend.address,
        pool.forward.as_str()
    );
    let digest = Digest::of(text.as_bytes());
    let bytes = digest.0.first_chunk::<8>().copied().unwrap_or([1; 8]);
    u64::from_le_bytes(bytes).max(1)
}

fn member_image(
    pool: &Pool,
    number: u16,
    region: Region,
    backend: &Backend,
    numbers: &mut Numbers,
    next_hop: HopOf<'_>,
) -> Result<MemberImage, KernelError> {
    let hop = next_hop(pool, backend);
    let member = Member {
        address: Address::from(backend.address),
        identity: identity(pool, backend),
        weight: backend.weight,
        pool: number,
        next_hop: hop.unwrap_or(0),
        state: if hop.is_some() {
            member_state::UP
        } else {
            member_state::DOWN
        },
        forward: mode(pool.forward),
        ..Member::new_zeroed()
    };
    let id = numbers.member(region, &member).ok_or_else(|| {
        KernelError::Capacity(format!(
            "pool {} has used up its {} backend numbers; wait until flows of removed backends are \
             swept, or give the pool a new name (its flows then move)",
            pool.name, region.limit
        ))
    })?;
    let drain = backend.state == BackendState::Drain || backend.weight == 0;
    Ok(MemberImage {
        id,
        name: backend.name.clone(),
        drain,
        member,
    })
}

fn table_image(
    pool: &Pool,
    number: u16,
    region: Region,
    seed: FleetSeed,
    members: &[MemberImage],
    maps: &Maps,
    numbers: &mut Numbers,
) -> Result<TableImage, KernelError> {
    let relative: BTreeMap<&str, u16> = members
        .iter()
        .filter_map(|member| {
            Some((
                member.name.as_str(),
                u16::try_from(member.id.checked_sub(region.base)?).ok()?,
            ))
        })
        .collect();
    let number_of = |backend: &Backend| {
        relative
            .get(backend.name.as_str())
            .copied()
            .unwrap_or_default()
    };
    let entries = lookup_table(pool, seed, number_of)
        .map_err(|e| KernelError::Capacity(format!("pool {}: {e}", pool.name)))?;
    placed(number, entries, |entry| entry.table, maps, numbers)
}

/// The index of the pool's QUIC server ids.
fn ids_image(
    pool: &Pool,
    number: u16,
    region: Region,
    members: &[MemberImage],
    maps: &Maps,
    numbers: &mut Numbers,
) -> Result<Option<TableImage>, KernelError> {
    let id_of = |member: &MemberImage| {
        let backend = pool.backends.iter().find(|b| b.name == member.name)?;
        let relative = u16::try_from(member.id.checked_sub(region.base)?).ok()?;
        Some((backend.quic_id?, relative))
    };
    let ids: Vec<(u32, u16)> = members.iter().filter_map(id_of).collect();
    let entries = server_ids::index(&ids).ok_or_else(|| {
        KernelError::Capacity(format!("pool {}: its quic_ids do not spread", pool.name))
    })?;
    if entries.is_empty() {
        return Ok(None);
    }
    placed(number, entries, |entry| entry.ids_table, maps, numbers).map(Some)
}

/// A table of a pool: the one that ACTIVE or LKG has, or a new one.
fn placed(
    pool: u16,
    entries: Vec<u16>,
    which: fn(&PoolEntry) -> u32,
    maps: &Maps,
    numbers: &mut Numbers,
) -> Result<TableImage, KernelError> {
    if let Some((id, start)) = same_table(pool, &entries, which, maps)? {
        return Ok(TableImage {
            id,
            start,
            entries,
            shared: true,
        });
    }
    let size = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let (id, start) = numbers.table(chunks(size))?;
    Ok(TableImage {
        id,
        start,
        entries,
        shared: false,
    })
}

/// The table of this pool in ACTIVE or LKG, if it is the very same.
fn same_table(
    pool: u16,
    entries: &[u16],
    which: fn(&PoolEntry) -> u32,
    maps: &Maps,
) -> Result<Option<(u32, u32)>, KernelError> {
    let Some(record) = maps.record()? else {
        return Ok(None);
    };
    let node = maps.node()?;
    for slot in [record.active, record.lkg] {
        if slot == lb_common::control::NO_SLOT {
            continue;
        }
        let entry = maps.pool(&node, slot, pool)?;
        let table = which(&entry);
        if entry.generation != maps.header(slot)?.generation || table == 0 {
            continue;
        }
        let header = maps.table_header(table)?;
        let same = usize::try_from(header.size).is_ok_and(|size| size == entries.len())
            && header.pool == pool
            && entries.chunks(32).zip(header.start..).all(|(part, index)| {
                maps.chunk(index)
                    .is_some_and(|chunk| chunk.iter().zip(part).all(|(a, b)| a == b))
            });
        if same {
            return Ok(Some((table, header.start)));
        }
    }
    Ok(None)
}

fn vip_entry(vip: &Vip, number: u16, pool: u16) -> VipEntry {
    VipEntry {
        address: Address::from(vip.address),
        port: vip.port.to_be(),
        protocol: match vip.protocol {
            Protocol::Tcp => lb_common::wire::ip_proto::TCP,
            Protocol::Udp => lb_common::wire::ip_proto::UDP,
        },
        kind: vip_kind::VIP,
        vip: number,
        pool,
        flags: flag_bits(&vip.flags),
        ..VipEntry::new_zeroed()
    }
}

fn address_entry(address: IpAddr) -> VipEntry {
    VipEntry {
        address: Address::from(address),
        kind: vip_kind::ADDRESS,
        ..VipEntry::new_zeroed()
    }
}

/// The places of a VIP table, as they fill up.
struct Places {
    node: Node,
    taken: BTreeSet<u32>,
}

impl Places {
    fn new(node: &Node) -> Self {
        Self {
            node: *node,
            taken: BTreeSet::new(),
        }
    }

    /// First free place where the packet path looks for this key.
    fn put(&mut self, entry: VipEntry, name: &str) -> Result<VipImage, KernelError> {
        let mask = self.node.vip_places.wrapping_sub(1);
        let hash = hash::vip(
            self.node.tag_key,
            &entry.address,
            entry.port,
            entry.protocol,
        );
        let first = u32::try_from(hash & u64::from(mask)).unwrap_or(0);
        let place = (0..VIP_PROBES)
            .map(|probe| first.wrapping_add(probe) & mask)
            .find(|place| !self.taken.contains(place))
            .ok_or_else(|| {
                KernelError::Capacity(format!(
                    "no place for VIP {name} in a table of {}: raise [tables] vips in agent.toml",
                    self.node.vip_places
                ))
            })?;
        self.taken.insert(place);
        Ok(VipImage {
            place,
            name: name.to_owned(),
            entry,
        })
    }
}
