//! Health checks on their way out: a packet of this host whose mark names a backend is sent there as
//! a client's would be, by the same next hop and outer header. Everything else passes untouched.
//!
//! It reads the maps of the balancer's object, which are pinned.
#![no_std]
#![no_main]
#![allow(
    missing_docs,
    reason = "the macro drops the documentation of its function"
)]
#![allow(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::needless_pass_by_value,
    reason = "all of it is one BPF program; widths are bounded; the macro passes contexts by value"
)]

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
    BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MMAPABLE, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC,
};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_vlan_push};
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use lb_common::address::Address;
use lb_common::encap::{self, Inner, Sources};
use lb_common::gue::{self, Sum};
use lb_common::packet::Packet;
use lb_common::slot::{Member, NextHop, forward_mode, next_hop_flag};
use lb_common::wire::{
    ETHERNET_LEN, Ethernet, Frame, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, UDP_LEN, ether_type, ip_proto,
};
use lb_common::{checks, checksum};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Unaligned};

/// Members of the balancer.
#[btf_map]
static MEMBERS: Array<Member, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Next hops of the balancer.
#[btf_map]
static NEXT_HOPS: Array<NextHop, 1> = Array::new();

/// As the balancer's own.
#[unsafe(no_mangle)]
static SOURCE_V4: Global<u32> = Global::new(0);
/// As the balancer's own.
#[unsafe(no_mangle)]
static SOURCE_V4_MASK: Global<u32> = Global::new(0);
/// As the balancer's own.
#[unsafe(no_mangle)]
static SOURCE_V6: Global<[u32; 4]> = Global::new([0; 4]);
/// As the balancer's own.
#[unsafe(no_mangle)]
static SOURCE_V6_MASK: Global<u32> = Global::new(0);

