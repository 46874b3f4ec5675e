//! Why access control cannot be set up.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why access control cannot be set up. None of them quotes what stands in a file of secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{key}: {}: {what}", .path.display())]
    File { key: &'static str, path: PathBuf, what: String },
    #[error("{missing} is not set, but {given} is: set both or neither")]
    Half { given: &'static str, missing: &'static str },
    #[error(
        "{key}: {address} is no loopback address, and {lacking}: set {wanted}, or access.allow_insecure = true if nobody else can reach it"
    )]
    Exposed { key: &'static str, address: SocketAddr, lacking: &'static str, wanted: &'static str },
}

impl Error {
    pub(super) fn file(key: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(String) -> Self {
        let path = path.into();
        move |what| Self::File { key, path, what }
    }
}
