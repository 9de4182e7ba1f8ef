//! What the parser makes of a frame, as one value to compare.

use core::net::IpAddr;

use lb_common::address::Address;
use lb_common::packet::{FlowKey, Kind, Packet, Role, Skip};
use lb_common::parse;

use crate::packets::Talk;

/// The parser's answer.
pub fn parse(frame: &[u8]) -> Result<(Kind, Packet), Skip> {
    let mut packet = Packet::EMPTY;
    parse::parse(frame, &mut packet).map(|kind| (kind, packet))
}

/// The packet of a frame that is a flow's.
pub fn flow(frame: &[u8]) -> Packet {
    match parse(frame) {
        Ok((Kind::Flow, packet)) => packet,
        other => panic!("no flow but {other:?}"),
    }
}

/// The kind of a frame, without the rest.
pub fn kind(frame: &[u8]) -> Result<Kind, Skip> {
    parse(frame).map(|(kind, _)| kind)
}

/// The role of a frame that is a flow's.
pub fn role(frame: &[u8]) -> Role {
    flow(frame).role
}

/// The key that a client's packet has.
pub fn key(talk: Talk, protocol: u8) -> FlowKey {
    FlowKey {
        source: Address::from(talk.from.ip()),
        destination: Address::from(talk.to.ip()),
        source_port: talk.from.port().to_be(),
        destination_port: talk.to.port().to_be(),
        protocol,
    }
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// From client to VIP, IPv4.
pub fn v4() -> Talk {
    Talk::new("198.51.100.7:40000", "203.0.113.10:80")
}

/// From client to VIP, IPv6.
pub fn v6() -> Talk {
    Talk::new("[2001:db8:c::7]:40000", "[2001:db8::10]:80")
}
