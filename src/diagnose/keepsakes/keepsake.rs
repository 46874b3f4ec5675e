//! What is known of a keepsake without reading its spans.

use crate::model::{ServiceKey, Timestamp, TraceId};
use serde::{Deserialize, Serialize};

/// A service and the name of an operation of it.
pub type Route = (ServiceKey, String);

/// What a trace was kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Quality {
    /// Nothing in it failed, and it took as long as usual.
    Healthy,
    /// Something in it failed.
    Failed,
    /// Nothing in it failed, and it took longest.
    Slowest,
}

/// A trace that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepsake {
    pub trace: TraceId,
    pub quality: Quality,
    /// The operation it was chosen for.
    pub route: Route,
    /// Operations at the top of the trace.
    pub tops: Vec<Route>,
    /// All operations of requests in it.
    pub covers: Vec<Route>,
    /// End of the span it was chosen for, and how long that took.
    pub at: Timestamp,
    pub duration_ns: u64,
}
