//! The short way: a TCP or UDP packet of a plain flow, with nothing about it that needs a second
//! look.
//!
//! It decides nothing otherwise than the long way ([`crate::forward`]) would. What it cannot settle
//! at a glance it leaves to that, untouched and uncounted: fragments, options, ICMP, VIPs with flags
//! or without a port, SYNs of a trial, backends that are down, packets that do not fit.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::programs::XdpContext;
use lb_common::address::Address;
use lb_common::control::Brief;
use lb_common::counter::Reason;
use lb_common::encap::{self, Inner};
use lb_common::flow::Birth;
use lb_common::flow_table::Shape;
use lb_common::hash;
use lb_common::packet::FlowKey;
use lb_common::slot::{Member, NextHop, VipEntry, forward_mode, member_state, next_hop_flag};
use lb_common::wire::{
    ETHERNET_LEN, Ethernet, Frame, IPV6_LEN, Ipv4, Ipv6, TcpStart, ether_type, ip_proto, tcp_flags,
};
use zerocopy::{IntoBytes, Unaligned};

use crate::control::jiffies;
use crate::maps::{CONTROL, FLEET_KEY, MEMBERS, NEXT_HOPS, TAG_KEY};
use crate::packet::{XdpFrame, write, write_headers};
use crate::tracks::{self, Decided};
use crate::{backends, count, flows, maps, rewrite, vips};

/// No verdict: the long way decides.
pub const LONG: u32 = xdp_action::XDP_ABORTED;

/// What is known of a packet.
struct Plain {
    flow: FlowKey,
    inner: Inner,
    /// A TCP SYN: begins a flow.
    begins: bool,
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
    let Some(begins) = begins(ip.protocol, transport) else {
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
            begins,
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
    let Some(begins) = begins(ip.next_header, &transport) else {
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
            begins,
        },
    )
}

/// Whether a packet begins a flow; `None` if it is neither TCP nor UDP.
#[inline(always)]
fn begins(protocol: u8, transport: &TcpStart) -> Option<bool> {
    const OF_INTEREST: u8 = tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST;
    match protocol {
        ip_proto::TCP => Some(transport.flags & OF_INTEREST == tcp_flags::SYN),
        ip_proto::UDP => Some(false),
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

/// The committed state of this moment, as far as it takes no clock to know.
#[derive(Clone, Copy)]
struct Now {
    brief: Brief,
    shape: Shape,
    age: u32,
}

#[inline(always)]
fn now() -> Option<Now> {
    let control = CONTROL.get_ptr(0)?;
    // SAFETY: the element lives as long as the program; each field is one aligned word, read once.
    let (stale_after, now) = unsafe {
        (
            (&raw const (*control).stale_after).read_volatile(),
            Now {
                brief: Brief((&raw const (*control).brief).read_volatile()),
                shape: Shape((&raw const (*control).shape).read_volatile()),
                age: (&raw const (*control).age).read_volatile(),
            },
        )
    };
    (now.brief.is_started() && jiffies() <= stale_after).then_some(now)
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
    let Some((line, mut known)) = flows::glance(hash, now.shape) else {
        return LONG;
    };
    let Some(mut vip) = vip(active, flow, address) else {
        return LONG;
    };
    let (mut slot, mut decided) = (active, Decided(0));
    let id = if packet.begins {
        if now.brief.examines(hash) {
            return LONG;
        }
        let place = hash::flow(FLEET_KEY.load(), flow);
        backends::try_places(place, vip.table_start, vip.table_size, vip.member_base)
    } else {
        if !known.matches(hash) {
            known = flows::find(hash);
        }
        if !now.brief.settles(known.birth()) {
            decided = Decided(tracks::decided(known.birth().0, active));
            let Some(decides) = decided.slot() else {
                return LONG;
            };
            if decides != active {
                let Some(there) = self::vip(decides, flow, address) else {
                    return LONG;
                };
                (slot, vip) = (decides, there);
            }
        }
        known.member()
    };
    let Some(member) = MEMBERS.get(id) else {
        return LONG;
    };
    if id == 0 || !takes(member, slot, vip) {
        return LONG;
    }
    // Read before the packet is rewritten, noted when it is sure to be sent.
    let segment = if decided.is_followed() {
        segment(ctx, packet)
    } else {
        None
    };
    let interface = send(ctx, packet, vip, member, hash);
    if interface == NOT_SENT {
        return LONG;
    }
    let remembered = if packet.begins {
        flows::insert_at(line, known, hash, id, now.age, Birth::SETTLED.0)
    } else {
        flows::touch(hash, known, now.age);
        false
    };
    if let Some((numbers, shape)) = segment {
        tracks::follow_segment(hash, numbers, shape, decided.0);
    }
    note(slot, packet, vip, id, remembered);
    if interface == 0 {
        xdp_action::XDP_TX
    } else {
        rewrite::redirect(interface)
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

/// The VIP of a flow, if it is where it is looked for first and has no flags; `address` is the hash of
/// the flow's destination.
#[inline(always)]
fn vip(slot: u32, flow: &FlowKey, address: u64) -> Option<&'static VipEntry> {
    let place = hash::of_port(address, flow.destination_port, flow.protocol);
    let entry = maps::vip(slot, place as u32)?;
    let same = entry.is_plain_vip(&flow.destination, flow.destination_port, flow.protocol);
    same.then_some(entry)
}

/// Whether a backend is in that VIP's pool in the slot that decides, and up.
#[inline(always)]
fn takes(member: &Member, slot: u32, vip: &VipEntry) -> bool {
    u32::from(member.slots) & (1 << slot) != 0
        && member.pool == vip.pool
        && member.state != member_state::DOWN
}

/// As an interface: the packet is as it was.
const NOT_SENT: u32 = u32::MAX;

/// Writes the packet towards a backend; the interface to redirect to, 0 if it came by that.
#[inline(always)]
fn send(ctx: &XdpContext, packet: &Plain, vip: &VipEntry, member: &Member, hash: u64) -> u32 {
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

#[inline(always)]
fn note(set: u32, packet: &Plain, vip: &VipEntry, id: u32, remembered: bool) {
    let bytes = u64::from(packet.inner.length);
    count::vip(set, vip.vip, |counters| {
        counters.packets += 1;
        counters.bytes += bytes;
        if packet.begins {
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
