//! The judging stages, stepped once a cut: budgets, changes, detectors, confirmation, alerts. What
//! they say goes into the ledger.

use super::Error;
use super::unwritten::Unwritten;
use crate::alert::{Alert, Attachment, Impact, Lifecycle, Outbox, Users};
use crate::confirm::{Anomaly, AnomalyId, AnomalyState, Judge, Member};
use crate::context::{Change, ChangeId, ToldExemption};
use crate::detect::{ForeignAlert, Score, Symptom};
use crate::diagnose::{self, CauseKind, Evidence, Pass};
use crate::model::Timestamp;
use crate::probe::Standings;
use crate::slo::{self, Adjustment, Budgets};
use crate::store::{Ledger, NewRecord, PieceKey, Stage};
use crate::window::{Registry, SealedWindow, Tick, Topology};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What an anomaly that goes on has cost is told anew so often.
const IMPACT_EVERY: Duration = Duration::from_secs(300);
/// Objectives that are told of which an anomaly spent the budget.
const OBJECTIVES_TOLD: usize = 20;

/// A diagnosis that is due.
#[derive(Clone, Debug)]
pub struct Job {
    pub anomaly: Anomaly,
    pub pass: Pass,
    /// Changes shortly before the onset, latest first.
    pub suspects: Vec<Change>,
    pub topology: Arc<Topology>,
    /// When it was due, or the daemon had caught up if that was later, and when it was taken, by the journal's
    /// clock.
    pub due: Timestamp,
    pub at: Timestamp,
}

/// What people and pipelines tell, as the ledger holds it: each has a field that no other has.
#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Adjustment(Adjustment),
    ForeignAlert(ForeignAlert),
    Exemption(ToldExemption),
    Change(Change),
}

/// The judge, the alerts that follow from what it says, and the ledger that both write into.
pub struct Judging {
    pub judge: Judge,
    pub lifecycle: Lifecycle,
    ledger: Ledger,
    unwritten: Unwritten,
    /// Who is handed alerts that the ledger cannot take.
    outbox: Option<Outbox>,
    registry: Arc<Registry>,
    /// How the synthetic checks stand.
    checks: Arc<Standings>,
    /// Where an anomaly's evidence can be seen: this, then the id, then `/`.
    evidence_url: Option<String>,
    /// How long after the first pass of a diagnosis late spans are waited for.
    complete_after: Duration,
    /// How far changes that were told have been read from the ledger.
    read_through: u64,
    due: BTreeSet<(Timestamp, AnomalyId, bool)>,
    /// The first cut that was not replayed.
    live_since: Timestamp,
    /// Anomalies that were diagnosed or will be, while they are open.
    diagnosed: BTreeSet<AnomalyId>,
    /// While the journal is replayed nobody is told: the ledger knows what was.
    replaying: bool,
    at: Timestamp,
    /// Which of the spans of [`IMPACT_EVERY`] the impacts were last told in.
    impacts_told: u64,
}

impl Judging {
    #[must_use]
    pub fn new(judge: Judge, lifecycle: Lifecycle, ledger: Ledger, registry: Arc<Registry>) -> Self {
        Self {
            judge,
            lifecycle,
            ledger,
            unwritten: Unwritten::default(),
            outbox: None,
            registry,
            checks: Arc::default(),
            evidence_url: None,
            complete_after: diagnose::Config::default().complete_after.0,
            read_through: 0,
            due: BTreeSet::new(),
            live_since: Timestamp::ZERO,
            diagnosed: BTreeSet::new(),
            replaying: false,
            at: Timestamp::ZERO,
            impacts_told: 0,
        }
    }

    /// From now on alerts carry links that begin with `evidence_url`.
    pub fn link(&mut self, evidence_url: String) {
        self.evidence_url = Some(evidence_url);
    }

    /// From now on alerts say why a check fails that they are about.
    pub fn watch(&mut self, checks: Arc<Standings>) {
        self.checks = checks;
    }

    /// While the ledger cannot be written, alerts go to `outbox` without it.
    pub fn tell_without_ledger(&mut self, outbox: Outbox) {
        self.outbox = Some(outbox);
    }

    /// The complete pass of a diagnosis follows the first one after so long.
    pub fn complete_after(&mut self, wait: Duration) {
        self.complete_after = wait;
    }

