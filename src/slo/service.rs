//! What is known of a service: whether it sends anything.

use super::budget::DataState;
use super::publish::IDLE;
use crate::model::{ServiceKey, Timestamp};
use crate::sketch::Accumulator;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Service {
    pub key: ServiceKey,
    pub first: Timestamp,
    pub last: Timestamp,
    pub last_request: Timestamp,
    /// Longest pause between two cuts that brought something, slowly forgotten, in seconds.
    pub pause_s: f64,
    pub has_requests: bool,
    /// Latencies while the default latency objective is being learned.
    pub learning: Option<Box<Accumulator>>,
}

impl Service {
    /// `counted`: whether what an objective counts came lately.
    pub fn state(&self, now: Timestamp, counted: bool) -> DataState {
        let patience =
            Duration::try_from_secs_f64(3.0 * self.pause_s).unwrap_or(IDLE).max(Duration::from_secs(30));
        let silent = now.since(self.last);
        if silent > Duration::from_secs(3_600).max(patience) {
            DataState::Gone
        } else if silent > patience {
            DataState::Silent
        } else if counted {
            DataState::Ok
        } else {
            DataState::Quiet
        }
    }
}
