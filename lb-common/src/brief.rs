//! What the short way has to know of the current record, in one word: published after it, in one store. A
//! packet goes by this word or by the record; by both only where they agree.

use crate::control::{ControlRecord, MOST_SAMPLING, WATCH_STAGE, control_flag};
use crate::flow::Birth;
use crate::guard::LONGEST_HANDSHAKE_MS;
use crate::pace;

/// The word.
///
/// ```text
/// 63        48      40         32         20         16       8        0
/// | within_ms | stage | ... flags | ... shadow | sampling | change | active |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief(pub u64);

/// What decides about a packet of a flow that belongs to an arm, or is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Slot that decides.
    pub slot: u32,
    /// Whether the flow may have a record.
    pub followed: bool,
}

impl Brief {
    const CHANGE: u32 = 8;
    const SAMPLING: u32 = 16;
    const SHADOW: u32 = 20;
    const STARTED: u64 = 1 << 32;
    const TRIAL: u64 = 1 << 33;
    const WATCH: u64 = 1 << 34;
    const EVIDENCE: u64 = 1 << 35;
    const PACED: u64 = 1 << 36;
    const STAGE: u32 = 40;
    const WITHIN_MS: u32 = 48;

    /// Of a record.
    #[inline(always)]
    pub const fn of(record: &ControlRecord) -> Self {
        let on_trial = record.flags & control_flag::TRIAL != 0;
        let judged = on_trial && record.flags & control_flag::EVIDENCE != 0;
        let watch = record.flags & control_flag::WATCH != 0;
        let (stage, within_ms) = if judged {
            (record.stage, record.within_ms as u32)
        } else {
            (WATCH_STAGE, record.watch_within_ms())
        };
        let sampling = (record.watch >> 16 & MOST_SAMPLING) as u64;
        Self(
            Self::STARTED
                | if on_trial { Self::TRIAL } else { 0 }
                | if judged { Self::EVIDENCE } else { 0 }
                | if record.pace == pace::ALL {
                    0
                } else {
                    Self::PACED
                }
                | if watch { Self::WATCH } else { 0 }
                | record.active as u64
                | if on_trial {
                    (record.change as u64) << Self::CHANGE
                } else {
                    0
                }
                | sampling << Self::SAMPLING
                | (record.shadow as u64 & 3) << Self::SHADOW
                | (stage as u64 & 0xff) << Self::STAGE
                | (within_ms as u64 & 0xffff) << Self::WITHIN_MS,
        )
    }

    /// Whether the guard has started.
    #[inline(always)]
    pub const fn is_started(self) -> bool {
        self.0 & Self::STARTED != 0
    }

    /// Whether SHADOW is on trial; it may be overdue.
    #[inline(always)]
    pub const fn on_trial(self) -> bool {
        self.0 & Self::TRIAL != 0
    }

    /// Whether the flows of a trial are followed.
    #[inline(always)]
    pub const fn is_judged(self) -> bool {
        self.0 & Self::EVIDENCE != 0
    }

    /// Whether a judged trial follows a sample of the new flows, see [`pace`].
    #[inline(always)]
    pub const fn is_paced(self) -> bool {
        self.0 & Self::PACED != 0
    }

    /// Committed slot.
    #[inline(always)]
    pub const fn active(self) -> u32 {
        self.0 as u32 & 0xff
    }

    /// Slot on trial; 3 is none.
    #[inline(always)]
    pub const fn shadow(self) -> u32 {
        (self.0 >> Self::SHADOW) as u32 & 3
    }

    /// Short id of the change on trial, 0 without.
    #[inline(always)]
    pub const fn change(self) -> u32 {
        (self.0 >> Self::CHANGE) as u32 & 0xff
    }

    /// Step of a judged trial, else [`WATCH_STAGE`].
    #[inline(always)]
    pub const fn stage(self) -> u8 {
        (self.0 >> Self::STAGE) as u8
    }

    /// Time in which the handshake of a followed flow has to be complete, ms.
    #[inline(always)]
    pub const fn within_ms(self) -> u32 {
        (self.0 >> Self::WITHIN_MS) as u32
    }

    /// Whether a new flow with this hash is followed, or belongs to an arm.
    #[inline(always)]
    pub const fn examines(self, hash: u64) -> bool {
        let mask = (1 << (self.0 >> Self::SAMPLING & MOST_SAMPLING as u64)) - 1;
        self.on_trial() || (self.0 & Self::WATCH != 0 && hash & mask == 0)
    }

