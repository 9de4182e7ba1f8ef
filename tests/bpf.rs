//! `bpf(2)` by hand: what any root process can try.
//!
//! Layouts: <https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/bpf.h>.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Commands of `enum bpf_cmd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Cmd {
    /// `BPF_MAP_LOOKUP_ELEM`
    Lookup = 1,
    /// `BPF_MAP_UPDATE_ELEM`
    Update = 2,
    /// `BPF_MAP_DELETE_ELEM`
    Delete = 3,
    /// `BPF_OBJ_GET`
    Open = 7,
    /// `BPF_PROG_TEST_RUN`
    TestRun = 10,
    /// `BPF_PROG_GET_FD_BY_ID`
    ProgramById = 13,
    /// `BPF_MAP_GET_FD_BY_ID`
    MapById = 14,
    /// `BPF_OBJ_GET_INFO_BY_FD`
    Info = 15,
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`
    LookupAndDelete = 21,
    /// `BPF_MAP_FREEZE`
    Freeze = 22,
    /// `BPF_MAP_LOOKUP_BATCH`
    LookupBatch = 24,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`
    LookupAndDeleteBatch = 25,
    /// `BPF_MAP_UPDATE_BATCH`
    UpdateBatch = 26,
    /// `BPF_MAP_DELETE_BATCH`
    DeleteBatch = 27,
}

/// Attribute of the element commands.
#[repr(C)]
#[derive(Default)]
struct Elem {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Attribute of the batch commands.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// Attribute of the commands that open something.
#[repr(C)]
#[derive(Default)]
struct Open {
    path: u64,
    zero: u32,
    file_flags: u32,
}

/// Attribute of the commands that take an id.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    open_flags: u32,
}

/// Attribute of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct Info {
    fd: u32,
    length: u32,
    to: u64,
}

/// Attribute of `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    in_length: u32,
    out_length: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_lengths: [u32; 2],
    contexts: [u64; 2],
    flags: u32,
    cpu: u32,
    batch: u32,
    reserved: u32,
}

fn bpf<T>(cmd: Cmd, attr: &mut T) -> io::Result<i64> {
    // SAFETY: the attribute is valid for its whole size, and what it points at outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd as i32,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: i64) -> OwnedFd {
    // SAFETY: a file descriptor that the kernel has just made for this call.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("a file descriptor")) }
}

fn fd_of(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Opens what is pinned; `flags` as `BPF_F_RDONLY`, `BPF_F_WRONLY`.
pub fn open_pin(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    let mut attr = Open {
        path: path.as_ptr() as u64,
        file_flags: flags,
        ..Open::default()
    };
    bpf(Cmd::Open, &mut attr).map(owned)
}

/// Opens a map or a program by its id.
pub fn open_id(cmd: Cmd, id: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = ById {
        id,
        open_flags: flags,
        ..ById::default()
    };
    bpf(cmd, &mut attr).map(owned)
}

/// Runs a program once on `data`, of 14 bytes at least; the data as the program leaves it.
pub fn test_run(program: &OwnedFd, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0u8; data.len() + 256];
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a page at most");
    let mut attr = TestRun {
        program: fd_of(program),
        in_length: length(data),
        out_length: length(&out),
        data_in: data.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ..TestRun::default()
    };
    bpf(Cmd::TestRun, &mut attr)?;
    out.truncate(attr.out_length as usize);
    Ok(out)
}

/// `/proc/self/fdinfo` of a file descriptor.
pub fn facts(fd: &OwnedFd) -> BTreeMap<String, String> {
    let text =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).expect("fdinfo");
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

/// A number of [`facts`].
pub fn fact(fd: &OwnedFd, name: &str) -> u32 {
    facts(fd)
        .get(name)
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("fdinfo says no {name}"))
}

/// Ids of the maps that a program uses.
pub fn maps_of(program: &OwnedFd) -> Vec<u32> {
    let mut ids = vec![0u32; 64];
    // The start of `struct bpf_prog_info`: `nr_map_ids` is word 13, `map_ids` the next two.
    let mut info = [0u64; 10];
    info[6] = 64 << 32;
    info[7] = ids.as_mut_ptr() as u64;
    let mut attr = Info {
        fd: fd_of(program),
        length: u32::try_from(size_of_val(&info)).expect("small"),
        to: info.as_mut_ptr() as u64,
    };
    bpf(Cmd::Info, &mut attr).expect("program info");
    let count = usize::try_from(info[6] >> 32).expect("a count");
    ids.truncate(count);
    ids
}

