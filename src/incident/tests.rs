//! Folding ledgers, told and drawn.

use super::{Action, Entry, IncidentState, Incidents};
use crate::alert::fixture::anomaly;
use crate::alert::{Alert, AlertState, Config, Delivered, Lifecycle};
use crate::confirm::{Anomaly, AnomalyId, AnomalyState};
use crate::context::{Change, ChangeId, ChangeKind};
use crate::diagnose::{Cause, CauseKind, Evidence, Manifest, Pass, Removed, RemovedReason, Uploaded};
use crate::model::Timestamp;
use crate::store::{LedgerRecord, Stage};
use proptest::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A ledger in memory: keys that are held win.
#[derive(Default)]
struct Ledger {
    records: Vec<LedgerRecord>,
    keys: BTreeSet<(Stage, String)>,
}

impl Ledger {
    fn append(&mut self, at: Timestamp, stage: Stage, object: &str, key: &str, payload: &impl Serialize) {
        if self.keys.insert((stage, key.to_owned())) {
            let payload = serde_json::to_value(payload).unwrap();
            let sequence = self.records.len() as u64 + 1;
            let (object, key) = (object.to_owned(), key.to_owned());
            self.records.push(LedgerRecord { sequence, at, stage, object, key, payload });
        }
    }

    fn anomaly(&mut self, at: Timestamp, anomaly: &Anomaly) {
        let key = format!("{}/{}", anomaly.id, anomaly.revision);
        self.append(at, Stage::Confirm, &anomaly.id.0, &key, anomaly);
    }

    fn alert(&mut self, at: Timestamp, alert: &Alert) {
        self.append(at, Stage::Alert, &alert.anomaly.0, &alert.key(), alert);
    }

    fn write(&mut self, write: &super::Write) {
        self.append(write.entry.at, Stage::Incident, &write.object, &write.key, &write.entry);
    }

    fn fold(&self) -> Incidents {
        let mut incidents = Incidents::default();
        self.records.iter().for_each(|record| incidents.apply(record));
        incidents
    }
}

const ID: &str = "00000000000000aa";

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

fn changed(base: &Anomaly, state: AnomalyState, when: Timestamp) -> Anomaly {
    let mut next = base.clone();
    next.state = state;
    next.revision += 1;
    match state {
        AnomalyState::Confirmed => next.fired_at = Some(when),
        AnomalyState::Gathering => {}
        _ => next.ended_at = Some(when),
    }
    next
}

fn evidence(id: &str, when: Timestamp) -> Evidence {
    let cause = Cause {
        rank: 1,
        service: "payment".into(),
        environment: "prod".into(),
        namespace: "shop".into(),
        kind: CauseKind::Database,
        operation: Some("SELECT".into()),
        score: 0.9,
        reason: "its queries take 4 s".into(),
        reasons: vec![],
    };
    let bundle = Manifest { traces: 31, log_records: 64, ..Manifest::default() };
    Evidence { anomaly: AnomalyId(id.into()), pass: Pass::First, at: when, causes: vec![cause], bundle }
}

