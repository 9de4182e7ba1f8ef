//! ICMP that we send ourselves: echo replies, "fragmentation needed", "packet too big".

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use lb_common::checksum;
use lb_common::counter::Reason;
use lb_common::encap::TTL;
use lb_common::packet::{Packet, Role};
use lb_common::wire::{
    ETHERNET_LEN, Ethernet, Frame, ICMP_LEN, IPV4_LEN, IPV6_LEN, Icmp, Ipv4, Ipv6, VLAN_TAG_LEN,
    VlanTag, icmp_type, icmpv6_type, ip_proto,
};
use zerocopy::network_endian::{U16, U32};

use crate::control;
use crate::maps::ALLOWANCES;
use crate::packet::{self, XdpFrame, write};
use crate::rewrite::move_head;

/// Answers a CPU may give at once.
const BURST: u64 = 200;
/// Nanoseconds after which a CPU may give one more: 1,000 a second.
const REFILL_NS: u64 = 1_000_000;
/// Bytes of the packet that is quoted. With the ICMP header 512: the most that one checksum
/// helper call takes on older kernels, and below what RFC 1812 (576) and RFC 4443 (1280) allow.
const QUOTE: usize = 504;
/// Bytes that a checksum is computed over.
const SUMMED: usize = ICMP_LEN + QUOTE;

/// A token bucket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Allowance {
    /// Boot-clock ns up to which tokens are spent.
    spent_ns: u64,
}

/// Takes one answer from this CPU's allowance.
#[inline(always)]
fn allowed() -> bool {
    let Some(allowance) = ALLOWANCES.get_ptr_mut(0) else {
        return false;
    };
    let now = control::now();
    // SAFETY: this CPU's copy of a map element.
    let spent = unsafe { &mut (*allowance).spent_ns };
    let full = now.saturating_sub(BURST * REFILL_NS);
    let start = if *spent < full { full } else { *spent };
    if start > now {
        return false;
    }
    *spent = start + REFILL_NS;
    true
}

/// Answers an echo request in place.
#[inline(never)]
pub fn reply(ctx: &XdpContext, echo: &Packet) -> Reason {
    if !allowed() {
        return Reason::EchoLimited;
    }
    let replied = if echo.is_v4 {
        reply_v4(ctx, echo)
    } else {
        reply_v6(ctx, echo)
    };
    if replied {
        Reason::EchoReply
    } else {
        Reason::Broken
    }
}

/// Sends a frame back to where it came from.
#[inline(always)]
pub fn turn_ethernet(ctx: &XdpContext) -> bool {
    let Some(ethernet) = XdpFrame::new(ctx).read::<Ethernet>(0) else {
        return false;
    };
    write(
        ctx,
        0,
        Ethernet {
            destination: ethernet.source,
            source: ethernet.destination,
            ether_type: ethernet.ether_type,
        },
    )
}

#[inline(always)]
fn turn_icmp(ctx: &XdpContext, offset: usize, kind: u8) -> bool {
    let Some(icmp) = XdpFrame::new(ctx).read::<Icmp>(offset) else {
        return false;
    };
    let old = u16::from_ne_bytes([icmp.kind, icmp.code]);
    let new = u16::from_ne_bytes([kind, icmp.code]);
    let sum = checksum::update(u16::from_ne_bytes(icmp.checksum), old, new);
    write(
        ctx,
        offset,
        Icmp {
            kind,
            checksum: sum.to_ne_bytes(),
            ..icmp
        },
    )
}

#[inline(always)]
fn reply_v4(ctx: &XdpContext, echo: &Packet) -> bool {
    let offset = usize::from(echo.ip_offset);
    let Some(ip) = XdpFrame::new(ctx).read::<Ipv4>(offset) else {
        return false;
    };
    let old = u16::from_ne_bytes([ip.ttl, ip.protocol]);
    let new = u16::from_ne_bytes([TTL, ip.protocol]);
    let sum = checksum::update(u16::from_ne_bytes(ip.checksum), old, new);
    let turned = Ipv4 {
        source: ip.destination,
        destination: ip.source,
        ttl: TTL,
        checksum: sum.to_ne_bytes(),
        ..ip
    };
    write(ctx, offset, turned)
        && turn_icmp(ctx, usize::from(echo.payload_offset), icmp_type::ECHO_REPLY)
        && turn_ethernet(ctx)
}

