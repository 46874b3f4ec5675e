//! The life of an alert: pending, firing, and one of three ends.

use super::text;
use super::{Alert, AlertState, Attachment, Config, Error, Impact};
use crate::confirm::{Anomaly, AnomalyId, AnomalyState};
use crate::model::{Timestamp, WindowId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// News in the text alone is told at most this often.
const NEWS_EVERY: Duration = Duration::from_secs(60);
/// How long, and how many at most, ended alerts are remembered: a burn finding may revive an anomaly
/// within its long window of three days.
const ENDED_KEPT_FOR: Duration = Duration::from_secs(3 * 86_400);
const ENDED_KEPT: usize = 2_000;
/// A barrier comes every second; a longer step means that the daemon was not there.
const GAP: Duration = Duration::from_secs(10);
/// After a gap nothing resolves until this many whole windows were judged,
const WHOLE_WINDOWS: u64 = 2;
/// which is this long after a window's end, when it is sealed.
const SEALED_AFTER: Duration = Duration::from_secs(15);

/// An alert and what it was made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    alert: Alert,
    /// `None` for an alert that only the ledger knew.
    anomaly: Option<Anomaly>,
    attachment: Attachment,
    confirmed_at: Option<Timestamp>,
    changed_at: Timestamp,
}

/// Turns anomalies into alerts. Pure and synchronous: the same steps give the same alerts.
#[derive(Debug, Default)]
pub struct Lifecycle {
    config: Config,
    held: BTreeMap<AnomalyId, Held>,
    /// When to look at an alert again although nothing changed.
    due: BTreeSet<(Timestamp, AnomalyId)>,
    /// Alerts that got an attachment since the last step.
    attached: BTreeSet<AnomalyId>,
    ended: BTreeSet<(Timestamp, AnomalyId)>,
    pub(super) last_step: Option<Timestamp>,
    /// Nothing resolves before.
    pub(super) frozen_until: Option<Timestamp>,
}

/// What a checkpoint keeps.
#[derive(Serialize, Deserialize)]
struct State {
    held: Vec<Held>,
    last_step: Option<Timestamp>,
    frozen_until: Option<Timestamp>,
}

impl Lifecycle {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Takes the anomalies that changed at this cut and gives the alerts that did, in the order of
    /// their ids. `at` is the arrival time of the cut and never decreases.
    pub fn step(&mut self, at: Timestamp, changed: &[Anomaly]) -> Vec<Alert> {
        self.step_with(at, changed, |_| Attachment::default())
    }

    /// The same with what anomalies cost until `at`, asked for only of those whose alert is told: all figures of
    /// one text are of one moment.
    pub fn step_with(
        &mut self,
        at: Timestamp,
        changed: &[Anomaly],
        figures: impl Fn(&Anomaly) -> Attachment,
    ) -> Vec<Alert> {
        let mut look = self.passing_of_time(at);
        for anomaly in changed {
            self.take(at, anomaly);
            look.insert(anomaly.id.clone());
        }
        look.append(&mut self.attached);
        look.into_iter().filter_map(|id| self.judge(at, &id, &figures)).collect()
    }

    /// Adds what was found out about an anomaly; the next step tells it. What is not about a known
    /// anomaly is dropped.
    pub fn attach(&mut self, anomaly: &AnomalyId, news: Attachment) {
        if let Some(held) = self.held.get_mut(anomaly) {
            held.attachment.update(news);
            self.attached.insert(anomaly.clone());
        }
    }

    /// Takes over the alerts that the ledger holds, once after a restart, when the journal has been
    /// replayed: what was told stays told, with the cause it had, and revisions go on from there. What
    /// the replay knows and the ledger does not was never told, and the next step tells it. An alert of
    /// which nothing else is known resolves when the freeze ends.
    pub fn adopt(&mut self, alerts: impl IntoIterator<Item = Alert>) {
        let mut untold: BTreeSet<AnomalyId> = self.held.keys().cloned().collect();
        for alert in alerts {
            let id = alert.anomaly.clone();
            untold.remove(&id);
            match self.held.get_mut(&id) {
                Some(held) => held.alert = alert,
                None if alert.state.is_ended() => continue,
                None => {
                    let changed_at = alert.fired_at.unwrap_or(alert.starts_at);
                    let attachment = Attachment::default();
                    let held = Held { alert, anomaly: None, attachment, confirmed_at: None, changed_at };
                    self.held.insert(id.clone(), held);
                }
            }
            self.attached.insert(id);
        }
        for id in untold {
            if let Some(held) = self.held.get_mut(&id)
                && !held.alert.state.is_ended()
            {
                held.alert.revision = 0;
                held.alert.state = AlertState::Pending;
                self.attached.insert(id);
            }
        }
        self.last_step = None;
        self.index();
    }

