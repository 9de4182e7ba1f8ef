//! Pools and their backends, as stored.

use std::time::Duration;

use lb_common::SLOTS;
use lb_common::address::Address;
use lb_common::flow::{AGE_NS_SHIFT, AGES};
use lb_common::slot::{Member, PoolEntry, forward_mode, member_state, on_dead};
use zerocopy::FromZeros;

use super::super::KernelError;
use super::super::kept::{Families, Kept};
use super::super::maps::Maps;
use super::super::numbers::{Numbers, Region};
use super::{HopOf, MemberImage, PoolImage, TableImage, tables};
use crate::config::{Backend, BackendState, Digest, FleetSeed, Forward, OnDead, Pool};

/// A pool on its way to its image.
pub(super) enum Laid<'a> {
    /// It is as it was.
    Kept(Box<PoolImage>),
    /// Its numbers are given, its table is not there yet.
    Numbered(Numbered<'a>),
}

/// A pool with the numbers of its backends.
pub(super) struct Numbered<'a> {
    pub pool: &'a Pool,
    pub number: u16,
    pub region: Region,
    pub members: Vec<MemberImage>,
    /// Its table, if ACTIVE has it.
    table: Option<TableImage>,
}

/// Gives a pool and its backends their numbers.
pub(super) fn lay_out<'a>(
    pool: &'a Pool,
    serves: Families,
    kept: &Kept<'_>,
    numbers: &mut Numbers<'_>,
    next_hop: HopOf<'_>,
) -> Result<Laid<'a>, KernelError> {
    let number = numbers.pool(&pool.name)?;
    if let Some(image) = kept.pool(pool, number, serves)? {
        return Ok(Laid::Kept(Box::new(image)));
    }
    let present = || {
        let all = pool.backends.iter();
        all.filter(|backend| backend.state != BackendState::Disabled)
    };
    let count = present().count();
    let region = numbers.region(number, count)?;
    let mut members = Vec::with_capacity(count);
    for backend in present() {
        members.push(member_image(
            pool, number, region, backend, numbers, next_hop,
        )?);
    }
    let table = kept.table(pool, number, region, &members)?;
    Ok(Laid::Numbered(Numbered {
        pool,
        number,
        region,
        members,
        table,
    }))
}

/// The images, tables filled by as many threads as there are CPUs.
pub(super) fn images(
    laid: Vec<Laid<'_>>,
    seed: FleetSeed,
    maps: &Maps,
    numbers: &mut Numbers<'_>,
) -> Result<Vec<PoolImage>, KernelError> {
    let lacking: Vec<&Numbered<'_>> = laid
        .iter()
        .filter_map(|laid| match laid {
            Laid::Numbered(pool) if pool.table.is_none() => Some(pool),
            _ => None,
        })
        .collect();
    let mut filled = tables::fill_all(&lacking, seed)?.into_iter();
    let mut images = Vec::with_capacity(laid.len());
    for laid in laid {
        images.push(match laid {
            Laid::Kept(image) => *image,
            Laid::Numbered(mut pool) => {
                let table = match pool.table.take() {
                    Some(table) => table,
                    None => tables::table_image(
                        &pool,
                        filled.next().unwrap_or_default(),
                        maps,
                        numbers,
                    )?,
                };
                image(pool, table, maps, numbers)?
            }
        });
    }
    Ok(images)
}

fn image(
    laid: Numbered<'_>,
    table: TableImage,
    maps: &Maps,
    numbers: &mut Numbers<'_>,
) -> Result<PoolImage, KernelError> {
    let ids = tables::ids_image(&laid, maps, numbers)?;
    let Numbered {
        pool,
        number,
        region,
        members,
        ..
    } = laid;
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
        kept: false,
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
    numbers: &mut Numbers<'_>,
    next_hop: HopOf<'_>,
) -> Result<MemberImage, KernelError> {
    let hop = next_hop(pool, backend);
    let member = Member {
        address: Address::from(backend.address),
        identity: identity(pool, backend),
        weights: [backend.weight; SLOTS],
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