/// The whole of an incident: change, onset, detection, alert, delivery, diagnosis, operator, recovery.
fn story() -> Ledger {
    let mut ledger = Ledger::default();
    let mut lifecycle = Lifecycle::new(Config::default());
    let change = Change {
        id: ChangeId("c1".into()),
        at: at(5),
        service: None,
        kind: ChangeKind::Deploy,
        title: "payment 1.4.2 → 1.5.0".into(),
        inferred: true,
        version: None,
    };
    ledger.append(at(5), Stage::Context, "c1", "c1", &change);
    let mut opened = anomaly(ID, at(10));
    opened.suspects.push(change.id);
    let confirmed = changed(&opened, AnomalyState::Confirmed, at(13));
    let recovered = changed(&confirmed, AnomalyState::Recovered, at(100));
    let mut lifecycle_time = 0;
    for (second, step) in [(11, Some(&opened)), (13, Some(&confirmed)), (16, None), (100, Some(&recovered))] {
        if let Some(anomaly) = step {
            ledger.anomaly(at(second), anomaly);
        }
        // As if every second had been stepped: a gap would put off the recovery.
        for passed in lifecycle_time..second {
            assert!(lifecycle.step(at(passed), &[]).is_empty());
        }
        lifecycle_time = second + 1;
        for alert in lifecycle.step(at(second), step.map_or(&[], std::slice::from_ref)) {
            ledger.alert(at(second), &alert);
            if alert.fired_at == Some(at(second)) {
                let target = "alertmanager http://127.0.0.1:9093".to_owned();
                let (anomaly, revision, state) = (alert.anomaly, alert.revision, alert.state);
                let told = Delivered { target, anomaly, revision, state, at: at(17) };
                ledger.append(at(17), Stage::Alert, &told.object(), &told.key(), &told);
                ledger.append(at(18), Stage::Diagnose, ID, ID, &evidence(ID, at(18)));
            }
        }
        if second == 16 {
            let acknowledged = ledger.fold().acknowledge(ID, "ada", at(40)).unwrap().unwrap();
            ledger.write(&acknowledged);
            assert_eq!(ledger.fold().acknowledge(ID, "bob", at(41)), Ok(None));
            let note = ledger.fold().note(ID, "", "rolled back", at(50)).unwrap();
            ledger.write(&note);
        }
    }
    ledger
}

#[test]
fn an_incident_is_told_from_onset_to_recovery() {
    let ledger = story();
    let incidents = ledger.fold();
    let incident = incidents.get(ID).expect("an incident");
    insta::assert_snapshot!(serde_json::to_string_pretty(incident).unwrap());
    assert!(incident.chain_intact);
    assert_eq!(incidents.list().len(), 1);

    let resolved = incidents.resolve(ID, "ada", "fixed in 1.5.1", at(200)).unwrap().unwrap();
    let mut ledger = ledger;
    ledger.write(&resolved);
    let incidents = ledger.fold();
    assert_eq!(incidents.get(ID).map(|incident| incident.state), Some(IncidentState::Resolved));
    assert_eq!(incidents.resolve(ID, "ada", "", at(201)), Ok(None));
}

#[test]
fn where_evidence_was_uploaded_or_why_not_is_in_the_timeline_and_hides_no_evidence() {
    let mut ledger = story();
    let upload = |pass, second, failed: Option<&str>| Uploaded {
        uploaded: AnomalyId(ID.into()),
        pass,
        at: at(second),
        url: "s3://bucket/a.tar.zst".into(),
        bytes: 10,
        tries: 1,
        failed: failed.map(str::to_owned),
    };
    for one in [upload(Pass::First, 200, Some("no answer")), upload(Pass::Complete, 230, None)] {
        ledger.append(one.at, Stage::Diagnose, &one.object(), &one.key(), &one);
    }
    let (removed, reason) = (AnomalyId(ID.into()), RemovedReason::Age);
    let removed = Removed { removed, at: at(240), bytes: 10, reason };
    ledger.append(removed.at, Stage::Diagnose, &removed.object(), &removed.key(), &removed);
    let incidents = ledger.fold();
    let incident = incidents.get(ID).unwrap();
    let told = |wanted: &str| incident.timeline.iter().any(|line| line.what == wanted);
    assert!(told("Evidence (first look) could not be uploaded to s3://bucket/a.tar.zst: no answer"));
    assert!(told("Evidence (with late spans) uploaded: s3://bucket/a.tar.zst"));
    assert!(told("Evidence was removed for its age"));
    assert!(told("Evidence: 31 traces, 64 log records") && incident.cause.is_some());
}

