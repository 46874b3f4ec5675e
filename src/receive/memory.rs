//! How much memory the process may use.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Memory that this process has for itself, without the pages of files; `None` where the system does not say.
pub(super) fn own_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split_whitespace().skip(1).map(|pages| pages.parse::<u64>().ok());
    let (resident, of_files) = (pages.next()??, pages.next()??);
    resident.saturating_sub(of_files).checked_mul(rustix::param::page_size() as u64)
}

/// Whether the process has come so near to the memory it may have that nothing more is let in. Permits bound what
/// requests take; this bounds what all else takes, and what the allocator holds beyond that.
#[derive(Debug)]
pub(super) struct Watermark {
    limit_bytes: u64,
    is_over: AtomicBool,
}

impl Watermark {
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, is_over: AtomicBool::new(false) }
    }

    /// Notes how much the process has now; whether that is too much. It stays too much until it is below by a
    /// twentieth, so that it does not change with each request.
    pub fn look(&self, own_bytes: u64) -> bool {
        let limit = if self.is_over() { self.limit_bytes / 20 * 19 } else { self.limit_bytes };
        let is_over = own_bytes > limit;
        self.is_over.store(is_over, Ordering::Relaxed);
        is_over
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_the_watermark_it_stays_so_until_it_is_well_below() {
        let watermark = Watermark::new(1_000);
        let looks = [900, 1_001, 990, 951, 950, 990, 1_000];
        let found = looks.map(|bytes| watermark.look(bytes));
        assert_eq!(found, [false, true, true, true, false, false, false]);
        assert!(!watermark.is_over());
        assert!(own_bytes().is_none_or(|bytes| bytes > 0));
    }

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
