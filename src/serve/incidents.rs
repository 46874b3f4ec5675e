//! Incidents, and what operators do about them.

use super::board::Board;
use super::convert::{service, to_proto};
use super::{Error, Range};
use crate::api::v1;
use crate::incident::{Error as Refused, Incident, Incidents, Write};
use crate::model::{ServiceKey, Timestamp};
use crate::slo::Lost;
use crate::store::Stage;

/// Tries to append when others write at the same moment.
const TRIES: usize = 16;

/// What an operator does about an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Acknowledge,
    Note(String),
    /// With a last word, which may be empty.
    Resolve(String),
}

fn incident_message(of: &Incident) -> v1::Incident {
    v1::Incident {
        id: of.id.clone(),
        anomalies: of.anomalies.clone(),
        state: of.state.as_str().to_owned(),
        title: of.title.clone(),
        service: Some(service(&ServiceKey::new(&of.environment, &of.namespace, &of.service))),
        onset: Some(to_proto(of.onset)),
        detected_at: Some(to_proto(of.detected_at)),
        alerted_at: Some(to_proto(of.alerted_at)),
        acknowledged_at: of.acknowledged_at.map(to_proto),
        recovered_at: of.recovered_at.map(to_proto),
        time_to_detect_ns: Some(i64::try_from(of.time_to_detect_ns).unwrap_or(i64::MAX)),
        time_to_recover_ns: of.time_to_recover_ns.map(|ns| i64::try_from(ns).unwrap_or(i64::MAX)),
        timeline: of
            .timeline
            .iter()
            .map(|line| v1::TimelineEntry {
                at: Some(to_proto(line.at)),
                who: line.who.clone(),
                what: line.what.clone(),
            })
            .collect(),
        severity: super::anomaly::severity_message(of.severity) as i32,
        cause: of.cause.as_ref().map(super::anomaly::cause),
        budget_spent: of.impact.budget_spent.iter().map(budget_spent).collect(),
        users_affected: of.impact.users.map(|users| users.affected),
        users: of.impact.users.map(|users| users.all),
    }
}

fn budget_spent(of: &Lost) -> v1::BudgetSpent {
    v1::BudgetSpent { slo: of.slo.clone(), service: Some(service(&of.service)), bad: of.bad, ratio: of.share }
}

fn refused(error: &Refused) -> Error {
    match error {
        Refused::NotFound(id) => {
            Error::NotFound(format!("no incident {id:?}: `barograph incidents` lists them"))
        }
        Refused::Full(..) => Error::TooMany(error.to_string()),
        Refused::Length { .. } | Refused::ControlCharacter { .. } => Error::Invalid(error.to_string()),
    }
}

impl Board {
    /// Incidents with an onset within the range, newest first.
    ///
    /// # Errors
    /// `Storage` when the ledger cannot be read.
    pub fn incidents(&self, range: Option<Range>, at_most: usize) -> Result<Vec<v1::Incident>, Error> {
        let within = |at: Timestamp| range.is_none_or(|range| at >= range.since && at < range.until);
        self.look_at_incidents(|incidents| {
            let list = incidents.list().into_iter().filter(|incident| within(incident.onset));
            list.take(at_most).map(incident_message).collect()
        })
    }

    /// The incident of this id, or the one that the anomaly of this id belongs to.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn incident(&self, id: &str) -> Result<v1::Incident, Error> {
        self.look_at_incidents(|incidents| incidents.get(id).map(incident_message))?
            .ok_or_else(|| refused(&Refused::NotFound(id.to_owned())))
    }

    /// Does something to an incident and gives what became of it.
    ///
    /// # Errors
    /// `NotFound` if there is none of this id, `Invalid` for names and texts that are not allowed, `Storage`
    /// when the ledger cannot be written.
    pub fn act(&self, id: &str, who: &str, act: &Act, now: Timestamp) -> Result<v1::Incident, Error> {
        for _ in 0..TRIES {
            let write = self
                .look_at_incidents(|incidents| write(incidents, id, who, act, now))?
                .map_err(|error| refused(&error))?;
            let Some(Write { object, key, entry }) = write else { return self.incident(id) };
            let payload = serde_json::to_value(&entry).map_err(|error| Error::Storage(error.to_string()))?;
            // Somebody else may have written the entry of this number meanwhile: then once more, after it.
            if self
                .records()
                .append(now, Stage::Incident, &object, &key, payload)
                .map_err(Error::Storage)?
                .is_some()
            {
                return self.incident(id);
            }
        }
        Err(Error::Conflict("too many write to this incident at the same time: try again".to_owned()))
    }
}

/// The entry to append; `None` if it would change nothing.
fn write(
    incidents: &Incidents,
    id: &str,
    who: &str,
    act: &Act,
    now: Timestamp,
) -> Result<Option<Write>, Refused> {
    match act {
        Act::Acknowledge => incidents.acknowledge(id, who, now),
        Act::Note(text) => incidents.note(id, who, text, now).map(Some),
        Act::Resolve(text) => incidents.resolve(id, who, text, now),
    }
}
