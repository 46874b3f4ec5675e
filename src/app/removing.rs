//! Evidence bundles are removed before they fill the disk, and the ledger says when.

use super::judging::Judging;
use crate::confirm::AnomalyId;
use crate::diagnose::{self, Removed, RemovedReason, Swept};
use crate::model::Clock;
use crate::observe::{Collect, Counter, Exposition, Kind};
use crate::store::{Ledger, Stage};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(300);

/// Keeps the directory of bundles within its bounds.
pub(super) struct Removing {
    directory: PathBuf,
    config: diagnose::Config,
    judging: Arc<Mutex<Judging>>,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    last: Mutex<Swept>,
    for_age: Counter,
    for_room: Counter,
}

impl Removing {
    pub fn new(
        directory: PathBuf,
        config: diagnose::Config,
        judging: Arc<Mutex<Judging>>,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            directory,
            config,
            judging,
            ledger,
            clock,
            last: Mutex::default(),
            for_age: Counter::default(),
            for_room: Counter::default(),
        })
    }

    /// Looks from time to time until told to stop.
    pub async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        loop {
            let this = self.clone();
            // A look that panics costs a look.
            let _ = tokio::task::spawn_blocking(move || this.step()).await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn step(&self) {
        let open: BTreeSet<AnomalyId> =
            self.judging.lock().judge.confirm.open().map(|anomaly| anomaly.id.clone()).collect();
        match diagnose::sweep(&self.directory, &self.config, self.clock.now(), &open) {
            Ok(swept) => {
                swept.removed.iter().for_each(|removed| self.tell(removed));
                *self.last.lock() = swept;
            }
            Err(error) => tracing::warn!(%error, "evidence that is too old or too much stays for now"),
        }
    }

    fn tell(&self, removed: &Removed) {
        match removed.reason {
            RemovedReason::Age => self.for_age.add(1),
            RemovedReason::Room => self.for_room.add(1),
        }
        let (object, key) = (removed.object(), removed.key());
        tracing::info!(anomaly = %removed.removed, reason = removed.reason.as_str(), "a bundle was removed");
        if let Err(error) = self.ledger.append(removed.at, Stage::Diagnose, &object, &key, removed) {
            tracing::warn!(%error, "that a bundle was removed is missing in its timeline");
        }
    }
}

impl Collect for Removing {
    fn collect(&self, out: &mut Exposition) {
        let last = self.last.lock().clone();
        out.single(
            "barograph_evidence_bundles",
            Kind::Gauge,
            "Evidence bundles that are kept, as of the last look.",
            last.bundles as f64,
        );
        out.single("barograph_evidence_bytes", Kind::Gauge, "Their disk space.", last.bytes as f64);
        out.by_label(
            "barograph_evidence_removed_total",
            "Evidence bundles removed since the start.",
            "reason",
            RemovedReason::ALL.map(|reason| match reason {
                RemovedReason::Age => (reason.as_str(), self.for_age.get()),
                RemovedReason::Room => (reason.as_str(), self.for_room.get()),
            }),
        );
    }
}
