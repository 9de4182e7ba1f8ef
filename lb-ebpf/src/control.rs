//! The control word: read once a packet, published by the guard and the timer.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xchg};

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use lb_common::brief::Brief;
use lb_common::clock::Ticks;
use lb_common::control::{Control, ControlRecord, WATCH_STAGE, control_flag, place};
use lb_common::hash;
use lb_common::pace;

use crate::deadman;
use crate::maps::{CONTROL, RECORDS_RING};

/// Times a packet reads the word anew if its record was reused under it.
const READS: usize = 2;

/// What one packet goes by. Passed down, so that no packet mixes generations.
#[derive(Clone, Copy)]
pub struct View {
    /// Committed slot.
    pub active: u32,
    /// Slot on trial; only if `trial`.
    pub shadow: u32,
    /// Whether a trial lives now.
    pub trial: bool,
    /// New arm's share of new flows.
    pub share: u32,
    /// Salt of the arms.
    pub salt: u64,
    /// Generation in ACTIVE.
    pub generation: u64,
    /// Short id of the change on trial, 0 without.
    pub change: u32,
    /// Whether the trial's flows are followed and counted.
    pub evidence: bool,
    /// Bits of a new flow's hash that are 0 if it is followed, or [`View::NOBODY`].
    pub mask: u32,
    /// Step of the trial; only if flows are followed.
    pub stage: u32,
    /// Time in which a handshake has to be complete, ms; only if flows are followed.
    pub within_ms: u32,
    /// How many of a VIP's new flows a trial follows, see [`lb_common::pace`].
    pub pace: u32,
    /// Whether the trial's plan names removed VIPs.
    pub removes: bool,
    /// Age counter of the flow table.
    pub age: u32,
}

impl View {
    /// [`View::mask`] when no flow is followed.
    pub const NOBODY: u32 = u32::MAX;

    /// Whether flows are followed: all with `evidence`, some of them between changes.
    #[inline(always)]
    pub const fn follows(&self) -> bool {
        self.mask != Self::NOBODY
    }

    /// Whether a flow with this hash belongs to the new arm, which has this share.
    #[inline(always)]
    pub const fn draws(flow_hash: u64, salt: u64, share: u32) -> bool {
        let draw = hash::finish(flow_hash ^ salt) >> 48;
        (draw as u32) < share
    }
}

/// Nanoseconds since boot, suspend included.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and fails never.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Boot-clock ns by the kernel's ticks, see [`Ticks`]: the time of followed flows, in both arms.
#[inline(always)]
pub fn lately() -> u64 {
    CONTROL
        .get_ptr(0)
        .map_or(0, |control| ticks(control).at(jiffies()))
}

#[inline(always)]
fn ticks(control: *const Control) -> Ticks {
    // SAFETY: the element lives as long as the program; each field is one aligned word, read once.
    unsafe {
        Ticks {
            origin: (&raw const (*control).clock.origin).read_volatile(),
            jiffy_ns: (&raw const (*control).clock.jiffy_ns).read_volatile(),
        }
    }
}

/// Sets when the timer counts as silent.
///
/// # Safety
/// `control` must be the control element.
#[inline(always)]
pub unsafe fn expect_tick(control: *mut Control) {
    // SAFETY: this function's contract; readers take each field as one word.
    unsafe {
        let stale_after = jiffies().wrapping_add((*control).patience);
        (&raw mut (*control).stale_after).write_volatile(stale_after);
    }
}

/// [`expect_tick`], and sets the clock of followed flows by `now`, which has just been asked for.
///
/// # Safety
/// As [`expect_tick`].
#[inline(always)]
pub unsafe fn stamp(control: *mut Control, now: u64) {
    // SAFETY: this function's contract; readers take each field as one word.
    unsafe {
        expect_tick(control);
        let set = (*control).clock.set(now, jiffies());
        (&raw mut (*control).clock.origin).write_volatile(set.origin);
    }
}

/// Age counter of the flow table.
#[inline(always)]
pub fn age() -> u32 {
    // SAFETY: the element lives as long as the program; the field is one aligned word.
    CONTROL.get_ptr(0).map_or(0, |control| unsafe {
        (&raw const (*control).age).read_volatile()
    })
}

/// Jiffies: a load, where the clock is a call.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: the helper takes nothing and fails never.
    unsafe { bpf_jiffies64() }
}

/// Starts the timer again if it has been silent for too long.
#[inline(always)]
pub fn keep_timer() {
    let Some(control) = CONTROL.get_ptr(0) else {
        return;
    };
    // SAFETY: the element lives as long as the program; the field is one aligned word.
    let stale_after = unsafe { (&raw const (*control).stale_after).read_volatile() };
    if jiffies() > stale_after {
        deadman::revive();
    }
}

/// The state of this moment; `None` before the guard has started.
#[inline(always)]
pub fn view() -> Option<View> {
    let control = CONTROL.get_ptr(0)?;
    // SAFETY: the element lives as long as the program; each field is one aligned word, read once.
    let age = unsafe { (&raw const (*control).age).read_volatile() };
    for _ in 0..READS {
        // SAFETY: as above.
        let word = unsafe { (&raw const (*control).word).read_volatile() };
        if word == 0 {
            return None;
        }
        let record = RECORDS_RING.get(place(word))?;
        let view = of_record(record, age, ticks(control));
        // SAFETY: a reference into the map is always readable.
        if unsafe { (&raw const record.number).read_volatile() } == word {
            return Some(view);
        }
    }
    None
}

