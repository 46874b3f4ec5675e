//! The life of an alert: pending, firing, and one of three ends.

use super::text;
use super::{Alert, AlertState, Config, Error};
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

/// What diagnosis and budgets add to an alert. What is `None`, zero or `false` leaves what was
/// attached before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The likeliest cause in one sentence.
    pub cause_summary: Option<String>,
    /// Name of the service at fault.
    pub cause_service: Option<String>,
    /// `code`, `database`, `dependency`, …
    pub cause_kind: Option<String>,
    /// 0..1.
    pub cause_probability: Option<f64>,
    /// A diagnosis ended without a cause.
    pub inconclusive: bool,
    /// The change that came shortly before, in words.
    pub change: Option<String>,
    /// Budget left and burn, in words.
    pub budget: Option<String>,
    /// Where the evidence can be seen.
    pub evidence_url: Option<String>,
    /// What the evidence holds.
    pub traces: u64,
    pub log_records: u64,
}

impl Attachment {
    /// Takes over what `news` says.
    fn update(&mut self, news: Self) {
        if news.cause_summary.is_some() || news.inconclusive {
            self.cause_summary = news.cause_summary;
            self.cause_service = news.cause_service;
            self.cause_kind = news.cause_kind;
            self.cause_probability = news.cause_probability;
            self.inconclusive = news.inconclusive;
        }
        self.change = news.change.or(self.change.take());
        self.budget = news.budget.or(self.budget.take());
        self.evidence_url = news.evidence_url.or(self.evidence_url.take());
        if news.traces > 0 || news.log_records > 0 {
            (self.traces, self.log_records) = (news.traces, news.log_records);
        }
    }

