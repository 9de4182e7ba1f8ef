//! Reading the samples of packets that did not get through.

use lb_common::sample::{SAMPLES, Sample, place};

use super::KernelError;
use super::maps::{Maps, lacking};

/// Where a reader of the ring is. A new one begins with the oldest sample that is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Number of the last sample that was read.
    last: u64,
}

impl Maps {
    /// Samples since the last call, oldest first. What the ring has lost meanwhile is left out, and so
    /// is one that is being written.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn samples(&self, cursor: &mut Cursor) -> Result<Vec<Sample>, KernelError> {
        let taken = self.sampled.get(&0, 0).map_err(|e| lacking("SAMPLED", e))?;
        let kept = taken.saturating_sub(u64::from(SAMPLES));
        let first = cursor.last.max(kept).saturating_add(1);
        let mut samples = Vec::new();
        for number in first..=taken {
            let sample = self
                .samples
                .get(&place(number), 0)
                .map_err(|e| lacking("SAMPLES", e))?;
            if sample.number == number {
                samples.push(sample);
            }
        }
        cursor.last = taken;
        Ok(samples)
    }
}