    /// Alerts that have not ended, and those ended that are still remembered.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.held.values().map(|held| &held.alert)
    }

    /// The state, to be kept with the cut it holds for.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn state(&self) -> Result<Vec<u8>, Error> {
        let held = self.held.values().cloned().collect();
        let state = State { held, last_step: self.last_step, frozen_until: self.frozen_until };
        Ok(postcard::to_stdvec(&state)?)
    }

    /// Goes back to a state. Until two whole windows have been judged from the next step on, nothing
    /// resolves: that nothing was seen while nobody looked means nothing.
    ///
    /// # Errors
    /// When the bytes are no state; nothing is changed then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let state: State = postcard::from_bytes(bytes)?;
        self.held = state.held.into_iter().map(|held| (held.alert.anomaly.clone(), held)).collect();
        self.attached.clear();
        self.frozen_until = state.frozen_until;
        self.last_step = None;
        self.index();
        Ok(())
    }

    /// Rebuilds what follows from `held`.
    fn index(&mut self) {
        self.ended = self
            .held
            .iter()
            .filter(|(_, held)| held.alert.state.is_ended())
            .map(|(id, held)| (held.changed_at, id.clone()))
            .collect();
        self.due = self
            .held
            .iter()
            .filter(|(_, held)| !held.alert.state.is_ended())
            .map(|(id, held)| (held.changed_at, id.clone()))
            .collect();
    }

    /// Notices gaps, forgets what ended long ago, and gives the alerts whose time has come.
    fn passing_of_time(&mut self, at: Timestamp) -> BTreeSet<AnomalyId> {
        let gap = self.last_step.is_none_or(|last| at.since(last) > GAP);
        if gap && !self.held.is_empty() {
            let judged = WindowId(WindowId::of(at).0.saturating_add(1 + WHOLE_WINDOWS));
            let until = judged.start().saturating_add(SEALED_AFTER);
            self.frozen_until = self.frozen_until.max(Some(until));
        }
        self.last_step = Some(at);
        let mut look = BTreeSet::new();
        if self.frozen_until.is_some_and(|until| at >= until) {
            self.frozen_until = None;
            look.extend(self.held.keys().cloned());
        }
        while let Some((when, _)) = self.due.first()
            && *when <= at
            && let Some((_, id)) = self.due.pop_first()
        {
            look.insert(id);
        }
        while let Some((when, _)) = self.ended.first()
            && (at.since(*when) > ENDED_KEPT_FOR || self.ended.len() > ENDED_KEPT)
            && let Some((_, id)) = self.ended.pop_first()
        {
            self.held.remove(&id);
        }
        look
    }

    /// Takes over what `confirm` says of an anomaly.
    fn take(&mut self, at: Timestamp, anomaly: &Anomaly) {
        match self.held.get_mut(&anomaly.id) {
            Some(held) => held.anomaly = Some(anomaly.clone()),
            None => {
                let alert = Alert {
                    anomaly: anomaly.id.clone(),
                    revision: 0,
                    state: AlertState::Pending,
                    severity: anomaly.severity,
                    labels: BTreeMap::new(),
                    annotations: BTreeMap::new(),
                    starts_at: anomaly.onset.earliest,
                    fired_at: None,
                    resolved_at: None,
                    risen_from: Vec::new(),
                    impact: Impact::default(),
                };
                let attachment = Attachment::default();
                let anomaly = Some(anomaly.clone());
                let held = Held { alert, anomaly, attachment, confirmed_at: None, changed_at: at };
                self.held.insert(held.alert.anomaly.clone(), held);
            }
        }
    }

    /// The alert as it should be now, if that differs from how it was last told.
    fn judge(
        &mut self,
        at: Timestamp,
        id: &AnomalyId,
        figures: impl Fn(&Anomaly) -> Attachment,
    ) -> Option<Alert> {
        let frozen = self.frozen_until.is_some();
        let held = self.held.get_mut(id)?;
        let mut next = held.alert.clone();
        let mut look_again = None;
        match &held.anomaly {
            None if frozen => return None,
            None => end(&mut next, AlertState::Resolved, at),
            Some(anomaly) => {
                match anomaly.state {
                    AnomalyState::Gathering => {}
                    AnomalyState::Confirmed => {
                        let since = *held.confirmed_at.get_or_insert(anomaly.fired_at.unwrap_or(at).min(at));
                        let told_without = since.saturating_add(self.config.cause_wait.0);
                        let fires = next.state != AlertState::Pending
                            || held.attachment.is_answer()
                            || at >= told_without;
                        if !fires {
                            look_again = Some(told_without);
                        } else if next.state != AlertState::Firing {
                            next.state = AlertState::Firing;
                            next.fired_at = Some(at);
                            next.resolved_at = None;
                        }
                    }
                    AnomalyState::Recovered if frozen => {}
                    AnomalyState::Recovered => end(&mut next, AlertState::Resolved, at),
                    AnomalyState::Merged => end(&mut next, AlertState::Merged, at),
                    AnomalyState::Suppressed => end(&mut next, AlertState::Suppressed, at),
                }
                if next.state == AlertState::Pending {
                    next.severity = anomaly.severity;
                    next.starts_at = next.starts_at.min(anomaly.onset.earliest);
                } else if next.state == AlertState::Firing && anomaly.severity > next.severity {
                    if held.alert.state == AlertState::Firing {
                        next.risen_from.push((next.severity, at));
                    }
                    next.severity = anomaly.severity;
                }
                next.labels = text::labels(anomaly, next.severity.as_str());
                write(&mut next, &self.config, anomaly, &held.attachment);
            }
        }
        if next == held.alert {
            self.due.extend(look_again.map(|when| (when, id.clone())));
            return None;
        }
        let quiet_until = held.changed_at.saturating_add(NEWS_EVERY);
        if held.alert.revision > 0 && !is_urgent(&held.alert, &next) && at < quiet_until {
            let when = look_again.map_or(quiet_until, |other| other.min(quiet_until));
            self.due.insert((when, id.clone()));
            return None;
        }
        if let Some(anomaly) = held.anomaly.as_ref().filter(|_| next.state != AlertState::Pending) {
            held.attachment.update(figures(anomaly));
            write(&mut next, &self.config, anomaly, &held.attachment);
        }
        next.revision = held.alert.revision.saturating_add(1);
        self.ended.remove(&(held.changed_at, id.clone()));
        held.changed_at = at;
        held.alert = next.clone();
        if next.state.is_ended() {
            self.ended.insert((at, id.clone()));
        }
        self.due.extend(look_again.map(|when| (when, id.clone())));
        Some(next)
    }
}

