//! TCP, UDP and ICMP queries.

use lb_common::packet::{Kind, Role, Skip};

use crate::packets::{Flags, Ip, echo, icmp_raw, tcp, udp};
use crate::seen::{addr, flow, key, kind, role, v4, v6};

#[test]
fn tcp_flags_to_roles() {
    let table = [
        (Flags::Syn, Role::Syn),
        (Flags::SynFin, Role::Syn),
        (Flags::SynAck, Role::Segment),
        (Flags::Ack, Role::Segment),
        (Flags::PshAck, Role::Segment),
        (Flags::FinAck, Role::Segment),
        (Flags::None, Role::Segment),
        (Flags::Rst, Role::Reset),
        (Flags::RstAck, Role::Reset),
        (Flags::SynRst, Role::Reset),
    ];
    for (flags, expected) in table {
        for talk in [v4(), v6()] {
            assert_eq!(role(&tcp(talk, flags, &[])), expected, "{flags:?}");
            assert_eq!(flow(&tcp(talk, flags, &[])).flow, key(talk, 6));
        }
    }
}

/// Bits that other protocols put into the flag byte (CWR, ECE, URG, PSH) change no role.
#[test]
fn other_flags_change_no_role() {
    for flags in 0..=u8::MAX {
        let mut frame = tcp(v4(), Flags::None, &[]);
        frame[14 + 20 + 13] = flags;
        let expected = match (flags & 0x04 != 0, flags & 0x12) {
            (true, _) => Role::Reset,
            (false, 0x02) => Role::Syn,
            _ => Role::Segment,
        };
        assert_eq!(role(&frame), expected, "{flags:#x}");
    }
}

#[test]
fn udp_with_and_without_payload() {
    for talk in [v4(), v6()] {
        for payload in [&[][..], b"x", &[0; 1400]] {
            let seen = flow(&udp(talk, payload));
            assert_eq!((seen.flow, seen.role), (key(talk, 17), Role::Datagram));
        }
    }
}

#[test]
fn echo_requests_but_no_replies() {
    for (from, to) in [
        ("198.51.100.7", "203.0.113.10"),
        ("2001:db8:c::7", "2001:db8::10"),
    ] {
        let (from, to) = (addr(from), addr(to));
        for payload in [&[][..], b"x", &[7; 1400]] {
            assert_eq!(
                kind(&echo(&Ip::default(), from, to, false, payload)),
                Ok(Kind::Echo)
            );
            assert_eq!(
                kind(&echo(&Ip::default(), from, to, true, payload)),
                Err(Skip::Icmp)
            );
        }
    }
    let with_options = Ip {
        options: vec![1; 8],
        ..Ip::default()
    };
    let frame = echo(
        &with_options,
        addr("198.51.100.7"),
        addr("203.0.113.10"),
        false,
        b"x",
    );
    assert_eq!(kind(&frame), Ok(Kind::Echo));
}

/// Only the types that mean something to a balancer are looked at. In particular neighbour
/// discovery (133 to 137) must reach the stack, or the host loses its neighbours.
#[test]
fn all_other_icmp_is_left_to_the_stack() {
    let quote = crate::packets::inner(&tcp(v4().back(), Flags::Ack, &[])).to_vec();
    for number in 0..=u8::MAX {
        let frame = icmp_raw(
            addr("198.51.100.7"),
            addr("203.0.113.10"),
            number,
            0,
            &quote,
        );
        let expected = match number {
            8 => Ok(Kind::Echo),
            3 | 11 | 12 => Ok(Kind::Flow),
            _ => Err(Skip::Icmp),
        };
        assert_eq!(kind(&frame), expected, "ICMP {number}");
    }
    let quote = crate::packets::inner(&tcp(v6().back(), Flags::Ack, &[])).to_vec();
    for number in 0..=u8::MAX {
        let frame = icmp_raw(
            addr("2001:db8:c::7"),
            addr("2001:db8::10"),
            number,
            0,
            &quote,
        );
        let expected = match number {
            128 => Ok(Kind::Echo),
            1..=4 => Ok(Kind::Flow),
            _ => Err(Skip::Icmp),
        };
        assert_eq!(kind(&frame), expected, "ICMPv6 {number}");
    }
    // An echo request has code 0 (RFC 792, RFC 4443).
    let odd = icmp_raw(addr("198.51.100.7"), addr("203.0.113.10"), 8, 1, &[]);
    assert_eq!(kind(&odd), Err(Skip::Icmp));
    let odd = icmp_raw(addr("2001:db8:c::7"), addr("2001:db8::10"), 128, 1, &[]);
    assert_eq!(kind(&odd), Err(Skip::Icmp));
}
