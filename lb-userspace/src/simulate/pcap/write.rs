//! Writing: little-endian, Ethernet.

use std::io::{self, Write};

use super::{ETHERNET, MAX_PACKET, MICROSECONDS, NANOSECONDS, Record, Unit};

/// A capture that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
}

impl<W: Write> Writer<W> {
    /// Writes the header. Give it something buffered.
    pub fn new(mut sink: W, unit: Unit) -> io::Result<Self> {
        let magic = match unit {
            Unit::Microseconds => MICROSECONDS,
            Unit::Nanoseconds => NANOSECONDS,
        };
        sink.write_all(&magic.to_le_bytes())?;
        sink.write_all(&[2, 0, 4, 0])?;
        // Time zone and accuracy: zero in all files.
        sink.write_all(&[0; 8])?;
        sink.write_all(&u32::try_from(MAX_PACKET).unwrap_or(u32::MAX).to_le_bytes())?;
        sink.write_all(&u32::from(ETHERNET).to_le_bytes())?;
        Ok(Self { sink })
    }

    /// Writes a packet. More than [`MAX_PACKET`] bytes are an error.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let length = u32::try_from(record.data.len())
            .ok()
            .filter(|_| record.data.len() <= MAX_PACKET)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the packet is too long"))?;
        for number in [
            record.seconds,
            record.fraction,
            length,
            record.wire_length.max(length),
        ] {
            self.sink.write_all(&number.to_le_bytes())?;
        }
        self.sink.write_all(&record.data)
    }

    /// Whatever was written is there for others to read.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    /// Flushes, and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.flush()?;
        Ok(self.sink)
    }
}