    /// The state of every stage by its name in the checkpoint.
    ///
    /// # Errors
    /// When a state cannot be encoded.
    pub fn state(&self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let parts = [("judge", self.judge.state()), ("alert", self.lifecycle.state()?)];
        Ok(parts.into_iter().map(|(name, state)| (name.to_owned(), state)).collect())
    }

    /// Goes back to what [`Self::state`] gave, and the pieces of the budgets.
    ///
    /// # Errors
    /// When a part cannot be read.
    pub fn restore(
        &mut self,
        parts: &BTreeMap<String, Vec<u8>>,
        pieces: &[(PieceKey, Vec<u8>)],
    ) -> Result<(), Error> {
        if let Some(state) = parts.get("judge") {
            self.judge.restore(state, pieces).map_err(|error| Error::part("judge", &error))?;
        }
        if let Some(state) = parts.get("alert") {
            self.lifecycle.restore(state).map_err(|error| Error::part("alert", &error))?;
        }
        Ok(())
    }

    /// Until [`Self::go_live`], what is judged is only kept: it was told in the life that is replayed.
    pub fn begin_replay(&mut self) {
        self.replaying = true;
    }

    /// Ends the replay: takes over what the ledger says was told, and plans the diagnoses that were not
    /// made.
    ///
    /// # Errors
    /// Of the ledger.
    pub fn go_live(&mut self) -> Result<(), Error> {
        self.replaying = false;
        self.lifecycle.adopt(Alert::latest(&self.ledger)?);
        self.due.clear();
        self.diagnosed.clear();
        let open: Vec<Anomaly> = self.judge.confirm.open().cloned().collect();
        for anomaly in open.iter().filter(|anomaly| anomaly.state == AnomalyState::Confirmed) {
            let made = self.ledger.latest_of(Stage::Diagnose, &anomaly.id.0)?;
            let made = made.and_then(|record| serde_json::from_value::<Evidence>(record.payload).ok());
            self.plan(anomaly, made.map(|evidence| evidence.pass));
        }
        Ok(())
    }

    /// Whether the ledger lags behind what was judged: a checkpoint of this would lose it.
    #[must_use]
    pub fn is_unwritten(&self) -> bool {
        self.unwritten.is_behind()
    }

    /// Judges a cut. What the ledger cannot take now, it gets with a later one.
    ///
    /// # Errors
    /// When a record has no form in JSON.
    pub fn step(
        &mut self,
        tick: &Tick,
        sealed: &[Arc<SealedWindow>],
        topology: &Arc<Topology>,
    ) -> Result<Vec<Score>, Error> {
        let at = tick.cut.arrived;
        self.at = at;
        if self.replaying {
            self.live_since = at.saturating_add(Duration::from_nanos(1));
        }
        self.hear();
        let judged = self.judge.step(tick, sealed, &self.registry, topology);
        let mut records = Vec::new();
        for change in &judged.changes {
            records.push(NewRecord::new(at, Stage::Context, &*change.id.0, &*change.id.0, change)?);
        }
        for exemption in self.judge.confirm.take_ended_exemptions(at) {
            let key = format!("exemption/{}/ended", exemption.exemption);
            records.push(NewRecord::new(at, Stage::Context, &*exemption.exemption, key, &exemption)?);
        }
        let anomalies = judged.anomalies;
        for anomaly in &anomalies {
            let key = format!("{}/{}", anomaly.id, anomaly.revision);
            records.push(NewRecord::new(at, Stage::Confirm, &*anomaly.id.0, key, anomaly)?);
            self.follow(anomaly);
            if matches!(anomaly.state, AnomalyState::Recovered | AnomalyState::Suppressed) {
                self.tell_impact(anomaly, at);
            }
        }
        self.tell_impacts(at);
        let (budgets, checks) = (&self.judge.budgets, &self.checks);
        let figures = |anomaly: &Anomaly| figures(budgets, checks, anomaly, at);
        let alerts = self.lifecycle.step_with(at, &anomalies, figures);
        self.tell(alerts, records)?;
        Ok(judged.scores)
    }

