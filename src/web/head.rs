//! What every page begins and ends with.

use crate::api::v1;
use crate::model::Timestamp;
use crate::serve::from_proto;
use crate::serve::text::{so_many, span, time};

#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub title: String,
    pub ready: bool,
    pub version: String,
    pub now: String,
    pub facts: Vec<String>,
    /// Seconds until the page loads itself again; 0: never.
    pub refresh_s: u32,
}

impl Head {
    pub fn new(title: &str, status: &v1::Status, now: Timestamp, refresh_s: u32) -> Self {
        let mut facts = Vec::new();
        if let Some(accepted) = &status.accepted {
            facts.push(so_many(accepted.spans, "span"));
            facts.push(so_many(accepted.log_records, "log record"));
            facts.push(so_many(accepted.metric_points, "metric point"));
        }
        if let Some(v1::JournalStatus { oldest: Some(oldest), newest: Some(newest), .. }) = &status.journal {
            let depth = from_proto(newest).since(from_proto(oldest));
            facts.push(format!("recorder: {}", span(i64::try_from(depth.as_nanos()).unwrap_or(i64::MAX))));
        }
        Self {
            title: title.to_owned(),
            ready: status.ready,
            version: status.version.clone(),
            now: time(Some(&crate::serve::to_proto(now))),
            facts,
            refresh_s,
        }
    }
}
