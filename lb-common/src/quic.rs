//! QUIC, as much of it as a balancer may know (RFC 8999 and RFC 9000, 17): whether a datagram begins a
//! connection, and the server id in its destination connection id.
//!
//! Server ids are in the clear. Either the id itself says how it is made, in its first two bits, as the
//! anchor's servers do: 1 = 16 bits behind these, 2 = the next 3 bytes, 3 = the next 4. Or the pool says
//! how many bytes there are (QUIC-LB, draft-ietf-quic-load-balancers, plaintext): they follow the
//! first byte, whose top three bits are all ones in ids that no balancer can read.

use crate::hash;
use crate::slot::{CHUNK_ENTRIES, Chunk};
use crate::wire::Frame;
use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a server id at most.
pub const MAX_ID_BYTES: u8 = 4;
/// Bytes of a connection id that are looked at.
const LOOKED_AT: usize = 5;

/// What one datagram says, as a number that functions can pass.
///
/// ```text
/// 34      33       32     31 0
/// | begins | has id | QUIC | id, or a digest of the connection id if it begins |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(pub u64);

impl Seen {
    /// No QUIC.
    pub const NONE: Self = Self(0);
    const QUIC: u64 = 1 << 32;
    const HAS_ID: u64 = 1 << 33;
    const BEGINS: u64 = 1 << 34;

    /// Whether it is QUIC at all.
    #[inline(always)]
    pub const fn is_quic(self) -> bool {
        self.0 & Self::QUIC != 0
    }

    /// Whether it may begin a connection: its connection id is the client's choice.
    #[inline(always)]
    pub const fn begins(self) -> bool {
        self.0 & Self::BEGINS != 0
    }

    /// Whether it carries a server id.
    #[inline(always)]
    pub const fn has_id(self) -> bool {
        self.0 & Self::HAS_ID != 0
    }

    /// The server id, or what tells the connection id of a beginning from others.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}

/// A long header up to the destination connection id's first bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Long {
    first: u8,
    version: U32,
    length: u8,
    id: [u8; LOOKED_AT],
}

/// A short one.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Short {
    first: u8,
    id: [u8; LOOKED_AT],
}

/// Version 2 numbers its packets otherwise (RFC 9369).
const VERSION_2: u32 = 0x6b33_43cf;
const HANDSHAKE: u8 = 2;

/// Looks at the datagram whose data lie from `offset` to `end`; `id_bytes` as in
/// [`VipEntry::quic_bytes`](crate::slot::VipEntry::quic_bytes).
#[inline(always)]
pub fn look<F: Frame + ?Sized>(frame: &F, offset: usize, end: usize, id_bytes: u8) -> Seen {
    // The longer of the two headers: every datagram of a connection has as much (RFC 9000, 10.3).
    let Some(long) = frame.read::<Long>(offset) else {
        return Seen::NONE;
    };
    if offset + size_of::<Long>() > end {
        return Seen::NONE;
    }
    if long.first & 0x80 == 0 {
        let Some(short) = frame.read::<Short>(offset) else {
            return Seen::NONE;
        };
        // The fixed bit may be greased (RFC 9287), so it says nothing.
        return continuing(short.id, id_bytes);
    }
    let kind = long.first >> 4 & 3;
    let kind = if long.version.get() == VERSION_2 {
        kind.wrapping_sub(1) & 3
    } else {
        kind
    };
    if kind == HANDSHAKE && is_known(long.version.get()) {
        let whole = usize::from(long.length) >= LOOKED_AT;
        return if whole {
            continuing(long.id, id_bytes)
        } else {
            Seen(Seen::QUIC)
        };
    }
    let [first, rest @ ..] = long.id;
    let head = u64::from(first) << 8 | u64::from(long.length);
    let digest = hash::finish(u64::from(u32::from_le_bytes(rest)) << 16 | head);
    Seen(Seen::QUIC | Seen::BEGINS | digest >> 32)
}

/// Versions 1 and 2, and the drafts of version 1.
#[inline(always)]
const fn is_known(version: u32) -> bool {
    version == 1 || version == VERSION_2 || version >> 8 == 0x00ff_0000
}

#[inline(always)]
fn continuing(id: [u8; LOOKED_AT], id_bytes: u8) -> Seen {
    let [first, rest @ ..] = id;
    let word = u32::from_be_bytes(rest);
    let server = if id_bytes != 0 {
        let bits = u32::from(MAX_ID_BYTES.saturating_sub(id_bytes)) * 8;
        (first >> 5 != 7).then_some(word >> (bits & 31))
    } else {
        match first >> 6 {
            1 => Some(u32::from(first & 0x3f) << 10 | word >> 22),
            2 => Some(word >> 8),
            3 => Some(word),
            _ => None,
        }
    };
    match server {
        Some(server) => Seen(Seen::QUIC | Seen::HAS_ID | server as u64),
        None => Seen(Seen::QUIC),
    }
}

/// Entries that one record of the index of server ids takes: the id's halves, the backend's number.
const RECORD: usize = 3;
/// Records in one line of it.
pub const RECORDS: usize = CHUNK_ENTRIES / RECORD;

