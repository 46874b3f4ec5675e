//! Folds the ledger into incidents.

use super::entry::{self, Action, Entry, Write};
use super::{Error, Hash, Incident, IncidentState, TimelineEntry};
use crate::alert::{Alert, AlertState, Delivered, Impact, Recorded};
use crate::confirm::{Anomaly, AnomalyState, Severity};
use crate::context::Change;
use crate::diagnose::{Cause, CauseKind, Evidence, Pass, Removed, Uploaded};
use crate::model::Timestamp;
use crate::store::{LedgerRecord, Stage};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};

const DAEMON: &str = "barograph";
/// Incidents kept; older ones are in the ledger alone.
const INCIDENTS: usize = 10_000;
/// Anomalies that have not ended, and merged ones whose elder has no incident yet.
const ANOMALIES: usize = 4_000;
const CHANGES: usize = 1_000;
/// Lines of a timeline, and entries of operators.
const LINES: usize = 1_000;
const ENTRIES: usize = 500;

/// All incidents, as the ledger up to a record tells them. A fold: the same records in the same
/// order give the same incidents, and a record that was applied already changes nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Incidents {
    incidents: BTreeMap<String, Incident>,
    /// Ids in the order in which incidents began.
    order: VecDeque<String>,
    /// Anomalies that became part of another's incident.
    part_of: BTreeMap<String, String>,
    /// Anomalies that may yet get an incident.
    anomalies: BTreeMap<String, Anomaly>,
    /// What was found of those before their alert fired, which waits for it.
    evidence: BTreeMap<String, Evidence>,
    changes: BTreeMap<String, Change>,
    change_order: VecDeque<String>,
    last_sequence: u64,
}

impl Incidents {
    /// Applies the ledger's next record.
    pub fn apply(&mut self, record: &LedgerRecord) {
        if record.sequence <= self.last_sequence {
            return;
        }
        self.last_sequence = record.sequence;
        match record.stage {
            Stage::Context => self.on(record, Self::changed),
            Stage::Confirm => self.on(record, Self::judged),
            Stage::Diagnose => match (Uploaded::read(record), Removed::read(record)) {
                (Some(uploaded), _) => self.uploaded(uploaded),
                (_, Some(removed)) => self.removed(&removed),
                _ => self.on(record, Self::diagnosed),
            },
            Stage::Incident => self.on(record, Self::written),
            Stage::Alert => match Recorded::read(record) {
                Some(Recorded::Alert(alert)) => self.alerted(&alert),
                Some(Recorded::Delivered(delivered)) => self.delivered(&delivered),
                None => {}
            },
        }
    }

    /// Incidents, newest onset first.
    #[must_use]
    pub fn list(&self) -> Vec<&Incident> {
        let mut list: Vec<&Incident> = self.incidents.values().collect();
        list.sort_by(|a, b| (b.onset, &b.id).cmp(&(a.onset, &a.id)));
        list
    }

