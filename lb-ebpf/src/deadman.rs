//! The deadman: a timer in the kernel that ends a trial whose lease or deadline has passed, with
//! no agent and no packet.
//!
//! A map with a `bpf_timer` cannot be frozen, and one stray write to it stops the timer for good.
//! So it holds nothing else, each tick is stamped in the frozen control map, and packets and guard
//! start it again when it has been silent. It is never cancelled.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::helpers::generated::{bpf_timer_init, bpf_timer_set_callback, bpf_timer_start};
use lb_common::control::{Cause, ControlRecord, control_flag};
use lb_common::flow::age_at;
use lb_common::invariant::trips;

use crate::control::{self, Writer};
use crate::maps::{AGE_SHIFT, CONTROL, HARD_EVENTS, POLICY, TIMER};
use crate::{breaker, room};

/// Time between ticks.
const TICK_NS: u64 = 100_000_000;
/// Time to the next attempt when the guard holds the lock.
const RETRY_NS: u64 = 1_000_000;
/// The boot-time clock: suspend counts.
const CLOCK_BOOTTIME: u64 = 7;

/// The kernel's timer; its name in BTF is what the verifier looks for.
#[allow(non_camel_case_types)]
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct bpf_timer {
    opaque: [u64; 2],
}

/// The value of the timer's map.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TimerCell {
    timer: bpf_timer,
}

/// Sets the callback from the calling program and starts the timer. Harmless when it runs.
#[inline(always)]
pub fn start() {
    let Some(cell) = TIMER.get_ptr_mut(0) else {
        return;
    };
    let timer = cell.cast();
    // SAFETY: `timer` is the bpf_timer at the start of the element of the map that is passed; the
    // callback has the signature the kernel calls. Initialising one that exists returns EBUSY.
    unsafe {
        bpf_timer_init(timer, (&raw const TIMER).cast_mut().cast(), CLOCK_BOOTTIME);
        bpf_timer_set_callback(timer, tick as *mut c_void);
        bpf_timer_start(timer, TICK_NS, 0);
    }
}

/// Starts the timer again after it has been silent, once per silence.
#[inline(never)]
pub fn revive() {
    let Some(control) = CONTROL.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: an element of the control map; the patience is set before anybody reads it, and the
    // worst that a race does here is to start a timer twice.
    unsafe {
        if (*control).word == 0 {
            return;
        }
        control::expect_tick(control);
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*control).restarts, 1);
    }
    start();
}

/// One tick. Returns 0, as the kernel demands of timer callbacks.
extern "C" fn tick(_map: *mut c_void, _key: *mut c_void, timer: *mut c_void) -> i64 {
    let now = control::now();
    let next = judge(now);
    // SAFETY: the kernel passes the element that holds the running timer.
    unsafe { bpf_timer_start(timer.cast(), next, 0) };
    0
}

/// Stamps the tick, ends a trial that is overdue, and says when to tick next, in ns.
#[inline(always)]
fn judge(now: u64) -> u64 {
    let Some(control) = CONTROL.get_ptr_mut(0) else {
        return TICK_NS;
    };
    // SAFETY: an element of the control map; only the one timer writes these fields, and readers
    // take each as one word.
    unsafe {
        (&raw mut (*control).ticked_ns).write_volatile(now);
        (*control).ticks = (*control).ticks.wrapping_add(1);
        (&raw mut (*control).age).write_volatile(age_at(now, AGE_SHIFT.load()));
        control::stamp(control, now);
    }
    let Some(writer) = Writer::take() else {
        return RETRY_NS;
    };
    let next = end_overdue(&writer, now);
    if let Some(record) = writer.record() {
        room::tick(control, record);
    }
    writer.give();
    next
}

#[inline(always)]
fn end_overdue(writer: &Writer, now: u64) -> u64 {
    let Some(record) = writer.record() else {
        return TICK_NS;
    };
    if record.flags & control_flag::TRIAL == 0 {
        return TICK_NS;
    }
    if record.overdue(now) == Cause::None {
        let vip = watch(writer, record, now);
        if vip != 0 || tripped(record) {
            writer.publish(|record| {
                let mut over = record.trial_over(Cause::Breaker, u32::MAX, now);
                over.flags |= control_flag::LATCHED;
                over.tripped_vip = vip;
                over
            });
            return TICK_NS;
        }
    }
    match record.overdue(now) {
        Cause::None => until_next(record.deadline_ns, now).min(until_next(record.lease_ns, now)),
        cause => {
            writer.publish(|record| record.trial_over(cause, u32::MAX, now));
            TICK_NS
        }
    }
}

/// K8: the sums of the VIPs that the change moves; the number of the one that tripped plus 1, or 0.
#[inline(always)]
fn watch(writer: &Writer, record: &ControlRecord, now: u64) -> u32 {
    if record.flags & control_flag::EVIDENCE == 0 {
        return 0;
    }
    // SAFETY: the control element; only the timer writes this field.
    let ticks = unsafe { (*writer.control()).ticks };
    breaker::end_due(record, now, ticks);
    breaker::judge(record, now)
}

/// K8: hard events in the new arm, and none in control.
#[inline(always)]
fn tripped(record: &ControlRecord) -> bool {
    let (Some(policy), Some(new), Some(control)) = (
        POLICY.get(0),
        HARD_EVENTS.get(u32::from(record.shadow)),
        HARD_EVENTS.get(u32::from(record.active)),
    ) else {
        return false;
    };
    trips(new, control, policy.hard_events)
}

/// Time to the next tick, so that a deadman fires when it is due and not up to a tick later.
#[inline(always)]
fn until_next(due_ns: u64, now: u64) -> u64 {
    if due_ns == 0 || due_ns <= now {
        return TICK_NS;
    }
    (due_ns - now).clamp(RETRY_NS, TICK_NS)
}
