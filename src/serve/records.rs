//! The ledger as the API reads and writes it.

use crate::model::Timestamp;
use crate::store::{LedgerRecord, Stage};
use serde_json::Value;
use tokio::sync::watch;

/// The ledger: what was judged, said and done.
pub trait Records: Send + Sync {
    /// Up to `at_most` records after a sequence, in order.
    ///
    /// # Errors
    /// What could not be read, in words.
    fn read_after(&self, sequence: u64, at_most: usize) -> Result<Vec<LedgerRecord>, String>;

    /// The newest sequence, as it grows.
    fn watch(&self) -> watch::Receiver<u64>;

    /// Appends a record; `None` if its key is already held, in which case nothing changes.
    ///
    /// # Errors
    /// What could not be written, in words.
    fn append(
        &self,
        at: Timestamp,
        stage: Stage,
        object: &str,
        key: &str,
        payload: Value,
    ) -> Result<Option<u64>, String>;
}
