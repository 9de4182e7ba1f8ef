//! Room in the flow table: more or less of it in use as flows come and go, and none for a flood.
//!
//! Each CPU counts the flows that are new to it, and at every 64th does what is due: adds them to
//! the shared estimate, has the table grow, moves some lines. The timer does the same when nobody
//! inserts, and has the table shrink. What a complete sweep has counted takes the estimate's place.
//!
//! **Flood.** When the table has all the flows that it is meant for, and new ones come to this CPU at more
//! than the limit, none is remembered for the rest of that second: whoever is established keeps what he has.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use lb_common::SLOTS;
use lb_common::control::{Control, ControlRecord, control_flag};
use lb_common::flow::{Birth, Entry, FORGOTTEN, LINE_ENTRIES, ORPHAN};
use lb_common::flow_table::{FIRST_BLOCKS, LOAD, Line as _, Shape};
use lb_common::guard::Refusal;
use lb_common::room::{FlowLocal, FlowRoom};
use lb_common::slot::{member_state, on_dead};

use crate::control::jiffies;
use crate::flows::{self, shape};
use crate::maps::{self, CONTROL, FLOOD_RATE, FLOW_LINES, FLOW_LOCAL, FLOW_ROOM, MEMBERS};
use crate::walk::walk;

/// New flows on a CPU between two looks at what is due, a power of two.
const BATCH: u64 = 64;
/// Lines moved at one such look: the table is moved before a quarter of what it holds has come anew.
const LINES: u32 = 64;
/// Lines moved or looked at by one tick of the timer.
const TICK_LINES: u32 = 2_048;
/// Ticks in which the timer sweeps the whole table.
const PASS_TICKS: u32 = 512;

/// This CPU's record.
#[derive(Clone, Copy)]
pub struct Local(*mut FlowLocal);

/// This CPU's record.
#[inline(always)]
pub fn local() -> Option<Local> {
    FLOW_LOCAL.get_ptr_mut(0).map(Local)
}

impl Local {
    /// Whether unknown flows are refused now.
    #[inline(always)]
    pub fn is_flooded(&self) -> bool {
        // SAFETY: this CPU's copy of a map element.
        let until = unsafe { (*self.0).flooded_until };
        until != 0 && jiffies() < until
    }

    /// Counts a new flow; true if it is time to look at what is due.
    #[inline(always)]
    pub fn count(&self) -> bool {
        // SAFETY: as above.
        unsafe {
            (*self.0).added = (*self.0).added.wrapping_add(1);
            (*self.0).added & (BATCH - 1) == 0
        }
    }

    /// Counts a flow that was refused.
    #[inline(always)]
    pub fn refuse(&self) {
        // SAFETY: as above.
        unsafe { (*self.0).refused = (*self.0).refused.wrapping_add(1) }
    }

    /// Counts a flow that had to give its place to another.
    #[inline(always)]
    pub fn evict(&self) {
        // SAFETY: as above.
        unsafe { (*self.0).evicted = (*self.0).evicted.wrapping_add(1) }
    }
}

/// Does what is due on this CPU: as a global function of a number, 1 if a line is full.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn make(full: u32) -> u32 {
    let (Some(room), Some(local)) = (FLOW_ROOM.get_ptr_mut(0), local()) else {
        return 0;
    };
    let entries = if full == 0 {
        // SAFETY: an aligned word of a map element.
        let before = unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*room).entries, BATCH)
        };
        before.wrapping_add(BATCH)
    } else {
        0
    };
    if full == 0 {
        watch_rate(&local, entries);
    }
    let shape = shape();
    if shape.is_moving() {
        advance(shape, LINES);
    } else if full != 0 || entries > shape.crowded() {
        become_shape(shape, shape.grown(FLOW_LINES.load()));
    }
    1
}

/// Notes how fast flows come; more than the limit of them in a second, and no room, is a flood.
#[inline(always)]
fn watch_rate(local: &Local, entries: u64) {
    let Some(control) = CONTROL.get_ptr(0) else {
        return;
    };
    // SAFETY: this CPU's copy of a map element, and the control element, of which `patience` is
    // 0.3 s in jiffies.
    unsafe {
        let now = jiffies();
        let local = &mut *local.0;
        if now >= local.second_ends {
            local.second_ends = now.wrapping_add((*control).patience.wrapping_mul(10) / 3);
            local.in_second = 0;
            local.flooded_until = 0;
        }
        local.in_second = local.in_second.wrapping_add(BATCH);
        let meant = u64::from(FLOW_LINES.load()) * u64::from(LOAD);
        if FLOOD_RATE.load() != 0
            && local.in_second > u64::from(FLOOD_RATE.load())
            && entries >= meant
        {
            local.flooded_until = local.second_ends;
            local.floods = local.floods.wrapping_add(1);
        }
    }
}

