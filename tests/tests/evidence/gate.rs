//! Live scenes share two CPUs: one that brings much traffic must not spoil the figures of another.

use std::sync::{Condvar, Mutex, PoisonError};

/// What the machine carries at once.
const ROOM: u32 = 2;

static TAKEN: Mutex<u32> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// How much of the machine a scene needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// About 100 new flows a second.
    Light,
    /// Ten times as many, or a flood: nothing beside it.
    Heavy,
}

impl Load {
    fn places(self) -> u32 {
        match self {
            Self::Light => 1,
            Self::Heavy => ROOM,
        }
    }
}

/// A scene's part of the machine; dropping it gives it back.
#[derive(Debug)]
pub struct Turn(u32);

/// Waits until there is room.
pub fn turn(load: Load) -> Turn {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |taken: &mut u32| *taken + load.places() > ROOM;
    let mut taken = GIVEN_BACK
        .wait_while(taken, fits)
        .unwrap_or_else(PoisonError::into_inner);
    *taken += load.places();
    Turn(load.places())
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        GIVEN_BACK.notify_all();
    }
}