    /// Takes over what people and pipelines told since the last cut.
    fn hear(&mut self) {
        while self.read_through < self.ledger.last() {
            let records = match self.ledger.read_from(self.read_through.saturating_add(1), 1_000) {
                Ok(records) if !records.is_empty() => records,
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "the ledger cannot be read, changes are heard later");
                    return;
                }
            };
            for record in records {
                self.read_through = record.sequence;
                if record.stage != Stage::Context {
                    continue;
                }
                match serde_json::from_value(record.payload) {
                    Ok(Told::Adjustment(adjustment)) => self.judge.budgets.adjust(adjustment),
                    Ok(Told::ForeignAlert(alert)) => self.judge.tell_foreign(alert),
                    Ok(Told::Exemption(told)) => self.judge.confirm.tell_exemption(told),
                    Ok(Told::Change(change)) => self.judge.changes.tell(change),
                    Err(error) => tracing::debug!(%error, "a record of the context is none that is known"),
                }
            }
        }
    }

    /// Says from time to time what the anomalies that go on have cost.
    fn tell_impacts(&mut self, at: Timestamp) {
        let number = at.secs() / IMPACT_EVERY.as_secs();
        if std::mem::replace(&mut self.impacts_told, number) == number {
            return;
        }
        let open: Vec<Anomaly> = self.judge.confirm.open().cloned().collect();
        for anomaly in open.iter().filter(|anomaly| anomaly.state == AnomalyState::Confirmed) {
            self.tell_impact(anomaly, at);
        }
    }

    fn tell_impact(&mut self, anomaly: &Anomaly, at: Timestamp) {
        let figures = figures(&self.judge.budgets, &self.checks, anomaly, at);
        self.lifecycle.attach(&anomaly.id, figures);
    }

    /// Plans the diagnosis of an anomaly that was confirmed.
    fn follow(&mut self, anomaly: &Anomaly) {
        match anomaly.state {
            AnomalyState::Confirmed if !self.diagnosed.contains(&anomaly.id) => {
                self.plan(anomaly, None);
            }
            AnomalyState::Recovered | AnomalyState::Merged | AnomalyState::Suppressed => {
                self.diagnosed.remove(&anomaly.id);
            }
            AnomalyState::Confirmed | AnomalyState::Gathering => {}
        }
    }

    fn plan(&mut self, anomaly: &Anomaly, made: Option<Pass>) {
        self.diagnosed.insert(anomaly.id.clone());
        if made.is_none() {
            self.due.insert((self.at, anomaly.id.clone(), false));
        }
        if made != Some(Pass::Complete) {
            self.due.insert((self.at.saturating_add(self.complete_after), anomaly.id.clone(), true));
        }
    }

    /// The diagnoses that are due after the cut that was judged last, oldest first: of each pass at most so many as
    /// there is room for. The others stay due. None while the journal is replayed.
    pub fn take_jobs(&mut self, topology: &Arc<Topology>, room: impl Fn(Pass) -> usize) -> Vec<Job> {
        if self.replaying || self.due.is_empty() {
            return Vec::new();
        }
        let at = self.at;
        let (mut first, mut complete) = (room(Pass::First), room(Pass::Complete));
        let mut taken = Vec::new();
        for of in self.due.iter().take_while(|(due, _, _)| *due <= at) {
            let (pass, left) = if of.2 { (Pass::Complete, &mut complete) } else { (Pass::First, &mut first) };
            if let Some(less) = left.checked_sub(1) {
                *left = less;
                taken.push((of.clone(), pass));
            }
        }
        let mut jobs = Vec::new();
        for (of, pass) in taken {
            self.due.remove(&of);
            let (due, id, _) = of;
            let Some(anomaly) = self.anomaly(&id) else { continue };
            let suspects = anomaly.suspects.iter().filter_map(|id| self.change(id)).collect();
            let due = due.max(self.live_since);
            jobs.push(Job { anomaly, pass, suspects, topology: topology.clone(), due, at });
        }
        jobs
    }

    /// An anomaly as it is now, also when it is over already.
    fn anomaly(&self, id: &AnomalyId) -> Option<Anomaly> {
        if let Some(open) = self.judge.confirm.open().find(|open| open.id == *id) {
            return Some(open.clone());
        }
        let record = self.ledger.latest_of(Stage::Confirm, &id.0).ok().flatten()?;
        serde_json::from_value(record.payload).ok()
    }

    fn change(&self, id: &ChangeId) -> Option<Change> {
        self.judge.changes.all().iter().find(|change| change.id == *id).cloned()
    }

    /// Keeps what a diagnosis found and tells it with the alert.
    ///
    /// # Errors
    /// When a record has no form in JSON.
    pub fn attach(&mut self, job: &Job, evidence: &Evidence) -> Result<(), Error> {
        let id = &evidence.anomaly;
        let pass = if evidence.pass == Pass::First { "first" } else { "complete" };
        let key = format!("{id}/{pass}");
        let record = NewRecord::new(evidence.at, Stage::Diagnose, &*id.0, key, evidence)?;
        let named = evidence.causes.first().filter(|cause| cause.kind != CauseKind::Inconclusive);
        let anomaly = self.anomaly(id).unwrap_or_else(|| job.anomaly.clone());
        let attachment = Attachment {
            cause_summary: named.map(|_| diagnose::summary(&evidence.causes)),
            cause_service: named.map(|cause| cause.service.clone()),
            cause_kind: named.map(|cause| cause.kind.as_str().to_owned()),
            cause_probability: named.map(|cause| cause.score),
            inconclusive: named.is_none(),
            change: job.suspects.first().map(|change| change.title.clone()),
            evidence_url: self.evidence_url.as_ref().map(|base| format!("{base}{id}/")),
            traces: evidence.bundle.traces,
            log_records: evidence.bundle.log_records,
            ..figures(&self.judge.budgets, &self.checks, &anomaly, self.at)
        };
        self.lifecycle.attach(id, attachment);
        let (budgets, checks, at) = (&self.judge.budgets, &self.checks, self.at);
        let alerts = self.lifecycle.step_with(at, &[], |anomaly| figures(budgets, checks, anomaly, at));
        self.tell(alerts, vec![record])
    }

    /// The evidence of an anomaly as it was told last.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn evidence(&self, id: &AnomalyId) -> Result<Option<Evidence>, Error> {
        let record = self.ledger.latest_of(Stage::Diagnose, &id.0)?;
        Ok(record.and_then(|record| serde_json::from_value(record.payload).ok()))
    }

    /// Keeps what was added to the evidence of an anomaly by a collector of this name.
    ///
    /// # Errors
    /// When a record has no form in JSON.
    pub fn amend(&mut self, evidence: &Evidence, collector: &str) -> Result<(), Error> {
        let id = &evidence.anomaly;
        let key = format!("{id}/collected/{collector}");
        self.tell(Vec::new(), vec![NewRecord::new(evidence.at, Stage::Diagnose, &*id.0, key, evidence)?])
    }

    /// Writes `records`, then the alerts that follow from them, as one: the ledger holds what was
    /// judged before anybody is told of it, for whoever tells reads it there. Only while it cannot be written
    /// are alerts handed over without it. When it can, whoever tells meets them there once more, and knows
    /// them by their revisions.
    fn tell(&mut self, alerts: Vec<Alert>, mut records: Vec<NewRecord>) -> Result<(), Error> {
        if !self.replaying {
            for alert in &alerts {
                records.push(NewRecord::new(self.at, Stage::Alert, &*alert.anomaly.0, alert.key(), alert)?);
            }
        }
        self.unwritten.write(records, |records| self.ledger.append_all(records));
        if self.unwritten.is_behind()
            && !self.replaying
            && let Some(outbox) = &self.outbox
        {
            alerts.into_iter().for_each(|alert| outbox.set(alert));
        }
        Ok(())
    }
}

