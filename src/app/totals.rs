//! What was counted and turned away since the data directory was made.

use crate::aggregate::{Accepted, OTHER};
use crate::limits::{LateReason, RejectedReason, UntimelyReason};
use crate::model::ServiceKey;
use crate::observe::{Collect, Exposition, Kind};
use crate::receive::CallerTag;
use crate::store::Checkpoint;
use crate::window::Merged;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Services and reasons by which items whose time was not followed are counted apart.
const UNTIMELY_TOLD: usize = 4_096;

/// Sums over all cuts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub accepted: Accepted,
    pub rejected: BTreeMap<RejectedReason, u64>,
    pub late: BTreeMap<LateReason, u64>,
    /// Items counted in the overflow series of a service since the start.
    pub overflowed: BTreeMap<Arc<ServiceKey>, u64>,
    /// Items whose time was not followed, by service and reason, since the start; of further services by reason alone.
    pub untimely: BTreeMap<(Arc<ServiceKey>, UntimelyReason), u64>,
    /// Items of callers that brought more services or series than they may, since the start.
    pub turned_away: BTreeMap<CallerTag, u64>,
    /// Series that the shards count apart now.
    pub series: u64,
}

/// Written by the window stage with each cut, read by whoever asks.
#[derive(Debug, Default)]
pub struct Totals(Mutex<Sums>);

impl Totals {
    /// The sums as a checkpoint kept them.
    #[must_use]
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Self {
        Self(Mutex::new(Sums {
            accepted: checkpoint.accepted,
            rejected: checkpoint.rejected.clone(),
            late: checkpoint.late.clone(),
            ..Sums::default()
        }))
    }

    /// Adds what a cut brought; gives the sums up to and with it.
    pub fn add(&self, merged: &Merged) -> Sums {
        let mut sums = self.0.lock();
        sums.accepted.add(merged.accepted);
        for (reason, items) in &merged.rejected {
            *sums.rejected.entry(*reason).or_default() += items;
        }
        for (reason, items) in &merged.late {
            *sums.late.entry(*reason).or_default() += items;
        }
        for (service, items) in &merged.overflowed {
            *sums.overflowed.entry(service.clone()).or_default() += items;
        }
        for ((service, reason), items) in &merged.untimely {
            let known = (service.clone(), *reason);
            let key = if sums.untimely.len() < UNTIMELY_TOLD || sums.untimely.contains_key(&known) {
                known
            } else {
                (Arc::new(ServiceKey::named(OTHER)), *reason)
            };
            *sums.untimely.entry(key).or_default() += items;
        }
        for (caller, items) in &merged.turned_away {
            *sums.turned_away.entry(*caller).or_default() += items;
        }
        sums.series = merged.series;
        sums.clone()
    }

    #[must_use]
    pub fn get(&self) -> Sums {
        self.0.lock().clone()
    }
}

impl Collect for Totals {
    fn collect(&self, out: &mut Exposition) {
        let sums = self.get();
        let accepted = [
            ("spans", sums.accepted.spans),
            ("log_records", sums.accepted.log_records),
            ("metric_points", sums.accepted.metric_points),
        ];
        out.by_label(
            "barograph_accepted_items_total",
            "Items acknowledged and counted since the data directory was made.",
            "signal",
            accepted,
        );
        let rejected = RejectedReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), sums.rejected.get(reason).copied().unwrap_or_default()));
        out.by_label(
            "barograph_rejected_items_total",
            "Items of admitted requests refused for good.",
            "reason",
            rejected,
        );
        let late = LateReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), sums.late.get(reason).copied().unwrap_or_default()));
        out.by_label(
            "barograph_late_items_total",
            "Items counted elsewhere than their time alone would have put them.",
            "reason",
            late,
        );
        let untimely: Vec<_> = sums
            .untimely
            .iter()
            .map(|((service, reason), items)| {
                let labels = [
                    ("environment", &*service.environment),
                    ("namespace", &*service.namespace),
                    ("service", &*service.name),
                    ("reason", reason.as_str()),
                ];
                (labels, *items as f64)
            })
            .collect();
        out.family(
            "barograph_untimely_items_total",
            Kind::Counter,
            "Items whose time was not followed as it stands, by service, since the start.",
            untimely.iter().map(|(labels, items)| (labels.as_slice(), *items)),
        );
        out.family(
            "barograph_build_info",
            Kind::Gauge,
            "Always 1; the labels say which build this is.",
            [([("version", env!("CARGO_PKG_VERSION"))].as_slice(), 1.0)],
        );
    }
}
