//! Sending a packet on: next hop, MTU, outer header, MAC addresses.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_xdp_adjust_head};
use aya_ebpf::programs::XdpContext;
use lb_common::address::Address;
use lb_common::counter::Reason;
use lb_common::encap::{self, Inner, Sources};
use lb_common::packet::{Packet, Role};
use lb_common::slot::{Member, NextHop, VipEntry, forward_mode, next_hop_flag};
use lb_common::wire::{
    ETHERNET_LEN, Ethernet, Frame, Ipv4, Ipv6, UDP_LEN, VLAN_TAG_LEN, VlanTag, ether_type,
};
use zerocopy::network_endian::U16;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::gue;
use crate::icmp;
use crate::maps::{
    MEMBERS, NEXT_HOPS, PACKETS, SOURCE_V4, SOURCE_V4_MASK, SOURCE_V6, SOURCE_V6_MASK,
};
use crate::packet::{XdpFrame, write_headers};

/// What became of a packet that was to be sent on.
pub struct Sent {
    /// Forwarded, answered or dropped, and why.
    pub reason: Reason,
    /// Interface to redirect to; 0 = back by the one it came from. Of a packet that is too big, meanwhile, the
    /// MTU to tell.
    pub interface: u32,
    /// Whether it would not have fitted.
    pub too_big: bool,
}

/// Whether a packet is addressed to what tunnelled packets come from.
#[inline(always)]
pub fn is_outer_source(ctx: &XdpContext, packet: &Packet) -> bool {
    let frame = XdpFrame::new(ctx);
    if packet.is_v4 {
        let Some(ip) = frame.read::<Ipv4>(packet.ip_offset.into()) else {
            return false;
        };
        let differs = u32::from_ne_bytes(ip.destination) ^ SOURCE_V4.load();
        return SOURCE_V4.load() != 0 && differs & !SOURCE_V4_MASK.load() == 0;
    }
    let Some(ip) = frame.read::<Ipv6>(packet.ip_offset.into()) else {
        return false;
    };
    let to = Address::v6(ip.destination).words();
    let source = SOURCE_V6.load();
    let fixed = (to[0] ^ source[0]) | (to[1] ^ source[1]) | (to[2] ^ source[2]);
    let last = (to[3] ^ source[3]) & !SOURCE_V6_MASK.load();
    source != [0; 4] && fixed | last == 0
}

impl Sent {
    const INTERFACE_SHIFT: u32 = 32;
    const TOO_BIG: u64 = 1 << 16;

    const fn word(&self) -> u64 {
        let too_big = if self.too_big { Self::TOO_BIG } else { 0 };
        (self.interface as u64) << Self::INTERFACE_SHIFT | too_big | self.reason as u64
    }

    #[inline(always)]
    fn of_word(word: u64) -> Self {
        Self {
            reason: Reason::from_code(word as u16).unwrap_or(Reason::Broken),
            interface: (word >> Self::INTERFACE_SHIFT) as u32,
            too_big: word & Self::TOO_BIG != 0,
        }
    }
}

/// Sends the packet at hand to the backend that was chosen, or answers that it is too big. `probed` says
/// which packet is at hand.
#[inline(always)]
pub fn send(
    ctx: &XdpContext,
    packet: &Packet,
    vip: &VipEntry,
    (member, hash): (u32, u64),
    probed: bool,
) -> Sent {
    let mtu = u32::from(vip.mtu);
    let sent = Sent::of_word(send_on(ctx.ctx, member, mtu, hash, u32::from(probed)));
    if !sent.too_big {
        return sent;
    }
    // Here and not below, since the stacks of functions that call one another share 512 bytes.
    Sent {
        reason: icmp::too_big(ctx, packet, sent.interface as u16),
        interface: 0,
        too_big: true,
    }
}

/// [`send`], as a global function, so that the verifier checks it once and not for each way in which a
/// backend may have been chosen; see [`Sent::word`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn send_on(ctx: *mut xdp_md, member: u32, mtu: u32, hash: u64, probed: u32) -> u64 {
    let ctx = &XdpContext::new(ctx);
    let (Some(packet), Some(member)) = (PACKETS.get_ptr(probed), MEMBERS.get(member)) else {
        return Reason::NoBackend as u64;
    };
    // SAFETY: this CPU's copy of a map element, which nobody writes meanwhile.
    write_to(ctx, unsafe { &*packet }, mtu as u16, member, hash).word()
}