/// Publishes another shape, if this one holds still.
#[inline(always)]
fn become_shape(old: Shape, new: Shape) {
    let (Some(control), Some(room)) = (CONTROL.get_ptr_mut(0), FLOW_ROOM.get_ptr_mut(0)) else {
        return;
    };
    if old == new {
        return;
    }
    // SAFETY: aligned words of map elements. The counts are reset while nothing is moving, so nobody
    // else uses them; of two CPUs that come here at once one fails below.
    unsafe {
        if new.is_moving() {
            (&raw mut (*room).claimed).write_volatile(0);
            (&raw mut (*room).moved).write_volatile(0);
        }
        let (_, done) = atomic_cxchg::<u64, { AtomicOrdering::AcqRel }, { AtomicOrdering::Acquire }>(
            &raw mut (*control).shape,
            old.0,
            new.0,
        );
        if done && new.is_moving() {
            (*room).changes = (*room).changes.wrapping_add(1);
        }
    }
}

/// What a walk over lines carries.
struct Lines {
    first: u32,
}

/// Moves the next lines of a table whose entries are being moved.
#[inline(always)]
fn advance(shape: Shape, most: u32) {
    let Some(room) = FLOW_ROOM.get_ptr_mut(0) else {
        return;
    };
    let (first, lines) = shape.moving();
    // SAFETY: an aligned word of a map element.
    let claimed = unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(
            &raw mut (*room).claimed,
            u64::from(most),
        )
    };
    if claimed >= u64::from(lines) {
        return;
    }
    let turns = lines.wrapping_sub(claimed as u32).min(most);
    let mut state = Lines {
        first: first.wrapping_add(claimed as u32),
    };
    if walk(turns * LINE_ENTRIES as u32, move_turn, &mut state).is_err() {
        return;
    }
    // SAFETY: as above.
    let moved = unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(
            &raw mut (*room).moved,
            u64::from(turns),
        )
    };
    if moved.wrapping_add(u64::from(turns)) >= u64::from(lines) {
        become_shape(shape, shape.moved());
    }
}

/// A turn an entry, since calls may not go deeper than eight functions.
extern "C" fn move_turn(turn: u32, state: *mut Lines) -> i64 {
    // SAFETY: what `walk` was given.
    let first = unsafe { (*state).first };
    flows::move_one(
        first.wrapping_add(turn / LINE_ENTRIES as u32),
        turn & (LINE_ENTRIES as u32 - 1),
    );
    0
}

/// What the timer does: moves lines, and sweeps the table once a minute. The caller holds the lock.
#[inline(always)]
pub fn tick(control: *mut Control, record: &ControlRecord) {
    let shape = shape();
    if shape.is_moving() {
        begin_again(shape);
        advance(shape, TICK_LINES);
    }
    let lines = (shape.lines() / PASS_TICKS).clamp(LINES, TICK_LINES);
    let _ = sweep(control, record, lines);
}

/// If every line was taken on and not every one is moved, somebody took on lines that were none, while
/// the table's size changed under him: all over again, which moves nothing twice.
#[inline(always)]
fn begin_again(shape: Shape) {
    let Some(room) = FLOW_ROOM.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: aligned words of a map element.
    unsafe {
        if (*room).claimed >= u64::from(shape.moving().1) {
            (&raw mut (*room).moved).write_volatile(0);
            (&raw mut (*room).claimed).write_volatile(0);
        }
    }
}

/// What a sweep carries.
struct Sweeping {
    first: u32,
    /// Entries that stay.
    stay: u32,
    /// Entries of dead backends that went.
    purged: u32,
    /// Bits of the slots that decide.
    deciding: u32,
    /// With no trial on, no flow is of a change any more: its short id may come round.
    settle: bool,
    /// Whether flows that have been idle for [`FORGOTTEN`] steps are forgotten.
    forget: bool,
    age: u32,
}

