//! Writing an image into SHADOW through the guard, sealing it, reading it back.

use lb_common::guard::{BeginPut, CHUNKS, MemberPut, Op, PUTS, PoolPut, VipPut};
use lb_common::slot::{CHUNK_ENTRIES, PoolEntry, chunks, pool_seal};
use zerocopy::IntoBytes;

use super::KernelError;
use super::guard::Guard;
use super::image::{Image, MemberImage, PoolImage, TableImage, VipImage, stored_name};
use super::object::Kernel;

/// What the guard found when it sealed the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sealed {
    /// Slot.
    pub slot: u8,
    /// Generation.
    pub generation: u64,
    /// Class, 0 to 3.
    pub class: u8,
    /// Largest share of one VIP's table that moves, ppm.
    pub moved_ppm: u32,
    /// VIPs that ACTIVE lacks.
    pub vips_added: u32,
    /// VIPs that the new slot lacks.
    pub vips_removed: u32,
    /// VIPs of which something moves.
    pub vips_changed: u32,
    /// VIPs whose forwarding mode changes.
    pub encap_changed: u32,
}

/// Stages `image` as `generation`, made from generation `base`, and seals it.
pub fn stage(
    kernel: &Kernel,
    image: &Image,
    generation: u64,
    base: u64,
) -> Result<Sealed, KernelError> {
    let guard = &kernel.guard;
    // No packet may still read what is overwritten now.
    crate::sys::membarrier().map_err(|e| KernelError::io("membarrier", e))?;
    let digest = BeginPut {
        digest: image.digest.0,
    };
    let slot = first(guard.call(Op::Begin, base, &[generation], digest.as_bytes())?);
    while first(guard.call(Op::Clear, base, &[], &[])?) > 0 {}
    for pool in &image.pools {
        if pool.kept {
            guard.call(Op::KeepPool, base, &[u64::from(pool.number)], &[])?;
        } else {
            put_pool(guard, pool)?;
        }
    }
    put_vips(guard, image.vips.iter().chain(&image.addresses))?;
    for pool in image.pools.iter().filter(|pool| !pool.kept) {
        guard.call(Op::SealPool, base, &[u64::from(pool.number)], &[])?;
    }
    for vip in &image.vips {
        guard.call(Op::SealVip, base, &[u64::from(vip.place)], &[])?;
    }
    let totals = [
        count(image.vips.len()),
        count(image.pools.len()),
        image
            .pools
            .iter()
            .map(|pool| u64::from(pool.entry.members))
            .sum(),
    ];
    let sealed = guard.call(Op::Seal, base, &totals, &[])?;
    let number = |index: usize| {
        sealed
            .get(index)
            .and_then(|value| u32::try_from(*value).ok())
            .unwrap_or(u32::MAX)
    };
    Ok(Sealed {
        slot: u8::try_from(slot).unwrap_or(u8::MAX),
        generation,
        class: u8::try_from(number(0)).unwrap_or(u8::MAX),
        moved_ppm: number(1),
        vips_added: number(2),
        vips_removed: number(3),
        vips_changed: number(4),
        encap_changed: number(5),
    })
}

fn first(detail: [u64; 7]) -> u64 {
    detail.first().copied().unwrap_or_default()
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn put_pool(guard: &Guard, pool: &PoolImage) -> Result<(), KernelError> {
    if !pool.table.shared {
        write_table(guard, pool.number, &pool.table)?;
    }
    if let Some(ids) = pool.ids.as_ref().filter(|ids| !ids.shared) {
        write_table(guard, pool.number, ids)?;
    }
    let put = PoolPut {
        entry: pool.entry,
        name: stored_name(&pool.name),
    };
    guard.call(Op::PutPool, 0, &[u64::from(pool.number)], put.as_bytes())?;
    for batch in pool.members.chunks(PUTS) {
        put_members(guard, batch)?;
    }
    Ok(())
}

fn put_members(guard: &Guard, batch: &[MemberImage]) -> Result<(), KernelError> {
    let puts: Vec<MemberPut> = batch
        .iter()
        .map(|image| MemberPut {
            id: image.id,
            drain: u32::from(image.drain),
            member: image.member,
            name: stored_name(&image.name),
        })
        .collect();
    guard.call(Op::PutMembers, 0, &[count(puts.len())], puts.as_bytes())?;
    Ok(())
}

fn write_table(guard: &Guard, pool: u16, table: &TableImage) -> Result<(), KernelError> {
    let size = u32::try_from(table.entries.len()).unwrap_or(u32::MAX);
    let id = u64::from(table.id);
    let args = [id, u64::from(table.start), u64::from(size), u64::from(pool)];
    guard.call(Op::OpenTable, 0, &args, &[])?;
    let mut padded = table.entries.clone();
    padded.resize(
        usize::try_from(chunks(size))
            .unwrap_or(0)
            .saturating_mul(CHUNK_ENTRIES),
        0,
    );
    let mut written = 0u64;
    for part in padded.chunks(CHUNKS.saturating_mul(CHUNK_ENTRIES)) {
        let elements = count(part.len() / CHUNK_ENTRIES);
        guard.call(Op::WriteTable, 0, &[id, written, elements], part.as_bytes())?;
        written = written.saturating_add(elements);
    }
    guard.call(Op::SealTable, 0, &[id], &[])?;
    Ok(())
}

fn put_vips<'a>(
    guard: &Guard,
    vips: impl Iterator<Item = &'a VipImage>,
) -> Result<(), KernelError> {
    let puts: Vec<VipPut> = vips
        .map(|image| VipPut {
            place: image.place,
            reserved: 0,
            entry: image.entry,
            name: stored_name(&image.name),
        })
        .collect();
    for batch in puts.chunks(PUTS) {
        guard.call(Op::PutVips, 0, &[count(batch.len())], batch.as_bytes())?;
    }
    Ok(())
}

