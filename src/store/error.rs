//! What can go wrong in the store. After any of these, what was committed before still holds.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    #[error("the database: {0}")]
    Database(Box<redb::Error>),
    #[error("{path}: damaged: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error("the store was written in format {found}; this version reads format {known}")]
    Version { found: u32, known: u32 },
    #[error("cannot encode: {0}")]
    Encode(String),
    #[error("the disk failed, so nothing more is written to the store: {0}")]
    Poisoned(String),
    #[error("a record of the database does not read: {0}")]
    Record(String),
}

impl Error {
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Whether the database refuses further writes until it is opened again.
    pub(super) fn shuts(&self) -> bool {
        matches!(self, Self::Database(error)
            if matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo))
    }
}

macro_rules! from_database {
    ($($kind:ty),*) => { $(
        impl From<$kind> for Error {
            fn from(error: $kind) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )* };
}

from_database!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError
);
