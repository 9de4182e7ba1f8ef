//! The control record as the machine sees it.

use lb_common::control::{ControlRecord, NO_SLOT, control_flag};

use super::*;

/// Generation 7 on trial over 6.
fn record() -> ControlRecord {
    let zero: [u8; size_of::<ControlRecord>()] = [0; _];
    let zero: ControlRecord = zerocopy::transmute!(zero);
    ControlRecord {
        lkg: NO_SLOT,
        flags: control_flag::TRIAL,
        lease_ns: 103 * SECOND,
        deadline_ns: 220 * SECOND,
        active_generation: 6,
        shadow_generation: 7,
        ..zero
    }
}

#[test]
fn the_kernels_own_transitions_read_as_what_they_are() {
    let of = |record: &ControlRecord, second: u64| KernelView::of(record, second * SECOND);
    let live = Trial::Live {
        generation: 7,
        deadline_ns: 220 * SECOND,
    };
    assert_eq!(
        of(&record(), 100),
        KernelView {
            active: 6,
            trial: live
        }
    );
    let over = |cause, by| Trial::Over {
        generation: 7,
        cause,
        by,
    };
    // Due, though the timer has not come round yet.
    assert_eq!(of(&record(), 103).trial, over(Ended::Lease, u32::MAX));
    assert_eq!(of(&record(), 220).trial, over(Ended::Deadline, u32::MAX));
    let ended = record().trial_over(Ended::Revert, 1000, 9);
    assert_eq!(
        of(&ended, 100),
        KernelView {
            active: 6,
            trial: over(Ended::Revert, 1000)
        }
    );
    let flipped = record().flipped(1000, 9);
    assert_eq!(of(&flipped, 500).active, 7);
    let back = flipped.gone_back(1000, 10);
    assert_eq!(
        of(&back, 500),
        KernelView {
            active: 6,
            trial: over(Ended::Revert, 1000)
        }
    );
    let fresh = ControlRecord {
        flags: 0,
        lease_ns: 0,
        deadline_ns: 0,
        ..record()
    };
    assert_eq!(of(&fresh, 100).trial, Trial::None);
}
