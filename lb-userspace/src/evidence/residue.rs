//! The handshake bins of one VIP: 32 residues that are used again every 4.3 s.
//!
//! A residue counts only as it was read when its bin was *mature*, all of its flows complete or
//! late, and not about to be used for the next lap. Started and completed are then of the same
//! flows, whenever the readings happen. A residue that was missed for a lap or more gives all missed
//! laps at once: still of the same flows.

use lb_common::breaker::mature_before;
use lb_common::clock::MOST_LATE_NS;
use lb_common::evidence::{ARMS, BIN_NS_SHIFT, BINS, Evidence};

use super::delta::Delta;

/// A reading may take as long as eight bins, a second, before the oldest residue that it uses is
/// used again for other flows.
const GUARD_BINS: u64 = 8;
/// The same for a residue that was never read: only the start of a lap is taken from it, which is
/// lost otherwise, and so a reading has 268 ms.
const FIRST_GUARD_BINS: u64 = 2;
/// Bins of a lap.
const LAP: u64 = BINS as u64;

/// One residue as it was last read in a mature state.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// Number of the bin; `None`: not read yet.
    bin: Option<u64>,
    /// Started and completed of each arm.
    values: [[u32; 2]; ARMS],
}

/// All residues of a VIP.
#[derive(Clone, Debug)]
pub(super) struct Residues {
    kept: [Kept; BINS],
}

/// Which bins a reading may use, and which belong to the step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The bin that the step began in; flows of later bins belong to it.
    began: u64,
    /// Bins below this are mature.
    mature: u64,
    /// The bin of the reading itself.
    current: u64,
}

impl Span {
    pub(super) fn new(began_ns: u64, now_ns: u64, within_ns: u64) -> Self {
        Self {
            began: began_ns >> BIN_NS_SHIFT,
            // Flows are timed by a clock that is late.
            mature: mature_before(now_ns.saturating_sub(MOST_LATE_NS), within_ns),
            current: now_ns >> BIN_NS_SHIFT,
        }
    }

    /// The bin that this residue stands for at the time of the reading, if it can be used.
    fn usable(self, residue: u64, first: bool) -> Option<u64> {
        let guard = if first { FIRST_GUARD_BINS } else { GUARD_BINS };
        let age = self.current.wrapping_sub(residue) % LAP;
        let bin = self.current.checked_sub(age)?;
        let safe = age.saturating_add(guard) < LAP;
        (bin < self.mature && safe).then_some(bin)
    }

    /// Whether all flows between two readings of a residue belong to the step: the lap after the
    /// earlier one is already of it.
    fn owns(self, earlier: u64) -> bool {
        earlier.saturating_add(LAP) > self.began
    }
}

impl Residues {
    pub(super) fn new() -> Self {
        Self {
            kept: [Kept::default(); BINS],
        }
    }

    /// Flows of this step that became mature since the last reading: started and completed of
    /// each arm.
    pub(super) fn round(&mut self, raw: &[Evidence; ARMS], span: Span) -> [[Delta; 2]; ARMS] {
        let mut more = [[Delta::default(); 2]; ARMS];
        for (residue, kept) in (0_u64..).zip(&mut self.kept) {
            let Some(bin) = span.usable(residue, kept.bin.is_none()) else {
                continue;
            };
            if kept.bin == Some(bin) {
                continue;
            }
            let values = read(raw, residue);
            if let Some(earlier) = kept.bin
                && bin > span.began
                && span.owns(earlier)
            {
                for (more, (then, now)) in more.iter_mut().zip(kept.values.iter().zip(&values)) {
                    for (more, (then, now)) in more.iter_mut().zip(then.iter().zip(now)) {
                        more.add(*then, *now);
                    }
                }
            }
            *kept = Kept {
                bin: Some(bin),
                values,
            };
        }
        more
    }
}

fn read(raw: &[Evidence; ARMS], residue: u64) -> [[u32; 2]; ARMS] {
    let index = usize::try_from(residue).unwrap_or(0);
    let at = |bins: &[u32; BINS]| bins.get(index).copied().unwrap_or(0);
    raw.each_ref()
        .map(|arm| [at(&arm.started), at(&arm.completed)])
}
