//! The short way: a TCP or UDP packet of a plain flow, with nothing about it that needs a second
//! look.
//!
//! It decides nothing otherwise than the long way ([`crate::forward`]) would. What it cannot settle
//! at a glance it leaves to that, untouched and uncounted: fragments, options, ICMP, VIPs with flags
//! or without a port, backends that are down, packets that do not fit, SYNs of a trial that nobody judges.

mod course;
mod send;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::programs::XdpContext;
use lb_common::address::Address;
use lb_common::counter::Reason;
use lb_common::encap::Inner;
use lb_common::flow::Entry;
use lb_common::hash;
use lb_common::packet::FlowKey;
use lb_common::slot::VipEntry;
use lb_common::wire::{
    ETHERNET_LEN, Ethernet, Frame, IPV6_LEN, Ipv4, Ipv6, TcpStart, ether_type, ip_proto, tcp_flags,
};

use self::course::{Now, course, now, vip};
use self::send::{NOT_SENT, send};
use crate::maps::TAG_KEY;
use crate::packet::XdpFrame;
use crate::{count, flows, rewrite, tracks, vips};

/// No verdict: the long way decides.
pub const LONG: u32 = xdp_action::XDP_ABORTED;

/// What is known of a packet.
struct Plain {
    flow: FlowKey,
    inner: Inner,
    part: Part,
}

/// What a packet is to its flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A TCP SYN.
    Begins,
    /// A TCP segment that is neither a SYN nor a reset: may pin a half-open flow.
    Segment,
    /// A reset, a datagram.
    Other,
}

/// The verdict on a packet, or [`LONG`].
///
/// A global function, so that the verifier checks it once, and the long way once behind it, not in
/// every state in which this gives up.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn short_way(ctx: *mut xdp_md) -> u32 {
    run(&XdpContext::new(ctx))
}

#[inline(always)]
fn run(ctx: &XdpContext) -> u32 {
    let frame = XdpFrame::new(ctx);
    let Some((ethernet, ip, transport)) = frame.read_headers::<Ethernet, Ipv4, TcpStart>() else {
        return LONG;
    };
    match ethernet.ether_type.get() {
        ether_type::IPV4 => v4(ctx, &frame, &ip, &transport),
        ether_type::IPV6 => v6(ctx, &frame),
        _ => LONG,
    }
}

#[inline(always)]
fn v4(ctx: &XdpContext, frame: &XdpFrame, ip: &Ipv4, transport: &TcpStart) -> u32 {
    let length = ip.total_length.get();
    let fragment = ip.fragment.get();
    let whole = fragment & (Ipv4::MORE_FRAGMENTS | Ipv4::OFFSET_MASK) == 0
        && usize::from(length) >= size_of::<Ipv4>() + size_of::<TcpStart>()
        && frame.holds(ETHERNET_LEN + usize::from(length));
    if ip.version_ihl != 0x45 || !whole {
        return LONG;
    }
    let Some(part) = part(ip.protocol, transport) else {
        return LONG;
    };
    forward(
        ctx,
        &Plain {
            flow: key(
                Address::v4(ip.source),
                Address::v4(ip.destination),
                ip.protocol,
                transport,
            ),
            inner: Inner {
                length,
                is_v4: true,
                tos: ip.tos,
                dont_fragment: fragment & Ipv4::DONT_FRAGMENT != 0,
                id: u16::from_ne_bytes(ip.id),
            },
            part,
        },
    )
}

#[inline(always)]
fn v6(ctx: &XdpContext, frame: &XdpFrame) -> u32 {
    let Some((_, ip, transport)) = frame.read_headers::<Ethernet, Ipv6, TcpStart>() else {
        return LONG;
    };
    let payload = ip.payload_length.get();
    let whole = usize::from(payload) >= size_of::<TcpStart>()
        && payload <= u16::MAX - IPV6_LEN as u16
        && frame.holds(ETHERNET_LEN + IPV6_LEN + usize::from(payload));
    if ip.version_class_flow.get() >> 28 != 6 || !whole {
        return LONG;
    }
    let Some(part) = part(ip.next_header, &transport) else {
        return LONG;
    };
    let destination = Address::v6(ip.destination);
    // An IPv4-mapped address on the wire is none of ours.
    if destination.is_v4() {
        return LONG;
    }
    forward(
        ctx,
        &Plain {
            flow: key(
                Address::v6(ip.source),
                destination,
                ip.next_header,
                &transport,
            ),
            inner: Inner {
                length: payload + IPV6_LEN as u16,
                is_v4: false,
                tos: ip.traffic_class(),
                dont_fragment: true,
                id: 0,
            },
            part,
        },
    )
}