/// An alert waits for its cause, so that what was found is on record before it fires.
#[test]
fn what_was_found_before_the_alert_fired_is_in_the_timeline_and_names_the_cause() {
    let mut ledger = Ledger::default();
    let mut lifecycle = Lifecycle::new(Config::default());
    let confirmed = changed(&anomaly(ID, at(10)), AnomalyState::Confirmed, at(13));
    ledger.anomaly(at(13), &confirmed);
    for alert in lifecycle.step(at(13), std::slice::from_ref(&confirmed)) {
        assert_eq!(alert.state, AlertState::Pending, "it waits");
        ledger.alert(at(13), &alert);
    }
    ledger.append(at(14), Stage::Diagnose, ID, ID, &evidence(ID, at(14)));
    for second in 14..20 {
        lifecycle.step(at(second), &[]).iter().for_each(|alert| ledger.alert(at(second), alert));
    }
    let incidents = ledger.fold();
    let incident = incidents.get(ID).expect("an incident");
    let told: Vec<&str> = incident.timeline.iter().map(|line| line.what.as_str()).collect();
    assert!(
        told.contains(&"Suspected cause (first look): payment (database, 90 %): its queries take 4 s"),
        "{told:?}"
    );
    assert!(told.contains(&"Evidence: 31 traces, 64 log records"), "{told:?}");
    assert_eq!(incident.cause.as_ref().map(|cause| cause.service.as_str()), Some("payment"));
}

#[test]
fn writes_are_checked_and_the_chain_shows_what_was_altered() {
    let mut ledger = story();
    let incidents = ledger.fold();
    assert!(incidents.note("ffff", "", "text", at(50)).is_err());
    assert!(incidents.note(ID, "", " ", at(50)).is_err());
    assert!(incidents.note(ID, "", &"x".repeat(5_000), at(50)).is_err());
    assert!(incidents.note(ID, "", "a\u{1b}[2Jb", at(50)).is_err());
    assert!(incidents.note(ID, "a\nb", "text", at(50)).is_err());

    let record = ledger.records.iter_mut().find(|record| record.stage == Stage::Incident).unwrap();
    let mut entry: Entry = serde_json::from_value(record.payload.clone()).unwrap();
    assert_eq!(entry.kind, Action::Acknowledge);
    entry.author = "eve".into();
    record.payload = serde_json::to_value(entry).unwrap();
    assert!(!ledger.fold().get(ID).unwrap().chain_intact);
}

#[test]
fn a_merged_anomaly_becomes_part_of_the_elders_incident() {
    let mut ledger = Ledger::default();
    let mut lifecycle = Lifecycle::new(Config::default());
    let other = "00000000000000bb";
    let mut held = BTreeMap::new();
    for (id, when) in [(ID, 10), (other, 12)] {
        let confirmed = changed(&anomaly(id, at(when)), AnomalyState::Confirmed, at(when + 1));
        ledger.anomaly(at(when + 1), &confirmed);
        lifecycle.step(at(when + 1), std::slice::from_ref(&confirmed));
        held.insert(id, confirmed);
    }
    for second in [16, 17] {
        lifecycle.step(at(second), &[]).iter().for_each(|alert| ledger.alert(at(second), alert));
    }
    assert_eq!(ledger.fold().list().len(), 2);
    let note = ledger.fold().note(other, "ada", "looks like the same", at(18)).unwrap();
    ledger.write(&note);
    let mut merged = changed(&held[other], AnomalyState::Merged, at(20));
    merged.merged_into = Some(AnomalyId(ID.into()));
    ledger.anomaly(at(20), &merged);
    let incidents = ledger.fold();
    let list = incidents.list();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].anomalies, [ID, other]);
    assert!(list[0].timeline.iter().any(|line| line.what == "looks like the same" && line.who == "ada"));
    assert_eq!(incidents.get(other), incidents.get(ID), "the younger's id leads to the elder's incident");
}

