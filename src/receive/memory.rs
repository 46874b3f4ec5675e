//! How much memory the process may use.

use std::fs;
use std::path::{Path, PathBuf};

/// What is assumed when the system does not say.
const UNKNOWN_BYTES: u64 = 4 << 30;

/// The smallest of the limits of the process's cgroup (version 2 or 1), of those above it, and of the
/// machine's memory.
#[must_use]
pub fn available_bytes() -> u64 {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| machine_bytes(&text));
    let cgroups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    limit_files(&cgroups)
        .iter()
        .filter_map(|file| read(file)?.trim().parse().ok())
        .chain(machine)
        .min()
        .unwrap_or(UNKNOWN_BYTES)
        // A limit of next to nothing is a mistake in reading, not a limit one could run under.
        .max(64 << 20)
}

/// `MemTotal` of `/proc/meminfo`.
fn machine_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that hold a limit, for each cgroup from the process's own up to the root. Those that do
/// not exist, or say `max`, set none.
fn limit_files(cgroups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|path| Path::new(root).join(path).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_all_cgroups_above_count() {
        assert_eq!(
            limit_files("0::/a/b\n4:cpu,memory:/c\n5:pids:/d\n"),
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/memory/c/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
            .map(PathBuf::from)
        );
        assert_eq!(machine_bytes("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert!(available_bytes() >= 64 << 20);
    }
}
