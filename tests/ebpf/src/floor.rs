//! Lower bounds: the least that a balancer for IPv4 does, with and without memory of flows. No IPv6, no
//! ICMP, no fragments, no options, no checks of what is in the maps.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;

use crate::fresh::{end, start};
use crate::shared::{FLOWS, HOP, OWN, REALS, RING, SOURCE, Seen, VipKey};

/// A flow.
#[derive(Clone, Copy)]
#[repr(C)]
struct Flow {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    protocol: u32,
}

/// What is remembered of it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Known {
    real: u32,
    reserved: u32,
    seen: u64,
}

/// Packets and bytes.
#[repr(C)]
struct Counter {
    packets: u64,
    bytes: u64,
}

#[btf_map]
static FLOOR_VIPS: HashMap<VipKey, u64, 512> = HashMap::new();
#[btf_map]
static FLOOR_RING: Array<u32, { RING as usize }> = Array::new();
#[btf_map]
static FLOOR_REALS: Array<u32, { REALS as usize }> = Array::new();
#[btf_map]
static FLOOR_FLOWS: LruHashMap<Flow, Known, FLOWS> = LruHashMap::new();
#[btf_map]
static FLOOR_COUNTS: PerCpuArray<Counter, { REALS as usize }> = PerCpuArray::new();

const ETHERNET: usize = 14;
const OUTER: usize = 20;
/// 0x0800, 0x86dd and the like as they are loaded.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();

/// The `T` at `at`, without a comparison.
///
/// # Safety
/// `size_of::<T>()` bytes there must be the packet's.
#[inline(always)]
unsafe fn load<T: Copy>(at: usize) -> T {
    // SAFETY: this function's contract; BPF loads are aligned or not as they come.
    unsafe { (at as *const T).read() }
}

/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn store<T: Copy>(at: usize, value: T) {
    // SAFETY: this function's contract.
    unsafe { (at as *mut T).write(value) };
}

/// Flow and length of a plain IPv4 packet.
#[inline(always)]
fn parse(ctx: &XdpContext) -> Option<(Flow, u16)> {
    let data = start(ctx);
    if data + ETHERNET + 20 + 20 > end(ctx) {
        return None;
    }
    let ip = data + ETHERNET;
    // SAFETY: both headers lie in the packet, as just compared.
    unsafe {
        let fragment = u16::from_be(load::<u16>(ip + 6));
        if load::<u16>(data + 12) != IPV4 || load::<u8>(ip) != 0x45 || fragment & 0x3fff != 0 {
            return None;
        }
        let flow = Flow {
            source: load(ip + 12),
            destination: load(ip + 16),
            source_port: load(ip + 20),
            destination_port: load(ip + 22),
            protocol: u32::from(load::<u8>(ip + 9)),
        };
        Some((flow, u16::from_be(load::<u16>(ip + 2))))
    }
}

/// The balancer, with or without memory of flows.
#[inline(always)]
pub fn balance(ctx: &XdpContext, remembers: bool) -> u32 {
    let Some((flow, length)) = parse(ctx) else {
        return XDP_PASS;
    };
    let vip = VipKey {
        address: flow.destination.to_ne_bytes(),
        port: flow.destination_port.to_ne_bytes(),
        protocol: flow.protocol as u8,
        reserved: 0,
    };
    if FLOOR_VIPS.get_ptr(vip).is_none() {
        return XDP_PASS;
    }
    choose(&flow, length, remembers)
        .and_then(|real| encap(ctx, real, length))
        .unwrap_or(XDP_DROP)
}

/// The backend's address, counted.
#[inline(always)]
fn choose(flow: &Flow, length: u16, remembers: bool) -> Option<u32> {
    let number = if remembers {
        recall(flow)?
    } else {
        look_up(flow)?
    };
    let real = *FLOOR_REALS.get(number)?;
    if let Some(counter) = FLOOR_COUNTS.get_ptr_mut(number) {
        // SAFETY: this CPU's own element.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(length);
        }
    }
    Some(real)
}

#[inline(always)]
fn recall(flow: &Flow) -> Option<u32> {
    if let Some(known) = FLOOR_FLOWS.get_ptr(flow) {
        // SAFETY: an element of the map; its memory stays readable whatever becomes of it.
        return Some(unsafe { (*known).real });
    }
    let real = look_up(flow)?;
    let known = Known {
        real,
        reserved: 0,
        seen: 0,
    };
    let _ = FLOOR_FLOWS.insert(flow, known, u64::from(BPF_ANY));
    Some(real)
}

#[inline(always)]
fn look_up(flow: &Flow) -> Option<u32> {
    FLOOR_RING.get(hash(flow) % RING).copied()
}

/// The finaliser of splitmix64 over address and ports.
#[inline(always)]
fn hash(flow: &Flow) -> u32 {
    let ports = u32::from(flow.source_port) << 16 | u32::from(flow.destination_port);
    let mut x = u64::from(flow.source) << 32 | u64::from(ports);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> 32) as u32
}

/// Ethernet and outer header; "don't fragment" is always on.
#[inline(always)]
fn encap(ctx: &XdpContext, real: u32, length: u16) -> Option<u32> {
    const FIRST: u16 = 0x4500;
    const FRAGMENT: u16 = 0x4000;
    const TTL_IPIP: u16 = 64 << 8 | 4;
    // SAFETY: the context is the program's own; pointers into the packet are made after this.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(OUTER as i32)) } != 0 {
        return None;
    }
    let data = start(ctx);
    if data + ETHERNET + OUTER > end(ctx) {
        return None;
    }
    let total = length.wrapping_add(OUTER as u16);
    let source = u32::from_ne_bytes(SOURCE);
    let words = |address: u32| {
        let address = u32::from_be(address);
        (address >> 16) + (address & 0xffff)
    };
    let mut sum = u32::from(FIRST) + u32::from(total) + u32::from(FRAGMENT) + u32::from(TTL_IPIP);
    sum += words(source) + words(real);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let ip = data + ETHERNET;
    let first_four = |mac: [u8; 6]| u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]);
    let last_two = |mac: [u8; 6]| u16::from_ne_bytes([mac[4], mac[5]]);
    // SAFETY: both headers lie in the packet, as just compared.
    unsafe {
        store(data, first_four(HOP));
        store(data + 4, last_two(HOP));
        store(data + 6, first_four(OWN));
        store(data + 10, last_two(OWN));
        store(data + 12, IPV4);
        store(ip, FIRST.to_be());
        store(ip + 2, total.to_be());
        store(ip + 4, 0_u16);
        store(ip + 6, FRAGMENT.to_be());
        store(ip + 8, TTL_IPIP.to_be());
        store(ip + 10, (!(sum as u16)).to_be());
        store(ip + 12, source);
        store(ip + 16, real);
    }
    Some(XDP_TX)
}

/// What a packet is to a sink.
#[inline(always)]
pub fn kind(ctx: &XdpContext) -> Seen {
    let data = start(ctx);
    if data + ETHERNET + 20 > end(ctx) {
        return Seen::Other;
    }
    // SAFETY: these bytes lie in the packet, as just compared.
    let protocol = unsafe {
        match load::<u16>(data + 12) {
            IPV4 => load::<u8>(data + ETHERNET + 9),
            IPV6 => load::<u8>(data + ETHERNET + 6),
            _ => 0,
        }
    };
    match protocol {
        4 | 41 => Seen::Tunnel,
        6 | 17 => Seen::Plain,
        _ => Seen::Other,
    }
}
