//! Another version's programs replaced where they run, their maps kept.
//!
//! In this order, so that a death at any point leaves something that forwards, is guarded, and is
//! upgraded again by the next agent:
//!
//! 1. the new object is loaded on the pinned maps;
//! 2. its guard starts the timer: a running timer keeps the callback of the program that set it;
//! 3. its programs are pinned over the old ones, by rename;
//! 4. each link gets the new program; a link is never without one;
//! 5. `Start` by the caller says which object is pinned now.

use std::fs;
use std::os::fd::AsFd;

use aya::programs::loaded_programs;
use lb_common::flow::AGE_NS_SHIFT;
use lb_common::slot::Node;

use super::KernelError;
use super::link::{self, FdInfo};
use super::object::{Kernel, PROGRAMS, freeze, load, xdp};
use super::pins::Pins;

/// Refuses if a program that is attached uses other maps than those that are pinned: what would be
/// read and written then is not what forwards.
pub(super) fn same_maps(pins: &Pins, control: u32) -> Result<(), KernelError> {
    for interface in pins.linked() {
        let id = info(pins, &interface)?.number("prog_id");
        let uses = loaded_programs()
            .flatten()
            .find(|program| program.id() == id)
            .and_then(|program| program.map_ids().ok().flatten());
        if uses.is_some_and(|maps| !maps.contains(&control)) {
            return Err(KernelError::Mismatch(format!(
                "the program on {interface} does not use the maps pinned under {}; take it off \
                 (`lbguard detach {interface}`) and start the agent again",
                pins.directory().display()
            )));
        }
    }
    Ok(())
}

/// Puts this version's programs in the place of those that are pinned.
pub(super) fn replace(pins: &Pins, node: Node) -> Result<Kernel, KernelError> {
    let mut object = load(&node, Some(pins), AGE_NS_SHIFT)?;
    freeze(&object)?;
    let mut kernel = Kernel::assemble(&mut object, node)?;
    kernel.upgraded = true;
    kernel.start(0)?;
    for name in PROGRAMS {
        let (next, place) = (pins.next(name), pins.program(name));
        // Left by an upgrade that was cut short.
        let _ = fs::remove_file(&next);
        xdp(&mut object, name)?
            .pin(&next)
            .map_err(|e| KernelError::Load(format!("pin {}: {e}", next.display())))?;
        fs::rename(&next, &place)
            .map_err(|e| KernelError::io(format!("replace {}", place.display()), e))?;
    }
    let place = pins.program("lb");
    let program =
        link::open(&place).map_err(|e| KernelError::io(format!("open {}", place.display()), e))?;
    for interface in pins.linked() {
        let pin = pins.link(&interface);
        match link::open(&pin).and_then(|link| link::update(link.as_fd(), program.as_fd())) {
            // The interface is gone, and its link has no program any more.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            outcome => outcome
                .map_err(|e| KernelError::io(format!("replace the program of {interface}"), e))?,
        }
    }
    Ok(kernel)
}

fn info(pins: &Pins, interface: &str) -> Result<FdInfo, KernelError> {
    let pin = pins.link(interface);
    link::open(&pin)
        .and_then(|link| FdInfo::of(link.as_fd()))
        .map_err(|e| KernelError::io(format!("read {}", pin.display()), e))
}