/// Writes the text of an alert.
fn write(alert: &mut Alert, config: &Config, anomaly: &Anomaly, attachment: &Attachment) {
    let link = link(config, attachment, &anomaly.id);
    let runbook = text::runbook(&config.runbook_url, anomaly);
    let links = text::Links { evidence: link.as_deref(), runbook: &runbook };
    alert.annotations = text::annotations(anomaly, attachment, links);
    alert.impact.clone_from(&attachment.impact);
    if let Some(elder) = &anomaly.merged_into {
        alert.annotations.insert("merged_into".into(), elder.0.clone());
    }
    if let Some(reason) = &anomaly.suppressed_by {
        alert.annotations.insert("suppressed_by".into(), text::clean(reason, 300));
    }
}

/// Ends an alert, unless it already has ended: the first end stays.
fn end(alert: &mut Alert, state: AlertState, at: Timestamp) {
    if !alert.state.is_ended() {
        alert.state = state;
        alert.resolved_at = Some(at);
    }
}

/// Where the alert's link leads.
fn link(config: &Config, attachment: &Attachment, id: &AnomalyId) -> Option<String> {
    attachment.evidence_url.clone().or_else(|| {
        let base = config.external_url.trim_end_matches('/');
        (!base.is_empty()).then(|| format!("{base}/anomalies/{id}"))
    })
}

/// Whether a change cannot wait: all but new figures in the text.
fn is_urgent(before: &Alert, after: &Alert) -> bool {
    const WAITING: [&str; 6] = ["summary", "description", "onset", "check", "budget_spent", "users_affected"];
    before.state != after.state
        || before.labels != after.labels
        || before
            .annotations
            .iter()
            .filter(|(key, _)| !WAITING.contains(&key.as_str()))
            .ne(after.annotations.iter().filter(|(key, _)| !WAITING.contains(&key.as_str())))
}
