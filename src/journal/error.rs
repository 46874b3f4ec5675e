//! What can go wrong with the journal.

use std::io;
use std::path::PathBuf;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: another barograph is using this directory{}", .path.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error("{}: cannot {doing}: {source}", .path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    #[error("{}: format version {found} of the journal is not known to this version", .path.display())]
    Version { path: PathBuf, found: u16 },
    #[error("the journal could not be made durable, so nothing more is acknowledged: {0}")]
    Poisoned(String),
    #[error("a shard is gone")]
    ShardGone,
    #[error("the record at {position} cannot be read back: {what}")]
    Unreadable { position: u64, what: String },
}

impl Error {
    pub(super) fn io(path: impl Into<PathBuf>, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, doing, source }
    }
}