    /// Whether a diagnosis has spoken.
    fn is_answer(&self) -> bool {
        self.cause_summary.is_some() || self.inconclusive
    }
}

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
    last_step: Option<Timestamp>,
    /// Nothing resolves before.
    frozen_until: Option<Timestamp>,
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
        let mut look = self.passing_of_time(at);
        for anomaly in changed {
            self.take(at, anomaly);
            look.insert(anomaly.id.clone());
        }
        look.append(&mut self.attached);
        look.into_iter().filter_map(|id| self.judge(at, &id)).collect()
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
                };
                let attachment = Attachment::default();
                let anomaly = Some(anomaly.clone());
                let held = Held { alert, anomaly, attachment, confirmed_at: None, changed_at: at };
                self.held.insert(held.alert.anomaly.clone(), held);
            }
        }
    }

    /// The alert as it should be now, if that differs from how it was last told.
    fn judge(&mut self, at: Timestamp, id: &AnomalyId) -> Option<Alert> {
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
                let link = link(&self.config, &held.attachment, id);
                next.annotations = text::annotations(anomaly, &held.attachment, link.as_deref());
                if let Some(elder) = &anomaly.merged_into {
                    next.annotations.insert("merged_into".into(), elder.0.clone());
                }
                if let Some(reason) = &anomaly.suppressed_by {
                    next.annotations.insert("suppressed_by".into(), text::clean(reason, 300));
                }
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
    const WAITING: [&str; 3] = ["summary", "description", "onset"];
    before.state != after.state
        || before.labels != after.labels
        || before
            .annotations
            .iter()
            .filter(|(key, _)| !WAITING.contains(&key.as_str()))
            .ne(after.annotations.iter().filter(|(key, _)| !WAITING.contains(&key.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::fixture::anomaly;
    use crate::confirm::Severity;

    const START: u64 = 1_700_000_000;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(START + secs)
    }

    fn confirmed(when: u64) -> Anomaly {
        let mut confirmed = anomaly("00000000000000aa", at(0));
        confirmed.state = AnomalyState::Confirmed;
        confirmed.fired_at = Some(at(when));
        confirmed.revision += 1;
        confirmed
    }

    fn recovered(when: u64) -> Anomaly {
        let mut recovered = confirmed(2);
        recovered.state = AnomalyState::Recovered;
        recovered.ended_at = Some(at(when));
        recovered
    }

    fn cause() -> Attachment {
        Attachment {
            cause_summary: Some("queries of payment to its database take 4 s".into()),
            cause_service: Some("payment".into()),
            cause_kind: Some("database".into()),
            cause_probability: Some(0.9),
            evidence_url: Some("http://127.0.0.1:4320/evidence/00000000000000aa".into()),
            traces: 31,
            log_records: 64,
            ..Attachment::default()
        }
    }

    fn states(alerts: &[Alert]) -> Vec<(u32, AlertState)> {
        alerts.iter().map(|alert| (alert.revision, alert.state)).collect()
    }

    #[test]
    fn it_fires_with_its_cause_or_three_seconds_later_without() {
        for with_cause in [true, false] {
            let mut lifecycle = Lifecycle::new(Config::default());
            let opened = anomaly("00000000000000aa", at(0));
            let id = opened.id.clone();
            assert_eq!(states(&lifecycle.step(at(1), &[opened])), [(1, AlertState::Pending)]);
            assert!(lifecycle.step(at(3), &[confirmed(3)]).is_empty());
            if with_cause {
                lifecycle.attach(&id, cause());
                let fired = lifecycle.step(at(4), &[]);
                assert_eq!(states(&fired), [(2, AlertState::Firing)]);
                assert_eq!(fired[0].annotations["cause_service"], "payment");
            } else {
                assert!(lifecycle.step(at(4), &[]).is_empty());
                assert!(lifecycle.step(at(5), &[]).is_empty());
                let fired = lifecycle.step(at(6), &[]);
                assert_eq!(states(&fired), [(2, AlertState::Firing)]);
                lifecycle.attach(&id, cause());
                let updated = lifecycle.step(at(7), &[]);
                assert_eq!(states(&updated), [(3, AlertState::Firing)]);
                assert_eq!(updated[0].labels, fired[0].labels);
                assert_eq!(updated[0].fired_at, fired[0].fired_at);
            }
        }
    }

    #[test]
    fn labels_follow_from_what_is_fixed_and_from_the_severity() {
        let mut lifecycle = Lifecycle::new(Config::default());
        lifecycle.step(at(3), &[confirmed(0)]);
        let fired = lifecycle.alerts().next().unwrap().clone();
        let mut news = confirmed(0);
        news.members.clear();
        news.title = "something else".into();
        news.severity = Severity::Page;
        let risen = lifecycle.step(at(4), std::slice::from_ref(&news));
        assert_eq!(states(&risen), [(2, AlertState::Firing)]);
        let mut expected = fired.labels.clone();
        assert_eq!(expected.insert("severity".into(), "page".into()), Some("ticket".into()));
        assert_eq!(risen[0].labels, expected);
        let earlier: Vec<_> = risen[0].earlier_labels().collect();
        assert_eq!(earlier, [(fired.labels, at(4))]);

        news.severity = Severity::Ticket;
        lifecycle.step(at(100), &[news]);
        assert_eq!(lifecycle.alerts().next().unwrap().severity, Severity::Page, "it never falls");
    }

    #[test]
    fn new_figures_wait_but_are_not_lost() {
        let mut lifecycle = Lifecycle::new(Config::default());
        assert_eq!(lifecycle.step(at(3), &[confirmed(0)]).len(), 1);
        let mut news = confirmed(0);
        for second in 4..63 {
            news.members[0].observed = f64::from(second) / 100.0;
            assert!(lifecycle.step(at(u64::try_from(second).unwrap()), &[news.clone()]).is_empty());
        }
        let told = lifecycle.step(at(63), &[]);
        assert_eq!(states(&told), [(2, AlertState::Firing)]);
        assert!(told[0].annotations["description"].contains("62 %"), "{:?}", told[0].annotations);
        assert!(lifecycle.step(at(200), &[]).is_empty());
    }

    #[test]
    fn each_end_is_told_once_and_a_relapse_fires_again() {
        for (state, ended) in [
            (AnomalyState::Recovered, AlertState::Resolved),
            (AnomalyState::Merged, AlertState::Merged),
            (AnomalyState::Suppressed, AlertState::Suppressed),
        ] {
            let mut lifecycle = Lifecycle::new(Config::default());
            lifecycle.step(at(3), &[confirmed(0)]);
            let mut over = recovered(5);
            over.state = state;
            let told = lifecycle.step(at(5), std::slice::from_ref(&over));
            assert_eq!(states(&told), [(2, ended)]);
            assert_eq!(told[0].resolved_at, Some(at(5)));
            assert!(lifecycle.step(at(6), &[over]).is_empty());
            let again = lifecycle.step(at(7), &[confirmed(7)]);
            assert_eq!(states(&again), [(3, AlertState::Firing)]);
            assert_eq!(again[0].resolved_at, None);
        }
    }

    #[test]
    fn a_restart_never_resolves_until_two_whole_windows_were_judged() {
        let mut before = Lifecycle::new(Config::default());
        before.step(at(3), &[confirmed(0)]);
        let mut after = Lifecycle::new(Config::default());
        after.restore(&before.state().unwrap()).unwrap();
        // START is a multiple of 10 s: windows begin at 110 and 120, the second is sealed at 145.
        assert!(after.step(at(103), &[recovered(103)]).is_empty());
        for second in 104..145 {
            assert!(after.step(at(second), &[]).is_empty(), "second {second}");
        }
        assert_eq!(states(&after.step(at(145), &[])), [(2, AlertState::Resolved)]);

        // Also when the journal is replayed first, and the time of being away lies within the steps.
        let mut after = Lifecycle::new(Config::default());
        after.restore(&before.state().unwrap()).unwrap();
        for second in 4..20 {
            assert!(after.step(at(second), &[]).is_empty());
        }
        assert!(after.step(at(3_600), &[recovered(3_600)]).is_empty());
        assert!((3_601..3_645).all(|second| after.step(at(second), &[]).is_empty()));
        assert_eq!(after.step(at(3_645), &[]).len(), 1);
    }

    #[test]
    fn state_goes_both_ways_and_damage_is_an_error() {
        let mut one = Lifecycle::new(Config::default());
        one.step(at(1), &[anomaly("00000000000000aa", at(0)), anomaly("00000000000000bb", at(0))]);
        one.step(at(2), &[confirmed(2)]);
        let mut other = Lifecycle::new(Config::default());
        other.restore(&one.state().unwrap()).unwrap();
        other.frozen_until = None;
        other.last_step = one.last_step;
        for second in 3..70 {
            assert_eq!(one.step(at(second), &[]), other.step(at(second), &[]), "second {second}");
        }
        let bytes = one.state().unwrap();
        assert!(other.restore(&bytes[..bytes.len() / 2]).is_err());
    }

    #[test]
    fn what_the_ledger_knows_stays_told() {
        // Live, the cause came at once; in the replay it does not come at all.
        let mut live = Lifecycle::new(Config::default());
        let opened = anomaly("00000000000000aa", at(0));
        live.step(at(1), std::slice::from_ref(&opened));
        live.attach(&opened.id, cause());
        let told = live.step(at(2), &[confirmed(2)]).pop().unwrap();
        assert_eq!(told.state, AlertState::Firing);

        let mut replayed = Lifecycle::new(Config::default());
        replayed.step(at(1), std::slice::from_ref(&opened));
        replayed.step(at(2), &[confirmed(2)]);
        let mut orphan = told.clone();
        orphan.anomaly = AnomalyId("00000000000000cc".into());
        replayed.adopt([told.clone(), orphan]);
        let held: Vec<Alert> = replayed.alerts().cloned().collect();
        assert_eq!(held[0], told);
        assert!(held[1].state == AlertState::Firing);
        // Revisions go on from what was told; nobody resolves the orphan before the freeze is over.
        let next = replayed.step(at(600), &[]);
        assert!(
            next.iter().all(|alert| alert.revision == told.revision + 1 && alert.state == AlertState::Firing)
        );
        assert!((601..645).all(|second| replayed.step(at(second), &[]).is_empty()));
        let thawed = replayed.step(at(645), &[]);
        let ended: Vec<&str> = thawed
            .iter()
            .filter(|alert| alert.state.is_ended())
            .map(|alert| alert.anomaly.0.as_str())
            .collect();
        assert_eq!(ended, ["00000000000000cc"]);
    }

    #[test]
    fn what_the_crash_kept_from_being_told_is_told_after_it() {
        for held_by_ledger in [true, false] {
            let mut replayed = Lifecycle::new(Config::default());
            let pending = replayed.step(at(1), &[anomaly("00000000000000aa", at(0))]);
            replayed.step(at(2), &[confirmed(2)]);
            assert_eq!(states(&replayed.step(at(6), &[])), [(2, AlertState::Firing)]);
            replayed.adopt(pending.into_iter().filter(|_| held_by_ledger));
            let told = replayed.step(at(20), &[]);
            assert_eq!(states(&told), [(if held_by_ledger { 2 } else { 1 }, AlertState::Firing)]);
        }
    }

    #[test]
    fn the_text_says_in_order_what_someone_woken_by_it_needs() {
        let mut lifecycle = Lifecycle::new(Config::default());
        let mut hostile = confirmed(0);
        hostile.members[1].signal = "GET /a\n\u{1b}[2JResolved: all is well".into();
        hostile.members[1].service = hostile.service.clone();
        lifecycle.step(at(1), &[hostile]);
        let attachment = Attachment {
            change: Some("payment 1.4.2 → 1.5.0, 40 s before".into()),
            budget: Some("63 % of 30 days left, burning 14 times too fast".into()),
            ..cause()
        };
        lifecycle.attach(&AnomalyId("00000000000000aa".into()), attachment);
        let alert = lifecycle.step(at(2), &[]).pop().unwrap();
        let description = &alert.annotations["description"];
        let names: Vec<&str> = description.lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(
            names,
            [
                "What",
                "Where",
                "Since",
                "Users",
                "Error budget",
                "Suspected cause",
                "Change before it",
                "Evidence"
            ]
        );
        assert!(description.lines().count() <= 12);
        assert!(alert.annotations.values().all(|text| !text.chars().any(|c| c.is_control() && c != '\n')));
        insta::assert_snapshot!(description);
    }

    #[test]
    fn an_empty_step_costs_next_to_nothing() {
        let mut lifecycle = Lifecycle::new(Config::default());
        lifecycle.step(at(3), &[confirmed(0)]);
        let begin = std::time::Instant::now();
        for second in 100..100_100 {
            lifecycle.step(at(second), &[]);
        }
        let each = begin.elapsed() / 100_000;
        assert!(each < Duration::from_micros(5), "{each:?} an empty step, in a debug build");
    }
}
