//! The API's one object: every service of gRPC and every page answers through it.

use super::sources::Sources;
use super::{Beat, Board, Error, Meter, Queries, Range, Turnstile};
use crate::access::Access;
use crate::api::v1;
use crate::limits::Permit;
use crate::model::{Clock as _, ServiceKey, SystemClock, Timestamp};
use crate::observe::Exposition;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Answers questions. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(super) sources: Arc<Sources>,
    pub(super) queries: Queries,
    pub(super) board: Board,
    pub(super) turnstile: Turnstile,
    pub(super) followers: Arc<Semaphore>,
    /// Turns true when the daemon stops: streams end then.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Api {
    #[must_use]
    pub fn new(sources: Sources, stopping: watch::Receiver<bool>) -> Self {
        let followers = usize::try_from(sources.config.followers).unwrap_or(1);
        Self {
            queries: Queries { windows: sources.windows.clone(), registry: sources.registry.clone() },
            board: Board::new(sources.records.clone()),
            turnstile: Turnstile::new(&sources.config),
            followers: Arc::new(Semaphore::new(followers)),
            sources: Arc::new(sources),
            stopping,
        }
    }

    /// The guard of the ports, and how many connections each of them may have.
    #[must_use]
    pub fn door(&self) -> (Arc<Access>, usize) {
        let connections = usize::try_from(self.sources.config.connections).unwrap_or(usize::MAX);
        (self.sources.access.clone(), connections)
    }

    /// The journal's time; that of the clock while there is none.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.sources.windows.now() {
            // Before the first cut there is no journal time yet; what is told then is told now.
            Timestamp::ZERO => SystemClock.now(),
            now => now,
        }
    }

    /// Why the daemon is not ready; `None` while it is.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        self.sources.condition.unready()
    }

    #[must_use]
    pub fn status(&self) -> v1::Status {
        self.sources.condition.status()
    }

    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Works on a question where it may take its time and its share of memory.
    ///
    /// # Errors
    /// What the question says, or that it may not cost so much.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Self, &mut Meter) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let api = self.clone();
        self.turnstile.work(move |meter| question(&api, meter)).await
    }

    /// The same with the memory that the question took, for an answer that is held on to.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) async fn ask_and_hold<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Self, &mut Meter) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Option<Permit>), Error> {
        let api = self.clone();
        self.turnstile.work_and_hold(move |meter| question(&api, meter)).await
    }

    /// Services with their counts and quantiles.
    ///
    /// # Errors
    /// The question's cost.
    pub fn services(&self, range: Range, meter: &mut Meter) -> Result<Vec<v1::ServiceSummary>, Error> {
        self.queries.services(range, None, meter)
    }

    /// Requests of every service over time.
    ///
    /// # Errors
    /// The question's cost.
    pub fn beats(
        &self,
        range: Range,
        step: Duration,
        meter: &mut Meter,
    ) -> Result<BTreeMap<ServiceKey, Vec<Beat>>, Error> {
        self.queries.beats(range, step, meter)
    }

    #[must_use]
    pub fn slos(&self) -> Vec<v1::Slo> {
        self.sources.objectives.slos()
    }

    #[must_use]
    pub fn checks(&self) -> Vec<v1::Check> {
        self.sources.objectives.checks()
    }

    /// # Errors
    /// `NotFound` if there is none of this id.
    pub fn incident(&self, id: &str) -> Result<v1::Incident, Error> {
        self.board.incident(id)
    }

    /// # Errors
    /// `Storage` when the ledger cannot be read.
    pub fn incidents(&self, at_most: usize) -> Result<Vec<v1::Incident>, Error> {
        self.board.incidents(None, at_most)
    }

    /// How the strongest signals of an anomaly went.
    ///
    /// # Errors
    /// `NotFound` if there is none of this id, or the question's cost.
    pub fn curves(&self, anomaly: &str, meter: &mut Meter) -> Result<Vec<v1::Curve>, Error> {
        let whole = self.board.anomaly(anomaly)?;
        let anomaly = whole.anomaly.as_ref();
        anomaly.map_or_else(|| Ok(Vec::new()), |anomaly| self.queries.curves(anomaly, self.now(), meter))
    }

    /// Directory of an anomaly's evidence bundle.
    ///
    /// # Errors
    /// `NotFound` if there is no such anomaly, or no bundle of it.
    pub fn bundle(&self, anomaly: &str) -> Result<(PathBuf, crate::diagnose::Evidence), Error> {
        let none = || Error::NotFound(format!("no evidence of anomaly {anomaly:?} yet"));
        let whole = self.board.anomaly(anomaly)?;
        if let Some(removed) = whole.removed {
            let (at, why) = (removed.at, removed.reason.in_words());
            return Err(Error::NotFound(format!(
                "the evidence of anomaly {anomaly:?} was removed {why}, on {at}"
            )));
        }
        let evidence = whole.evidence.ok_or_else(none)?;
        // Where the bundle was written may have been another mount; its name is what lasts.
        let name = evidence.bundle.path.file_name().ok_or_else(none)?;
        let path = self.sources.evidence.join(name);
        if path.is_dir() {
            Ok((path, evidence))
        } else {
            Err(Error::NotFound(format!("the evidence of anomaly {anomaly:?} is not there any more")))
        }
    }

    /// What all rooms say of themselves, as Prometheus text.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut out = Exposition::default();
        for room in &self.sources.metrics {
            room.collect(&mut out);
        }
        out.finish()
    }
}
