//! What came of an upload, as the ledger holds it.

use crate::confirm::AnomalyId;
use crate::diagnose::Pass;
use crate::model::Timestamp;
use crate::store::{LedgerRecord, Stage};
use serde::{Deserialize, Serialize};

/// Objects of uploads begin so; those of evidence are ids of anomalies, which hold no `/`.
const UPLOAD: &str = "upload/";

/// A bundle was put into the object store, or could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    pub uploaded: AnomalyId,
    pub pass: Pass,
    pub at: Timestamp,
    /// Where the archive is, or would be.
    pub url: String,
    /// Of archive and page.
    pub bytes: u64,
    pub tries: u32,
    /// Why it is not there.
    pub failed: Option<String>,
}

impl Uploaded {
    /// The ledger's object: what is known of an anomaly's evidence in the store.
    #[must_use]
    pub fn object(&self) -> String {
        format!("{UPLOAD}{}", self.uploaded)
    }

    /// The ledger's key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.object(), self.at.0)
    }

    /// Reads a record; `None` if it is of something else.
    #[must_use]
    pub fn read(record: &LedgerRecord) -> Option<Self> {
        if record.stage != Stage::Diagnose || !record.object.starts_with(UPLOAD) {
            return None;
        }
        serde_json::from_value(record.payload.clone()).ok()
    }
}
