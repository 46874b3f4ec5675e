//! Everything the API answers from.

use super::Config;
use super::records::Records;
use super::windows::Windows;
use crate::access::Access;
use crate::api::v1;
use crate::diagnose::{Keepsakes, Source};
use crate::observe::Collect;
use crate::slo::Adjustment;
use crate::window::Registry;
use std::path::PathBuf;
use std::sync::Arc;

/// The budgets of all objectives, now.
pub trait Objectives: Send + Sync {
    /// Sorted by service, then name.
    fn slos(&self) -> Vec<v1::Slo>;

    /// Synthetic checks, in the order of the configuration.
    fn checks(&self) -> Vec<v1::Check> {
        Vec::new()
    }

    /// Files with objectives that are refused as they are now.
    fn refused_files(&self) -> Vec<v1::RefusedFile> {
        Vec::new()
    }

    /// Name and service of each objective that is defined, whether or not its service sends anything.
    fn defined(&self) -> Arc<Vec<(String, String)>> {
        Arc::default()
    }

    /// Times that somebody took out of budgets, in the order in which they were told.
    fn adjustments(&self) -> Vec<Adjustment> {
        Vec::new()
    }
}

/// The daemon itself.
pub trait Condition: Send + Sync {
    /// Why telemetry is not taken, counted and judged, or alerts are not told, as they should be, in words;
    /// `None` while all is well.
    fn unready(&self) -> Option<String>;

    fn status(&self) -> v1::Status;
}

/// Everything the API answers from.
#[derive(Clone)]
pub struct Sources {
    pub windows: Arc<dyn Windows>,
    pub registry: Arc<Registry>,
    pub records: Arc<dyn Records>,
    pub objectives: Arc<dyn Objectives>,
    pub condition: Arc<dyn Condition>,
    /// Directory of evidence bundles, each in a directory named as its anomaly.
    pub evidence: PathBuf,
    /// What is recorded, and how it is read for diagnoses.
    pub recorded: Arc<dyn Source + Send + Sync>,
    /// Traces that outlive what is recorded.
    pub keepsakes: Option<Arc<Keepsakes>>,
    pub diagnose: crate::diagnose::Config,
    /// All rooms that have something to say on `/metrics`.
    pub metrics: Vec<Arc<dyn Collect>>,
    pub config: Config,
    /// Who may ask what.
    pub access: Arc<Access>,
}
