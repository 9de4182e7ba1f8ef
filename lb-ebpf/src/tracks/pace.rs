//! Whether a new flow of a trial is followed: [`lb_common::pace`] on a map.

use lb_common::pace::{self, Counted};

use crate::control::lately;
use crate::maps::{PACES, VIPS_MAX};

#[inline(always)]
fn used_up_to(vip: u16) -> Option<*mut u64> {
    let vip = u32::from(vip);
    if vip >= VIPS_MAX.load() {
        return None;
    }
    PACES.get_ptr_mut(vip)
}

/// Whether a flow that begins is passed over: the change does not move it, or its VIP's pace, if it has one, is
/// used up. Asking takes nothing, so that it can be asked again.
#[inline(always)]
pub fn passes_over(counted: Counted, paced: bool) -> bool {
    // SAFETY: a map element of one aligned word.
    let used_up = |word: *mut u64| pace::is_used_up(unsafe { word.read_volatile() }, lately());
    !counted.is_moved() || (paced && used_up_to(counted.vip()).is_some_and(used_up))
}

/// Uses up what a flow takes that is followed from now on. What another CPU has used up at the same moment may
/// be forgotten: some flows more are followed then.
#[inline(always)]
pub fn use_up(vip: u16, pace: u16) {
    if pace == pace::ALL {
        return;
    }
    if let Some(word) = used_up_to(vip) {
        // SAFETY: a map element of one aligned word.
        unsafe { word.write_volatile(pace::used(word.read_volatile(), lately(), pace)) };
    }
}
