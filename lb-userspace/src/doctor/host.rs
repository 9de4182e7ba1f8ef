//! The host itself: kernel, capabilities, the BPF file system.

use std::fs;
use std::path::Path;

use super::Check;
use crate::kernel::inspect::Feature;
use crate::kernel::pins::is_bpffs;
use crate::paths::Paths;

/// The oldest kernel that can have all that is needed.
const OLDEST: (u32, u32) = (5, 19);
/// Numbers of <https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/capability.h>.
const CAPABILITIES: [(u32, &str); 3] =
    [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// Stands for the last two on any kernel.
const CAP_SYS_ADMIN: u32 = 21;

pub(super) fn checks(paths: &Paths) -> Vec<Check> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    vec![
        kernel(release.trim()),
        features(),
        capabilities(&status),
        memory(release.trim()),
        bpffs(paths.pin_dir()),
    ]
}

/// "6.1.0-13-amd64" as (6, 1).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Check {
    let (id, title) = ("kernel", "Kernel version");
    match version(release) {
        Some(version) if version >= OLDEST => Check::ok(id, title, release),
        Some(_) => Check::fail(
            id,
            title,
            format!("{release} is older than {}.{}", OLDEST.0, OLDEST.1),
            "boot a newer kernel",
        ),
        None => Check::skip(id, title, "the version is not told in /proc"),
    }
}

fn features() -> Check {
    let (id, title) = ("bpf", "BPF features");
    let mut missing = Vec::new();
    for feature in Feature::ALL {
        match feature.is_there() {
            Ok(true) => {}
            Ok(false) => missing.push(feature.name()),
            Err(error) => return Check::skip(id, title, format!("could not be tried: {error}")),
        }
    }
    if missing.is_empty() {
        let names: Vec<&str> = Feature::ALL.iter().map(|feature| feature.name()).collect();
        return Check::ok(id, title, format!("tried: {}", names.join(", ")));
    }
    Check::fail(
        id,
        title,
        format!("this kernel lacks {}", missing.join(", ")),
        "boot a newer kernel, or one with CONFIG_BPF_SYSCALL and CONFIG_BPF_JIT",
    )
}

fn capabilities(status: &str) -> Check {
    let (id, title) = ("capabilities", "Capabilities");
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(mask) = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) else {
        return Check::skip(id, title, "not told in /proc");
    };
    let has = |bit| mask.checked_shr(bit).is_some_and(|mask| mask & 1 != 0);
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| !(has(*bit) || *bit > CAP_SYS_ADMIN && has(CAP_SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Check::ok(id, title, "enough to load and attach");
    }
    Check::fail(
        id,
        title,
        format!("lacking {}", missing.join(", ")),
        "run it as root (sudo)",
    )
}

/// Before 5.11 BPF memory counted against `RLIMIT_MEMLOCK`; since then the memory cgroup bounds it.
fn memory(release: &str) -> Check {
    let (id, title) = ("memlock", "Memory limit of BPF");
    match version(release) {
        Some(version) if version < (5, 11) => Check::warn(
            id,
            title,
            "this kernel counts BPF memory against RLIMIT_MEMLOCK",
            "ulimit -l unlimited (LimitMEMLOCK=infinity for systemd)",
        ),
        Some(_) => Check::ok(id, title, "by the memory cgroup, no RLIMIT_MEMLOCK"),
        None => Check::skip(id, title, "the kernel's version is not known"),
    }
}

fn bpffs(pins: &Path) -> Check {
    let (id, title) = ("bpffs", "BPF file system");
    let existing = pins
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    if is_bpffs(existing) {
        return Check::ok(
            id,
            title,
            format!("mounted at or above {}", existing.display()),
        );
    }
    let at = pins.parent().unwrap_or(pins).display();
    Check::warn(
        id,
        title,
        format!("none at {at}: `lbguard agent` mounts one when it starts"),
        format!("mount -t bpf bpf {at}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, status) in [
            ("6.1.0-13-amd64", Status::Ok),
            ("5.19.0", Status::Ok),
            ("5.18.0", Status::Fail),
            ("5.4.0", Status::Fail),
            ("10.0-rc1", Status::Ok),
            ("", Status::Skip),
        ] {
            assert_eq!(kernel(release).status, status, "{release}");
        }
        assert_eq!(memory("5.10.1").status, Status::Warn);
        assert_eq!(memory("5.15.1").status, Status::Ok);
    }

    #[test]
    fn sys_admin_stands_for_bpf_but_not_for_net_admin() {
        let with = |bits: &[u32]| {
            let mask: u64 = bits.iter().map(|bit| 1u64 << bit).sum();
            capabilities(&format!("Name:\tx\nCapEff:\t{mask:016x}\n"))
        };
        assert_eq!(with(&[12, 38, 39]).status, Status::Ok);
        assert_eq!(with(&[12, 21]).status, Status::Ok);
        assert!(with(&[21]).found.contains("CAP_NET_ADMIN"));
        assert!(with(&[12]).found.contains("CAP_BPF"));
        assert_eq!(capabilities("").status, Status::Skip);
    }

    #[test]
    fn an_ordinary_directory_is_no_bpffs() {
        let dir = tempfile::tempdir().unwrap();
        let check = bpffs(&dir.path().join("lbguard"));
        assert_eq!(check.status, Status::Warn);
        assert!(check.fix.unwrap().contains("mount -t bpf"));
    }
}
