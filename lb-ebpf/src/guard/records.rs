//! Records of a command's payload.

use aya_ebpf::bindings::xdp_md;
use lb_common::guard::Refusal;
use lb_common::slot::SlotHeader;

use super::begin::no_pool;
use super::{Call, Detail, Outcome, Shadow};
use crate::walk::{Turn, walk};

/// Records of a payload, taken one by one: verified once, however many there are.
///
/// 32 bytes and no more: of a function's stack Linux 6.1 counts whole 32 bytes, and takes 512 for a
/// chain of calls.
pub struct Records {
    /// The program's context, to read from the packet.
    pub ctx: *mut xdp_md,
    header: *mut SlotHeader,
    slot: u32,
    /// First number that the command names.
    pub first: u32,
    /// Number of the record that was refused, or the last one.
    pub number: u32,
    /// Code of the refusal, 0 if none.
    pub refusal: u32,
}

impl Records {
    /// Takes `count` records of the payload by `turn`.
    #[inline(always)]
    pub fn take(
        call: &Call<'_>,
        shadow: Shadow,
        first: u32,
        count: u32,
        turn: Turn<Self>,
        detail: &mut Detail,
    ) -> Outcome {
        let mut records = Self {
            ctx: call.ctx.ctx,
            header: shadow.header,
            slot: shadow.slot,
            first,
            number: 0,
            refusal: 0,
        };
        walk(count, turn, &mut records)?;
        detail[0] = u64::from(records.number);
        match Refusal::from_code(records.refusal) {
            None | Some(Refusal::Done) => Ok(()),
            // The only thing that a record can lack is its pool.
            Some(Refusal::Incomplete) => Err(no_pool(detail)),
            Some(refusal) => Err(refusal),
        }
    }

    /// SHADOW.
    #[inline(always)]
    pub const fn shadow(&self) -> Shadow {
        Shadow {
            slot: self.slot,
            header: self.header,
        }
    }

    /// Notes the outcome of a record; what the callback returns.
    #[inline(always)]
    pub fn note(&mut self, number: u32, outcome: Outcome) -> i64 {
        self.number = number;
        match outcome {
            Ok(()) => 0,
            Err(refusal) => {
                self.refusal = refusal as u32;
                1
            }
        }
    }
}
