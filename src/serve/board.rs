//! The present state of anomalies, changes and incidents, brought up to date when it is asked for.

use super::fold::{Fold, Whole};
use super::records::Records;
use super::{Error, Range};
use crate::api::v1;
use crate::incident::Incidents;
use crate::model::{ServiceKey, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;

/// Records read at once.
pub(super) const BATCH: usize = 1_000;
/// Rows of one answer.
pub(super) const MOST_ROWS: usize = 1_000;

#[derive(Default)]
struct State {
    fold: Fold,
    incidents: Incidents,
}

/// Follows the ledger.
#[derive(Clone)]
pub struct Board {
    records: Arc<dyn Records>,
    state: Arc<Mutex<State>>,
}

impl Board {
    #[must_use]
    pub fn new(records: Arc<dyn Records>) -> Self {
        Self { records, state: Arc::default() }
    }

    #[must_use]
    pub fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// Takes in what was appended since, then looks.
    ///
    /// # Errors
    /// `Storage` when the ledger cannot be read.
    pub fn look<T>(&self, look: impl FnOnce(&Fold) -> T) -> Result<T, Error> {
        self.caught_up(|state| look(&state.fold))
    }

    /// The same, at incidents.
    pub(super) fn look_at_incidents<T>(&self, look: impl FnOnce(&Incidents) -> T) -> Result<T, Error> {
        self.caught_up(|state| look(&state.incidents))
    }

    fn caught_up<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, Error> {
        let mut state = self.state.lock();
        loop {
            let records = self.records.read_after(state.fold.sequence, BATCH).map_err(Error::Storage)?;
            for record in &records {
                state.fold.apply(record);
                state.incidents.apply(record);
            }
            if records.len() < BATCH {
                return Ok(look(&state));
            }
        }
    }

    /// Anomalies that were open within the range, newest onset first.
    ///
    /// # Errors
    /// `Storage` when the ledger cannot be read.
    pub fn anomalies(
        &self,
        range: Option<Range>,
        service: Option<&ServiceKey>,
        states: &[i32],
        limit: u32,
    ) -> Result<Vec<v1::Anomaly>, Error> {
        self.look(|fold| {
            let mut found: Vec<(Timestamp, v1::Anomaly)> = fold
                .anomalies
                .values()
                .filter(|whole| {
                    whole.overlaps(range) && service.is_none_or(|service| whole.concerns(service))
                })
                .filter_map(|whole| Some((whole.anomaly.as_ref()?.onset.earliest, whole.message()?)))
                .filter(|(_, message)| states.is_empty() || states.contains(&message.state))
                .collect();
            found.sort_by(|a, b| (b.0, &b.1.id).cmp(&(a.0, &a.1.id)));
            found.truncate(rows(limit));
            found.into_iter().map(|(_, message)| message).collect()
        })
    }

    /// # Errors
    /// `NotFound` if there is none of this id.
    pub fn anomaly(&self, id: &str) -> Result<Whole, Error> {
        self.look(|fold| fold.anomalies.get(id).filter(|whole| whole.anomaly.is_some()).cloned())?
            .ok_or_else(|| Error::NotFound(format!("no anomaly {id:?}: `barograph anomalies` lists them")))
    }

    /// Changes within the range, latest first.
    ///
    /// # Errors
    /// `Storage` when the ledger cannot be read.
    pub fn changes(
        &self,
        range: Range,
        service: Option<&ServiceKey>,
        limit: u32,
    ) -> Result<Vec<v1::Change>, Error> {
        self.look(|fold| {
            fold.changes
                .values()
                .rev()
                .filter(|change| {
                    let concerns = match (&change.service, service) {
                        (Some(of), Some(wanted)) => of == wanted,
                        _ => true,
                    };
                    change.at >= range.since && change.at < range.until && concerns
                })
                .take(rows(limit))
                .map(super::changes::change_message)
                .collect()
        })
    }
}

/// How many rows a limit allows.
pub(super) fn rows(limit: u32) -> usize {
    match usize::try_from(limit).unwrap_or(MOST_ROWS) {
        0 => MOST_ROWS,
        limit => limit.min(MOST_ROWS),
    }
}

impl Whole {
    fn overlaps(&self, range: Option<Range>) -> bool {
        let (Some(range), Some(anomaly)) = (range, &self.anomaly) else { return true };
        anomaly.onset.earliest < range.until && anomaly.ended_at.is_none_or(|ended| ended >= range.since)
    }

    /// Whether the service takes part, or is blamed.
    fn concerns(&self, service: &ServiceKey) -> bool {
        let part = self.anomaly.as_ref().is_some_and(|anomaly| {
            anomaly.service == *service || anomaly.members.iter().any(|member| member.service == *service)
        });
        part || self.evidence.as_ref().is_some_and(|evidence| {
            evidence.causes.iter().any(|cause| {
                *service.name == *cause.service
                    && *service.environment == *cause.environment
                    && *service.namespace == *cause.namespace
            })
        })
    }
}
