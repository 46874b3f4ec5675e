//! What this room writes into the ledger, and how it is told apart.

use super::{Alert, Delivered};
use crate::store::{LedgerRecord, Stage};

/// Objects of deliveries begin so; those of alerts are ids of anomalies, which hold no `/`.
const DELIVERY: &str = "delivery/";

/// A record of `Stage::Alert`.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// An alert, whole, after a change.
    Alert(Box<Alert>),
    /// A target was told.
    Delivered(Delivered),
}

impl Recorded {
    /// Reads a record; `None` if it is none of this room's.
    #[must_use]
    pub fn read(record: &LedgerRecord) -> Option<Self> {
        if record.stage != Stage::Alert {
            return None;
        }
        let payload = record.payload.clone();
        if record.object.starts_with(DELIVERY) {
            serde_json::from_value(payload).ok().map(Self::Delivered)
        } else {
            serde_json::from_value(payload).ok().map(|alert| Self::Alert(Box::new(alert)))
        }
    }
}

impl Delivered {
    /// The ledger's object for what a target knows of an alert.
    #[must_use]
    pub fn object(&self) -> String {
        format!("{DELIVERY}{}/{}", self.target, self.anomaly)
    }

    /// The ledger's key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.object(), self.revision)
    }
}
