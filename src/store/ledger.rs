//! The ledger: an append-only record through which the stages from `confirm` on speak.

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};

/// Who wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Changes, silences, known issues.
    Context,
    /// `confirm::Anomaly`, whole, after each change of it.
    Confirm,
    /// `alert::Alert`, whole, after each change of it; and deliveries.
    Alert,
    /// `diagnose::Evidence`.
    Diagnose,
    /// `incident::Entry`: what operators did and said.
    Incident,
}

/// One record. `object` names what it is about (an anomaly's id, say); the payload carries the
/// object's whole state after the event, so that the latest record of an object is its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// Position in the ledger, from 1, without gaps: the resume token of its stream.
    pub sequence: u64,
    pub at: Timestamp,
    pub stage: Stage,
    pub object: String,
    /// Deterministic and unique within the stage: what the ledger already holds under a key wins.
    pub key: String,
    /// JSON.
    pub payload: serde_json::Value,
}
