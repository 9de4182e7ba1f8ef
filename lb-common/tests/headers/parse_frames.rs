//! Ethernet: what is not IP, tags, and frames that end too early.

use lb_common::packet::{Packet, Skip};

use crate::packets::{self, Flags, tcp, udp};
use crate::seen::{flow, kind, v4, v6};

#[test]
fn arp_and_other_ether_types_are_not_ip() {
    for ether_type in [0x0806u16, 0x88cc, 0x0842, 0x8847, 0x0000, 0xffff, 0x05dc] {
        let mut frame = tcp(v4(), Flags::Syn, &[]);
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        assert_eq!(kind(&frame), Err(Skip::NotIp), "{ether_type:#x}");
    }
}

#[test]
fn up_to_two_tags_are_skipped() {
    let tags = [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7];
    for talk in [v4(), v6()] {
        let plain = tcp(talk, Flags::Syn, b"data");
        let bare = flow(&plain);
        for bytes in [4, 8] {
            let mut frame = plain.clone();
            frame.splice(12..12, tags[12 - bytes..].iter().copied());
            let seen = flow(&frame);
            let shift = u16::try_from(bytes).unwrap();
            let expected = Packet {
                ip_offset: bare.ip_offset + shift,
                payload_offset: bare.payload_offset + shift,
                ..bare
            };
            assert_eq!(seen, expected);
            frame.truncate(frame.len() - 1);
            assert_eq!(kind(&frame), Err(Skip::Runt));
        }
        let mut frame = plain;
        frame.splice(12..12, tags);
        assert_eq!(kind(&frame), Err(Skip::Vlan));
    }
}

/// A cut frame is a runt wherever it is cut, for every kind of packet: nothing is ever guessed
/// from what is left of it.
#[test]
fn runts_at_every_cut_length() {
    let quote = packets::inner(&tcp(v4().back(), Flags::Ack, &[7; 30])).to_vec();
    let quote6 = packets::inner(&tcp(v6().back(), Flags::Ack, &[7; 30])).to_vec();
    let (a, b) = (v4(), v6());
    let frames = [
        tcp(a, Flags::Syn, b"hello"),
        udp(a, b"hello"),
        packets::echo_request("198.51.100.7", "203.0.113.10", b"ping"),
        packets::too_big(a.from.ip(), a.to.ip(), 1400, &quote),
        tcp(b, Flags::Syn, b"hello"),
        udp(b, b"hello"),
        packets::echo_request("2001:db8:c::7", "2001:db8::10", b"ping"),
        packets::too_big(b.from.ip(), b.to.ip(), 1400, &quote6),
    ];
    for frame in frames {
        assert!(kind(&frame).is_ok());
        for length in 0..frame.len() {
            assert_eq!(
                kind(&frame[..length]),
                Err(Skip::Runt),
                "{length} of {frame:x?}"
            );
        }
    }
}

/// Ethernet pads short frames to 60 bytes, and some drivers leave the checksum behind them.
#[test]
fn bytes_after_the_ip_packet_change_nothing() {
    for frame in [tcp(v4(), Flags::Syn, &[]), udp(v6(), &[]), udp(v4(), b"x")] {
        let bare = flow(&frame);
        for padding in [1, 6, 18, 1400] {
            let padded = [&frame[..], &vec![0xa5; padding]].concat();
            assert_eq!(flow(&padded), bare);
        }
    }
}
