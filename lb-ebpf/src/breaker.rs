//! The breaker in the timer: each tick judges the bins of handshakes that have become mature (K8).
//!
//! Counters only rise and their bins come round, so what a bin's counters are is noted before it
//! begins, and the difference counts once it is mature. With ticks of 100 ms and bins of 134 ms, one
//! bin a tick keeps up.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_map_lookup_percpu_elem;
use lb_common::breaker::{BreakerState, Sums, Tally, Watched, mature_before};
use lb_common::control::ControlRecord;
use lb_common::evidence::{ARMS, BIN_NS_SHIFT, BINS, Evidence};
use lb_common::track::TRACKS as PLACES;

use crate::control::lately;
use crate::maps::{BREAKER, EVIDENCE, VIPS_MAX, WATCH_LIST};
use crate::tracks;
use crate::walk::walk;

/// Records of followed flows that one tick looks at: all of them in 0.8 s.
const LOOKED_AT: u32 = PLACES / 8;
/// CPUs there may be; the kernel says where they end.
const MOST_CPUS: u32 = 8_192;
/// Bins that may wait to be judged; what is older is left out.
const BACKLOG: u64 = 8;
const NS_PER_MS: u64 = 1_000_000;

/// One tick's work on the watched VIPs.
struct Round {
    /// Bin to note, and bin to judge.
    note: u32,
    judge: u32,
    judging: u32,
    /// Number of the VIP that tripped, plus 1.
    tripped: u32,
}

/// Counters of one VIP in the two bins, over CPUs: started and completed, control and new.
struct Sum {
    vip: u32,
    note: u32,
    judge: u32,
    noted: [u32; 4],
    judged: [u32; 4],
}

/// Judges what has become mature; the number of the VIP that tripped plus 1, or 0.
#[inline(always)]
pub fn judge(record: &ControlRecord, now: u64) -> u32 {
    let Some(state) = BREAKER.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a map element; the timer holds the lock.
    let held = unsafe { &mut *state };
    // By the clock of the flows.
    let mature = mature_before(lately(), u64::from(record.within_ms) * NS_PER_MS);
    if held.next_bin + BACKLOG < mature {
        held.next_bin = mature;
        held.noted = 0;
    }
    // Noted while it is still to come, so that nothing is in it yet.
    let note = (now >> BIN_NS_SHIFT) + 1;
    let judge = held.next_bin;
    let known = held.noted & 1 << (judge as u32 & 31) != 0;
    let mut round = Round {
        note: note as u32 & 31,
        judge: judge as u32 & 31,
        judging: u32::from(judge < mature && known),
        tripped: 0,
    };
    if judge < mature {
        held.next_bin = judge + 1;
        held.noted &= !(1 << round.judge);
    }
    if note >= held.next_bin {
        held.noted |= 1 << round.note;
    }
    let watched = held.watched;
    let _ = walk(watched, watch, &mut round);
    round.tripped
}

extern "C" fn watch(turn: u32, round: *mut Round) -> i64 {
    // SAFETY: what `walk` was given.
    let round = unsafe { &mut *round };
    let Some(watched) = WATCH_LIST.get_ptr_mut(turn) else {
        return 1;
    };
    // SAFETY: a map element; the timer holds the lock.
    let watched = unsafe { &mut *watched };
    let mut sum = Sum {
        vip: watched.vip,
        note: round.note,
        judge: round.judge,
        noted: [0; 4],
        judged: [0; 4],
    };
    let _ = walk(MOST_CPUS, add_cpu, &mut sum);
    if round.judging != 0 && step(turn, watched, &sum) {
        round.tripped = watched.vip.wrapping_add(1);
        return 1;
    }
    watched.noted[round.note as usize & (BINS - 1)] = sum.noted;
    0
}