    /// The incident with this id, or the one that an anomaly with this id belongs to.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Incident> {
        self.incidents.get(self.home(id))
    }

    /// Sequence of the last record applied.
    #[must_use]
    pub const fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Says that somebody takes care of it; `None` if that was said already.
    ///
    /// # Errors
    /// When there is no such incident, or the author's name is not allowed.
    pub fn acknowledge(&self, id: &str, author: &str, at: Timestamp) -> Result<Option<Write>, Error> {
        let incident = self.find(id)?;
        if incident.acknowledged_at.is_some() {
            return Ok(None);
        }
        write(incident, author, Action::Acknowledge, String::new(), at).map(Some)
    }

    /// Adds a line to the timeline.
    ///
    /// # Errors
    /// When there is no such incident, or author or text are not allowed.
    pub fn note(&self, id: &str, author: &str, text: &str, at: Timestamp) -> Result<Write, Error> {
        write(self.find(id)?, author, Action::Note, entry::text(text, false)?, at)
    }

    /// Closes the record; `None` if it is closed already.
    ///
    /// # Errors
    /// When there is no such incident, or author or text are not allowed.
    pub fn resolve(&self, id: &str, author: &str, text: &str, at: Timestamp) -> Result<Option<Write>, Error> {
        let incident = self.find(id)?;
        if incident.state == IncidentState::Resolved {
            return Ok(None);
        }
        write(incident, author, Action::Resolve, entry::text(text, true)?, at).map(Some)
    }

    fn find(&self, id: &str) -> Result<&Incident, Error> {
        self.get(id).ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    /// Reads a payload and folds it; what cannot be read was written by another version and is left out.
    fn on<T: DeserializeOwned>(&mut self, record: &LedgerRecord, fold: fn(&mut Self, T)) {
        if let Ok(payload) = serde_json::from_value(record.payload.clone()) {
            fold(self, payload);
        }
    }

    /// Follows `part_of`. Each step leads to an older anomaly, so there is an end; a damaged ledger
    /// may say otherwise, so steps are counted.
    fn home<'a>(&'a self, id: &'a str) -> &'a str {
        let mut home = id;
        for _ in 0..64 {
            match self.part_of.get(home) {
                Some(elder) => home = elder,
                None => break,
            }
        }
        home
    }

    fn incident(&mut self, id: &str) -> Option<&mut Incident> {
        let home = self.home(id).to_owned();
        self.incidents.get_mut(&home)
    }

    fn changed(&mut self, change: Change) {
        let id = change.id.0.clone();
        if self.changes.insert(id.clone(), change).is_none() {
            self.change_order.push_back(id);
        }
        if self.change_order.len() > CHANGES
            && let Some(oldest) = self.change_order.pop_front()
        {
            self.changes.remove(&oldest);
        }
    }

    fn judged(&mut self, anomaly: Anomaly) {
        let id = anomaly.id.0.clone();
        let suspects: Vec<TimelineEntry> = anomaly
            .suspects
            .iter()
            .filter_map(|id| self.changes.get(&id.0))
            .map(|change| line(change.at, DAEMON, format!("Change: {}", change.title)))
            .collect();
        if let Some(elder) = &anomaly.merged_into {
            self.merge(&id, &elder.0, anomaly.ended_at.unwrap_or(anomaly.opened_at));
            return;
        }
        if let Some(incident) = self.incidents.get_mut(&id) {
            describe(incident, &anomaly);
            suspects.into_iter().for_each(|suspect| tell(incident, suspect));
        }
        match anomaly.state {
            AnomalyState::Gathering | AnomalyState::Confirmed => {
                self.anomalies.insert(id, anomaly);
                while self.anomalies.len() > ANOMALIES {
                    self.anomalies.pop_first();
                }
            }
            AnomalyState::Recovered | AnomalyState::Merged | AnomalyState::Suppressed => {
                self.anomalies.remove(&id);
                self.evidence.remove(&id);
            }
        }
    }

    /// What began as two turned out to be one.
    fn merge(&mut self, younger: &str, elder: &str, at: Timestamp) {
        self.anomalies.remove(younger);
        self.evidence.remove(younger);
        let home = self.home(elder).to_owned();
        if home == younger || self.part_of.contains_key(younger) {
            return;
        }
        self.part_of.insert(younger.to_owned(), home.clone());
        while self.part_of.len() > INCIDENTS {
            self.part_of.pop_first();
        }
        let joined = self.incidents.remove(younger);
        if joined.is_some() {
            self.order.retain(|id| id != younger);
        }
        let Some(incident) = self.incidents.get_mut(&home) else {
            // The elder has no incident yet, or it is forgotten: the younger's goes on in its name.
            if let Some(mut incident) = joined {
                incident.id.clone_from(&home);
                incident.anomalies.insert(0, home.clone());
                self.order.push_back(home.clone());
                self.incidents.insert(home, incident);
            }
            return;
        };
        incident.anomalies.push(younger.to_owned());
        tell(incident, line(at, DAEMON, format!("Anomaly {younger} is part of it")));
        if let Some(joined) = joined {
            incident.anomalies.extend(joined.anomalies.into_iter().filter(|id| id != younger));
            incident.onset = incident.onset.min(joined.onset);
            incident.detected_at = incident.detected_at.min(joined.detected_at);
            incident.alerted_at = incident.alerted_at.min(joined.alerted_at);
            incident.acknowledged_at = earliest(incident.acknowledged_at, joined.acknowledged_at);
            joined.timeline.into_iter().for_each(|line| tell(incident, line));
            settle(incident);
        }
    }

    fn alerted(&mut self, alert: &Alert) {
        let id = alert.anomaly.0.clone();
        // Of one that was merged, the elder's counts.
        if let Some(incident) = self.incidents.get_mut(&id)
            && alert.state != AlertState::Merged
            && alert.impact != Impact::default()
        {
            incident.impact.clone_from(&alert.impact);
        }
        if alert.state != AlertState::Firing {
            if let Some(incident) = self.incidents.get_mut(&id)
                && let Some(at) = alert.resolved_at
            {
                tell(incident, line(at, DAEMON, format!("Alert {}", alert.state.as_str())));
            }
            return;
        }
        let fired_at = alert.fired_at.unwrap_or(alert.starts_at);
        if let Some(incident) = self.incident(&id) {
            for (severity, at) in &alert.risen_from {
                tell(incident, line(*at, DAEMON, format!("Severity raised from {}", severity.as_str())));
            }
            if incident.recovered_at.is_some_and(|recovered| fired_at > recovered) {
                tell(incident, line(fired_at, DAEMON, "Alert fires again".into()));
            }
            return;
        }
        let Some(anomaly) = self.anomalies.get(&id).filter(|_| alert.severity > Severity::Info) else {
            return;
        };
        let mut incident = begin(anomaly, fired_at);
        for suspect in anomaly.suspects.iter().filter_map(|id| self.changes.get(&id.0)) {
            tell(&mut incident, line(suspect.at, DAEMON, format!("Change: {}", suspect.title)));
        }
        incident.anomalies.extend(
            self.part_of.iter().filter(|(_, elder)| **elder == id).map(|(younger, _)| younger.clone()),
        );
        incident.impact.clone_from(&alert.impact);
        if let Some(evidence) = self.evidence.remove(&id) {
            found(&mut incident, evidence);
        }
        self.order.push_back(id.clone());
        self.incidents.insert(id, incident);
        while self.order.len() > INCIDENTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.incidents.remove(&oldest);
        }
    }

    fn delivered(&mut self, delivered: &Delivered) {
        let Some(incident) = self.incident(&delivered.anomaly.0) else { return };
        if delivered.state == AlertState::Firing && !incident.delivered {
            incident.delivered = true;
            incident.alerted_at = delivered.at;
            tell(incident, line(delivered.at, DAEMON, format!("Told {}", delivered.target)));
        }
    }

    fn diagnosed(&mut self, evidence: Evidence) {
        let id = evidence.anomaly.0.clone();
        if let Some(incident) = self.incident(&id) {
            found(incident, evidence);
        } else if self.anomalies.contains_key(&id) {
            self.evidence.insert(id, evidence);
            while self.evidence.len() > ANOMALIES {
                self.evidence.pop_first();
            }
        }
    }

    fn uploaded(&mut self, uploaded: Uploaded) {
        let Some(incident) = self.incident(&uploaded.uploaded.0) else { return };
        let which = if uploaded.pass == Pass::First { "first look" } else { "with late spans" };
        let what = match uploaded.failed {
            None => format!("Evidence ({which}) uploaded: {}", uploaded.url),
            Some(why) => format!("Evidence ({which}) could not be uploaded to {}: {why}", uploaded.url),
        };
        tell(incident, line(uploaded.at, DAEMON, what));
    }

    fn removed(&mut self, removed: &Removed) {
        let Some(incident) = self.incident(&removed.removed.0) else { return };
        let what = format!("Evidence was removed {}", removed.reason.in_words());
        tell(incident, line(removed.at, DAEMON, what));
    }

    fn written(&mut self, entry: Entry) {
        let Some(incident) = self.incident(&entry.incident) else { return };
        if incident.entries.len() >= ENTRIES {
            return;
        }
        incident.chain_intact &= entry.previous == incident.last_entry;
        incident.last_entry = entry.hash();
        let what = match entry.kind {
            Action::Acknowledge => {
                incident.acknowledged_at = earliest(incident.acknowledged_at, Some(entry.at));
                "Acknowledged".to_owned()
            }
            Action::Note => entry.text.clone(),
            Action::Resolve if entry.text.is_empty() => "Resolved".to_owned(),
            Action::Resolve => format!("Resolved: {}", entry.text),
        };
        tell(incident, line(entry.at, &entry.author, what));
        incident.entries.push(entry);
        settle(incident);
    }
}

