//! How many files and sockets this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files as far as it must be, up to the hard one; how many may be open then,
/// `None` for no limit.
#[must_use]
pub fn raise_open_files(wanted: u64) -> Option<u64> {
    let mut limits = getrlimit(Resource::Nofile);
    let may = limits.current?;
    if may >= wanted {
        return Some(may);
    }
    let raised = limits.maximum.map_or(wanted, |most| most.min(wanted));
    limits.current = Some(raised);
    Some(if setrlimit(Resource::Nofile, limits).is_ok() { raised } else { may })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_enough_is_left_alone() {
        let before = getrlimit(Resource::Nofile).current;
        assert_eq!(raise_open_files(1), before);
        assert_eq!(getrlimit(Resource::Nofile).current, before);
    }
}
