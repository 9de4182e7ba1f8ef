//! Reading.

use std::io::{self, Read};

use super::error::Place;
use super::{
    ETHERNET, HEADER_LEN, MAX_PACKET, MICROSECONDS, NANOSECONDS, PcapError, RECORD_LEN, Record,
    Unit,
};

/// A capture that is being read.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    swapped: bool,
    unit: Unit,
    packets: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the header. Give it something buffered.
    pub fn new(mut source: R) -> Result<Self, PcapError> {
        let mut header = [0; HEADER_LEN];
        let got = fill(&mut source, &mut header)?;
        let [a, b, c, d, rest @ ..] = header;
        let magic = [a, b, c, d];
        if got < magic.len() {
            return Err(PcapError::Truncated(Place::Header));
        }
        let (swapped, unit) = order_and_unit(magic).ok_or_else(|| PcapError::of_magic(magic))?;
        if got < HEADER_LEN {
            return Err(PcapError::Truncated(Place::Header));
        }
        let [v0, v1, w0, w1, .., l0, l1, l2, l3] = rest;
        let version = if swapped {
            (u16::from_be_bytes([v0, v1]), u16::from_be_bytes([w0, w1]))
        } else {
            (u16::from_le_bytes([v0, v1]), u16::from_le_bytes([w0, w1]))
        };
        if version.0 != 2 {
            return Err(PcapError::Version(version.0, version.1));
        }
        // Above the low 16 bits lies the length of frame check sequences, which nobody writes.
        let link = number([l0, l1, l2, l3], swapped) & 0xffff;
        let link = u16::try_from(link).unwrap_or(u16::MAX);
        if link != ETHERNET {
            return Err(PcapError::LinkType(link));
        }
        Ok(Self {
            source,
            swapped,
            unit,
            packets: 0,
        })
    }

    /// Unit of the time stamps.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The next packet; `None` at the end of the file.
    pub fn next_record(&mut self) -> Result<Option<Record>, PcapError> {
        let mut head = [0; RECORD_LEN];
        let got = fill(&mut self.source, &mut head)?;
        if got == 0 {
            return Ok(None);
        }
        self.packets = self.packets.saturating_add(1);
        let truncated = PcapError::Truncated(Place::Packet(self.packets));
        if got < RECORD_LEN {
            return Err(truncated);
        }
        let [seconds, fraction, length, wire_length] = words(head, self.swapped);
        let limit = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_PACKET);
        let Some(limit) = limit else {
            return Err(PcapError::TooLong {
                packet: self.packets,
                length,
            });
        };
        let mut data = Vec::new();
        // `take` and growing: a length that lies costs no memory.
        let got = self
            .source
            .by_ref()
            .take(u64::from(length))
            .read_to_end(&mut data)?;
        if got < limit {
            return Err(truncated);
        }
        Ok(Some(Record {
            seconds,
            fraction,
            wire_length,
            data,
        }))
    }
}

/// Whether numbers are big-endian, and the unit of time stamps.
fn order_and_unit(magic: [u8; 4]) -> Option<(bool, Unit)> {
    match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
        (MICROSECONDS, _) => Some((false, Unit::Microseconds)),
        (NANOSECONDS, _) => Some((false, Unit::Nanoseconds)),
        (_, MICROSECONDS) => Some((true, Unit::Microseconds)),
        (_, NANOSECONDS) => Some((true, Unit::Nanoseconds)),
        _ => None,
    }
}

fn number(bytes: [u8; 4], swapped: bool) -> u32 {
    if swapped {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    }
}

fn words(head: [u8; RECORD_LEN], swapped: bool) -> [u32; 4] {
    let words: [[u8; 4]; 4] = zerocopy::transmute!(head);
    words.map(|bytes| number(bytes, swapped))
}

/// Reads until `buffer` is full or the source ends; returns how much.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0usize;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(more) => got = got.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