/// Handshakes of the bin since it began, started in the upper half and completed in the lower.
#[inline(always)]
fn step(turn: u32, watched: &Watched, sum: &Sum) -> bool {
    let before = watched.noted[sum.judge as usize & (BINS - 1)];
    let risen = |arm: usize| {
        let started = sum.judged[arm].wrapping_sub(before[arm]);
        let completed = sum.judged[arm + 1].wrapping_sub(before[arm + 1]);
        u64::from(started) << 32 | u64::from(completed)
    };
    step_watched(turn, risen(2), risen(0)) != 0
}

/// Adds a bin to the sums of a watched VIP; whether they trip. A global function of numbers, so that the
/// verifier checks it once and not for every way that a sum can have come about.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn step_watched(turn: u32, new: u64, control: u64) -> u32 {
    let (Some(watched), Some(state)) = (WATCH_LIST.get_ptr_mut(turn), BREAKER.get_ptr(0)) else {
        return 0;
    };
    let pair = |risen: u64| ((risen >> 32) as u32, risen as u32);
    let tally = Tally::of(pair(new), pair(control));
    // SAFETY: map elements; the timer holds the lock.
    let (watched, state) = unsafe { (&mut *watched, &*state) };
    u32::from(state.breaker.step(&mut watched.sums, &tally))
}

extern "C" fn add_cpu(cpu: u32, sum: *mut Sum) -> i64 {
    // SAFETY: what `walk` was given.
    let sum = unsafe { &mut *sum };
    for arm in 0..ARMS as u32 {
        let key = arm * VIPS_MAX.load() + sum.vip;
        // SAFETY: a map and a key of its kind; the kernel returns null beyond the last CPU.
        let counts = unsafe {
            bpf_map_lookup_percpu_elem(
                (&raw const EVIDENCE).cast_mut().cast(),
                (&raw const key).cast::<c_void>(),
                cpu,
            )
        };
        if counts.is_null() {
            return 1;
        }
        // SAFETY: not null, so an element of that map.
        let counts = unsafe { &*counts.cast::<Evidence>() };
        let place = (arm as usize & 1) * 2;
        let (note, judge) = (
            sum.note as usize & (BINS - 1),
            sum.judge as usize & (BINS - 1),
        );
        sum.noted[place] = sum.noted[place].wrapping_add(counts.started[note]);
        sum.noted[place + 1] = sum.noted[place + 1].wrapping_add(counts.completed[note]);
        sum.judged[place] = sum.judged[place].wrapping_add(counts.started[judge]);
        sum.judged[place + 1] = sum.judged[place + 1].wrapping_add(counts.completed[judge]);
    }
    0
}

/// Begins a step: no bin that has begun counts.
#[inline(always)]
pub fn begin(held: &mut BreakerState, now: u64) {
    held.next_bin = (now >> BIN_NS_SHIFT) + 1;
    held.noted = 0;
    let _ = walk(held.watched, clear, &mut 0_u64);
}

extern "C" fn clear(turn: u32, _state: *mut u64) -> i64 {
    if let Some(watched) = WATCH_LIST.get_ptr_mut(turn) {
        // SAFETY: a map element under the lock.
        unsafe { (*watched).sums = Sums::ZERO };
    }
    0
}

/// What the look at followed flows carries.
struct Looking {
    now: u64,
    first: u32,
    change: u8,
    stage: u8,
}

/// Counts the flows that have been followed for long enough, an eighth of all places a tick.
#[inline(always)]
pub fn end_due(record: &ControlRecord, now: u64, tick: u64) {
    let mut looking = Looking {
        now,
        first: (tick as u32 & 7) * LOOKED_AT,
        change: record.change,
        stage: record.stage as u8,
    };
    let _ = walk(LOOKED_AT, look, &mut looking);
}

extern "C" fn look(turn: u32, looking: *mut Looking) -> i64 {
    // SAFETY: what `walk` was given.
    let looking = unsafe { &*looking };
    let number = looking.first.wrapping_add(turn);
    tracks::look_at(number, looking.now, looking.change, looking.stage);
    0
}
