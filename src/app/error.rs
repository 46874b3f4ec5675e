//! Why the daemon cannot start or go on.

use std::net::SocketAddr;

/// Why the daemon cannot start or go on; each says where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Access(#[from] crate::access::Error),
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
    #[error(transparent)]
    Recording(#[from] crate::journal::recording::Error),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error(transparent)]
    Alert(#[from] crate::alert::Error),
    #[error(transparent)]
    Slo(#[from] crate::slo::Refused),
    #[error(transparent)]
    Diagnose(#[from] crate::diagnose::Error),
    #[error(
        "the checkpoint's part {part:?} cannot be read: {why}; move the data directory away to start afresh"
    )]
    Part { part: String, why: String },
    #[error(
        "cannot listen on {address} ({key}): {source}; is another daemon running there? Choose another address with --set {key}=IP:PORT"
    )]
    Listen { key: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("diagnose.evidence_url cannot be used: {0}")]
    EvidenceStore(String),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("what must not end has ended: {0}; see the log before this line")]
    Fallen(String),
}

impl Error {
    pub(super) fn part(part: impl Into<String>, why: &dyn std::fmt::Display) -> Self {
        Self::Part { part: part.into(), why: why.to_string() }
    }

    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
