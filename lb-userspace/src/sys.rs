//! System calls that no crate offers: freezing a BPF map, mapping one, `membarrier`, the boot clock.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// `BPF_MAP_FREEZE` of `enum bpf_cmd`
/// (<https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/bpf.h>).
const BPF_MAP_FREEZE: libc::c_int = 22;
/// `MEMBARRIER_CMD_GLOBAL`: waits until every CPU has passed a quiescent state.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// The part of `union bpf_attr` that freezing reads.
#[repr(C)]
struct FreezeAttr {
    map_fd: u32,
    zero: [u32; 31],
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Forbids every `bpf(2)` caller, root included, to write a map from now on. Programs still can.
pub fn freeze_map(map: BorrowedFd<'_>) -> io::Result<()> {
    let attr = FreezeAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        zero: [0; 31],
    };
    // SAFETY: the attribute is valid for its whole size and lives through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_FREEZE,
            &raw const attr,
            size_of::<FreezeAttr>(),
        )
    };
    check(result)
}

/// Returns when every CPU has left whatever kernel code it was in: packets that were being decided
/// when it was called are done.
pub fn membarrier() -> io::Result<()> {
    // SAFETY: takes three numbers.
    check(unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) })
}

/// Nanoseconds since boot, suspend included: the clock of leases and deadlines.
pub fn boot_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// A BPF array map, mapped for reading: `BPF_F_MMAPABLE` ones only.
#[derive(Debug)]
pub struct MappedArray<T> {
    start: NonNull<T>,
    elements: usize,
}

// SAFETY: the mapping is read-only and owned; reads are whole-element copies of plain data.
unsafe impl<T: Send> Send for MappedArray<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for MappedArray<T> {}

impl<T: Copy + zerocopy::FromBytes> MappedArray<T> {
    /// Maps `elements` elements. `size_of::<T>()` must be the map's value size, a multiple of 8.
    pub fn new(map: BorrowedFd<'_>, elements: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                elements.saturating_mul(size_of::<T>()),
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { start, elements })
    }

    /// Copy of element `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<T> {
        if index >= self.elements {
            return None;
        }
        // SAFETY: within the mapping; the kernel may write meanwhile, and any bytes are a T.
        Some(unsafe { self.start.as_ptr().add(index).read_volatile() })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.elements
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, with its length.
        unsafe {
            libc::munmap(
                self.start.as_ptr().cast(),
                self.elements.saturating_mul(size_of::<T>()),
            );
        }
    }
}

/// 64 bits that nobody can guess.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is valid for its length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 8 {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether both sides of a TCP connection have agreed on timestamps (RFC 7323).
pub fn tcp_has_timestamps(socket: BorrowedFd<'_>) -> io::Result<bool> {
    const TIMESTAMPS: u8 = 1;
    let mut bytes = [0u8; 8];
    let mut length = libc::socklen_t::try_from(bytes.len()).unwrap_or(8);
    // SAFETY: the buffer is valid for its length; the kernel writes the start of a `tcp_info`.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    // State, congestion state, retransmits, probes, backoff, options.
    Ok(bytes[5] & TIMESTAMPS != 0)
}
