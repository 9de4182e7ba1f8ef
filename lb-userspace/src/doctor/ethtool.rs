//! Offloads of an interface, as `ethtool -k` tells them.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Requests of <https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/ethtool.h>.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GFLAGS: u32 = 0x25;
/// `ETH_FLAG_LRO`.
const FLAG_LRO: u32 = 1 << 15;
/// `SIOCETHTOOL`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// What concerns XDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offloads {
    /// Name of the driver.
    pub driver: String,
    /// Received packets are merged in hardware: native XDP cannot be.
    pub lro: bool,
    /// Checksums of sent packets are left to the hardware.
    pub tx_checksum: bool,
}

/// `struct ifreq`, as far as it is used.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut libc::c_void,
    rest: [u8; 16],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct Driver {
    command: u32,
    name: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<Driver>() == 196);

/// Reads them.
///
/// # Errors
/// The system's; `EOPNOTSUPP` for interfaces that have none.
pub(super) fn read(interface: &str) -> io::Result<Offloads> {
    // SAFETY: a plain system call; the descriptor is ours alone.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut driver = Driver {
        command: ETHTOOL_GDRVINFO,
        name: [0; 32],
        rest: [0; 160],
    };
    ask(&socket, interface, &mut driver)?;
    let end = driver
        .name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(driver.name.len());
    let name = driver.name.get(..end).unwrap_or_default();
    Ok(Offloads {
        driver: String::from_utf8_lossy(name).into_owned(),
        lro: value(&socket, interface, ETHTOOL_GFLAGS)? & FLAG_LRO != 0,
        tx_checksum: value(&socket, interface, ETHTOOL_GTXCSUM)? != 0,
    })
}

fn value(socket: &OwnedFd, interface: &str, command: u32) -> io::Result<u32> {
    let mut value = Value { command, data: 0 };
    ask(socket, interface, &mut value)?;
    Ok(value.data)
}

/// `data` must be the structure of its command.
fn ask<T>(socket: &OwnedFd, interface: &str, data: &mut T) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    for (place, byte) in name
        .iter_mut()
        .zip(interface.bytes().take(libc::IFNAMSIZ - 1))
    {
        *place = byte;
    }
    let data = std::ptr::from_mut(data).cast();
    let mut request = Request {
        name,
        data,
        rest: [0; 16],
    };
    // SAFETY: the request and the structure behind it are valid for the kernel to write, and of
    // the size that the command has.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        read("no-such-one").unwrap_err();
    }
}