/// Reads SHADOW back and compares it with what was meant, entry by entry.
///
/// # Errors
/// [`KernelError::Mismatch`] with the first difference.
pub fn verify(kernel: &Kernel, image: &Image, sealed: &Sealed) -> Result<(), KernelError> {
    let header = kernel.maps.header(sealed.slot)?;
    if header.digest != image.digest.0 || header.generation != sealed.generation {
        return Err(KernelError::Mismatch(
            "the slot's digest or generation".to_owned(),
        ));
    }
    for pool in &image.pools {
        verify_pool(kernel, pool, sealed)?;
    }
    for vip in image.vips.iter().chain(&image.addresses) {
        let there = kernel.maps.vip(&kernel.node, sealed.slot, vip.place);
        let same = there.is_some_and(|there| {
            there.address == vip.entry.address
                && there.port == vip.entry.port
                && there.protocol == vip.entry.protocol
                && there.kind == vip.entry.kind
                && there.pool == vip.entry.pool
                && there.vip == vip.entry.vip
                && there.flags == vip.entry.flags
        });
        if !same {
            return Err(KernelError::Mismatch(format!("VIP {}", vip.name)));
        }
    }
    Ok(())
}

fn verify_pool(kernel: &Kernel, pool: &PoolImage, sealed: &Sealed) -> Result<(), KernelError> {
    let differs = |what: &str| KernelError::Mismatch(format!("pool {}: {what}", pool.name));
    let entry = kernel.maps.pool(&kernel.node, sealed.slot, pool.number)?;
    let wanted = &pool.entry;
    let seal = if pool.kept {
        pool_seal::KEPT
    } else {
        pool_seal::WALKED
    };
    let keys = |entry: &PoolEntry| {
        let quic = (entry.quic_bytes, entry.ids_table);
        (entry.on_dead, entry.idle, entry.mtu, quic)
    };
    if entry.table != pool.table.id
        || entry.generation != sealed.generation
        || entry.sealed != seal
        || keys(&entry) != keys(wanted)
    {
        return Err(differs("its record"));
    }
    // One that is shared is sealed since an earlier generation, and was compared when it was chosen.
    let tables = [Some(&pool.table), pool.ids.as_ref()];
    let parts = tables
        .into_iter()
        .flatten()
        .filter(|table| !table.shared)
        .flat_map(|table| table.entries.chunks(CHUNK_ENTRIES).zip(table.start..));
    for (part, index) in parts {
        let chunk = kernel
            .maps
            .chunk(index)
            .ok_or_else(|| differs("its table"))?;
        if chunk.get(..part.len()) != Some(part) {
            return Err(differs("its table"));
        }
    }
    for image in &pool.members {
        let bit = 1u8.checked_shl(u32::from(sealed.slot)).unwrap_or(0);
        let same = kernel.maps.member(image.id).is_some_and(|there| {
            there.identity == image.member.identity
                && there.address == image.member.address
                && there.slots & bit != 0
        });
        if !same {
            return Err(differs(&format!("backend {}", image.name)));
        }
    }
    Ok(())
}

/// Sweeps the whole flow table, beyond a sweep that may be under way.
pub fn sweep(kernel: &Kernel) -> Result<(), KernelError> {
    let begun = kernel.maps.control()?.sweeps;
    let mut done = begun;
    while done < begun.saturating_add(2) {
        done = sweep_part(kernel)?;
    }
    Ok(())
}

/// Sweeps the next part of the flow table; how many sweeps are complete.
pub fn sweep_part(kernel: &Kernel) -> Result<u32, KernelError> {
    let detail = kernel.guard.call(Op::Sweep, 0, &[], &[])?;
    Ok(u32::try_from(first(detail)).unwrap_or(u32::MAX))
}

/// Frees backend numbers that no slot has: sweeps the flow table twice, then frees each.
///
/// # Returns
/// How many were freed.
pub fn recycle(kernel: &Kernel, idle: &[u32]) -> Result<usize, KernelError> {
    if idle.is_empty() {
        return Ok(0);
    }
    sweep(kernel)?;
    let mut freed = 0usize;
    for id in idle {
        match kernel.guard.call(Op::FreeMember, 0, &[u64::from(*id)], &[]) {
            Ok(_) => freed = freed.saturating_add(1),
            // One that a sealed slot has again stays.
            Err(KernelError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(freed)
}