/// A map, and the room that its elements need.
pub struct Map {
    fd: OwnedFd,
    /// Bytes of a value as system calls see it, for all CPUs.
    value: usize,
    /// Elements.
    pub elements: u32,
    /// Whether it can be mapped into memory.
    pub mappable: bool,
}

/// `BPF_MAP_TYPE_PERCPU_ARRAY`.
const PER_CPU_ARRAY: u32 = 6;
/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

impl Map {
    /// Takes an open map.
    pub fn of(fd: OwnedFd) -> Self {
        let size = fact(&fd, "value_size") as usize;
        let value = if fact(&fd, "map_type") == PER_CPU_ARRAY {
            size.next_multiple_of(8) * possible_cpus()
        } else {
            size
        };
        let flags = facts(&fd)["map_flags"].clone();
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).expect("flags");
        Self {
            value,
            elements: fact(&fd, "max_entries"),
            mappable: flags & MMAPABLE != 0,
            fd,
        }
    }

    /// The pinned map, opened for everything.
    pub fn pinned(path: &Path) -> Self {
        Self::of(open_pin(path, 0).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// Id in the kernel.
    pub fn id(&self) -> u32 {
        fact(&self.fd, "map_id")
    }

    /// Whether the kernel says that it is frozen.
    pub fn frozen(&self) -> bool {
        fact(&self.fd, "frozen") == 1
    }

    /// One command on the element `key`, whose value, if it takes one, is all ones.
    pub fn element(&self, cmd: Cmd, key: u32) -> io::Result<()> {
        let mut value = vec![0xffu8; self.value];
        let mut attr = Elem {
            map: fd_of(&self.fd),
            key: (&raw const key) as u64,
            value: if cmd == Cmd::Delete {
                0
            } else {
                value.as_mut_ptr() as u64
            },
            ..Elem::default()
        };
        bpf(cmd, &mut attr).map(drop)
    }

    /// One batch command on the elements 0 and up; values are all ones.
    pub fn batch(&self, cmd: Cmd, count: u32) -> io::Result<()> {
        let mut values = vec![0xffu8; self.value * count as usize];
        self.batch_with(cmd, count, &mut values).map(drop)
    }

    fn batch_with(&self, cmd: Cmd, count: u32, values: &mut [u8]) -> io::Result<u32> {
        let mut keys: Vec<u32> = (0..count).collect();
        let mut out = 0u64;
        let mut attr = Batch {
            to: if matches!(cmd, Cmd::LookupBatch | Cmd::LookupAndDeleteBatch) {
                (&raw mut out) as u64
            } else {
                0
            },
            keys: keys.as_mut_ptr() as u64,
            values: if cmd == Cmd::DeleteBatch {
                0
            } else {
                values.as_mut_ptr() as u64
            },
            count,
            map: fd_of(&self.fd),
            ..Batch::default()
        };
        let done = bpf(cmd, &mut attr);
        match done {
            Ok(_) => Ok(attr.count),
            // The end of the map.
            Err(e) if cmd == Cmd::LookupBatch && e.raw_os_error() == Some(libc::ENOENT) => {
                Ok(attr.count)
            }
            Err(e) => Err(e),
        }
    }

    /// `BPF_MAP_FREEZE`.
    pub fn freeze(&self) -> io::Result<()> {
        bpf(
            Cmd::Freeze,
            &mut Elem {
                map: fd_of(&self.fd),
                ..Elem::default()
            },
        )
        .map(drop)
    }

    /// Maps it into memory for writing.
    pub fn map_writable(&self) -> io::Result<()> {
        // SAFETY: a new mapping, which nothing refers to.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4_096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping that was just made.
        unsafe { libc::munmap(start, 4_096) };
        Ok(())
    }

    /// Bytes of one element as system calls see it.
    pub fn value_size(&self) -> usize {
        self.value
    }

    /// Every byte of it.
    pub fn content(&self) -> Vec<u8> {
        let mut values = vec![0u8; self.value * self.elements as usize];
        let got = self
            .batch_with(Cmd::LookupBatch, self.elements, &mut values)
            .expect("read a map");
        assert_eq!(got, self.elements, "an array is read whole");
        values
    }
}

/// CPUs that the kernel may have: values of per-CPU maps have a copy for each.
fn possible_cpus() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").expect("CPUs");
    let last = text.trim().rsplit(['-', ',']).next().expect("a range");
    last.parse::<usize>().expect("a number") + 1
}