#[inline(always)]
fn write_to(ctx: &XdpContext, packet: &Packet, vip_mtu: u16, member: &Member, hash: u64) -> Sent {
    let failed = |reason| Sent {
        reason,
        interface: 0,
        too_big: false,
    };
    let Some(hop) = NEXT_HOPS.get(u32::from(member.next_hop)) else {
        return failed(Reason::NoNextHop);
    };
    if hop.flags & next_hop_flag::RESOLVED == 0 {
        return failed(Reason::NoNextHop);
    }
    let to_v4 = member.address.is_v4();
    let overhead = match member.forward {
        forward_mode::IPIP => encap::overhead(to_v4),
        forward_mode::GUE => encap::overhead(to_v4) + UDP_LEN as u16,
        _ => 0,
    };
    let mtu = if vip_mtu != 0 && vip_mtu < hop.mtu {
        vip_mtu
    } else {
        hop.mtu
    };
    if u32::from(packet.ip_length) + u32::from(overhead) > u32::from(mtu) {
        return Sent {
            interface: u32::from(mtu.saturating_sub(overhead)),
            too_big: true,
            ..failed(Reason::NoNextHop)
        };
    }
    let written = match (member.forward, to_v4) {
        (forward_mode::IPIP, true) => encap_v4(ctx, packet, member, hop, hash),
        (forward_mode::IPIP, false) => encap_v6(ctx, packet, member, hop, hash),
        (forward_mode::GUE, _) => gue::encap(ctx, packet, member, hop, hash),
        _ => {
            let family = if packet.is_v4 {
                ether_type::IPV4
            } else {
                ether_type::IPV6
            };
            put_front(ctx, packet, hop, family, [0_u8; 0])
        }
    };
    if !written {
        return failed(Reason::NoHeadroom);
    }
    let reason = match packet.role {
        Role::Error => Reason::IcmpError,
        _ => Reason::Forwarded,
    };
    let came_by = ctx.ingress_ifindex() as u32;
    let interface = if hop.interface == came_by {
        0
    } else {
        hop.interface
    };
    Sent {
        reason,
        interface,
        too_big: false,
    }
}

/// The XDP verdict that sends the packet out by another interface.
#[inline(always)]
pub fn redirect(interface: u32) -> u32 {
    // SAFETY: the helper takes two numbers.
    unsafe { bpf_redirect(interface, 0) as u32 }
}

/// The Ethernet header of a frame to a next hop.
#[inline(always)]
pub fn ethernet(hop: &NextHop, ether_type: u16) -> Ethernet {
    Ethernet {
        destination: hop.destination,
        source: hop.source,
        ether_type: U16::new(ether_type),
    }
}

/// What an outer header needs to know of a packet.
#[inline(always)]
pub fn inner(packet: &Packet) -> Inner {
    Inner {
        length: packet.ip_length,
        is_v4: packet.is_v4,
        tos: packet.tos,
        dont_fragment: packet.dont_fragment,
        id: packet.id,
    }
}

/// Outer sources, as loaded.
#[inline(always)]
pub fn sources() -> Sources {
    let (v4, v6) = (sources_v4(), sources_v6());
    Sources {
        v4: v4.v4,
        v4_mask: v4.v4_mask,
        ..v6
    }
}

/// [`sources`] of an IPv4 tunnel.
#[inline(always)]
pub fn sources_v4() -> Sources {
    Sources {
        v4: SOURCE_V4.load(),
        v4_mask: SOURCE_V4_MASK.load(),
        v6: [0; 4],
        v6_mask: 0,
    }
}

/// [`sources`] of an IPv6 tunnel.
#[inline(always)]
pub fn sources_v6() -> Sources {
    Sources {
        v4: 0,
        v4_mask: 0,
        v6: SOURCE_V6.load(),
        v6_mask: SOURCE_V6_MASK.load(),
    }
}

/// Puts link header and outer header in the place of the frame's own link header, however long that was.
#[inline(always)]
pub fn put_front<T: IntoBytes + Unaligned + Copy>(
    ctx: &XdpContext,
    packet: &Packet,
    hop: &NextHop,
    ether_type: u16,
    outer: T,
) -> bool {
    let tagged = hop.vlan != 0;
    let link = if tagged {
        ETHERNET_LEN + VLAN_TAG_LEN
    } else {
        ETHERNET_LEN
    };
    let bytes = i32::from(packet.ip_offset) - (link + size_of::<T>()) as i32;
    if bytes != 0 && !move_head(ctx, bytes) {
        return false;
    }
    // At offsets that are constants: older verifiers do not follow one that lies on the stack meanwhile.
    if tagged {
        let tag = VlanTag {
            control: U16::new(hop.vlan),
            ether_type: U16::new(ether_type),
        };
        write_headers(ctx, Tagged(ethernet(hop, ether_type::VLAN), tag), outer)
    } else {
        write_headers(ctx, ethernet(hop, ether_type), outer)
    }
}

/// The link header of a tagged frame.
#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Tagged(Ethernet, VlanTag);

/// Moves the start of the packet by `bytes`, negative = room in front.
#[inline(always)]
pub fn move_head(ctx: &XdpContext, bytes: i32) -> bool {
    // SAFETY: the context is the program's own; pointers into the packet are made anew after this.
    unsafe { bpf_xdp_adjust_head(ctx.ctx, bytes) == 0 }
}

#[inline(always)]
fn encap_v4(ctx: &XdpContext, packet: &Packet, member: &Member, hop: &NextHop, hash: u64) -> bool {
    let ip: Ipv4 = encap::outer_v4(&inner(packet), member.address, &sources_v4(), hash);
    put_front(ctx, packet, hop, ether_type::IPV4, ip)
}

#[inline(always)]
fn encap_v6(ctx: &XdpContext, packet: &Packet, member: &Member, hop: &NextHop, hash: u64) -> bool {
    let ip: Ipv6 = encap::outer_v6(&inner(packet), member.address, &sources_v6(), hash);
    put_front(ctx, packet, hop, ether_type::IPV6, ip)
}
