//! What changed settings would have told beside what the present ones do.

use super::backtest::told;
use super::{Config, Error};
use crate::confirm::{Anomaly, Severity};
use crate::model::{ServiceKey, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One fault is told at most so far apart under two settings, if it did not go on from the one to the other.
const APART: Duration = Duration::from_secs(600);

/// Two runs over the same telemetry. An anomaly stands once in one of the three.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Told under the present settings alone.
    pub only_present: Vec<Anomaly>,
    /// Told under the changed settings alone.
    pub only_changed: Vec<Anomaly>,
    /// Told under both: present, changed.
    pub both: Vec<(Anomaly, Anomaly)>,
}

/// A folder that goes with the run it is for.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("barograph-backtest-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(Error::io(format!("cannot make {}", path.display())))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Comparison {
    /// Runs recordings, or a data or journal directory of a daemon, under both settings.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn run(inputs: &[PathBuf], present: &Config, changed: &Config) -> Result<Self, Error> {
        let scratch = Scratch::new()?;
        let before = told(inputs, present, scratch.path())?;
        let after = told(inputs, changed, scratch.path())?;
        Ok(Self::of(before, after))
    }

    /// Finds to each anomaly of the one the same fault in the other: those of one service and symptom first.
    fn of(present: Vec<Anomaly>, changed: Vec<Anomaly>) -> Self {
        let mut comparison = Self::default();
        let mut changed: Vec<Option<Anomaly>> = changed.into_iter().map(Some).collect();
        let left = comparison.pair(present, &mut changed, is_alike);
        comparison.only_present = comparison.pair(left, &mut changed, shares_a_service);
        comparison.only_changed = changed.into_iter().flatten().collect();
        comparison.both.sort_by(|a, b| (a.0.fired_at, &a.0.id).cmp(&(b.0.fired_at, &b.0.id)));
        comparison
    }

    /// Pairs what is the same and at the same time, each with the nearest; gives what finds none.
    fn pair(
        &mut self,
        present: Vec<Anomaly>,
        changed: &mut [Option<Anomaly>],
        is_same: fn(&Anomaly, &Anomaly) -> bool,
    ) -> Vec<Anomaly> {
        let mut left = Vec::new();
        for anomaly in present {
            let nearest = changed
                .iter_mut()
                .filter(|other| {
                    other
                        .as_ref()
                        .is_some_and(|other| is_at_once(&anomaly, other) && is_same(&anomaly, other))
                })
                .min_by_key(|other| other.as_ref().map(|other| apart(told_at(&anomaly), told_at(other))));
            match nearest.and_then(Option::take) {
                Some(other) => self.both.push((anomaly, other)),
                None => left.push(anomaly),
            }
        }
        left
    }

    /// Everything, for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let list = |of: &[Anomaly]| of.iter().map(anomaly_json).collect::<Vec<_>>();
        let both: Vec<Value> = self
            .both
            .iter()
            .map(|(present, changed)| {
                json!({
                    "present": anomaly_json(present),
                    "changed": anomaly_json(changed),
                    "later_ns": later_ns(present, changed),
                })
            })
            .collect();
        let counts = |only: &[Anomaly], of_both: fn(&(Anomaly, Anomaly)) -> &Anomaly| {
            let of = |severity| {
                let is = |anomaly: &&Anomaly| anomaly.severity == severity;
                only.iter().chain(self.both.iter().map(of_both)).filter(is).count()
            };
            json!({ "pages": of(Severity::Page), "tickets": of(Severity::Ticket) })
        };
        json!({
            "present": counts(&self.only_present, |pair| &pair.0),
            "changed": counts(&self.only_changed, |pair| &pair.1),
            "only_present": list(&self.only_present),
            "only_changed": list(&self.only_changed),
            "both": both,
        })
    }
}

/// How much later the changed settings tell it, in nanoseconds; negative if sooner.
#[must_use]
pub fn later_ns(present: &Anomaly, changed: &Anomaly) -> i64 {
    let (before, after) = (told_at(present), told_at(changed));
    let ns = i64::try_from(apart(before, after).as_nanos()).unwrap_or(i64::MAX);
    if after < before { -ns } else { ns }
}

fn anomaly_json(of: &Anomaly) -> Value {
    json!({
        "id": of.id,
        "severity": of.severity,
        "service": of.service.name,
        "environment": of.service.environment,
        "namespace": of.service.namespace,
        "symptom": of.symptom,
        "onset": of.onset.earliest,
        "fired_at": of.fired_at,
        "ended_at": of.ended_at,
        "title": of.title,
    })
}

fn told_at(of: &Anomaly) -> Timestamp {
    of.fired_at.unwrap_or(of.opened_at)
}

fn apart(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}

fn is_alike(a: &Anomaly, b: &Anomaly) -> bool {
    a.service == b.service && a.symptom == b.symptom
}

fn shares_a_service(a: &Anomaly, b: &Anomaly) -> bool {
    let services = |of: &Anomaly| -> BTreeSet<ServiceKey> {
        of.members.iter().map(|member| member.service.clone()).chain([of.service.clone()]).collect()
    };
    !services(a).is_disjoint(&services(b))
}

fn is_at_once(a: &Anomaly, b: &Anomaly) -> bool {
    let range = |of: &Anomaly| (of.onset.earliest, of.ended_at.unwrap_or(Timestamp::MAX));
    let ((a_from, a_to), (b_from, b_to)) = (range(a), range(b));
    (a_from <= b_to && b_from <= a_to) || apart(told_at(a), told_at(b)) <= APART
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::fixture::anomaly;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_secs(1_714_565_520 + second)
    }

    fn told(id: &str, service: &str, fired: u64, ended: u64) -> Anomaly {
        let mut anomaly = anomaly(id, at(fired));
        anomaly.service = ServiceKey::named(service);
        anomaly.members.iter_mut().for_each(|member| member.service = ServiceKey::named(service));
        (anomaly.fired_at, anomaly.ended_at) = (Some(at(fired)), Some(at(ended)));
        anomaly
    }

    #[test]
    fn the_same_fault_is_found_in_both_and_the_rest_stands_alone() {
        let present = vec![
            told("1", "cart", 0, 100),
            told("2", "cart", 5_000, 5_100),
            told("3", "mail", 9_000, 9_100),
            told("4", "shop", 20_000, 90_000),
        ];
        // Sooner; another service of the same fault; much later, but it still goes on; and one of its own.
        let mut other = told("c", "queue", 9_030, 9_100);
        other.members[0].service = ServiceKey::named("mail");
        let changed = vec![
            told("a", "cart", 5_000 - 20, 5_100),
            other,
            told("d", "shop", 80_000, 90_000),
            told("e", "search", 100, 200),
        ];
        let found = Comparison::of(present, changed);
        let ids = |of: &[Anomaly]| of.iter().map(|one| one.id.0.clone()).collect::<Vec<_>>();
        assert_eq!(
            (ids(&found.only_present), ids(&found.only_changed)),
            (vec!["1".into()], vec!["e".into()])
        );
        let both: Vec<_> = found
            .both
            .iter()
            .map(|(a, b)| (a.id.0.as_str(), b.id.0.as_str(), later_ns(a, b) / 1_000_000_000))
            .collect();
        assert_eq!(both, [("2", "a", -20), ("3", "c", 30), ("4", "d", 60_000)]);
        let json = found.json();
        assert_eq!((&json["present"]["tickets"], &json["changed"]["tickets"]), (&4.into(), &4.into()));
        assert_eq!(json["both"][0]["later_ns"], -20_000_000_000i64);
    }
}
