//! What can go wrong in a diagnosis.

use std::path::PathBuf;

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] crate::journal::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("Parquet cannot be written: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("Arrow rows cannot be made: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("the page cannot be rendered: {0}")]
    Page(#[from] askama::Error),
    #[error("this is no evidence bundle: {0}")]
    Bundle(String),
    #[error("{0} cannot be written as JSON: {1}")]
    Json(&'static str, serde_json::Error),
}

impl Error {
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
