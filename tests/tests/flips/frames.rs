//! Datagrams as frames, ready for the client's interface.

use std::net::IpAddr;

use lb_common::wire::ip_proto;

use crate::model::{Client, Family};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of an IPv4 header.
const V4: usize = 20;
/// Bytes of an IPv6 header.
const V6: usize = 40;
/// Bytes of a UDP header and the number behind it.
const UDP: usize = 12;

/// A frame, and how much of it there is.
pub type Frame = ([u8; ETHERNET + V6 + UDP], usize);

/// Sum of 16-bit words (RFC 1071), not folded.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| match word {
        [high, low] => u32::from(*high) << 8 | u32::from(*low),
        _ => u32::from(word[0]) << 8,
    });
    words.sum()
}

/// The checksum that makes the sum 0, as it is sent.
fn checksum(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// A length that is known to be short.
fn byte(length: usize) -> u8 {
    u8::try_from(length).unwrap()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A datagram of `client` to the VIP, with `sequence` in it. Over IPv4 it has no UDP checksum.
pub fn frame(macs: [[u8; 6]; 2], client: Client, port: u16, sequence: u32) -> Frame {
    let mut frame = [0; ETHERNET + V6 + UDP];
    frame[..6].copy_from_slice(&macs[1]);
    frame[6..12].copy_from_slice(&macs[0]);
    let (kind, length) = match client.family {
        Family::V4 => ([0x08, 0x00], V4),
        Family::V6 => ([0x86, 0xdd], V6),
    };
    frame[12..ETHERNET].copy_from_slice(&kind);
    let (ip, udp) = frame[ETHERNET..].split_at_mut(length);
    udp[..2].copy_from_slice(&client.port.to_be_bytes());
    udp[2..4].copy_from_slice(&port.to_be_bytes());
    udp[5] = byte(UDP);
    udp[8..UDP].copy_from_slice(&sequence.to_be_bytes());
    let (source, vip) = (octets(client.address()), octets(client.family.vip()));
    match client.family {
        Family::V4 => {
            ip[0] = 0x45;
            ip[3] = byte(V4 + UDP);
            ip[6] = 0x40;
            ip[8] = 64;
            ip[9] = ip_proto::UDP;
            ip[12..16].copy_from_slice(&source);
            ip[16..20].copy_from_slice(&vip);
            let sum = checksum(sum(ip));
            ip[10..12].copy_from_slice(&sum);
        }
        Family::V6 => {
            ip[0] = 0x60;
            ip[5] = byte(UDP);
            ip[6] = ip_proto::UDP;
            ip[7] = 64;
            ip[8..24].copy_from_slice(&source);
            ip[24..40].copy_from_slice(&vip);
            let pseudo = u32::from(ip_proto::UDP) + u32::from(byte(UDP));
            let sum = checksum(sum(&ip[8..40]) + pseudo + sum(&udp[..UDP]));
            // 0 would mean "none", which IPv6 does not allow (RFC 8200, 8.1).
            let sum = if sum == [0, 0] { [0xff; 2] } else { sum };
            udp[6..8].copy_from_slice(&sum);
        }
    }
    (frame, ETHERNET + length + UDP)
}
