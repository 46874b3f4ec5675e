//! The journal's part of the configuration.

use crate::settings::{ByteSize, Seconds, Setting};
use std::time::Duration;
use toml::Value;

/// What an acknowledgement stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The kernel has it: survives a crash of the daemon, not of the machine.
    Os,
    /// The same, and it is on the disk at most about 200 ms later.
    #[default]
    Interval,
    /// It is on the disk.
    Always,
}

impl Setting for Durability {
    fn read(value: &Value) -> Result<Self, String> {
        match String::read(value)?.as_str() {
            "os" => Ok(Self::Os),
            "interval" => Ok(Self::Interval),
            "always" => Ok(Self::Always),
            other => Err(format!("{other:?} is no durability")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Os => "\"os\"",
            Self::Interval => "\"interval\"",
            Self::Always => "\"always\"",
        }
        .to_owned()
    }
}

crate::settings! {
    /// The recorder: everything that arrived in the last minutes, as it came.
    pub struct Config in "journal" {
        /// When a request is acknowledged: `os` once the kernel has it (survives a crash of the
        /// daemon), `interval` the same with a sync every 200 ms (a power loss costs at most those),
        /// `always` once it is on the disk.
        durability: Durability = Durability::Interval, "os, interval or always";
        /// Disk space of the journal. By default 10 GiB or a quarter of the space that is free at the
        /// start, whichever is less.
        max_bytes: Option<ByteSize> = None, "4 MiB to 16 TiB", |size| size.is_none_or(|size| (4 << 20..=16 << 40).contains(&size.0));
        /// How long what arrived is kept at most, give or take a quarter of it, even where there is room for more.
        max_age: Seconds = Seconds(Duration::from_secs(30 * 86_400)), "10m to 3650d", |age| (600..=3_650 * 86_400).contains(&age.0.as_secs());
    }
}

/// Largest segment.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Smallest segment, also when the file system is nearly full.
const SMALLEST_SEGMENT_BYTES: u64 = 256 << 10;
const DEFAULT_BYTES: u64 = 10 << 30;

/// Length of segments and of the whole journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub segment_bytes: u64,
    pub max_bytes: u64,
}

impl Config {
    /// The sizes that follow from the bound and from `free_bytes`, what the journal's file system has
    /// free (what the journal already occupies counted as free).
    pub(super) fn sizes(&self, free_bytes: u64) -> Sizes {
        let max_bytes = self.max_bytes.map_or((free_bytes / 4).min(DEFAULT_BYTES), |size| size.0);
        let max_bytes = max_bytes.max(16 * SMALLEST_SEGMENT_BYTES);
        Sizes { segment_bytes: (max_bytes / 16).min(SEGMENT_BYTES), max_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_a_sixteenth_of_a_small_journal() {
        let mut config = Config::default();
        assert_eq!(config.sizes(8 << 30), Sizes { segment_bytes: 64 << 20, max_bytes: 2 << 30 });
        assert_eq!(config.sizes(1 << 40).max_bytes, 10 << 30);
        config.max_bytes = Some(ByteSize(32 << 20));
        assert_eq!(config.sizes(0), Sizes { segment_bytes: 2 << 20, max_bytes: 32 << 20 });
        assert!(config.set("max_bytes", &Value::Integer(5)).is_err());
        assert!(config.set("durability", &Value::String("never".into())).unwrap_err().contains("always"));
    }
}
