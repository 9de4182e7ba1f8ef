//! A change staged by hand, step by step, so that a test can do each step wrongly.

use lb_common::guard::{BeginPut, CHUNKS, MemberPut, Op, PUTS, PoolPut, VipPut};
use lb_common::slot::CHUNK_ENTRIES;
use lb_userspace::config::Config;
use lb_userspace::kernel::KernelError;
use lb_userspace::kernel::guard::Detail;
use lb_userspace::kernel::image::{
    Image, MemberImage, PoolImage, TableImage, VipImage, stored_name,
};
use zerocopy::IntoBytes;

use crate::bench::Bench;

/// What the guard says.
pub type Said = Result<Detail, KernelError>;

/// A change that is being written.
pub struct Draft<'a> {
    /// The balancer.
    pub bench: &'a Bench,
    /// What the image was made from.
    pub config: Config,
    /// What is to be written; a test may change it.
    pub image: Image,
    /// Generation it is made from.
    pub base: u64,
    /// Its own.
    pub generation: u64,
}

impl<'a> Draft<'a> {
    /// A change to `services`, of which nothing is written yet.
    pub fn of(bench: &'a Bench, services: &str) -> Self {
        let record = bench.record();
        let config = bench.config(services);
        Self {
            bench,
            image: bench.image_of(&config),
            config,
            base: record.active_generation,
            generation: record.highest_generation.max(record.shadow_generation) + 1,
        }
    }

    /// One command.
    pub fn call(&self, op: Op, arguments: &[u64], payload: &[u8]) -> Said {
        self.bench
            .kernel
            .guard
            .call(op, self.base, arguments, payload)
    }

    /// Takes SHADOW.
    pub fn begin(&self) -> Said {
        let digest = BeginPut {
            digest: self.image.digest.0,
        };
        self.call(Op::Begin, &[self.generation], digest.as_bytes())
    }

    /// Takes SHADOW and clears it.
    pub fn cleared(&self) -> Said {
        let begun = self.begin()?;
        while self.call(Op::Clear, &[], &[])?[0] > 0 {}
        Ok(begun)
    }

    /// Opens a table.
    pub fn open(&self, pool: u16, table: &TableImage) -> Said {
        let size = table.entries.len() as u64;
        let room = [u64::from(table.id), u64::from(table.start), size];
        self.call(
            Op::OpenTable,
            &[room[0], room[1], room[2], u64::from(pool)],
            &[],
        )
    }

    /// Writes all of a table.
    pub fn write(&self, table: &TableImage) -> Said {
        let mut entries = table.entries.clone();
        entries.resize(entries.len().next_multiple_of(CHUNK_ENTRIES), 0);
        let mut said = Ok([0; 7]);
        for (part, from) in entries
            .chunks(CHUNKS * CHUNK_ENTRIES)
            .zip((0..).step_by(CHUNKS))
        {
            let elements = (part.len() / CHUNK_ENTRIES) as u64;
            let arguments = [u64::from(table.id), from, elements];
            said = Ok(self.call(Op::WriteTable, &arguments, part.as_bytes())?);
        }
        said
    }

    /// Seals a table.
    pub fn seal_table(&self, table: &TableImage) -> Said {
        self.call(Op::SealTable, &[u64::from(table.id)], &[])
    }

    /// Opens, writes and seals a table, unless ACTIVE or LKG has it.
    pub fn table(&self, pool: &PoolImage) -> Said {
        if pool.table.shared {
            return Ok([0; 7]);
        }
        self.open(pool.number, &pool.table)?;
        self.write(&pool.table)?;
        self.seal_table(&pool.table)
    }

    /// Writes a pool's record.
    pub fn pool(&self, pool: &PoolImage) -> Said {
        let put = PoolPut {
            entry: pool.entry,
            name: stored_name(&pool.name),
        };
        self.call(Op::PutPool, &[u64::from(pool.number)], put.as_bytes())
    }

    /// Takes a pool over from ACTIVE.
    pub fn keep(&self, pool: &PoolImage) -> Said {
        self.call(Op::KeepPool, &[u64::from(pool.number)], &[])
    }

    /// Writes backends, 16 at most.
    pub fn members(&self, members: &[MemberImage]) -> Said {
        let put = |image: &MemberImage| MemberPut {
            id: image.id,
            drain: u32::from(image.drain),
            member: image.member,
            name: stored_name(&image.name),
        };
        let puts: Vec<MemberPut> = members.iter().map(put).collect();
        self.call(Op::PutMembers, &[puts.len() as u64], puts.as_bytes())
    }

    /// Writes VIPs and addresses.
    pub fn vips(&self, vips: &[VipImage]) -> Said {
        let put = |image: &VipImage| VipPut {
            place: image.place,
            reserved: 0,
            entry: image.entry,
            name: stored_name(&image.name),
        };
        let mut said = Ok([0; 7]);
        for batch in vips.chunks(PUTS) {
            let puts: Vec<VipPut> = batch.iter().map(put).collect();
            said = Ok(self.call(Op::PutVips, &[puts.len() as u64], puts.as_bytes())?);
        }
        said
    }

    /// Writes everything: tables, pools, backends, VIPs.
    pub fn written(&self) -> Said {
        self.cleared()?;
        for pool in &self.image.pools {
            self.table(pool)?;
            self.pool(pool)?;
            self.members(&pool.members)?;
        }
        self.vips(&self.image.vips)?;
        self.vips(&self.image.addresses)
    }

    /// Walks a pool.
    pub fn walk(&self, pool: &PoolImage) -> Said {
        self.call(Op::SealPool, &[u64::from(pool.number)], &[])
    }

    /// Writes everything and walks every pool.
    pub fn walked(&self) -> Said {
        self.written()?;
        self.image
            .pools
            .iter()
            .try_fold([0; 7], |_, pool| self.walk(pool))
    }

    /// Compares a VIP with ACTIVE's.
    pub fn compare(&self, vip: &VipImage) -> Said {
        self.call(Op::SealVip, &[u64::from(vip.place)], &[])
    }

    /// Writes and walks everything, compares every VIP.
    pub fn compared(&self) -> Said {
        self.walked()?;
        self.image
            .vips
            .iter()
            .try_fold([0; 7], |_, vip| self.compare(vip))
    }

    /// VIPs, pools and backends.
    pub fn totals(&self) -> [u64; 3] {
        let image = &self.image;
        [image.vips.len(), image.pools.len(), image.members().count()].map(|count| count as u64)
    }

    /// Seals the slot, announcing `totals`.
    pub fn seal(&self, totals: [u64; 3]) -> Said {
        self.call(Op::Seal, &totals, &[])
    }

    /// All of it.
    pub fn sealed(&self) -> Said {
        self.compared()?;
        self.seal(self.totals())
    }

    /// The pool of that name.
    pub fn of_name(&mut self, name: &str) -> &mut PoolImage {
        let pools = &mut self.image.pools;
        let found = pools.iter_mut().find(|pool| pool.name == name);
        found.unwrap_or_else(|| panic!("no pool {name}"))
    }

    /// The VIP of that name.
    pub fn vip_of_name(&mut self, name: &str) -> &mut VipImage {
        let vips = &mut self.image.vips;
        let found = vips.iter_mut().find(|vip| vip.name == name);
        found.unwrap_or_else(|| panic!("no VIP {name}"))
    }
}