    /// Whether an entry of the flow table speaks for itself: of a flow that is in no arm of a trial
    /// that is on, and that nobody follows.
    #[inline(always)]
    pub const fn settles(self, birth: Birth) -> bool {
        let of_an_arm = self.on_trial() && birth.change() == self.change();
        birth.0 == Birth::SETTLED.0 || (birth.0 != Birth::WATCHED.0 && !of_an_arm)
    }

    /// What decides about a flow whose entry does not speak for itself; `lives` says whether no deadman
    /// is due soon. `None`: the record and the clock have to be asked.
    #[inline(always)]
    pub const fn side(self, birth: Birth, lives: bool) -> Option<Side> {
        if self.on_trial() && !lives {
            return None;
        }
        if birth.0 == Birth::WATCHED.0 {
            return Some(Side {
                slot: self.active(),
                followed: !self.on_trial() && self.0 & Self::WATCH != 0,
            });
        }
        let slot = if birth.is_new_in(self.change()) {
            self.shadow()
        } else {
            self.active()
        };
        Some(Side {
            slot,
            followed: self.is_judged(),
        })
    }
}

const _: () = assert!(LONGEST_HANDSHAKE_MS <= 0xffff && WATCH_STAGE <= 0xff);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::NO_SLOT;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    fn record(flags: u32, change: u8) -> ControlRecord {
        let record = ControlRecord {
            active: 1,
            shadow: 2,
            change,
            flags,
            stage: 3,
            within_ms: 700,
            ..ControlRecord::new_zeroed()
        };
        record.watching(5, 400)
    }

    const TRIAL: u32 = control_flag::TRIAL;
    const JUDGED: u32 = TRIAL | control_flag::EVIDENCE;

    const fn side(slot: u32, followed: bool) -> Side {
        Side { slot, followed }
    }

    #[test]
    fn flows_of_a_trial_stay_in_their_arms() {
        let judged = Brief::of(&record(JUDGED, 4));
        let (new, control) = (Birth::in_arm(4, true), Birth::in_arm(4, false));
        assert_eq!(judged.side(new, true), Some(side(2, true)));
        assert_eq!(judged.side(control, true), Some(side(1, true)));
        assert_eq!((judged.stage(), judged.within_ms()), (3, 700));
        let plain = Brief::of(&record(TRIAL, 4));
        assert_eq!(plain.side(new, true), Some(side(2, false)));
        for birth in [new, control, Birth::WATCHED] {
            assert_eq!(judged.side(birth, false), None, "a deadman is due");
        }
    }

    #[test]
    fn watched_flows_are_followed_between_changes() {
        let idle = Brief::of(&record(0, 4));
        assert_eq!(idle.side(Birth::WATCHED, false), Some(side(1, true)));
        assert_eq!(
            (idle.change(), idle.stage(), idle.within_ms()),
            (0, 0xff, 400)
        );
        let unwatched = Brief::of(&record(0, 4).unwatched());
        assert_eq!(unwatched.side(Birth::WATCHED, false), Some(side(1, false)));
        let judged = Brief::of(&record(JUDGED, 4));
        assert_eq!(judged.side(Birth::WATCHED, true), Some(side(1, false)));
    }

    #[test]
    fn no_slot_is_none() {
        let idle = ControlRecord {
            shadow: NO_SLOT,
            ..record(0, 0)
        };
        assert_eq!(Brief::of(&idle).shadow(), 3);
    }

    proptest! {
        #[test]
        fn an_entry_speaks_for_itself_or_has_a_side_or_the_record_is_asked(
            flags in prop::sample::select(&[0, TRIAL, JUDGED][..]),
            change in 1_u8..8,
            birth in 0_u32..16,
            lives: bool,
        ) {
            let brief = Brief::of(&record(flags, change));
            let birth = Birth(birth);
            let side = brief.side(birth, lives);
            if brief.settles(birth) {
                return Ok(());
            }
            match side {
                Some(side) => {
                    prop_assert!(lives || !brief.on_trial());
                    let new = brief.on_trial() && birth.is_new_in(change.into());
                    prop_assert_eq!(side.slot, if new { 2 } else { 1 });
                }
                None => prop_assert!(!lives && brief.on_trial()),
            }
        }
    }
}
