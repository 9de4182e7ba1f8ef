//! One form for IPv4 and IPv6 addresses, as map keys and packets hold them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address in network byte order; IPv4 as the IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2).
///
/// Two words rather than bytes, so that comparing costs two instructions.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Address {
    words: [u32; 4],
}

/// Word 2 of an IPv4-mapped address, as loaded from memory.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// From the 4 bytes of an IPv4 header.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self {
            words: [0, 0, MAPPED, u32::from_ne_bytes(bytes)],
        }
    }

    /// From the 16 bytes of an IPv6 header.
    #[inline(always)]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self {
            words: [
                u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
                u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
                u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
                u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
            ],
        }
    }

    /// From four words in network byte order.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// The four words, in network byte order.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// The last 4 bytes: the whole address for IPv4.
    #[inline(always)]
    pub const fn v4_bytes(&self) -> [u8; 4] {
        self.words[3].to_ne_bytes()
    }

    /// All 16 bytes.
    #[inline(always)]
    pub const fn v6_bytes(&self) -> [u8; 16] {
        let [a, b, c, d] = self.words;
        let (a, b, c, d) = (
            a.to_ne_bytes(),
            b.to_ne_bytes(),
            c.to_ne_bytes(),
            d.to_ne_bytes(),
        );
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ]
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            Self::V4(address.v4_bytes().into())
        } else {
            Self::V6(address.v6_bytes().into())
        }
    }
}

const _: () = assert!(size_of::<Address>() == 16);