#[inline(always)]
fn of_record(record: &ControlRecord, age: u32, ticks: Ticks) -> View {
    let trial = lives(record, ticks);
    let evidence = trial && record.flags & control_flag::EVIDENCE != 0;
    let watch = !trial && record.flags & control_flag::WATCH != 0;
    let (mask, stage, within_ms, pace) = if evidence {
        (0, record.stage, u32::from(record.within_ms), record.pace)
    } else if watch {
        (
            record.watch_mask(),
            WATCH_STAGE,
            record.watch_within_ms(),
            pace::ALL,
        )
    } else {
        (View::NOBODY, 0, 0, pace::ALL)
    };
    View {
        active: u32::from(record.active),
        evidence,
        mask,
        stage,
        within_ms,
        pace: u32::from(pace),
        shadow: u32::from(record.shadow),
        trial,
        share: record.share,
        salt: record.salt,
        generation: record.active_generation,
        change: if trial { u32::from(record.change) } else { 0 },
        removes: trial && record.removes != 0,
        age,
    }
}

/// How a judged trial divides new flows.
pub struct Split {
    /// New arm's share.
    pub share: u32,
    /// Salt of the arms.
    pub salt: u64,
    /// How many of a VIP's new flows are followed, see [`lb_common::pace`].
    pub pace: u32,
}

/// [`Split`] of a judged trial that lives; `None` if there is none, or the record is of another moment than
/// the word.
#[inline(always)]
pub fn split(brief: Brief) -> Option<Split> {
    let control = CONTROL.get_ptr(0)?;
    // SAFETY: the element lives as long as the program; the field is one aligned word.
    let word = unsafe { (&raw const (*control).word).read_volatile() };
    let record = RECORDS_RING.get(place(word))?;
    let split = Split {
        share: record.share,
        salt: record.salt,
        pace: u32::from(record.pace),
    };
    let agrees = Brief::of(record) == brief && brief.is_judged();
    // SAFETY: a reference into the map is always readable.
    let same = unsafe { (&raw const record.number).read_volatile() } == word;
    (agrees && same && outlives()).then_some(split)
}

/// Whether a trial whose [`Brief`] was just read lives: no deadman is due, nor will be soon.
#[inline(always)]
pub fn outlives() -> bool {
    let Some(control) = CONTROL.get_ptr(0) else {
        return false;
    };
    // SAFETY: the element lives as long as the program; the field is one aligned word.
    let due_ns = unsafe { (&raw const (*control).trial_due_ns).read_volatile() };
    ticks(control).soon(jiffies()) < due_ns
}

/// Whether a trial lives now. The clock itself is asked only if a deadman may be due.
#[inline(always)]
fn lives(record: &ControlRecord, ticks: Ticks) -> bool {
    let on_trial = record.flags & control_flag::TRIAL != 0;
    on_trial && (record.trial_lives(ticks.soon(jiffies())) || record.trial_lives(now()))
}

/// The right to publish. Taken by one exchange, never waited for: the timer may run on top of the
/// guard on the same CPU.
pub struct Writer {
    control: *mut Control,
}

impl Writer {
    /// Takes the lock, or `None` if another holds it.
    #[inline(always)]
    pub fn take() -> Option<Self> {
        let control = CONTROL.get_ptr_mut(0)?;
        // SAFETY: the lock is an aligned word of a map element that lives as long as the program.
        let (_, taken) = unsafe {
            atomic_cxchg::<u32, { AtomicOrdering::AcqRel }, { AtomicOrdering::Acquire }>(
                &raw mut (*control).lock,
                0,
                1,
            )
        };
        taken.then_some(Self { control })
    }

    /// Gives the lock back.
    #[inline(always)]
    pub fn give(self) {
        // SAFETY: as in `take`; this holds the lock.
        unsafe {
            atomic_xchg::<u32, { AtomicOrdering::AcqRel }>(&raw mut (*self.control).lock, 0);
        }
    }

    /// The control element.
    #[inline(always)]
    pub fn control(&self) -> *mut Control {
        self.control
    }

    /// The current record; `None` before the first was published.
    #[inline(always)]
    pub fn record(&self) -> Option<&'static ControlRecord> {
        // SAFETY: as in `take`.
        let word = unsafe { (*self.control).word };
        if word == 0 {
            return None;
        }
        RECORDS_RING.get(place(word))
    }

    /// Makes `edit` of the current record the current record: written whole into the next place of
    /// the ring, then published by one exchange. What the short way goes by follows; between its two words a
    /// trial that begins has no time to live yet, and one that is over has none any more.
    #[inline(always)]
    pub fn publish(&self, edit: impl FnOnce(ControlRecord) -> ControlRecord) -> bool {
        // SAFETY: as in `take`.
        let word = unsafe { (*self.control).word };
        let number = word.wrapping_add(1);
        let (Some(current), Some(next)) = (
            RECORDS_RING.get(place(word)),
            RECORDS_RING.get_ptr_mut(place(number)),
        ) else {
            return false;
        };
        // SAFETY: both places are map elements; only the holder of the lock writes the ring, and
        // readers of the place that is overwritten notice by its number.
        unsafe {
            (&raw mut (*next).number).write_volatile(0);
            next.write(edit(*current));
            (&raw mut (*next).number).write_volatile(number);
            atomic_xchg::<u64, { AtomicOrdering::AcqRel }>(&raw mut (*self.control).word, number);
            let brief = Brief::of(&*next);
            (&raw mut (*self.control).brief).write_volatile(brief.0);
            (&raw mut (*self.control).trial_due_ns).write_volatile((*next).trial_due_ns());
        }
        true
    }
}
