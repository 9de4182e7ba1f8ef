//! Which VIP of a slot a packet is for.

use lb_common::address::Address;
use lb_common::hash;
use lb_common::pace::Counted;
use lb_common::packet::FlowKey;
use lb_common::slot::{FILTER_WORDS, VIP_PROBES, VipEntry, vip_kind};

use crate::maps::{FILTERS, TAG_KEY, VIP_PLACES, vip};

/// The word of a slot's address filter and the bit in it that belong to an address with this hash.
#[inline(always)]
const fn filter_place_of(slot: u32, hash: u64) -> (u32, u64) {
    let word = (hash >> 6) as u32 & (FILTER_WORDS - 1);
    (slot * FILTER_WORDS + word, 1 << (hash & 63))
}

/// The word of a slot's address filter and the bit in it that belong to an address.
#[inline(always)]
pub fn filter_place(slot: u32, address: &Address) -> (u32, u64) {
    filter_place_of(slot, hash::address(TAG_KEY.load(), address))
}

/// False if no VIP of the slot has this address; true mostly if one has.
#[inline(always)]
pub fn may_have(slot: u32, address: &Address) -> bool {
    may_have_hashed(slot, hash::address(TAG_KEY.load(), address))
}

/// [`may_have`], by the address's hash.
#[inline(always)]
pub fn may_have_hashed(slot: u32, hash: u64) -> bool {
    let (word, bit) = filter_place_of(slot, hash);
    FILTERS.get(word).is_some_and(|bits| bits & bit != 0)
}

/// First place to look for a key, in the VIP table of any slot.
#[inline(always)]
pub fn place(address: &Address, port: u16, protocol: u8) -> u32 {
    hash::vip(TAG_KEY.load(), address, port, protocol) as u32 & (VIP_PLACES.load() - 1)
}

/// The entry with exactly this key.
#[inline(always)]
pub fn exact(slot: u32, address: &Address, port: u16, protocol: u8) -> Option<&'static VipEntry> {
    match find(slot, address, port, protocol) {
        0 => None,
        found => vip(slot, found.wrapping_sub(1)),
    }
}

/// Place of the entry with exactly this key, plus 1; 0 if there is none.
#[inline(always)]
pub fn find(slot: u32, address: &Address, port: u16, protocol: u8) -> u32 {
    let [a, b, c, d] = address.words().map(u64::from);
    let key = u64::from(port) | u64::from(protocol) << 16;
    search(slot, a | b << 32, c | d << 32, key)
}

/// [`find`], the key in words.
///
/// A global function of numbers, so that the verifier checks it once and not for every state that
/// a packet can be in when a VIP is looked for.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn search(slot: u32, first_half: u64, second_half: u64, key: u64) -> u32 {
    let address = Address::from_words([
        first_half as u32,
        (first_half >> 32) as u32,
        second_half as u32,
        (second_half >> 32) as u32,
    ]);
    let (port, protocol) = (key as u16, (key >> 16) as u8);
    let first = place(&address, port, protocol);
    for probe in 0..VIP_PROBES {
        let at = first.wrapping_add(probe) & (VIP_PLACES.load() - 1);
        let Some(entry) = vip(slot, at) else {
            return 0;
        };
        if entry.kind == vip_kind::EMPTY {
            return 0;
        }
        if entry.address == address && entry.port == port && entry.protocol == protocol {
            return at.wrapping_add(1);
        }
    }
    0
}

/// The VIP that a flow is for: its port's, else the address's port-0 VIP.
#[inline(always)]
pub fn of_flow(slot: u32, flow: &FlowKey) -> Option<&'static VipEntry> {
    let [a, b, c, d] = flow.destination.words().map(u64::from);
    let key = u64::from(flow.destination_port) | u64::from(flow.protocol) << 16;
    match search_flow(slot, a | b << 32, c | d << 32, key) {
        0 => None,
        found => vip(slot, found.wrapping_sub(1)),
    }
}

/// [`of_flow`], the key in words and the place plus 1: a global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn search_flow(slot: u32, first_half: u64, second_half: u64, key: u64) -> u32 {
    match search(slot, first_half, second_half, key) {
        0 => search(slot, first_half, second_half, key & !0xffff),
        found => found,
    }
}

/// For which VIP of SHADOW a flow counts; `own` is its VIP's number in the other slot, for a flow that SHADOW
/// has no VIP for.
#[inline(always)]
pub fn counted(shadow: u32, flow: &FlowKey, own: u16) -> Counted {
    let [a, b, c, d] = flow.destination.words().map(u64::from);
    let key = u64::from(flow.destination_port) | u64::from(flow.protocol) << 16;
    Counted(counts_for(
        shadow,
        a | b << 32,
        c | d << 32,
        key,
        own.into(),
    ))
}

/// [`counted`], as a global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn counts_for(
    slot: u32,
    first_half: u64,
    second_half: u64,
    key: u64,
    own: u32,
) -> u32 {
    let found = search_flow(slot, first_half, second_half, key);
    let counted = match vip(slot, found.wrapping_sub(1)) {
        Some(entry) if found != 0 => Counted::by(entry),
        _ => Counted::alone(own as u16),
    };
    counted.0
}

/// Whether a VIP of the slot has this address.
#[inline(always)]
pub fn has_address(slot: u32, address: &Address) -> bool {
    may_have(slot, address) && exact(slot, address, 0, 0).is_some()
}
