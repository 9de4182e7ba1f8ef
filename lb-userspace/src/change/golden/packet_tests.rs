//! Golden packets as another library sees them.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_common::checksum;

use super::packet::{ETHERNET, Flow, Kind, build, frame};

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn flow(vip: &str, protocol: u8) -> Flow {
    let vip: IpAddr = vip.parse().unwrap();
    let client = if vip.is_ipv4() {
        "198.18.1.2"
    } else {
        "2001:2::5"
    };
    Flow {
        client: client.parse().unwrap(),
        client_port: 4321,
        vip,
        vip_port: 80,
        protocol,
    }
}

/// Another library finds every header, and every checksum right.
#[test]
fn packets_are_right() {
    for vip in ["203.0.113.1", "2001:db8::1"] {
        for protocol in [6, 17] {
            let flow = flow(vip, protocol);
            for kind in Kind::of(&flow) {
                for length in [60, 99, 1480] {
                    judge(&flow, *kind, length);
                }
            }
        }
    }
}

fn judge(flow: &Flow, kind: Kind, length: usize) {
    let frame = frame(&build(flow, kind, length));
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    let about = format!("{kind:?} {flow}");
    match (sliced.net.unwrap(), flow.vip) {
        (NetSlice::Ipv4(ip), IpAddr::V4(vip)) => {
            let header = ip.header().to_header();
            assert_eq!(
                header.header_checksum,
                header.calc_header_checksum(),
                "{about}"
            );
            assert_eq!(header.destination, vip.octets());
            assert_eq!(header.more_fragments, kind == Kind::Fragment);
        }
        (NetSlice::Ipv6(ip), IpAddr::V6(vip)) => {
            assert_eq!(ip.header().destination(), vip.octets());
            assert_eq!(ip.is_payload_fragmented(), kind == Kind::Fragment);
        }
        other => panic!("{about}: {other:?}"),
    }
    if !matches!(kind, Kind::Fragment | Kind::Error) {
        assert_eq!(frame.len(), ETHERNET + length, "{about}");
    }
    transport_is_right(sliced.transport, flow, kind, &about);
}

fn transport_is_right(transport: Option<TransportSlice<'_>>, flow: &Flow, kind: Kind, about: &str) {
    let v4 = |address: IpAddr| match address {
        IpAddr::V4(v4) => Some(v4.octets()),
        IpAddr::V6(_) => None,
    };
    let (from, to) = (sixteen(flow.client), sixteen(flow.vip));
    match transport {
        None => assert_eq!(kind, Kind::Fragment, "{about}"),
        Some(TransportSlice::Tcp(tcp)) => {
            let header = tcp.to_header();
            let sum = match v4(flow.client).zip(v4(flow.vip)) {
                Some((from, to)) => header.calc_checksum_ipv4_raw(from, to, tcp.payload()),
                None => header.calc_checksum_ipv6_raw(from, to, tcp.payload()),
            };
            assert_eq!(header.checksum, sum.unwrap(), "{about}");
            assert_eq!((header.source_port, header.destination_port), (4321, 80));
            assert_eq!(
                (header.syn, header.ack),
                (kind == Kind::Syn, kind != Kind::Syn)
            );
        }
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let sum = match v4(flow.client).zip(v4(flow.vip)) {
                Some((from, to)) => header.calc_checksum_ipv4_raw(from, to, udp.payload()),
                None => header.calc_checksum_ipv6_raw(from, to, udp.payload()),
            };
            assert_eq!(header.checksum, sum.unwrap(), "{about}");
            assert_eq!(usize::from(header.length), udp.payload().len() + 8);
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            assert_eq!(icmp.icmp_type().header_len(), 8);
            let slice = icmp.slice();
            assert_eq!(checksum::fold(checksum::bytes(slice)), 0, "{about}");
            assert_eq!(icmp.payload().len(), 28);
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let router = sixteen("2001:2::ffff:fffe".parse().unwrap());
            assert!(icmp.is_checksum_valid(router, to), "{about}");
            assert_eq!(icmp.payload().len(), 48);
        }
        Some(other) => panic!("{about}: {other:?}"),
    }
}