fn begin(anomaly: &Anomaly, fired_at: Timestamp) -> Incident {
    let mut incident = Incident {
        id: anomaly.id.0.clone(),
        anomalies: vec![anomaly.id.0.clone()],
        state: IncidentState::Open,
        title: String::new(),
        severity: anomaly.severity,
        service: anomaly.service.name.clone(),
        environment: anomaly.service.environment.clone(),
        namespace: anomaly.service.namespace.clone(),
        onset: anomaly.onset.earliest,
        detected_at: anomaly.opened_at,
        alerted_at: fired_at,
        acknowledged_at: None,
        recovered_at: None,
        time_to_detect_ns: 0,
        time_to_recover_ns: None,
        cause: None::<Cause>,
        impact: Impact::default(),
        timeline: Vec::new(),
        entries: Vec::new(),
        chain_intact: true,
        delivered: false,
        last_entry: Hash::default(),
    };
    describe(&mut incident, anomaly);
    tell(&mut incident, line(anomaly.onset.earliest, DAEMON, "Onset".into()));
    tell(&mut incident, line(anomaly.opened_at, DAEMON, format!("Detected: {}", anomaly.title)));
    tell(&mut incident, line(fired_at, DAEMON, format!("Alert fires ({})", anomaly.severity.as_str())));
    incident
}

