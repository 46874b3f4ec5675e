//! Changes: what might have caused what follows them.

use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};

/// Deterministic id of a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChangeId(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Deploy,
    Flag,
    Configuration,
    Other,
}

/// Something that people or pipelines changed, told or inferred.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub id: ChangeId,
    pub at: Timestamp,
    /// The service it concerns; `None` if it may concern any.
    pub service: Option<ServiceKey>,
    pub kind: ChangeKind,
    /// In words, such as `payment 1.4.2 → 1.5.0`.
    pub title: String,
    /// Seen in telemetry (a new `service.version`) rather than told.
    pub inferred: bool,
    /// The new version, if that is what changed.
    pub version: Option<String>,
}