/// What a packet is to its flow; `None` if it is neither TCP nor UDP.
#[inline(always)]
fn part(protocol: u8, transport: &TcpStart) -> Option<Part> {
    const OF_INTEREST: u8 = tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST;
    match protocol {
        ip_proto::TCP if transport.flags & OF_INTEREST == tcp_flags::SYN => Some(Part::Begins),
        ip_proto::TCP if transport.flags & tcp_flags::RST == 0 => Some(Part::Segment),
        ip_proto::TCP | ip_proto::UDP => Some(Part::Other),
        _ => None,
    }
}

#[inline(always)]
fn key(source: Address, destination: Address, protocol: u8, transport: &TcpStart) -> FlowKey {
    FlowKey {
        source,
        destination,
        source_port: u16::from_ne_bytes(transport.ports.source),
        destination_port: u16::from_ne_bytes(transport.ports.destination),
        protocol,
    }
}

#[inline(always)]
fn forward(ctx: &XdpContext, packet: &Plain) -> u32 {
    let Some(now) = now() else {
        return LONG;
    };
    let flow = &packet.flow;
    let active = now.brief.active();
    let key = TAG_KEY.load();
    let address = hash::address(key, &flow.destination);
    if !vips::may_have_hashed(active, address) {
        if now.brief.on_trial() {
            return LONG;
        }
        count::reason(active, Reason::NotVip);
        return xdp_action::XDP_PASS;
    }
    let hash = hash::flow(key, flow);
    // Asked for early: that memory is the slowest to answer.
    let Some((line, seated)) = flows::glance(hash, now.shape) else {
        return LONG;
    };
    let Some(vip) = vip(active, flow, address) else {
        return LONG;
    };
    let begins = packet.part == Part::Begins;
    let (known, pins) = if begins || seated.matches(hash) {
        (seated, false)
    } else {
        recall(&now, packet, hash)
    };
    let Some(course) = course(&now, packet, vip, hash, address, known) else {
        return LONG;
    };
    // Read before the packet is rewritten, noted when it is sure to be sent.
    let segment = if course.followed {
        segment(ctx, packet)
    } else {
        None
    };
    let interface = send(ctx, packet, course.vip, course.member, hash);
    if interface == NOT_SENT {
        return LONG;
    }
    let remembered = if pins {
        flows::insert_at(line, seated, hash, course.id, now.age, known.birth().0);
        false
    } else if !begins {
        flows::touch(hash, known, now.age);
        false
    } else if course.begun.stays_free() {
        // Free to go to control until its handshake is complete.
        flows::forget(hash);
        false
    } else {
        let birth = course.begun.birth(now.brief.change());
        flows::insert_at(line, seated, hash, course.id, now.age, birth.0)
    };
    if let Some((numbers, shape)) = segment {
        tracks::follow_segment(hash, numbers, shape, now.brief.0);
    }
    if course.begun.is_counted() {
        let whose = u64::from(course.id) << 32 | u64::from(course.counted.vip());
        tracks::begin_syn(hash, course.begun.0, whose, now.brief.0);
    }
    note(course.slot, packet, course.vip, course.id, remembered);
    if interface == 0 {
        xdp_action::XDP_TX
    } else {
        rewrite::redirect(interface)
    }
}

/// The entry of a flow that lies not at its seat; and whether it is none yet, but shall be one: that of a
/// half-open flow of the new arm.
#[inline(always)]
fn recall(now: &Now, packet: &Plain, hash: u64) -> (Entry, bool) {
    let known = flows::find(hash);
    let pins = known.is_empty() && packet.part == Part::Segment && now.brief.is_judged();
    if pins {
        let entry = tracks::entry_by_record(hash, now.brief.change(), now.age);
        (Entry(entry), true)
    } else {
        (known, false)
    }
}

/// What a packet says about its flow; `None` if it is no TCP.
#[inline(always)]
fn segment(ctx: &XdpContext, packet: &Plain) -> Option<(u64, u64)> {
    if packet.flow.protocol != ip_proto::TCP {
        return None;
    }
    let ip = if packet.inner.is_v4 {
        size_of::<Ipv4>()
    } else {
        IPV6_LEN
    };
    let tcp: TcpStart = XdpFrame::new(ctx).read(ETHERNET_LEN + ip)?;
    Some(tracks::told(&tcp, packet.inner.length, ip as u16))
}

#[inline(always)]
fn note(set: u32, packet: &Plain, vip: &VipEntry, id: u32, remembered: bool) {
    let bytes = u64::from(packet.inner.length);
    count::vip(set, vip.vip, |counters| {
        counters.packets += 1;
        counters.bytes += bytes;
        if packet.part == Part::Begins {
            counters.syns += 1;
            counters.remembered += u64::from(remembered);
        } else {
            counters.followed += 1;
        }
    });
    count::member(set, id, |counters| {
        counters.packets += 1;
        counters.bytes += bytes;
    });
    count::reason(set, Reason::Forwarded);
}
