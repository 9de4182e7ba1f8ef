//! Classic pcap files, read and written a packet at a time.
//!
//! Format: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>. Both byte orders,
//! microseconds and nanoseconds. No length in a file is believed: memory grows by what was really
//! read, and no packet may be longer than [`MAX_PACKET`].

mod error;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use error::PcapError;
pub use read::Reader;
pub use write::Writer;

/// Bytes of the longest packet that is taken: `tcpdump`'s own limit (`MAXIMUM_SNAPLEN`).
pub const MAX_PACKET: usize = 262_144;
/// `LINKTYPE_ETHERNET` (<https://www.tcpdump.org/linktypes.html>).
pub const ETHERNET: u16 = 1;

const HEADER_LEN: usize = 24;
const RECORD_LEN: usize = 16;
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// Unit of the fractional part of time stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 1/1,000,000 s.
    Microseconds,
    /// 1/1,000,000,000 s.
    Nanoseconds,
}

/// One packet of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Seconds of the time stamp.
    pub seconds: u32,
    /// Fraction of a second, in the file's [`Unit`].
    pub fraction: u32,
    /// Bytes it had on the wire; more than `data` if the capture cut it.
    pub wire_length: u32,
    /// Bytes that were captured.
    pub data: Vec<u8>,
}

impl Record {
    /// Whether the capture holds less of the packet than there was.
    pub fn is_cut(&self) -> bool {
        usize::try_from(self.wire_length).is_ok_and(|wire| wire > self.data.len())
    }
}
