//! Writing a packet of the short way towards its backend.

use aya_ebpf::programs::XdpContext;
use lb_common::encap;
use lb_common::slot::{Member, NextHop, VipEntry, forward_mode, next_hop_flag};
use lb_common::wire::{Ethernet, ether_type};
use zerocopy::{IntoBytes, Unaligned};

use super::Plain;
use crate::maps::NEXT_HOPS;
use crate::packet::{write, write_headers};
use crate::rewrite;

/// As an interface: the packet is as it was.
pub const NOT_SENT: u32 = u32::MAX;

/// Writes the packet towards a backend; the interface to redirect to, 0 if it came by that.
#[inline(always)]
pub fn send(ctx: &XdpContext, packet: &Plain, vip: &VipEntry, member: &Member, hash: u64) -> u32 {
    let Some(hop) = NEXT_HOPS.get(u32::from(member.next_hop)) else {
        return NOT_SENT;
    };
    let to_v4 = member.address.is_v4();
    let tunnelled = member.forward == forward_mode::IPIP;
    let overhead = if tunnelled { encap::overhead(to_v4) } else { 0 };
    let length = u32::from(packet.inner.length) + u32::from(overhead);
    let fits = length <= u32::from(hop.mtu) && (vip.mtu == 0 || length <= u32::from(vip.mtu));
    if hop.flags & next_hop_flag::RESOLVED == 0 || hop.vlan != 0 || !fits {
        return NOT_SENT;
    }
    let interface = interface(ctx, hop);
    let (inner, to) = (&packet.inner, member.address);
    let family = if tunnelled { to_v4 } else { inner.is_v4 };
    let family = if family {
        ether_type::IPV4
    } else {
        ether_type::IPV6
    };
    let ethernet = rewrite::ethernet(hop, family);
    let written = if !tunnelled {
        member.forward == forward_mode::L2 && write(ctx, 0, ethernet)
    } else if to_v4 {
        let ip = encap::outer_v4(inner, to, &rewrite::sources_v4(), hash);
        put(ctx, ethernet, ip)
    } else {
        let ip = encap::outer_v6(inner, to, &rewrite::sources_v6(), hash);
        put(ctx, ethernet, ip)
    };
    if written { interface } else { NOT_SENT }
}

/// Makes room for an outer header, and writes it and the link header.
#[inline(always)]
fn put<T: IntoBytes + Unaligned + Copy>(ctx: &XdpContext, link: Ethernet, ip: T) -> bool {
    rewrite::move_head(ctx, -(size_of::<T>() as i32)) && write_headers(ctx, link, ip)
}

#[inline(always)]
fn interface(ctx: &XdpContext, hop: &NextHop) -> u32 {
    if hop.interface == ctx.ingress_ifindex() as u32 {
        0
    } else {
        hop.interface
    }
}
