//! What a process used, from `/proc`.

use std::time::Duration;

/// `USER_HZ`, which Linux fixes for its interface to user space.
const TICKS_PER_SECOND: u64 = 100;

/// Since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    pub resident_bytes: u64,
}

impl Usage {
    /// Of the process with this id, or of this one (`self`).
    ///
    /// # Errors
    /// There is no such process, or `/proc` is not as on Linux.
    pub fn of(process: &str) -> std::io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        Self::parse(&stat, &status).ok_or_else(|| std::io::Error::other("/proc is not as on Linux"))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name in parentheses may hold anything, spaces and parentheses too.
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
        let ticks = user.saturating_add(system);
        Some(Self {
            cpu: Duration::from_millis(ticks.saturating_mul(1_000 / TICKS_PER_SECOND)),
            resident_bytes: kib.saturating_mul(1024),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_also_with_odd_names() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        let usage = Usage::parse(stat, "Name:\ta\nVmRSS:\t     2048 kB\n").unwrap();
        assert_eq!(usage, Usage { cpu: Duration::from_secs(2), resident_bytes: 2 << 20 });
        assert!(Usage::parse("42", "").is_none());
        assert!(Usage::of("self").unwrap().resident_bytes > 0);
    }
}
