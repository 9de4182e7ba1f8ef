//! Every byte of ACTIVE and LKG, read through the pins.

use std::collections::BTreeMap;

use lb_common::control::{ControlRecord, NO_SLOT};
use lb_common::slot::{
    FILTER_WORDS, Member, NAME_LEN, Node, PoolEntry, SlotHeader, TableHeader, VipEntry, vip_kind,
};
use lb_userspace::kernel::pins::Pins;
use zerocopy::{FromBytes, IntoBytes};

use crate::bpf::Map;

/// What a slot consists of, by map and number.
pub type Kept = BTreeMap<(&'static str, usize), Vec<u8>>;

/// Reads ACTIVE and LKG, and the pointer at them.
pub struct Keeper<'a> {
    pins: &'a Pins,
    node: Node,
    kept: Kept,
    bits: u8,
}

impl<'a> Keeper<'a> {
    /// All of ACTIVE and LKG, as `record` has them.
    pub fn read(pins: &'a Pins, node: Node, record: &ControlRecord) -> Kept {
        let slots = [record.active, record.lkg];
        let slots = slots.into_iter().filter(|slot| *slot != NO_SLOT);
        let mut keeper = Self {
            pins,
            node,
            kept: Kept::new(),
            bits: slots.clone().map(|slot| 1 << slot).sum(),
        };
        let pointer = [
            u64::from(record.active),
            u64::from(record.lkg),
            record.active_generation,
            record.lkg_generation,
            u64::from(record.flags),
            u64::from(record.share),
        ];
        keeper
            .kept
            .insert(("pointer", 0), pointer.as_bytes().to_vec());
        for slot in slots {
            keeper.slot(usize::from(slot));
        }
        keeper.members();
        keeper.tables();
        keeper.kept
    }

    fn elements(&self, name: &'static str, size: usize) -> Vec<Vec<u8>> {
        let bytes = Map::pinned(&self.pins.map(name)).content();
        bytes.chunks(size).map(<[u8]>::to_vec).collect()
    }

    fn region(&mut self, name: &'static str, size: usize, from: usize, count: usize) {
        let all = self.elements(name, size);
        let own = all.into_iter().enumerate().skip(from).take(count);
        self.kept
            .extend(own.map(|(number, bytes)| ((name, number), bytes)));
    }

    fn slot(&mut self, slot: usize) {
        let (places, pools) = (self.node.vip_places as usize, self.node.pools as usize);
        self.region("SLOT_HEADERS", size_of::<SlotHeader>(), slot, 1);
        let words = FILTER_WORDS as usize;
        self.region("FILTERS", 8, slot * words, words);
        self.region("VIPS", size_of::<VipEntry>(), slot * places, places);
        self.region("POOLS", size_of::<PoolEntry>(), slot * pools, pools);
        let mut named = Vec::new();
        for place in slot * places..(slot + 1) * places {
            let vip = VipEntry::read_from_bytes(&self.kept[&("VIPS", place)]).expect("a VIP");
            if vip.kind == vip_kind::VIP {
                named.push(usize::from(vip.vip));
                self.region("POOL_NAMES", NAME_LEN, usize::from(vip.pool), 1);
            }
        }
        for vip in named {
            self.region("VIP_NAMES", NAME_LEN, vip, 1);
        }
    }

    fn members(&mut self) {
        let names = self.elements("MEMBER_NAMES", NAME_LEN);
        let all = self.elements("MEMBERS", size_of::<Member>());
        for (id, (bytes, name)) in all.iter().zip(names).enumerate() {
            let mut member = Member::read_from_bytes(bytes).expect("a member");
            if member.slots & self.bits != 0 {
                member.slots &= self.bits;
                member.drains &= self.bits;
                for (slot, weight) in member.weights.iter_mut().enumerate() {
                    if self.bits >> slot & 1 == 0 {
                        *weight = 0;
                    }
                }
                self.kept
                    .insert(("MEMBERS", id), member.as_bytes().to_vec());
                self.kept.insert(("MEMBER_NAMES", id), name);
            }
        }
    }

    fn tables(&mut self) {
        let elements = self.elements("TABLES", 64);
        let headers = self.elements("TABLE_HEADERS", size_of::<TableHeader>());
        for (table, bytes) in headers.iter().enumerate() {
            let mut header = TableHeader::read_from_bytes(bytes).expect("a table");
            if header.slots & u16::from(self.bits) != 0 {
                header.slots &= u16::from(self.bits);
                self.kept
                    .insert(("TABLE_HEADERS", table), header.as_bytes().to_vec());
                let own = elements.iter().enumerate();
                let own = own.skip(header.start as usize).take(header.chunks as usize);
                let own = own.map(|(number, chunk)| (("TABLES", number), chunk.clone()));
                self.kept.extend(own);
            }
        }
    }
}
