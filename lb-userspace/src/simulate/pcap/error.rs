//! Why a capture cannot be read or written.

use std::io;

/// A failure with a capture file. `Display` is fit for the operator.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The file begins like no capture.
    #[error("not a pcap file: it begins with {}", hex(*.0))]
    NotPcap([u8; 4]),
    /// Another format, by name.
    #[error("a {format} file, not a pcap file")]
    OtherFormat {
        /// Name of the format.
        format: &'static str,
        /// Command that makes a pcap file of it.
        remedy: &'static str,
    },
    /// A version of the format that never was.
    #[error("pcap version {0}.{1} is not known; 2.4 is")]
    Version(u16, u16),
    /// Not captured on Ethernet.
    #[error("the capture is of link type {}{}, not Ethernet (1)", .0, link_name(*.0))]
    LinkType(u16),
    /// The file ends within its header or within a packet.
    #[error("the file ends within {0}")]
    Truncated(Place),
    /// A packet that is longer than any capture has.
    #[error(
        "packet {packet} claims {length} bytes; no capture has more than {}",
        super::MAX_PACKET
    )]
    TooLong {
        /// Packet, from 1.
        packet: u64,
        /// What it claims.
        length: u32,
    },
    /// The operating system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first 24 bytes.
    Header,
    /// A packet, from 1.
    Packet(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("its header"),
            Self::Packet(number) => write!(f, "packet {number}"),
        }
    }
}

impl PcapError {
    /// What to do about it, if something can be done.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::OtherFormat { remedy, .. } => Some(remedy),
            Self::LinkType(_) => Some(
                "capture on one Ethernet interface (`tcpdump -i eth0 -w in.pcap`, not `-i any`)",
            ),
            Self::Truncated(_) | Self::TooLong { .. } => Some(
                "the file is damaged: capture again, or save what is whole with `editcap -F pcap IN OUT`",
            ),
            _ => None,
        }
    }

    /// Whether the file is fine and only not what is asked for.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::LinkType(_) | Self::OtherFormat { .. } | Self::Version(..)
        )
    }

    /// The error for a file that begins with `magic`, which is not pcap's.
    pub(super) fn of_magic(magic: [u8; 4]) -> Self {
        let (format, remedy) = match magic {
            [0x0a, 0x0d, 0x0d, 0x0a] => ("pcapng", "editcap -F pcap IN OUT"),
            [0x1f, 0x8b, ..] => ("gzip", "gunzip it first"),
            [0x28, 0xb5, 0x2f, 0xfd] => ("zstd", "unzstd it first"),
            [0xfd, b'7', b'z', b'X'] => ("xz", "unxz it first"),
            [0xa1, 0xb2, 0xcd, 0x34] | [0x34, 0xcd, 0xb2, 0xa1] => {
                ("modified (Kuznetsov's) pcap", "editcap -F pcap IN OUT")
            }
            _ => return Self::NotPcap(magic),
        };
        Self::OtherFormat { format, remedy }
    }
}

fn hex(bytes: [u8; 4]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Names of link types that captures often have.
fn link_name(number: u16) -> &'static str {
    match number {
        0 => " (loopback of BSD)",
        12 | 14 | 101 => " (raw IP)",
        105 | 127 => " (802.11)",
        113 | 276 => " (Linux \"any\" capture)",
        228 => " (raw IPv4)",
        229 => " (raw IPv6)",
        _ => "",
    }
}
