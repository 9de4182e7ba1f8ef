//! Packets in UDP: room in front, outer headers, and the checksum of what lies in them.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use lb_common::address::Address;
use lb_common::gue::{self, Sum};
use lb_common::packet::Packet;
use lb_common::slot::{Member, NextHop};
use lb_common::wire::{UDP_LEN, Udp, ether_type, ip_proto};
use lb_common::{checksum, encap};
use zerocopy::{Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::maps::SCRATCH;
use crate::packet::XdpFrame;
use crate::rewrite::{inner, put_front, sources};

/// Bytes that are summed at a time: the most that one helper call takes on older kernels.
pub const PIECE: usize = 512;
/// Pieces of the longest packet that is summed: 9,216 bytes, which is what jumbo frames have.
const PIECES: usize = 18;

/// Outer headers.
#[derive(Clone, Copy, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Outer<T: Unaligned> {
    ip: T,
    udp: Udp,
}

/// Puts a packet into a UDP packet to its backend. False if there is no room in front of it.
#[inline(always)]
pub fn encap(ctx: &XdpContext, packet: &Packet, member: &Member, hop: &NextHop, hash: u64) -> bool {
    let sum = match gue::inner_sum(&XdpFrame::new(ctx), packet) {
        Sum::Known(sum) => sum,
        Sum::Unknown => sum_of(ctx.ctx, packet.ip_offset.into(), packet.ip_length.into()),
    };
    if member.address.is_v4() {
        encap_v4(ctx, packet, member, hop, hash, sum)
    } else {
        encap_v6(ctx, packet, member, hop, hash, sum)
    }
}

#[inline(always)]
fn encap_v4(
    ctx: &XdpContext,
    packet: &Packet,
    member: &Member,
    hop: &NextHop,
    hash: u64,
    sum: u64,
) -> bool {
    let (inner, between) = (inner(packet), UDP_LEN as u16);
    let ip = encap::ipv4(
        &inner,
        member.address,
        &sources(),
        hash,
        ip_proto::UDP,
        between,
    );
    let addresses = checksum::word(u32::from_ne_bytes(ip.source))
        + checksum::word(u32::from_ne_bytes(ip.destination));
    let udp = gue::header(inner.length, sum, addresses, hash);
    put_front(ctx, packet, hop, ether_type::IPV4, Outer { ip, udp })
}

#[inline(always)]
fn encap_v6(
    ctx: &XdpContext,
    packet: &Packet,
    member: &Member,
    hop: &NextHop,
    hash: u64,
    sum: u64,
) -> bool {
    let (inner, between) = (inner(packet), UDP_LEN as u16);
    let ip = encap::ipv6(
        &inner,
        member.address,
        &sources(),
        hash,
        ip_proto::UDP,
        between,
    );
    let (from, to) = (Address::v6(ip.source).words(), member.address.words());
    let mut addresses = checksum::word(from[0]) + checksum::word(from[1]);
    addresses += checksum::word(from[2]) + checksum::word(from[3]);
    addresses += checksum::word(to[0]) + checksum::word(to[1]);
    addresses += checksum::word(to[2]) + checksum::word(to[3]);
    let udp = gue::header(inner.length, sum, addresses, hash);
    put_front(ctx, packet, hop, ether_type::IPV6, Outer { ip, udp })
}

/// Sum over `length` bytes from `offset`, wherever they lie; [`gue::NO_SUM`] if they are too many.
///
/// A global function, so that the verifier checks it once. Datagrams without a checksum come here,
/// and packets with IPv6 extension headers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sum_of(ctx: *mut xdp_md, offset: u32, length: u32) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return gue::NO_SUM;
    };
    if length > (PIECES * PIECE) as u32 {
        return gue::NO_SUM;
    }
    let mut sum = 0;
    for piece in 0..PIECES as u32 {
        let done = piece * PIECE as u32;
        let left = length.saturating_sub(done);
        // Read anew, so that the compiler does not leave out the check that the verifier asks for; one less
        // and made one more, since older verifiers do not conclude from "not 0" that it is 1 at least.
        let less = left.wrapping_sub(1);
        // SAFETY: a local.
        let less = unsafe { (&raw const less).read_volatile() };
        if less == u32::MAX {
            break;
        }
        let part = if less < PIECE as u32 - 1 {
            // What lies behind the packet is no part of it.
            for word in 0..PIECE / 8 {
                // SAFETY: within this CPU's copy of a map element of PIECE bytes.
                unsafe { scratch.cast::<u64>().add(word).write_volatile(0) };
            }
            less + 1
        } else {
            PIECE as u32
        };
        // SAFETY: PIECE bytes of a map element, and not more of the packet than fit.
        let loaded = unsafe { bpf_xdp_load_bytes(ctx, offset + done, scratch.cast(), part) };
        if loaded != 0 {
            return gue::NO_SUM;
        }
        // SAFETY: PIECE bytes of a map element.
        sum = unsafe {
            bpf_csum_diff(
                core::ptr::null_mut(),
                0,
                scratch.cast(),
                PIECE as u32,
                sum as u32,
            )
        };
    }
    sum as u64 & 0xffff_ffff
}