/// Sends checks to their backends. A check that cannot be sent as a client's packet would be is
/// dropped: it must not reach the backend by another way.
#[classifier]
pub fn check(ctx: TcContext) -> i32 {
    // SAFETY: a field of the context, which the kernel rewrites to its own.
    let mark = unsafe { (*ctx.skb.skb).mark };
    let Some(id) = checks::member(mark) else {
        return TC_ACT_UNSPEC;
    };
    ctx.set_mark(0);
    match send(&ctx, id) {
        Some(verdict) => verdict,
        None => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn send(ctx: &TcContext, id: u32) -> Option<i32> {
    let member = MEMBERS.get(id)?;
    let hop = NEXT_HOPS.get(u32::from(member.next_hop))?;
    if member.identity == 0 || hop.flags & next_hop_flag::RESOLVED == 0 {
        return None;
    }
    let ethernet: Ethernet = ctx.load(0).ok()?;
    let packet = match ethernet.ether_type.get() {
        ether_type::IPV4 => packet_v4(ctx)?,
        ether_type::IPV6 => packet_v6(ctx)?,
        // The host's own neighbour protocol carries no mark.
        _ => return None,
    };
    let family = match member.forward {
        forward_mode::L2 => ethernet.ether_type.get(),
        forward_mode::IPIP if member.address.is_v4() => tunnel_v4(ctx, member, &packet, id)?,
        forward_mode::IPIP => tunnel_v6(ctx, member, &packet, id)?,
        forward_mode::GUE => gue(ctx, member, &packet, id)?,
        _ => return None,
    };
    let header = Ethernet {
        destination: hop.destination,
        source: hop.source,
        ether_type: U16::new(family),
    };
    ctx.store(0, &header, 0).ok()?;
    if hop.vlan != 0 {
        let tag = ether_type::VLAN.to_be();
        // SAFETY: the context is the program's own; no pointer into the packet is held.
        let pushed = unsafe { bpf_skb_vlan_push(ctx.skb.skb, tag, hop.vlan) };
        if pushed != 0 {
            return None;
        }
    }
    // SAFETY: a field of the context.
    let here = unsafe { (*ctx.skb.skb).ifindex };
    if hop.interface == here {
        return Some(TC_ACT_OK);
    }
    // SAFETY: the helper takes two numbers.
    Some(unsafe { bpf_redirect(hop.interface, 0) } as i32)
}

/// What is known of a packet that a socket of this host sends: no options, no extension headers.
#[inline(always)]
fn packet_v4(ctx: &TcContext) -> Option<Packet> {
    let ip: Ipv4 = ctx.load(ETHERNET_LEN).ok()?;
    Some(Packet {
        ip_length: ip.total_length.get(),
        is_v4: true,
        tos: ip.tos,
        dont_fragment: ip.fragment.get() & Ipv4::DONT_FRAGMENT != 0,
        id: u16::from_ne_bytes(ip.id),
        ip_offset: ETHERNET_LEN as u16,
        payload_offset: (ETHERNET_LEN + IPV4_LEN) as u16,
        ..Packet::EMPTY
    })
}

#[inline(always)]
fn packet_v6(ctx: &TcContext) -> Option<Packet> {
    let ip: Ipv6 = ctx.load(ETHERNET_LEN).ok()?;
    Some(Packet {
        ip_length: ip.payload_length.get().wrapping_add(IPV6_LEN as u16),
        tos: ip.traffic_class(),
        dont_fragment: true,
        ip_offset: ETHERNET_LEN as u16,
        payload_offset: (ETHERNET_LEN + IPV6_LEN) as u16,
        ..Packet::EMPTY
    })
}

#[inline(always)]
fn inner(packet: &Packet) -> Inner {
    Inner {
        length: packet.ip_length,
        is_v4: packet.is_v4,
        tos: packet.tos,
        dont_fragment: packet.dont_fragment,
        id: packet.id,
    }
}

#[inline(always)]
fn sources() -> Sources {
    Sources {
        v4: SOURCE_V4.load(),
        v4_mask: SOURCE_V4_MASK.load(),
        v6: SOURCE_V6.load(),
        v6_mask: SOURCE_V6_MASK.load(),
    }
}

/// Makes room behind the Ethernet header, so that segments of a large one get the header, too.
#[inline(always)]
fn room(ctx: &TcContext, bytes: usize, outer: u32) -> Option<()> {
    let flags = u64::from(outer | BPF_F_ADJ_ROOM_FIXED_GSO);
    ctx.skb
        .adjust_room(bytes as i32, BPF_ADJ_ROOM_MAC, flags)
        .ok()
}

#[inline(always)]
fn tunnel_v4(ctx: &TcContext, member: &Member, packet: &Packet, id: u32) -> Option<u16> {
    let outer: Ipv4 = encap::outer_v4(&inner(packet), member.address, &sources(), u64::from(id));
    room(ctx, IPV4_LEN, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)?;
    ctx.store(ETHERNET_LEN, &outer, 0).ok()?;
    Some(ether_type::IPV4)
}

#[inline(always)]
fn tunnel_v6(ctx: &TcContext, member: &Member, packet: &Packet, id: u32) -> Option<u16> {
    let outer: Ipv6 = encap::outer_v6(&inner(packet), member.address, &sources(), u64::from(id));
    room(ctx, IPV6_LEN, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6)?;
    ctx.store(ETHERNET_LEN, &outer, 0).ok()?;
    Some(ether_type::IPV6)
}

/// The inner checksum may be the card's to compute; the outer one follows from the headers alone.
#[inline(always)]
fn gue(ctx: &TcContext, member: &Member, packet: &Packet, id: u32) -> Option<u16> {
    let Sum::Known(sum) = gue::inner_sum(&Skb(ctx), packet) else {
        return None;
    };
    let (inner, between, id) = (inner(packet), UDP_LEN as u16, u64::from(id));
    let to = member.address;
    if to.is_v4() {
        let ip = encap::ipv4(&inner, to, &sources(), id, ip_proto::UDP, between);
        let addresses = checksum::word(u32::from_ne_bytes(ip.source))
            + checksum::word(u32::from_ne_bytes(ip.destination));
        let udp = gue::header(inner.length, sum, addresses, id);
        let flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
        room(ctx, IPV4_LEN + UDP_LEN, flags)?;
        ctx.store(ETHERNET_LEN, &ip, 0).ok()?;
        ctx.store(ETHERNET_LEN + IPV4_LEN, &udp, 0).ok()?;
        return Some(ether_type::IPV4);
    }
    let ip = encap::ipv6(&inner, to, &sources(), id, ip_proto::UDP, between);
    let (from, to) = (Address::v6(ip.source).words(), to.words());
    let mut addresses = 0;
    for word in 0..4 {
        addresses += checksum::word(from[word]) + checksum::word(to[word]);
    }
    let udp = gue::header(inner.length, sum, addresses, id);
    let flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
    room(ctx, IPV6_LEN + UDP_LEN, flags)?;
    ctx.store(ETHERNET_LEN, &ip, 0).ok()?;
    ctx.store(ETHERNET_LEN + IPV6_LEN, &udp, 0).ok()?;
    Some(ether_type::IPV6)
}

/// The packet of a context.
struct Skb<'a>(&'a TcContext);

impl Frame for Skb<'_> {
    #[inline(always)]
    fn read<T: FromBytes + Unaligned + Copy>(&self, offset: usize) -> Option<T> {
        self.0.load(offset).ok()
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }
}

/// The kernel lets GPL-compatible programs alone call most helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