/// The line of an index of `lines` lines that an id is in.
#[inline(always)]
pub const fn line(id: u32, lines: u32) -> u32 {
    hash::entry(hash::finish(id as u64), lines)
}

/// Number of the backend with this id; 0 if the line has none.
#[inline(always)]
pub fn find(line: &Chunk, id: u32) -> u16 {
    let (low, high) = (id as u16, (id >> 16) as u16);
    let mut found = 0;
    let mut index = 0;
    while index < RECORDS {
        let at = index * RECORD;
        if line[at] == low && line[at + 1] == high && line[at + 2] != 0 {
            found = line[at + 2];
        }
        index += 1;
    }
    found
}

/// Writes a record into a line; false if it is full.
pub fn put(line: &mut [u16], id: u32, number: u16) -> bool {
    for record in line.chunks_exact_mut(RECORD).take(RECORDS) {
        if let [low, high, to] = record
            && *to == 0
        {
            (*low, *high, *to) = (id as u16, (id >> 16) as u16, number);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A packet: first byte and, for long headers, version, then the connection id and more.
    fn packet(first: u8, version: Option<u32>, id: &[u8]) -> Vec<u8> {
        let mut bytes = std::vec![first];
        if let Some(version) = version {
            bytes.extend(version.to_be_bytes());
            bytes.push(u8::try_from(id.len()).unwrap());
        }
        bytes.extend(id);
        bytes.extend([0; 30]);
        bytes
    }

    fn seen(bytes: &[u8], id_bytes: u8) -> Seen {
        look(bytes, 0, bytes.len(), id_bytes)
    }

    #[test]
    fn what_begins_and_what_goes_on() {
        let id = [0x40; 8];
        // (first byte, version, begins)
        let cases = [
            (0xc0, Some(1), true),
            (0xd0, Some(1), true),
            (0xe0, Some(1), false),
            (0xd0, Some(VERSION_2), true),
            (0xe0, Some(VERSION_2), true),
            (0xf0, Some(VERSION_2), false),
            (0xe0, Some(0xff00_001d), false),
            (0xe0, Some(0x1a2a_3a4a), true),
            (0x40, None, false),
        ];
        for (first, version, begins) in cases {
            let seen = seen(&packet(first, version, &id), 0);
            assert!(seen.is_quic(), "{first:x} {version:x?}");
            assert_eq!(
                (seen.begins(), seen.has_id()),
                (begins, !begins),
                "{first:x} {version:x?}"
            );
        }
        assert_eq!(seen(&[0x40; 5], 0), Seen::NONE);
        assert_eq!(look(&[0x40; 60][..], 0, 9, 0), Seen::NONE, "Ethernet pads");
    }

    #[test]
    fn ids_of_every_layout() {
        // (connection id, bytes that the pool names, server id)
        let cases: [([u8; 5], u8, Option<u32>); 10] = [
            ([0x7f, 0xff, 0xc0, 0, 0], 0, Some(0xffff)),
            ([0x40, 0x00, 0x40, 0xff, 0xff], 0, Some(1)),
            ([0x80, 0x01, 0x02, 0x03, 0xff], 0, Some(0x01_0203)),
            ([0xc0, 0x01, 0x02, 0x03, 0x04], 0, Some(0x0102_0304)),
            ([0x3f, 0xff, 0xff, 0xff, 0xff], 0, None),
            ([0x5f, 0x07, 0xff, 0xff, 0xff], 1, Some(7)),
            ([0x00, 0x01, 0x02, 0xff, 0xff], 2, Some(0x0102)),
            ([0xdf, 0x01, 0x02, 0x03, 0xff], 3, Some(0x01_0203)),
            ([0x1f, 0x01, 0x02, 0x03, 0x04], 4, Some(0x0102_0304)),
            ([0xe0, 0x01, 0x02, 0x03, 0x04], 4, None),
        ];
        for (id, bytes, server) in cases {
            for packet in [packet(0x40, None, &id), packet(0xe0, Some(1), &id)] {
                let seen = seen(&packet, bytes);
                let found = seen.has_id().then(|| seen.number());
                assert_eq!(found, server, "{id:x?} {bytes}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40), offset in 0usize..50, end in 0usize..60, id_bytes in 0u8..6) {
            let _ = look(bytes.as_slice(), offset, end, id_bytes);
        }

        #[test]
        fn what_was_put_is_found(ids in proptest::collection::btree_set(any::<u32>(), 1..=RECORDS), other: u32) {
            let mut line: Chunk = [0; CHUNK_ENTRIES];
            for (number, id) in (1u16..).zip(&ids) {
                prop_assert!(put(&mut line, *id, number));
            }
            for (number, id) in (1u16..).zip(&ids) {
                prop_assert_eq!(find(&line, *id), number);
            }
            if !ids.contains(&other) {
                prop_assert_eq!(find(&line, other), 0);
            }
            prop_assert_eq!(put(&mut line, other, 9), ids.len() < RECORDS);
        }
    }
}
