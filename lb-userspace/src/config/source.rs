//! The text of a file: read with a bound, checked to be text, with offsets turned into lines.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::finding::Log;
use super::rules::UNREADABLE;

/// Largest file: four times what a full set of default tables takes.
pub const MAX_BYTES: usize = 8 << 20;

/// Text and where its lines begin.
#[derive(Debug)]
pub struct Source {
    text: String,
    line_starts: Vec<usize>,
}

/// Reads a file, but never more than a byte beyond [`MAX_BYTES`] (that byte lets
/// [`Source::from_bytes`] refuse it). Pipes and devices are read the same way.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Source {
    /// The text in some bytes, or `None` and a finding.
    pub fn from_bytes(bytes: &[u8], log: &mut Log) -> Option<Self> {
        let mut refuse = |line, message: &str, fix: &str| {
            log.add(
                &UNREADABLE,
                line,
                format_args!("{message}"),
                format_args!("{fix}"),
            );
        };
        if bytes.len() > MAX_BYTES {
            refuse(
                0,
                "the file is larger than 8 MiB",
                "Give the configuration itself; if it truly is that large, split it between \
                 balancers.",
            );
            return None;
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            refuse(
                line_at(bytes, at),
                "the file holds a zero byte: it is binary, or a crash left a hole in it",
                "Write the file again from where it came from.",
            );
            return None;
        }
        let text = match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                refuse(
                    line_at(bytes, error.valid_up_to()),
                    "the file is not UTF-8 text",
                    "Save it as UTF-8; if it is not text at all, you gave the wrong file.",
                );
                return None;
            }
        };
        if text.trim().is_empty() {
            refuse(
                0,
                "the file is empty",
                "A copy may have failed: write it again. A configuration starts with \
                 `version = 1`.",
            );
            return None;
        }
        let starts = text.match_indices('\n').map(|(at, _)| at.saturating_add(1));
        let line_starts = std::iter::once(0).chain(starts).collect();
        Some(Self {
            text: text.to_owned(),
            line_starts,
        })
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line of a byte offset, from 1.
    pub fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// The line that a byte offset is in, without blanks around it.
    pub fn line_at(&self, offset: usize) -> &str {
        let index = self.line_of(offset).saturating_sub(1);
        let start = self.line_starts.get(index).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or_default();
        rest.lines().next().unwrap_or_default().trim()
    }

    /// Whether nothing but blanks follows the offset.
    pub fn ends_at(&self, offset: usize) -> bool {
        self.text
            .get(offset..)
            .is_none_or(|rest| rest.trim().is_empty())
    }
}

fn line_at(bytes: &[u8], offset: usize) -> usize {
    let before = bytes
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count();
    before.saturating_add(1)
}