#[inline(always)]
fn reply_v6(ctx: &XdpContext, echo: &Packet) -> bool {
    let offset = usize::from(echo.ip_offset);
    let Some(ip) = XdpFrame::new(ctx).read::<Ipv6>(offset) else {
        return false;
    };
    let turned = Ipv6 {
        source: ip.destination,
        destination: ip.source,
        hop_limit: TTL,
        ..ip
    };
    write(ctx, offset, turned)
        && turn_icmp(
            ctx,
            usize::from(echo.payload_offset),
            icmpv6_type::ECHO_REPLY,
        )
        && turn_ethernet(ctx)
}

/// Answers a packet that does not fit: `mtu` bytes of IP packet would.
#[inline(never)]
pub fn too_big(ctx: &XdpContext, packet: &Packet, mtu: u16) -> Reason {
    if packet.role == Role::Error {
        return Reason::TooBigError;
    }
    if !allowed() {
        return Reason::TooBigLimited;
    }
    let answered = if packet.is_v4 {
        too_big_v4(ctx, packet, mtu)
    } else {
        too_big_v6(ctx, packet, mtu)
    };
    if answered {
        Reason::TooBig
    } else {
        Reason::Broken
    }
}

/// A link header to answer with: addresses turned, VLAN tags as they came.
struct Link {
    ethernet: Ethernet,
    tags: [VlanTag; 2],
    length: usize,
}

impl Link {
    /// The link header of a packet.
    #[inline(always)]
    fn read(ctx: &XdpContext, packet: &Packet) -> Option<Self> {
        let frame = XdpFrame::new(ctx);
        let ethernet: Ethernet = frame.read(0)?;
        let turned = Ethernet {
            destination: ethernet.source,
            source: ethernet.destination,
            ether_type: ethernet.ether_type,
        };
        Some(Self {
            ethernet: turned,
            // Without tags these are the start of the IP packet, which is as long.
            tags: frame.read(ETHERNET_LEN)?,
            length: usize::from(packet.ip_offset),
        })
    }

    /// Writes it to the start of the frame.
    #[inline(always)]
    fn write(&self, ctx: &XdpContext) -> bool {
        let [first, second] = self.tags;
        write(ctx, 0, self.ethernet)
            && (self.length == ETHERNET_LEN || write(ctx, ETHERNET_LEN, first))
            && (self.length != ETHERNET_LEN + 2 * VLAN_TAG_LEN
                || write(ctx, ETHERNET_LEN + VLAN_TAG_LEN, second))
    }
}

/// Cuts the frame to the quote and makes `room` bytes in front. Returns the link header.
#[inline(always)]
fn make_room(ctx: &XdpContext, packet: &Packet, room: usize) -> Option<Link> {
    let link = Link::read(ctx, packet)?;
    let surplus = XdpFrame::new(ctx)
        .length()
        .checked_sub(link.length + QUOTE)?;
    // SAFETY: the context is the program's own; pointers are made anew after this.
    let cut = unsafe { bpf_xdp_adjust_tail(ctx.ctx, -(surplus as i32)) };
    (cut == 0 && move_head(ctx, -(room as i32))).then_some(link)
}

/// One's complement sum of the ICMP message at `offset`, on top of `seed`.
#[inline(always)]
fn sum(ctx: &XdpContext, offset: usize, seed: u32) -> Option<u64> {
    let start = packet::start(ctx) + packet::bounded(offset)?;
    if start + SUMMED > packet::end(ctx) {
        return None;
    }
    // SAFETY: SUMMED bytes from `start` lie before the end of the packet.
    let sum = unsafe {
        bpf_csum_diff(
            core::ptr::null_mut(),
            0,
            start as *mut u32,
            SUMMED as u32,
            seed,
        )
    };
    u64::try_from(sum).ok()
}

