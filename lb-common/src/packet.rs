//! What parsing finds out about a packet.

use crate::address::Address;
use crate::evidence::IcmpError;
use crate::quic::Seen;

/// Where a packet comes from and goes to: what a flow is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// The client.
    pub source: Address,
    /// The VIP.
    pub destination: Address,
    /// The client's port, network order as loaded.
    pub source_port: u16,
    /// The VIP's port, network order as loaded.
    pub destination_port: u16,
    /// IANA protocol number, TCP or UDP.
    pub protocol: u8,
}

/// How a packet takes part in its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// A TCP SYN without ACK: begins a flow.
    Syn,
    /// Any other TCP segment that may be remembered.
    Segment,
    /// A TCP RST: never remembered.
    Reset,
    /// A UDP datagram.
    Datagram,
    /// An ICMP error about a flow: follows it and is never remembered.
    Error,
}

/// An IPv4 or IPv6 packet with what forwarding needs to know of it.
///
/// Parsing fills it in place: in BPF, returning it would cost a copy on each path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The flow; for an ICMP error that of the packet it quotes, as the client would have sent it.
    pub flow: FlowKey,
    /// What the packet is to its flow.
    pub role: Role,
    /// Whether the IP header is version 4.
    pub is_v4: bool,
    /// IPv4: whether "don't fragment" is set. IPv6: true.
    pub dont_fragment: bool,
    /// IPv4: whether the header has options.
    pub has_options: bool,
    /// Type of service or traffic class.
    pub tos: u8,
    /// IPv4 identification as loaded; 0 for IPv6.
    pub id: u16,
    /// Bytes of the IP packet, header included.
    pub ip_length: u16,
    /// Bytes from the start of the frame to the IP header.
    pub ip_offset: u16,
    /// Bytes from the start of the frame to the transport header.
    pub payload_offset: u16,
    /// What a [`Kind::TunnelError`] says.
    pub error: IcmpError,
    /// What a datagram for a QUIC VIP says; parsing does not know VIPs.
    pub quic: Seen,
}

impl Packet {
    /// Nothing known yet.
    pub const EMPTY: Self = Self {
        flow: FlowKey {
            source: Address::from_words([0; 4]),
            destination: Address::from_words([0; 4]),
            source_port: 0,
            destination_port: 0,
            protocol: 0,
        },
        role: Role::Segment,
        is_v4: false,
        dont_fragment: false,
        has_options: false,
        tos: 0,
        id: 0,
        ip_length: 0,
        ip_offset: 0,
        payload_offset: 0,
        error: IcmpError::Host,
        quic: Seen::NONE,
    };
}

/// What kind of packet a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// TCP, UDP or an ICMP error about one of them.
    Flow,
    /// An ICMP echo request, to be answered if its destination is a VIP's address.
    Echo,
    /// A fragment: it has no ports, or its followers have none.
    Fragment,
    /// An ICMP error about a packet that was tunnelled to a backend. The flow is that of the client's
    /// packet inside it.
    TunnelError,
}

/// Why a frame is not for a load balancer. All of these go on to the stack untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Skip {
    /// Neither IPv4 nor IPv6 (ARP, LLDP, ...).
    NotIp,
    /// More VLAN tags than two.
    Vlan,
    /// The frame ends within a header, or a header contradicts itself.
    Runt,
    /// A protocol that is not balanced.
    Protocol,
    /// ICMP that is neither an echo request nor an error about TCP or UDP.
    Icmp,
    /// More IPv6 extension headers than are looked at.
    Extensions,
}