/// How the budgets of an anomaly's service stand at a moment, what it has cost the services that it concerns
/// since its onset, and which check fails with it.
fn figures(budgets: &Budgets, checks: &Standings, anomaly: &Anomaly, at: Timestamp) -> Attachment {
    let services = std::iter::once(&anomaly.service)
        .chain(anomaly.members.iter().map(|member| &member.service))
        .collect();
    // What was lost after its end is not its cost.
    let (from, until) = (anomaly.onset.earliest, anomaly.ended_at.unwrap_or(at));
    let mut budget_spent = budgets.lost(&services, from, until);
    budget_spent.truncate(OBJECTIVES_TOLD);
    let users = budgets.users(&services, from, until);
    let impact = Impact { budget_spent, users: users.map(|(affected, all)| Users { affected, all }) };
    let burns = |member: &&Member| member.symptom == Symptom::BudgetBurn && member.service == anomaly.service;
    let burning: Vec<&str> =
        anomaly.members.iter().filter(burns).map(|member| member.signal.as_str()).collect();
    let budget = slo::in_words(&budgets.of(&anomaly.service, at), &anomaly.service, &burning);
    Attachment { impact, budget, check: checks.failure_in_words(&services), ..Attachment::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{self, AlertState};
    use crate::confirm::{self, Confirm};
    use crate::detect::{self, Detectors};
    use crate::disk::{Failure, Trace};
    use crate::model::{Clock as _, SystemClock};
    use crate::store::{self, Store};

    #[test]
    fn while_the_ledger_cannot_be_written_alerts_are_told_and_once_it_can_they_are_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let trace = Trace::begin(folder.path());
        let store = Store::open(&folder.path().join("data"), store::Config::default()).unwrap();
        let ledger = store.ledger();
        let budgets = Budgets::new(slo::Config::default(), Vec::new());
        let detectors = Detectors::new(detect::Config::default(), false);
        let judge = Judge::new(budgets, detectors, Confirm::new(confirm::Config::default()));
        let config = alert::Config::default();
        let mut judging = Judging::new(judge, Lifecycle::new(config.clone()), ledger.clone(), Arc::default());
        let outbox = Outbox::new(config.clone(), Arc::new(ledger.clone()), Arc::new(SystemClock)).unwrap();
        judging.tell_without_ledger(outbox.clone());
        let at = SystemClock.now();
        let alerts = |id| {
            let mut confirmed = alert::fixture::anomaly(id, at.saturating_sub(Duration::from_secs(10)));
            confirmed.state = AnomalyState::Confirmed;
            confirmed.fired_at = Some(at.saturating_sub(Duration::from_secs(10)));
            let told = Lifecycle::new(config.clone()).step(at, &[confirmed]);
            assert!(told.iter().all(|alert| alert.state == AlertState::Firing));
            told
        };
        let (first, second) = (alerts("00000000000000aa"), alerts("00000000000000bb"));
        judging.tell(first.clone(), Vec::new()).unwrap();
        assert_eq!(outbox.desired(), [], "what the ledger holds is read there");
        trace.fail(Failure { name: "redb", syncs: false, writes: true, error: 28 });
        judging.tell(second.clone(), Vec::new()).unwrap();
        assert!(judging.is_unwritten());
        assert_eq!(outbox.desired(), second);
        trace.heal();
        judging.tell(Vec::new(), Vec::new()).unwrap();
        assert!(!judging.is_unwritten());
        assert_eq!(Alert::latest(&ledger).unwrap(), [first, second].concat());
    }

    #[test]
    fn a_diagnosis_for_which_there_is_no_room_stays_due() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("data"), store::Config::default()).unwrap();
        let judge = Judge::new(
            Budgets::new(slo::Config::default(), Vec::new()),
            Detectors::new(detect::Config::default(), false),
            Confirm::new(confirm::Config::default()),
        );
        let lifecycle = Lifecycle::new(alert::Config::default());
        let mut judging = Judging::new(judge, lifecycle, store.ledger(), Arc::default());
        judging.at = Timestamp::from_secs(1_000);
        let anomalies = ["00000000000000aa", "00000000000000bb"].map(|id| {
            let mut confirmed = alert::fixture::anomaly(id, judging.at);
            confirmed.state = AnomalyState::Confirmed;
            confirmed
        });
        let records = anomalies.iter().map(|anomaly| {
            let id = &*anomaly.id.0;
            NewRecord::new(judging.at, Stage::Confirm, id, id, anomaly).unwrap()
        });
        judging.tell(Vec::new(), records.collect()).unwrap();
        anomalies.iter().for_each(|anomaly| judging.follow(anomaly));
        let topology = Arc::default();
        let mut take = |first, complete| {
            let room = |pass| if pass == Pass::First { first } else { complete };
            let jobs = judging.take_jobs(&topology, room).into_iter();
            jobs.map(|job| (job.anomaly.id.0.to_string(), job.pass)).collect::<Vec<_>>()
        };
        let of = |number: usize, pass| (anomalies[number].id.0.to_string(), pass);
        assert_eq!(take(0, 64), []);
        assert_eq!(take(1, 64), [of(0, Pass::First)]);
        assert_eq!(take(1, 64), [of(1, Pass::First)]);
        assert_eq!(take(64, 64), [], "complete ones are not due yet");
        judging.at = judging.at.saturating_add(judging.complete_after);
        let mut take = |room| judging.take_jobs(&topology, |_| room).len();
        assert_eq!((take(1), take(64), take(64)), (1, 1, 0));
    }
}
