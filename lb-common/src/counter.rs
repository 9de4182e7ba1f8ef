//! Counters: which there are, and how they lie in the per-CPU maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sent on: by the interface it came from, or by another.
    Forward,
    /// Answered by ourselves.
    Reply,
    /// Left to the stack, untouched.
    Pass,
    /// Dropped.
    Drop,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal, $verdict:ident;)+) => {
        /// Why a packet got its verdict. The number is the place in [`Reasons`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// Name in read-outs and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }

            /// What becomes of such a packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict),+ }
            }

            /// From its number.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $($number => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// Sent to a backend.
    Forwarded = 0, "forwarded", Forward;
    /// An ICMP error, sent to the backend that owns the flow it quotes.
    IcmpError = 1, "icmp-error", Forward;
    /// Echo request answered.
    EchoReply = 2, "echo-reply", Reply;
    /// Does not fit after encap: answered with "fragmentation needed" or "packet too big".
    TooBig = 3, "too-big", Reply;
    /// Neither IPv4 nor IPv6.
    NotIp = 4, "not-ip", Pass;
    /// More VLAN tags than two.
    Vlan = 5, "vlan", Pass;
    /// Ends within a header, or contradicts itself.
    Runt = 6, "runt", Pass;
    /// A protocol that is not balanced.
    Protocol = 7, "protocol", Pass;
    /// ICMP that is not about a VIP's flow.
    Icmp = 8, "icmp", Pass;
    /// More IPv6 extension headers than are looked at.
    Extensions = 9, "extensions", Pass;
    /// Not for a VIP.
    NotVip = 10, "not-vip", Pass;
    /// No generation is committed yet.
    Unconfigured = 11, "unconfigured", Pass;
    /// For a VIP that ACTIVE has and SHADOW, which decides, lacks.
    Tombstone = 12, "tombstone", Pass;
    /// A fragment to a VIP's address: ports are missing, so no backend can be chosen.
    Fragment = 13, "fragment", Drop;
    /// The lookup table has no usable backend here.
    NoBackend = 14, "no-backend", Drop;
    /// The backend's next hop is not known.
    NoNextHop = 15, "no-next-hop", Drop;
    /// The driver leaves no room for the outer header.
    NoHeadroom = 16, "no-headroom", Drop;
    /// Does not fit after encap, and the rate limit of our answers is used up.
    TooBigLimited = 17, "too-big-limited", Drop;
    /// Echo request above the rate limit of our answers.
    EchoLimited = 18, "echo-limited", Drop;
    /// Does not fit after encap and is itself an ICMP error, which is never answered.
    TooBigError = 19, "too-big-error", Drop;
    /// A table points outside its map: cannot happen in a sealed slot.
    Broken = 20, "broken", Drop;
    /// An ICMP error about a packet that we tunnelled to a backend.
    TunnelError = 21, "tunnel-error", Pass;
    /// A segment of a flow whose backend is down or has been since, of a pool that resets such flows: answered so.
    FlowReset = 22, "flow-reset", Reply;
    /// Sent to a backend without regard to the server id in its QUIC connection id: no backend has it.
    QuicUnknown = 23, "quic-unknown-id", Forward;
}

/// Reasons there is room for.
pub const REASONS: usize = 64;

/// Counts per reason, one such record a CPU and counter set.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reasons {
    /// Packets per [`Reason`].
    pub packets: [u64; REASONS],
}

/// Counts of one VIP, on one CPU, in one counter set.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct VipCounters {
    /// Packets forwarded.
    pub packets: u64,
    /// Bytes of IP packets forwarded, before encap.
    pub bytes: u64,
    /// TCP SYNs forwarded.
    pub syns: u64,
    /// Packets that followed the flow table.
    pub followed: u64,
    /// Flows remembered.
    pub remembered: u64,
    /// Packets that would not fit after encap.
    pub too_big: u64,
    /// Packets with IPv4 options forwarded.
    pub options: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// Counts of one member, on one CPU, in one counter set.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MemberCounters {
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of IP packets sent to it, before encap.
    pub bytes: u64,
}

impl VipCounters {
    /// The sum, as over CPUs. Counters only rise, so wrapping is right.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
            syns: self.syns.wrapping_add(other.syns),
            followed: self.followed.wrapping_add(other.followed),
            remembered: self.remembered.wrapping_add(other.remembered),
            too_big: self.too_big.wrapping_add(other.too_big),
            options: self.options.wrapping_add(other.options),
            dropped: self.dropped.wrapping_add(other.dropped),
        }
    }
}

impl MemberCounters {
    /// The sum, as over CPUs. Counters only rise, so wrapping is right.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

const _: () = assert!(size_of::<VipCounters>() == 64);
const _: () = assert!(size_of::<MemberCounters>() == 16);
const _: () = assert!(Reason::ALL.len() <= REASONS);
