//! The backend's side: the XDP program that removes the balancer's outer header, for hosts without
//! tunnel devices (`lbguard decap IFACE`).
//!
//! Its link is pinned below `<pins>/decap-<interface>/`, so that it works on when the command has
//! ended; running the command again replaces program and settings without a packet lost.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, PerCpuArray};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use lb_common::decap::{OUTCOME_NAMES, OUTCOMES};

mod error;
mod foreign;
mod load;
mod prefix;

pub use error::DecapError;
pub use foreign::{ForeignProgram, program_on};
pub use prefix::{Prefix, PrefixError};

pub(crate) use load::{Held, hold_decap, hold_pass};

/// How the program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// By the driver if it can, else by the stack.
    #[default]
    Auto,
    /// By the driver.
    Native,
    /// By the stack: works with any driver, costs an skb per packet.
    Generic,
}

/// What `lbguard decap` is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How to attach.
    pub mode: Mode,
    /// Outer destinations that are opened; empty: all.
    pub destinations: Vec<IpAddr>,
    /// Outer sources that may tunnel to this host; empty: all. Packets from others are dropped.
    pub sources: Vec<Prefix>,
}

/// What [`run`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// [`Mode::Native`] or [`Mode::Generic`]; none when the program of an earlier run was
    /// replaced, whose mode stays.
    pub mode: Option<Mode>,
    /// Where the link is pinned.
    pub pins: PathBuf,
}

/// Attaches the program to `interface` of the caller's network namespace, or replaces the one of
/// an earlier run. `pins` is a directory on a bpffs.
///
/// # Errors
/// [`DecapError`]; a foreign program on the interface is left there and named.
pub fn run(interface: &str, options: &Options, pins: &Path) -> Result<Attached, DecapError> {
    let directory = directory(interface, pins);
    let link_pin = directory.join("link");
    let mut object = load::load(options)?;
    let (link, mode) = if link_pin.exists() {
        let old =
            PinnedLink::from_pin(&link_pin).map_err(|source| error::pin(&link_pin, source))?;
        let old =
            XdpLink::try_from(FdLink::from(old)).map_err(|source| error::pin(&link_pin, source))?;
        (load::replace(&mut object, old)?, None)
    } else {
        let (link, mode) = load::attach(&mut object, interface, options.mode)?;
        (link, Some(mode))
    };
    fs::create_dir_all(&directory).map_err(|source| error::pin(&directory, source))?;
    pin_counters(&object, &directory)?;
    if mode.is_some() {
        link.pin(&link_pin)
            .map_err(|source| error::pin(&link_pin, source))?;
    }
    Ok(Attached {
        mode,
        pins: directory,
    })
}

/// Detaches what [`run`] has attached.
///
/// # Returns
/// Whether there was anything.
///
/// # Errors
/// [`DecapError::Pin`] when the pins can't be removed.
pub fn detach(interface: &str, pins: &Path) -> Result<bool, DecapError> {
    let directory = directory(interface, pins);
    if !directory.exists() {
        return Ok(false);
    }
    // The link is what holds the program on the interface: removing its last reference detaches.
    for name in ["link", "counters"] {
        let pin = directory.join(name);
        if pin.exists() {
            fs::remove_file(&pin).map_err(|source| error::pin(&pin, source))?;
        }
    }
    fs::remove_dir(&directory).map_err(|source| error::pin(&directory, source))?;
    Ok(true)
}

/// Packets per outcome since the program was attached or last replaced, summed over the CPUs, as
/// (name, packets).
///
/// # Errors
/// [`DecapError::Pin`] when none is attached.
pub fn counters(interface: &str, pins: &Path) -> Result<Vec<(&'static str, u64)>, DecapError> {
    let pin = directory(interface, pins).join("counters");
    let map = MapData::from_pin(&pin).map_err(|source| error::pin(&pin, source))?;
    let map = aya::maps::Map::PerCpuArray(map);
    let map = PerCpuArray::<_, u64>::try_from(map).map_err(DecapError::Map)?;
    sum(&map)
}

fn sum(map: &PerCpuArray<MapData, u64>) -> Result<Vec<(&'static str, u64)>, DecapError> {
    let mut sums = Vec::with_capacity(OUTCOMES);
    for (index, name) in (0_u32..).zip(OUTCOME_NAMES) {
        let values = map.get(&index, 0).map_err(DecapError::Map)?;
        let sum = values
            .iter()
            .fold(0_u64, |sum, &value| sum.wrapping_add(value));
        sums.push((name, sum));
    }
    Ok(sums)
}

fn directory(interface: &str, pins: &Path) -> PathBuf {
    pins.join(format!("decap-{interface}"))
}

fn pin_counters(object: &aya::Ebpf, directory: &Path) -> Result<(), DecapError> {
    let pin = directory.join("counters");
    if pin.exists() {
        fs::remove_file(&pin).map_err(|source| error::pin(&pin, source))?;
    }
    let map = object
        .map("COUNTERS")
        .ok_or(DecapError::Object("COUNTERS"))?;
    map.pin(&pin).map_err(|source| error::pin(&pin, source))
}
