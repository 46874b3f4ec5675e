//! What a diagnosis found.

use crate::confirm::AnomalyId;
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What kind of cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    Code,
    Database,
    Dependency,
    Saturation,
    Traffic,
    Deploy,
    Data,
    Job,
    /// Nothing stands out; stands alone and names the best guess.
    Inconclusive,
}

impl CauseKind {
    /// As in `causes.json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Database => "database",
            Self::Dependency => "dependency",
            Self::Saturation => "saturation",
            Self::Traffic => "traffic",
            Self::Deploy => "deploy",
            Self::Data => "data",
            Self::Job => "job",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// A suspect, as in `causes.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// From 1.
    pub rank: u32,
    pub service: String,
    pub environment: String,
    pub namespace: String,
    pub kind: CauseKind,
    pub operation: Option<String>,
    /// Probability, 0..1.
    pub score: f64,
    /// One sentence.
    pub reason: String,
    /// What speaks for it, strongest first.
    pub reasons: Vec<String>,
}

/// Whether late spans are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    First,
    Complete,
}

/// What lies in the bundle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The bundle's directory.
    pub path: PathBuf,
    /// Complete traces, of them with an error, and log records.
    pub traces: u64,
    pub failed_traces: u64,
    pub log_records: u64,
    /// Name, bytes and BLAKE3 of each file.
    pub files: Vec<(String, u64, String)>,
}

/// What a diagnosis found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub anomaly: AnomalyId,
    pub pass: Pass,
    pub at: Timestamp,
    pub causes: Vec<Cause>,
    pub bundle: Manifest,
}
