//! The packets that the balancer should send, built by etherparse.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]
#![allow(
    clippy::missing_panics_doc,
    reason = "a test that cannot build its packet has to stop"
)]

use std::net::IpAddr;

use etherparse::{Ipv4Header, Ipv6Header};
use lb_common::address::Address;
use lb_common::hash;
use lb_common::packet::FlowKey;
use lb_common::slot::Node;

use crate::bench::{HOP, OWN};
use crate::packets::{Ip, Talk, framed, inner, ip, udp_datagram};

/// The key of a client's flow; `protocol` is 6 or 17.
pub fn key(talk: Talk, protocol: u8) -> FlowKey {
    FlowKey {
        source: Address::from(talk.from.ip()),
        destination: Address::from(talk.to.ip()),
        source_port: talk.from.port().to_be(),
        destination_port: talk.to.port().to_be(),
        protocol,
    }
}

/// Sent on by MAC address alone: the IP packet, and what lies behind it, are as they were.
pub fn l2(frame: &[u8]) -> Vec<u8> {
    framed(inner(frame), OWN, HOP)
}

/// Sent on in a tunnel to `backend`; `flow` is the flow that the packet belongs to.
pub fn ipip(node: &Node, frame: &[u8], flow: &FlowKey, backend: IpAddr) -> Vec<u8> {
    let packet = inner(frame);
    let (header, length, protocol) = like(packet);
    let (source, outer) = outer_of(node, flow, backend, header);
    let tunnelled = ip(&outer, source, backend, protocol, &packet[..length]);
    // What lies behind the packet (Ethernet pads) stays behind it.
    framed(&[&tunnelled[..], &packet[length..]].concat(), OWN, HOP)
}

/// Outer source and header.
fn outer_of(node: &Node, flow: &FlowKey, backend: IpAddr, header: Ip) -> (IpAddr, Ip) {
    let entropy = hash::flow(node.tag_key, flow);
    let low = u32::try_from(entropy & 0xffff_ffff).unwrap();
    let source = match backend {
        IpAddr::V4(_) => {
            let source = node.source_v4 ^ (low & node.source_v4_mask);
            IpAddr::from(source.to_ne_bytes())
        }
        IpAddr::V6(_) => {
            let [a, b, c, d] = node.source_v6;
            let source = Address::from_words([a, b, c, d ^ (low & node.source_v6_mask)]);
            IpAddr::from(source.v6_bytes())
        }
    };
    let flow_label = u32::try_from(entropy >> 32).unwrap() & 0xf_ffff;
    let outer = Ip {
        flow_label,
        ..header
    };
    (source, outer)
}

/// Sent on in UDP to `backend`, as [`ipip`].
pub fn gue(node: &Node, frame: &[u8], flow: &FlowKey, backend: IpAddr) -> Vec<u8> {
    let packet = inner(frame);
    let (header, length, _) = like(packet);
    let (source, outer) = outer_of(node, flow, backend, header);
    let port = 0xc000 | u16::try_from(hash::flow(node.tag_key, flow) >> 16 & 0x3fff).unwrap();
    let talk = Talk {
        from: (source, port).into(),
        to: (backend, 6080).into(),
    };
    let datagram = udp_datagram(talk, &packet[..length]);
    let tunnelled = ip(&outer, source, backend, 17, &datagram);
    framed(&[&tunnelled[..], &packet[length..]].concat(), OWN, HOP)
}

/// Outer header, length and protocol number of an inner packet.
fn like(packet: &[u8]) -> (Ip, usize, u8) {
    let outer = Ip {
        ttl: 64,
        ..Ip::default()
    };
    if packet[0] >> 4 == 4 {
        let (header, _) = Ipv4Header::from_slice(packet).unwrap();
        let outer = Ip {
            tos: header.dscp.value() << 2 | header.ecn.value(),
            dont_fragment: header.dont_fragment,
            id: if header.dont_fragment {
                0
            } else {
                header.identification
            },
            ..outer
        };
        (outer, usize::from(header.total_len), 4)
    } else {
        let (header, _) = Ipv6Header::from_slice(packet).unwrap();
        let outer = Ip {
            tos: header.traffic_class,
            id: 0,
            ..outer
        };
        (outer, usize::from(header.payload_length) + 40, 41)
    }
}