/// Looks at the next lines: forgets flows whose backend no slot has, or is dead in a pool that does not keep
/// them, and in a table that has grown those that have been idle for long, too. The caller holds the lock.
#[inline(always)]
pub fn sweep(control: *mut Control, record: &ControlRecord, most: u32) -> Result<(), Refusal> {
    let Some(room) = FLOW_ROOM.get_ptr_mut(0) else {
        return Ok(());
    };
    let shape = shape();
    let lines = shape.lines();
    // SAFETY: the control element under the lock.
    let (place, age) = unsafe { ((*control).sweep_place, (*control).age) };
    let turns = lines.saturating_sub(place).min(most);
    let mut sweeping = Sweeping {
        first: place,
        stay: 0,
        purged: 0,
        deciding: deciding(record),
        settle: record.flags & control_flag::TRIAL == 0,
        forget: shape.now() >= FIRST_BLOCKS,
        age,
    };
    walk(turns, sweep_line, &mut sweeping)?;
    // SAFETY: as above; of the room's element only the holder of the lock writes these two.
    unsafe {
        (*room).counting = (*room).counting.wrapping_add(u64::from(sweeping.stay));
        (*room).purged = (*room).purged.wrapping_add(u64::from(sweeping.purged));
        (*control).sweep_place = place.wrapping_add(turns);
        if (*control).sweep_place >= lines {
            (*control).sweep_place = 0;
            (*control).sweeps = (*control).sweeps.wrapping_add(1);
            counted((*room).counting);
            (*room).counting = 0;
        }
    }
    Ok(())
}

extern "C" fn sweep_line(turn: u32, sweep: *mut Sweeping) -> i64 {
    // SAFETY: what `walk` was given.
    let sweep = unsafe { &mut *sweep };
    let Some(line) = flows::line(sweep.first.wrapping_add(turn)) else {
        return 1;
    };
    for place in 0..LINE_ENTRIES {
        let entry = Entry(line.get(place));
        if entry.0 == 0 {
            continue;
        }
        let fate = fate(entry.member(), sweep.deciding);
        let old = entry.idle(sweep.age) >= FORGOTTEN;
        let idle = old && (sweep.forget || entry.member() == ORPHAN);
        if fate == ORPHANED {
            let went = line.swap(place, entry.0, entry.orphaned(sweep.age).0);
            sweep.purged = sweep.purged.wrapping_add(u32::from(went));
            sweep.stay = sweep.stay.wrapping_add(1);
        } else if fate != STAYS || idle {
            let went = line.swap(place, entry.0, 0);
            sweep.purged = sweep.purged.wrapping_add(u32::from(went && fate == PURGED));
        } else {
            sweep.stay = sweep.stay.wrapping_add(1);
            if sweep.settle && entry.birth() != Birth::SETTLED {
                line.swap(place, entry.0, entry.settled().0);
            }
        }
    }
    0
}

/// The slots that packets may be decided by.
#[inline(always)]
fn deciding(record: &ControlRecord) -> u32 {
    let shadow = if record.flags & control_flag::TRIAL != 0 {
        1 << (record.shadow & 7)
    } else {
        0
    };
    1 << (record.active & 7) | shadow
}

/// What becomes of the entries of a backend in a sweep.
const STAYS: u32 = 0;
/// No slot has it.
const GONE: u32 = 1;
/// It is dead, and no pool that it is in keeps the flows of such.
const PURGED: u32 = 2;
/// So it is, and one has its clients reset.
const ORPHANED: u32 = 3;

/// [`STAYS`], [`GONE`], [`PURGED`] or [`ORPHANED`]. A backend that only a slot has that does not decide stays: a way back
/// is to find its flows.
///
/// A global function of numbers, so that the verifier checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn fate(member: u32, deciding: u32) -> u32 {
    if member == ORPHAN {
        return STAYS;
    }
    let Some(member) = MEMBERS.get(member).filter(|member| member.slots != 0) else {
        return GONE;
    };
    if member.state != member_state::DOWN {
        return STAYS;
    }
    let mut fate = STAYS;
    for slot in 0..SLOTS as u32 {
        if deciding & u32::from(member.slots) & 1 << slot == 0 {
            continue;
        }
        let Some(pool) = maps::pool(slot, u32::from(member.pool)) else {
            return STAYS;
        };
        // SAFETY: an element of the pools; the field is one byte.
        match unsafe { (*pool).on_dead } {
            on_dead::KEEP => return STAYS,
            on_dead::RESET => fate = ORPHANED,
            _ if fate == STAYS => fate = PURGED,
            _ => {}
        }
    }
    fate
}

/// After a complete sweep that has counted the entries.
#[inline(always)]
fn counted(entries: u64) {
    let Some(room) = FLOW_ROOM.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: an aligned word of a map element.
    unsafe { (&raw mut (*room).entries).write_volatile(entries) };
    let shape = shape();
    if entries < shape.sparse() {
        become_shape(shape, shape.shrunk());
    }
}

const _: () = assert!(BATCH.is_power_of_two() && size_of::<FlowRoom>() == 64);
