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
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Code,
        Self::Database,
        Self::Dependency,
        Self::Saturation,
        Self::Traffic,
        Self::Deploy,
        Self::Data,
        Self::Job,
        Self::Inconclusive,
    ];

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

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
    /// Collectors that ran.
    #[serde(default)]
    pub collected: Vec<Collected>,
}

/// A collector that ran: what, when, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    pub name: String,
    /// When it began.
    pub at: Timestamp,
    pub took_ns: u64,
    /// Such as “exit status: 0”, “HTTP 200”, “broken off after 10 s”.
    pub ended: String,
    pub is_good: bool,
    /// Of the text that it said, and of what is no text, so much is in the bundle; whether that is not all.
    pub bytes: u64,
    #[serde(default)]
    pub binary_bytes: u64,
    pub is_cut: bool,
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
