//! Names beside the numbers of VIPs, pools and members.
//!
//! A number that ACTIVE or LKG has keeps its name: what is staged may be refused or put back, and what runs
//! would be read out under the wrong one.

use lb_common::guard::Refusal;
use lb_common::slot::Name;
use lb_common::wire::Frame;

use super::Outcome;
use crate::packet::XdpFrame;

/// Bytes of a name that are on the stack at a time, which is short here.
const NAME_PART: usize = 16;
const _: () = assert!(size_of::<Name>().is_multiple_of(NAME_PART));

/// Copies a name of the payload into a map of names.
#[inline(always)]
pub fn copy_name(frame: &XdpFrame, offset: usize, place: Option<*mut Name>) -> Outcome {
    let place = place.ok_or(Refusal::OutOfRange)?;
    // The last part first: where that can be read, all can, so that nothing is written by halves.
    for part in (0..size_of::<Name>() / NAME_PART).rev() {
        let bytes: [u8; NAME_PART] = frame
            .read(offset + part * NAME_PART)
            .ok_or(Refusal::Malformed)?;
        // SAFETY: a part of an element of a map of names under the lock.
        unsafe { place.cast::<[u8; NAME_PART]>().add(part).write(bytes) };
    }
    Ok(())
}

/// The same for a number that may be taken; then it must be the name that it has.
#[inline(always)]
pub fn give_name(
    frame: &XdpFrame,
    offset: usize,
    place: Option<*mut Name>,
    taken: bool,
) -> Outcome {
    if taken && !is_name(frame, offset, place)? {
        return Err(Refusal::InUse);
    }
    copy_name(frame, offset, place)
}

#[expect(
    clippy::cast_ptr_alignment,
    reason = "values of maps are aligned to 8 bytes"
)]
#[inline(always)]
fn is_name(frame: &XdpFrame, offset: usize, place: Option<*mut Name>) -> Result<bool, Refusal> {
    let place = place.ok_or(Refusal::OutOfRange)?;
    for part in 0..size_of::<Name>() / size_of::<u64>() {
        let bytes: [u8; size_of::<u64>()] = frame
            .read(offset + part * size_of::<u64>())
            .ok_or(Refusal::Malformed)?;
        // SAFETY: a part of an element of a map of names, which are aligned to 8 bytes, under the lock.
        if unsafe { place.cast::<u64>().add(part).read() } != u64::from_ne_bytes(bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}