#[inline(always)]
fn put_checksum(ctx: &XdpContext, offset: usize, icmp: Icmp, seed: u32) -> bool {
    if !write(ctx, offset, icmp) {
        return false;
    }
    let Some(sum) = sum(ctx, offset, seed) else {
        return false;
    };
    write(
        ctx,
        offset,
        Icmp {
            checksum: checksum::fold(sum).to_ne_bytes(),
            ..icmp
        },
    )
}

#[inline(always)]
fn too_big_v4(ctx: &XdpContext, packet: &Packet, mtu: u16) -> bool {
    let Some(link) = make_room(ctx, packet, IPV4_LEN + ICMP_LEN) else {
        return false;
    };
    let length = (IPV4_LEN + SUMMED) as u16;
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        tos: 0,
        total_length: U16::new(length),
        id: [0; 2],
        fragment: U16::new(Ipv4::DONT_FRAGMENT),
        ttl: TTL,
        protocol: ip_proto::ICMP,
        checksum: [0; 2],
        source: packet.flow.destination.v4_bytes(),
        destination: packet.flow.source.v4_bytes(),
    };
    let header = u64::from(u16::from_be_bytes([0x45, 0]))
        + u64::from(length)
        + u64::from(Ipv4::DONT_FRAGMENT)
        + u64::from(u16::from_be_bytes([TTL, ip_proto::ICMP]))
        + u64::from(packet.flow.destination.words()[3].to_be())
        + u64::from(packet.flow.source.words()[3].to_be());
    // Summed in host order, hence the one conversion back.
    ip.checksum = checksum::fold(header).to_be_bytes();
    let [high, low] = mtu.to_be_bytes();
    let icmp = Icmp {
        kind: icmp_type::UNREACHABLE,
        code: icmp_type::FRAGMENTATION_NEEDED,
        checksum: [0; 2],
        rest: [0, 0, high, low],
    };
    link.write(ctx)
        && write(ctx, link.length, ip)
        && put_checksum(ctx, link.length + IPV4_LEN, icmp, 0)
}

#[inline(always)]
fn too_big_v6(ctx: &XdpContext, packet: &Packet, mtu: u16) -> bool {
    let Some(link) = make_room(ctx, packet, IPV6_LEN + ICMP_LEN) else {
        return false;
    };
    let (from, to) = (packet.flow.destination, packet.flow.source);
    let ip = Ipv6 {
        version_class_flow: U32::new(0x6000_0000),
        payload_length: U16::new(SUMMED as u16),
        next_header: ip_proto::ICMPV6,
        hop_limit: TTL,
        source: from.v6_bytes(),
        destination: to.v6_bytes(),
    };
    let [_, _, high, low] = u32::from(mtu).to_be_bytes();
    let icmp = Icmp {
        kind: icmpv6_type::PACKET_TOO_BIG,
        code: 0,
        checksum: [0; 2],
        rest: [0, 0, high, low],
    };
    // The pseudo-header (RFC 8200, 8.1): addresses, length, next header.
    let mut pseudo = checksum::quad(0, 0, (SUMMED >> 8) as u8, SUMMED as u8)
        + checksum::quad(0, 0, 0, ip_proto::ICMPV6);
    let (a, b) = (from.words(), to.words());
    pseudo += checksum::word(a[0]) + checksum::word(a[1]) + checksum::word(a[2]);
    pseudo += checksum::word(a[3]) + checksum::word(b[0]) + checksum::word(b[1]);
    pseudo += checksum::word(b[2]) + checksum::word(b[3]);
    let seed = u32::from(!checksum::fold(pseudo));
    link.write(ctx)
        && write(ctx, link.length, ip)
        && put_checksum(ctx, link.length + IPV6_LEN, icmp, seed)
}