/// Takes over what may change of an anomaly. The onset stays what it was when the alert fired.
fn describe(incident: &mut Incident, anomaly: &Anomaly) {
    incident.title.clone_from(&anomaly.title);
    incident.severity = incident.severity.max(anomaly.severity);
    match anomaly.state {
        AnomalyState::Recovered | AnomalyState::Suppressed => {
            if incident.recovered_at.is_none()
                && let Some(at) = anomaly.ended_at
            {
                incident.recovered_at = Some(at);
                let what = match &anomaly.suppressed_by {
                    Some(reason) => format!("Suppressed by {reason}"),
                    None => "Recovered".to_owned(),
                };
                tell(incident, line(at, DAEMON, what));
            }
        }
        AnomalyState::Gathering | AnomalyState::Confirmed => incident.recovered_at = None,
        AnomalyState::Merged => {}
    }
    settle(incident);
}

/// Takes over what a diagnosis found.
fn found(incident: &mut Incident, evidence: Evidence) {
    let pass = match evidence.pass {
        Pass::First => "first look",
        Pass::Complete => "with late spans",
    };
    let what = match evidence.causes.first() {
        Some(cause) if cause.kind == CauseKind::Inconclusive => {
            format!("Suspected cause ({pass}): inconclusive, best guess {}", cause.service)
        }
        Some(cause) => format!(
            "Suspected cause ({pass}): {} ({}, {:.0} %): {}",
            cause.service,
            cause.kind.as_str(),
            cause.score * 100.0,
            cause.reason,
        ),
        None => format!("No cause found ({pass})"),
    };
    tell(incident, line(evidence.at, DAEMON, what));
    tell(
        incident,
        line(
            evidence.at,
            DAEMON,
            format!(
                "Evidence: {} traces, {} log records",
                evidence.bundle.traces, evidence.bundle.log_records
            ),
        ),
    );
    for ran in &evidence.bundle.collected {
        let what = format!(
            "Collector {}: {}, {} bytes{}, {:.1} s",
            ran.name,
            ran.ended,
            ran.bytes,
            if ran.is_cut { " of more" } else { "" },
            std::time::Duration::from_nanos(ran.took_ns).as_secs_f64(),
        );
        tell(incident, line(ran.at, DAEMON, what));
    }
    incident.cause = evidence.causes.into_iter().next().or_else(|| incident.cause.take());
}

/// Brings what follows from other fields up to date.
fn settle(incident: &mut Incident) {
    let onset = incident.onset.ns();
    incident.time_to_detect_ns = incident.detected_at.ns().saturating_sub(onset);
    incident.time_to_recover_ns = incident.recovered_at.map(|at| at.ns().saturating_sub(onset));
    let closed = incident.entries.iter().rev().find(|entry| entry.kind == Action::Resolve);
    incident.state = if closed.is_some() {
        IncidentState::Resolved
    } else if incident.recovered_at.is_some() {
        IncidentState::Recovered
    } else if incident.acknowledged_at.is_some() {
        IncidentState::Acknowledged
    } else {
        IncidentState::Open
    };
}

fn line(at: Timestamp, who: &str, what: String) -> TimelineEntry {
    TimelineEntry { at, who: who.to_owned(), what }
}

/// Adds a line in order of time, after those of the same time, unless it is there already.
fn tell(incident: &mut Incident, line: TimelineEntry) {
    let at = incident.timeline.partition_point(|other| other.at <= line.at);
    if incident.timeline.len() < LINES && !incident.timeline.contains(&line) {
        incident.timeline.insert(at, line);
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

fn write(
    incident: &Incident,
    author: &str,
    kind: Action,
    text: String,
    at: Timestamp,
) -> Result<Write, Error> {
    if incident.entries.len() >= ENTRIES {
        return Err(Error::Full(incident.id.clone(), ENTRIES));
    }
    let number = u32::try_from(incident.entries.len()).unwrap_or(u32::MAX).saturating_add(1);
    Ok(Write::new(Entry {
        incident: incident.id.clone(),
        number,
        at,
        author: entry::author(author)?,
        kind,
        text,
        refs: Vec::new(),
        previous: incident.last_entry,
    }))
}
