//! BPF links and pins by `bpf(2)` itself.
//!
//! Not by aya: where the kernel refuses a link, it attaches by netlink instead, and what is
//! attached so cannot be pinned and would end with the process.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Commands of `enum bpf_cmd`
/// (<https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/bpf.h>).
mod command {
    pub(super) const MAP_CREATE: libc::c_int = 0;
    pub(super) const OBJ_PIN: libc::c_int = 6;
    pub(super) const OBJ_GET: libc::c_int = 7;
    pub(super) const LINK_CREATE: libc::c_int = 28;
    pub(super) const LINK_UPDATE: libc::c_int = 29;
    pub(super) const LINK_DETACH: libc::c_int = 34;
}

/// `BPF_XDP` of `enum bpf_attach_type`.
const BPF_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`
/// (<https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/if_link.h>).
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;

/// `BPF_MAP_TYPE_ARRAY` of `enum bpf_map_type`.
const ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`.
pub(super) const MMAPABLE: u32 = 1 << 10;

/// `union bpf_attr` as 32-bit words: all commands used here begin so, and the kernel wants the
/// rest to be zero.
#[repr(C, align(8))]
struct Attr([u32; 32]);

impl Attr {
    fn new<const N: usize>(words: [u32; N]) -> Self {
        let mut all = [0; 32];
        for (place, word) in all.iter_mut().zip(words) {
            *place = word;
        }
        Self(all)
    }

    /// `pathname` and `bpf_fd`: a pointer is two words.
    fn path(path: &CString, fd: u32) -> Self {
        let address = path.as_ptr() as u64;
        let bytes = address.to_ne_bytes();
        let half = |range: [usize; 4]| {
            u32::from_ne_bytes(range.map(|index| bytes.get(index).copied().unwrap_or(0)))
        };
        Self::new([half([0, 1, 2, 3]), half([4, 5, 6, 7]), fd])
    }
}

fn bpf(command: libc::c_int, attr: &Attr) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is valid for its whole size and lives through the call, as does
    // whatever it points at.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<Attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn new_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens a pinned map, program or link.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = text(path)?;
    bpf(command::OBJ_GET, &Attr::path(&path, 0)).and_then(new_fd)
}

/// Makes an array of one 8-byte element, to see whether the kernel takes the flags.
pub(super) fn create_array(flags: u32) -> io::Result<OwnedFd> {
    bpf(command::MAP_CREATE, &Attr::new([ARRAY, 4, 8, 1, flags])).and_then(new_fd)
}

/// Pins a link.
pub(super) fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = text(path)?;
    bpf(command::OBJ_PIN, &Attr::path(&path, raw(link))).map(drop)
}

/// Attaches a program to an interface, in the driver or not at all (`native`), or after the skb.
pub(super) fn create(program: BorrowedFd<'_>, interface: u32, native: bool) -> io::Result<OwnedFd> {
    let mode = if native { NATIVE } else { GENERIC };
    let attr = Attr::new([raw(program), interface, BPF_XDP, mode]);
    bpf(command::LINK_CREATE, &attr).and_then(new_fd)
}

/// Puts another program in the place of a link's: no packet passes by without one.
pub(super) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf(command::LINK_UPDATE, &Attr::new([raw(link), raw(program)])).map(drop)
}

/// Detaches a link, whoever else holds it; when this returns, the program does not run any more.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(command::LINK_DETACH, &Attr::new([raw(link)])).map(drop)
}

/// What the kernel says of a BPF object under `/proc/self/fdinfo`.
#[derive(Clone, Debug)]
pub(super) struct FdInfo(String);

impl FdInfo {
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).map(Self)
    }

    /// A field's value.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim())
        })
    }

    /// A number's; 0 if it is not there.
    pub(super) fn number(&self, name: &str) -> u32 {
        self.text(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let info = FdInfo("pos:\t0\nprog_id:\t12\nid:\t7\nprog_tag:\t00ff\n".to_owned());
        assert_eq!((info.number("id"), info.number("prog_id")), (7, 12));
        assert_eq!(info.text("prog_tag"), Some("00ff"));
        assert_eq!((info.number("nothing"), info.text("nothing")), (0, None));
    }

    #[test]
    fn a_pointer_lies_in_the_first_two_words() {
        let path = CString::new("/x").unwrap();
        let attr = Attr::path(&path, 9);
        let address = u64::from(attr.0[0]) | u64::from(attr.0[1]) << 32;
        if cfg!(target_endian = "little") {
            assert_eq!(address, path.as_ptr() as u64);
        }
        assert_eq!((attr.0[2], attr.0[3]), (9, 0));
    }
}
