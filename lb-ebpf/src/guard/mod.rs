//! The guard: the only writer of slots, tables, overlays and the pointer.
//!
//! One command a call, in the packet data of a test run; the reply is written over it. Rules are
//! the pure functions of `lb_common::invariant`; this fetches what they judge and stores what they
//! allow. Going back and reading the clock are free; everything else needs the agent's session.

mod begin;
mod keep;
mod members;
mod names;
mod policy;
mod pools;
mod records;
mod seal;
mod states;
mod steps;
mod sweep;
mod tables;
mod trial;
mod vip_puts;
mod watch;

use core::mem::offset_of;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::programs::XdpContext;
use lb_common::control::{ControlRecord, NO_SLOT, control_flag};
use lb_common::guard::{COMMAND_LEN, Command, MAGIC, Op, Refusal, Reply};
use lb_common::slot::{SlotHeader, slot_state};
use lb_common::wire::Frame;

use crate::control::{self, Writer};
use crate::maps::SLOT_HEADERS;
use crate::packet::{XdpFrame, write};

/// Numbers of a reply: results, or details of a refusal.
pub type Detail = [u64; 7];
/// What an op ends in.
pub type Outcome = Result<(), Refusal>;

/// One call. The command stays in the packet, since the stack is short.
pub struct Call<'a> {
    /// The program's context: command and payload are read from it.
    pub ctx: &'a XdpContext,
    /// The lock.
    pub writer: &'a Writer,
}

impl Call<'_> {
    /// An argument, cut to 32 bits.
    #[inline(always)]
    pub fn arg(&self, index: usize) -> u32 {
        self.arg64(index) as u32
    }

    /// An argument.
    #[inline(always)]
    pub fn arg64(&self, index: usize) -> u64 {
        self.field(offset_of!(Command, args) + index * size_of::<u64>())
    }

    /// Generation that the change is made from.
    #[inline(always)]
    pub fn base(&self) -> u64 {
        self.field(offset_of!(Command, base))
    }

    /// The caller's session.
    #[inline(always)]
    pub fn session(&self) -> u64 {
        self.field(offset_of!(Command, session))
    }

    #[inline(always)]
    fn field(&self, offset: usize) -> u64 {
        XdpFrame::new(self.ctx)
            .read::<[u8; 8]>(offset)
            .map_or(0, u64::from_ne_bytes)
    }

    /// The current record.
    #[inline(always)]
    pub fn record(&self) -> Result<&'static ControlRecord, Refusal> {
        self.writer.record().ok_or(Refusal::NotStarted)
    }
}

/// SHADOW: its number and its header.
#[derive(Clone, Copy)]
pub struct Shadow {
    /// Slot number.
    pub slot: u32,
    /// Its header.
    pub header: *mut SlotHeader,
}

impl Shadow {
    /// The bit of this slot.
    #[inline(always)]
    pub const fn bit(&self) -> u8 {
        1 << self.slot
    }
}

/// SHADOW in one state; refused while it is on trial.
#[inline(always)]
pub fn shadow(call: &Call<'_>, state: u32, detail: &mut Detail) -> Result<Shadow, Refusal> {
    let record = call.record()?;
    if record.flags & control_flag::TRIAL != 0 {
        return Err(Refusal::TrialOn);
    }
    if record.shadow == NO_SLOT {
        detail[0] = u64::from(slot_state::EMPTY);
        return Err(Refusal::SlotState);
    }
    let slot = u32::from(record.shadow);
    let header = SLOT_HEADERS.get_ptr_mut(slot).ok_or(Refusal::OutOfRange)?;
    // SAFETY: an element of the header map; only the holder of the lock writes it.
    let found = unsafe { (*header).state };
    if found != state {
        detail[0] = u64::from(found);
        return Err(Refusal::SlotState);
    }
    Ok(Shadow { slot, header })
}

/// Handles one call.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let mut detail: Detail = [0; 7];
    let status = match obey(ctx, &mut detail) {
        Ok(()) => Refusal::Done,
        Err(refusal) => refusal,
    };
    let written = write(ctx, offset_of!(Reply, magic), (!MAGIC).to_ne_bytes())
        && write(
            ctx,
            offset_of!(Reply, status),
            (status as u32).to_ne_bytes(),
        )
        && write(ctx, offset_of!(Reply, detail), detail.map(u64::to_ne_bytes));
    if written {
        xdp_action::XDP_PASS
    } else {
        xdp_action::XDP_ABORTED
    }
}

#[inline(always)]
fn obey(ctx: &XdpContext, detail: &mut Detail) -> Outcome {
    let [magic, op]: [[u8; 4]; 2] = XdpFrame::new(ctx).read(0).ok_or(Refusal::Malformed)?;
    let whole = XdpFrame::new(ctx).holds(COMMAND_LEN);
    if u32::from_ne_bytes(magic) != MAGIC || !whole {
        return Err(Refusal::Malformed);
    }
    let op = Op::from_code(u32::from_ne_bytes(op)).ok_or(Refusal::Malformed)?;
    control::keep_timer();
    let writer = Writer::take().ok_or(Refusal::Busy)?;
    let call = Call {
        ctx,
        writer: &writer,
    };
    let outcome = permitted(&call, op).and_then(|()| dispatch(&call, op, detail));
    writer.give();
    outcome
}

/// One writer: ops that change a configuration need the session that `Start` named.
#[inline(always)]
fn permitted(call: &Call<'_>, op: Op) -> Outcome {
    if matches!(op, Op::Start | Op::Revert | Op::Clock | Op::Freeze) {
        return Ok(());
    }
    let session = call.session();
    if session == 0 || call.record()?.session != session {
        return Err(Refusal::Session);
    }
    Ok(())
}

#[inline(always)]
fn dispatch(call: &Call<'_>, op: Op, detail: &mut Detail) -> Outcome {
    match op {
        Op::Start => begin::start(call, detail),
        Op::Begin => begin::begin(call, detail),
        Op::Clear => begin::clear(call, detail),
        Op::PutPool => pools::put_pool(call, detail),
        Op::PutMembers => members::put_members(call, detail),
        Op::OpenTable => tables::open(call, detail),
        Op::WriteTable => tables::write(call, detail),
        Op::SealTable => tables::seal(call, detail),
        Op::PutVips => vip_puts::put_vips(call, detail),
        Op::SealPool => pools::seal_pool(call, detail),
        Op::SealVip => seal::seal_vip(call, detail),
        Op::Seal => seal::seal(call, detail),
        Op::Trial => trial::trial(call, detail),
        Op::Lease => trial::lease(call, detail),
        Op::Confirm => trial::confirm(call, detail),
        Op::Revert => trial::revert(call, detail),
        Op::Abandon => begin::abandon(call, detail),
        Op::PutNextHops => members::put_next_hops(call, detail),
        Op::SetMember => states::set_member(call, detail),
        Op::Clock => {
            begin::clock(detail);
            Ok(())
        }
        Op::Sweep => sweep::sweep(call, detail),
        Op::SetPolicy => policy::set_policy(call, detail),
        Op::Freeze => policy::freeze(call),
        Op::Ack => policy::acknowledge(call),
        Op::FreeMember => sweep::free_member(call, detail),
        Op::Step => steps::step(call, detail),
        Op::Watch => watch::watch(call, detail),
        Op::KeepPool => keep::keep_pool(call, detail),
    }
}
