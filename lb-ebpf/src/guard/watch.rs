//! Watching between changes: some new flows are followed, so that people can be told what is odd.

use lb_common::control::{MOST_SAMPLING, control_flag};
use lb_common::guard::{LONGEST_HANDSHAKE_MS, Refusal};

use super::{Call, Detail, Outcome};

/// `Op::Watch`.
#[inline(never)]
pub fn watch(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    if call.record()?.flags & control_flag::TRIAL != 0 {
        return Err(Refusal::TrialOn);
    }
    let (on, sampling, within_ms) = (call.arg(0) != 0, call.arg(1), call.arg(2));
    if sampling > MOST_SAMPLING {
        detail[0] = u64::from(sampling);
        return Err(Refusal::OutOfRange);
    }
    if on && (within_ms == 0 || within_ms > LONGEST_HANDSHAKE_MS) {
        detail[0] = u64::from(within_ms);
        detail[1] = u64::from(LONGEST_HANDSHAKE_MS);
        return Err(Refusal::BadDeadline);
    }
    call.writer.publish(|record| {
        if on {
            record.watching(sampling, within_ms)
        } else {
            record.unwatched()
        }
    });
    Ok(())
}
