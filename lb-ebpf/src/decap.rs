//! The backend's XDP program: takes the balancer's outer header off and hands the inner packet to
//! the stack, for hosts without tunnel devices. Everything else passes untouched.
#![no_std]
#![no_main]
#![allow(
    missing_docs,
    reason = "the xdp macro drops the documentation of its function"
)]
#![allow(clippy::inline_always, reason = "all of it is one BPF program")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "the xdp macro passes the context by value"
)]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya_ebpf::helpers::bpf_xdp_adjust_head;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lb_common::decap::{OUTCOMES, Outcome, Settings, Tunnel, ecn, mark_v4, mark_v6, tunnel};
use lb_common::wire::{ETHERNET_LEN, Ethernet, Frame, Ipv4, Ipv6, ether_type};
use zerocopy::{FromBytes, Unaligned};

/// How to judge; see [`Settings`].
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();

/// Addresses of this host that tunnels may end at, IPv4 ones mapped.
#[btf_map]
static DESTINATIONS: HashMap<[u8; 16], u8, 1024> = HashMap::new();

/// Prefixes that tunnels may come from, IPv4 ones mapped.
#[btf_map]
static SOURCES: LpmTrie<[u8; 16], u8, 1024> = LpmTrie::new();

/// Packets per [`Outcome`].
#[btf_map]
static COUNTERS: PerCpuArray<u64, OUTCOMES> = PerCpuArray::new();

/// Removes outer headers.
#[xdp]
pub fn decap(ctx: XdpContext) -> u32 {
    let packet = Packet(&ctx);
    let outcome = match tunnel(&packet) {
        Ok(found) => open(&packet, &found).map_or_else(|left| left, |()| Outcome::Decapped),
        Err(left) => left,
    };
    count(outcome);
    match outcome {
        Outcome::Decapped | Outcome::Passed | Outcome::Fragment => XDP_PASS,
        Outcome::Refused | Outcome::Malformed | Outcome::Congestion => XDP_DROP,
    }
}

/// Passes everything: the other end of a veth pair needs a program, or nothing that XDP sends
/// back over the pair arrives.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

#[inline(always)]
fn open(packet: &Packet<'_>, found: &Tunnel) -> Result<(), Outcome> {
    admit(found)?;
    mark(packet, found)?;
    strip(packet, found)
}

#[inline(always)]
fn admit(found: &Tunnel) -> Result<(), Outcome> {
    let settings = *SETTINGS.get(0).ok_or(Outcome::Passed)?;
    if settings.check_destination != 0 {
        // SAFETY: only whether there is an element is asked, not for what is in it.
        let known = unsafe { DESTINATIONS.get(found.destination.v6_bytes()) }.is_some();
        if !known {
            return Err(Outcome::Passed);
        }
    }
    if settings.check_source != 0 {
        let key = Key::new(128, found.source.v6_bytes());
        SOURCES.get(&key).ok_or(Outcome::Refused)?;
    }
    Ok(())
}

/// Carries a congestion mark of the outer header over to the inner one.
#[inline(always)]
fn mark(packet: &Packet<'_>, found: &Tunnel) -> Result<(), Outcome> {
    let offset = ETHERNET_LEN + found.length;
    if found.inner == ether_type::IPV4 {
        let inner: Ipv4 = packet.read(offset).ok_or(Outcome::Malformed)?;
        if inner.version_ihl >> 4 != 4 {
            return Err(Outcome::Malformed);
        }
        let bits = ecn(found.ecn, inner.tos).ok_or(Outcome::Congestion)?;
        if bits != inner.tos & 3 {
            packet
                .write(offset, mark_v4(inner, bits))
                .ok_or(Outcome::Malformed)?;
        }
    } else {
        let inner: Ipv6 = packet.read(offset).ok_or(Outcome::Malformed)?;
        if inner.version_class_flow.get() >> 28 != 6 {
            return Err(Outcome::Malformed);
        }
        let bits = ecn(found.ecn, inner.traffic_class()).ok_or(Outcome::Congestion)?;
        if bits != inner.traffic_class() & 3 {
            packet
                .write(offset, mark_v6(inner, bits))
                .ok_or(Outcome::Malformed)?;
        }
    }
    Ok(())
}

/// Moves the Ethernet header over the outer one and cuts off what is left in front.
#[inline(always)]
fn strip(packet: &Packet<'_>, found: &Tunnel) -> Result<(), Outcome> {
    let mut ethernet: Ethernet = packet.read(0).ok_or(Outcome::Malformed)?;
    ethernet.ether_type.set(found.inner);
    packet
        .write(found.length, ethernet)
        .ok_or(Outcome::Malformed)?;
    let length = i32::try_from(found.length).map_err(|_| Outcome::Malformed)?;
    // SAFETY: the context is the program's own; every pointer into the packet is made anew later.
    let moved = unsafe { bpf_xdp_adjust_head(packet.0.ctx, length) };
    if moved == 0 {
        Ok(())
    } else {
        Err(Outcome::Malformed)
    }
}

#[inline(always)]
fn count(outcome: Outcome) {
    if let Some(counter) = COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: the element of this CPU, and a program is not interrupted by itself.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}

/// The packet of a context.
struct Packet<'a>(&'a XdpContext);

impl Packet<'_> {
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.0.data() + offset;
        (start + size_of::<T>() <= self.0.data_end()).then_some(start as *mut T)
    }

    #[inline(always)]
    fn write<T: Unaligned>(&self, offset: usize, value: T) -> Option<()> {
        let place = self.at::<T>(offset)?;
        // SAFETY: `at` has checked the bounds, and the type has no alignment.
        unsafe { place.write(value) };
        Some(())
    }
}

impl Frame for Packet<'_> {
    #[inline(always)]
    fn read<T: FromBytes + Unaligned + Copy>(&self, offset: usize) -> Option<T> {
        let place = self.at::<T>(offset)?;
        // SAFETY: `at` has checked the bounds, the type has no alignment and any bits are valid.
        Some(unsafe { place.read() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.data_end() - self.0.data()
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
