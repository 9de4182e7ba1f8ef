//! Bytes on the wire: the [`Frame`] that parsing reads from, and the headers it reads.
//!
//! Every header is made of byte-aligned fields, so it can be read at any offset. [`Frame::read`] is
//! the only bounds check there is: it copies a header out or returns `None`. The XDP context is one
//! `Frame` (lb-ebpf), a byte slice on the host another, and parsing cannot tell them apart.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an Ethernet header without VLAN tags.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of a VLAN tag.
pub const VLAN_TAG_LEN: usize = 4;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub const IPV6_LEN: usize = 40;
/// Bytes of the fixed part of an ICMP message (RFC 792, RFC 4443).
pub const ICMP_LEN: usize = 8;

/// IEEE 802 numbers, in host order.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad (outer) tag.
    pub const QINQ: u16 = 0x88a8;
}

/// IANA protocol numbers.
pub mod ip_proto {
    /// IPv6 hop-by-hop options (RFC 8200, 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 2473).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// A packet that can be read.
pub trait Frame {
    /// Copies the `T` at `offset` bytes from the start of the Ethernet header, or `None` if the
    /// packet ends before it does.
    fn read<T: FromBytes + Unaligned + Copy>(&self, offset: usize) -> Option<T>;

    /// Bytes of the whole frame.
    fn length(&self) -> usize;

    /// Whether the frame has as many bytes, which may be cheaper to say than how many it has.
    #[inline(always)]
    fn holds(&self, bytes: usize) -> bool {
        bytes <= self.length()
    }
}

impl Frame for [u8] {
    #[inline]
    fn read<T: FromBytes + Unaligned + Copy>(&self, offset: usize) -> Option<T> {
        T::read_from_prefix(self.get(offset..)?)
            .ok()
            .map(|(value, _)| value)
    }

    #[inline]
    fn length(&self) -> usize {
        self.len()
    }
}

/// Ethernet II header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// What follows.
    pub ether_type: U16,
}

/// What follows the EtherType of a VLAN tag: tag control information, then the next EtherType.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority, drop eligibility, VLAN id.
    pub control: U16,
    /// What follows.
    pub ether_type: U16,
}

/// IPv4 header without options (RFC 791).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version in the high, header length in 32-bit words in the low nibble.
    pub version_ihl: u8,
    /// Type of service (DSCP and ECN).
    pub tos: u8,
    /// Header and data, in bytes.
    pub total_length: U16,
    /// Identification.
    pub id: [u8; 2],
    /// Flags in the top 3 bits, fragment offset in 8-byte units below.
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: [u8; 2],
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Ipv4 {
    /// "Don't fragment", in [`Ipv4::fragment`].
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// "More fragments", in [`Ipv4::fragment`].
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// Mask of the fragment offset, in [`Ipv4::fragment`].
    pub const OFFSET_MASK: u16 = 0x1fff;
}

/// IPv6 header (RFC 8200).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: U32,
    /// Bytes after this header.
    pub payload_length: U16,
    /// Protocol number of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Ipv6 {
    /// The traffic class (DSCP and ECN).
    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        ((self.version_class_flow.get() >> 20) & 0xff) as u8
    }
}

/// The first two bytes that every IPv6 extension header but ESP shares (RFC 6564).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6Extension {
    /// Protocol number of what follows.
    pub next_header: u8,
    /// Length in 8-byte units, not counting the first 8 bytes.
    pub length: u8,
}

/// Source and destination port: the first 4 bytes of TCP and UDP.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ports {
    /// Source port, network order.
    pub source: [u8; 2],
    /// Destination port, network order.
    pub destination: [u8; 2],
}

/// TCP header up to the flags.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TcpStart {
    /// Ports.
    pub ports: Ports,
    /// Sequence number.
    pub sequence: U32,
    /// Acknowledgement number.
    pub acknowledgement: U32,
    /// Data offset in the high nibble.
    pub data_offset: u8,
    /// Flags, see [`tcp_flags`].
    pub flags: u8,
}

/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;

/// UDP header (RFC 768).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Ports.
    pub ports: Ports,
    /// Header and data, in bytes.
    pub length: U16,
    /// Checksum as it lies in the packet; 0 = none.
    pub checksum: [u8; 2],
}

const _: () = assert!(size_of::<Udp>() == UDP_LEN);

/// Bytes of a TCP header without options.
pub const TCP_LEN: usize = 20;

/// TCP header without options (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Ports.
    pub ports: Ports,
    /// Sequence number.
    pub sequence: U32,
    /// Acknowledgement number.
    pub acknowledgement: U32,
    /// Data offset in the high nibble.
    pub data_offset: u8,
    /// Flags, see [`tcp_flags`].
    pub flags: u8,
    /// Bytes that the sender takes.
    pub window: U16,
    /// Checksum, as it lies in the packet.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: U16,
}

const _: () = assert!(size_of::<Tcp>() == TCP_LEN);

/// Bits of [`TcpStart::flags`].
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// Start of an ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub checksum: [u8; 2],
    /// Depends on the type: identifier, MTU, ...
    pub rest: [u8; 4],
}

/// ICMP types (RFC 792).
pub mod icmp_type {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable; code 4 is "fragmentation needed".
    pub const UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: fragmentation needed and DF set (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 types (RFC 4443).
pub mod icmpv6_type {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
}
