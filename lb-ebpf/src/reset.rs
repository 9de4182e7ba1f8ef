//! Resets that we send to clients whose backend is down, in the backend's place (RFC 9293, 3.10.7).

use aya_ebpf::helpers::generated::bpf_xdp_adjust_tail;
use aya_ebpf::programs::XdpContext;
use lb_common::counter::Reason;
use lb_common::packet::Packet;
use lb_common::reset;
use lb_common::wire::{Frame, IPV4_LEN, IPV6_LEN, TCP_LEN, TcpStart};

use crate::icmp::turn_ethernet;
use crate::packet::{XdpFrame, write};

/// No link header is longer; a bound that the verifier sees.
const MOST_LINK: usize = 31;

/// Answers a segment with a reset.
#[inline(never)]
pub fn reply(ctx: &XdpContext, packet: &Packet) -> Reason {
    match turn(ctx, packet) {
        Some(()) => Reason::FlowReset,
        None => Reason::Broken,
    }
}

#[inline(always)]
fn turn(ctx: &XdpContext, packet: &Packet) -> Option<()> {
    // The link header stays as it is, VLAN tags and all.
    let link = usize::from(packet.ip_offset) & MOST_LINK;
    let header = if packet.is_v4 { IPV4_LEN } else { IPV6_LEN };
    let length = link + header + TCP_LEN;
    let segment: TcpStart = XdpFrame::new(ctx).read(packet.payload_offset.into())?;
    let tcp = reset::tcp(packet, &segment);
    // A frame with a TCP header is never shorter than the answer.
    let surplus = XdpFrame::new(ctx).length().checked_sub(length)?;
    // SAFETY: the context is the program's own; pointers are made anew after this.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, -(surplus as i32)) } != 0 {
        return None;
    }
    let written = write(ctx, link + header, tcp)
        && if packet.is_v4 {
            write(ctx, link, reset::ipv4(packet))
        } else {
            write(ctx, link, reset::ipv6(packet))
        }
        && turn_ethernet(ctx);
    written.then_some(())
}