#[derive(Clone, Debug)]
enum Event {
    Anomaly(u8, AnomalyState),
    Merge(u8, u8),
    Evidence(u8),
    Note(u8),
    Acknowledge(u8),
    Resolve(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let state = prop_oneof![
        3 => Just(AnomalyState::Gathering),
        6 => Just(AnomalyState::Confirmed),
        3 => Just(AnomalyState::Recovered),
        1 => Just(AnomalyState::Suppressed),
    ];
    prop_oneof![
        8 => (0..6u8, state).prop_map(|(id, state)| Event::Anomaly(id, state)),
        2 => (0..6u8, 0..6u8).prop_map(|(younger, elder)| Event::Merge(younger, elder)),
        2 => (0..6u8).prop_map(Event::Evidence),
        1 => (0..6u8).prop_map(Event::Note),
        1 => (0..6u8).prop_map(Event::Acknowledge),
        1 => (0..6u8).prop_map(Event::Resolve),
    ]
}

fn name(id: u8) -> String {
    format!("{id:016x}")
}

/// Plays events through the real lifecycle into a ledger.
fn play(events: Vec<Event>) -> Ledger {
    let mut ledger = Ledger::default();
    let mut lifecycle = Lifecycle::new(Config::default());
    let mut held: BTreeMap<u8, Anomaly> = BTreeMap::new();
    let mut incidents = Incidents::default();
    for (event, second) in events.into_iter().zip((10..).step_by(5)) {
        let now = at(second);
        let mut news = None;
        match event {
            // What was merged is never heard of again.
            Event::Anomaly(id, _) | Event::Merge(id, _)
                if held.get(&id).is_some_and(|held| held.state == AnomalyState::Merged) => {}
            Event::Anomaly(id, state) => {
                let base = held.entry(id).or_insert_with(|| anomaly(&name(id), now));
                *base = changed(base, state, now);
                news = Some(base.clone());
            }
            Event::Merge(younger, elder) if younger > elder && held.contains_key(&elder) => {
                if let Some(base) = held.get_mut(&younger) {
                    *base = changed(base, AnomalyState::Merged, now);
                    base.merged_into = Some(AnomalyId(name(elder)));
                    news = Some(base.clone());
                }
            }
            Event::Merge(..) => {}
            Event::Evidence(id) => {
                let key = format!("{}/{second}", name(id));
                ledger.append(now, Stage::Diagnose, &name(id), &key, &evidence(&name(id), now));
            }
            Event::Note(id) => {
                incidents.note(&name(id), "ada", "a note", now).iter().for_each(|w| ledger.write(w))
            }
            Event::Acknowledge(id) => {
                incidents.acknowledge(&name(id), "", now).iter().flatten().for_each(|w| ledger.write(w));
            }
            Event::Resolve(id) => {
                incidents.resolve(&name(id), "", "", now).iter().flatten().for_each(|w| ledger.write(w));
            }
        }
        if let Some(anomaly) = &news {
            ledger.anomaly(now, anomaly);
        }
        let news: Vec<Anomaly> = news.into_iter().collect();
        for (second, news) in
            (second..second + 5).zip(std::iter::once(news.as_slice()).chain(std::iter::repeat(&[][..])))
        {
            lifecycle.step(at(second), news).iter().for_each(|alert| ledger.alert(at(second), alert));
        }
        ledger.records.iter().for_each(|record| incidents.apply(record));
    }
    ledger
}

proptest! {
    #[test]
    fn every_ledger_folds_into_sound_incidents(events in proptest::collection::vec(event(), 1..60)) {
        let ledger = play(events);
        let folded = ledger.fold();

        // The same whether folded at once, again, or with every record told twice.
        prop_assert_eq!(&folded, &ledger.fold());
        let mut twice = Incidents::default();
        for record in &ledger.records {
            twice.apply(record);
            twice.apply(record);
        }
        prop_assert_eq!(&folded, &twice);

        let mut seen = BTreeSet::new();
        for incident in folded.list() {
            for id in &incident.anomalies {
                prop_assert!(seen.insert(id.clone()), "{} is in two incidents", id);
                prop_assert_eq!(folded.get(id).map(|found| &found.id), Some(&incident.id));
            }
            prop_assert!(incident.timeline.is_sorted_by_key(|line| line.at));
            prop_assert!(incident.onset <= incident.detected_at);
            prop_assert_eq!(incident.recovered_at.is_some(), incident.time_to_recover_ns.is_some());
            prop_assert!(incident.chain_intact);
            prop_assert_eq!(incident.acknowledged_at.is_some(), incident.timeline.iter().any(|line| line.what == "Acknowledged"));
        }
        // Whatever fired is in an incident.
        for record in &ledger.records {
            if record.stage == Stage::Alert && record.payload["state"] == "firing" {
                prop_assert!(seen.contains(&record.object), "{} fired and is in no incident", record.object);
            }
        }
    }
}
