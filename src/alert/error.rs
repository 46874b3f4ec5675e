//! What can go wrong before anything is delivered.

/// An error of this room. Failed deliveries are not errors: they are retried and counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("alert.{key}: {url:?} {why}; allowed: http[s]://HOST[:PORT][/PATH]")]
    Target { key: &'static str, url: String, why: &'static str },
    #[error("alert.targets_file: {}: {what}", .path.display())]
    File { path: std::path::PathBuf, what: String },
    #[error("the state of the alerts cannot be read: {0}")]
    State(#[from] postcard::Error),
}
