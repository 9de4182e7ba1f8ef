//! When to look: over the whole step, and in blocks of 10 s, so that a fault that begins late is not
//! hidden by the good flows before it.
//!
//! Two families of blocks overlap by half: wherever a fault begins, a block begins within
//! 5 s of it. Half of alpha is spent on the step, half on the blocks.

use super::counts::{Counts, Vips};
use super::number::real;

/// Length of a block, ns.
pub const BLOCK_NS: u64 = 10_000_000_000;
/// Families of blocks.
const FAMILIES: usize = 2;

/// What has to be reached, as natural logarithms of E.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Needed {
    /// Over the step.
    pub step: f64,
    /// In one block.
    pub block: f64,
}

impl Needed {
    /// For a test with this alpha in a step of at most `within_ns`.
    pub fn new(alpha: f64, within_ns: u64) -> Self {
        let step = (2.0 / alpha).ln();
        Self {
            step,
            block: step + real(blocks(within_ns)).ln(),
        }
    }
}

/// Blocks of both families that begin within a step.
fn blocks(within_ns: u64) -> u64 {
    within_ns
        .div_ceil(BLOCK_NS)
        .saturating_add(1)
        .saturating_mul(FAMILIES as u64)
}

/// Where the blocks that run now began.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    began_ns: u64,
    /// Number of the running block of each family, and the counts at its start. A family's
    /// block 0 is none: the first family's would be the step itself.
    running: [(u64, Option<Vips>); FAMILIES],
}

impl Blocks {
    /// Blocks of a step that begins now.
    pub fn begin(now_ns: u64) -> Self {
        Self {
            began_ns: now_ns,
            ..Self::default()
        }
    }

    /// Counts at the start of the running blocks.
    pub fn bases(&self) -> impl Iterator<Item = &Vips> {
        self.running.iter().filter_map(|(_, base)| base.as_ref())
    }

    /// Begins new blocks where it is time to; after the running ones have been looked at.
    pub fn round(&mut self, counts: &Counts, now_ns: u64) {
        let elapsed = now_ns.saturating_sub(self.began_ns);
        for (family, running) in (0_u64..).zip(&mut self.running) {
            let shift = (BLOCK_NS / FAMILIES as u64).saturating_mul(family);
            let number = elapsed.saturating_add(shift) / BLOCK_NS;
            if number != running.0 {
                *running = (number, Some(counts.vips.clone()));
            }
        }
    }
}
