//! The ledger folded into the present state of every anomaly and change.

use super::anomaly_message;
use crate::alert::{Alert, Recorded};
use crate::api::v1;
use crate::confirm::Anomaly;
use crate::context::{Change, ToldExemption};
use crate::diagnose::{Evidence, Removed};
use crate::model::Timestamp;
use crate::store::{LedgerRecord, Stage};
use std::collections::BTreeMap;

/// Anomalies that are over, and changes, of which no more are held: the oldest go first.
const MOST: usize = 10_000;

/// What the stages last said of one anomaly.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    pub anomaly: Option<Anomaly>,
    pub alert: Option<Alert>,
    pub evidence: Option<Evidence>,
    /// When and why its bundle was removed, if it was.
    pub removed: Option<Removed>,
    /// What was last said of it, so that what changes nothing that can be seen is not said again.
    said: Option<v1::Anomaly>,
}

impl Whole {
    /// As the API says it; `None` while only alert or evidence are known.
    #[must_use]
    pub fn message(&self) -> Option<v1::Anomaly> {
        let anomaly = self.anomaly.as_ref()?;
        let mut message = anomaly_message(anomaly, self.alert.as_ref(), self.evidence.as_ref());
        // What it found stays; where it lies is nowhere.
        message.evidence = message.evidence.filter(|_| self.removed.is_none());
        Some(message)
    }
}

/// The present state, as of one sequence of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// The last record that is in.
    pub sequence: u64,
    /// By id.
    pub anomalies: BTreeMap<String, Whole>,
    /// By time and id.
    pub changes: BTreeMap<(Timestamp, String), Change>,
    /// By id.
    pub exemptions: BTreeMap<String, ToldExemption>,
}

impl Fold {
    /// Takes the next record in; gives the anomaly if it looks different now.
    pub fn apply(&mut self, record: &LedgerRecord) -> Option<v1::Anomaly> {
        self.sequence = self.sequence.max(record.sequence);
        let payload = &record.payload;
        // A stage's other records (deliveries, operators' notes) are none of these, and are passed over.
        let id = match record.stage {
            Stage::Confirm => {
                let anomaly: Anomaly = serde::Deserialize::deserialize(payload).ok()?;
                let id = anomaly.id.0.clone();
                self.anomalies.entry(id.clone()).or_default().anomaly = Some(anomaly);
                id
            }
            Stage::Alert => {
                let Some(Recorded::Alert(alert)) = Recorded::read(record) else { return None };
                let id = alert.anomaly.0.clone();
                self.anomalies.entry(id.clone()).or_default().alert = Some(*alert);
                id
            }
            Stage::Diagnose => {
                if let Some(removed) = Removed::read(record) {
                    let id = removed.removed.0.clone();
                    // Of one that is no longer held nothing is said.
                    self.anomalies.get_mut(&id)?.removed = Some(removed);
                    return self.say(&id);
                }
                let evidence: Evidence = serde::Deserialize::deserialize(payload).ok()?;
                let id = evidence.anomaly.0.clone();
                let whole = self.anomalies.entry(id.clone()).or_default();
                (whole.evidence, whole.removed) = (Some(evidence), None);
                id
            }
            Stage::Context => {
                if let Ok(told) = <ToldExemption as serde::Deserialize>::deserialize(payload) {
                    self.exempt(told);
                    return None;
                }
                let change: Change = serde::Deserialize::deserialize(payload).ok()?;
                self.changes.insert((change.at, change.id.0.clone()), change);
                if self.changes.len() > MOST {
                    self.changes.pop_first();
                }
                return None;
            }
            Stage::Incident => return None,
        };
        let said = self.say(&id);
        if self.anomalies.len() > MOST {
            self.forget_oldest();
        }
        said
    }

    /// An anomaly, if it looks different now.
    fn say(&mut self, id: &str) -> Option<v1::Anomaly> {
        let whole = self.anomalies.get_mut(id)?;
        let message = whole.message()?;
        let visible = |message: &v1::Anomaly| v1::Anomaly { revision: 0, ..message.clone() };
        let changed = whole.said.as_ref().is_none_or(|said| visible(said) != visible(&message));
        whole.said = Some(message.clone());
        changed.then_some(message)
    }

    fn exempt(&mut self, told: ToldExemption) {
        self.exemptions.insert(told.exemption.clone(), told);
        if self.exemptions.len() > MOST {
            let oldest = self.exemptions.values().filter(|of| of.ended.is_some()).min_by_key(|of| of.told_at);
            if let Some(id) = oldest.map(|of| of.exemption.clone()) {
                self.exemptions.remove(&id);
            }
        }
    }

    /// Lets the tenth of those that are over go that ended first.
    fn forget_oldest(&mut self) {
        let mut over: Vec<(Timestamp, String)> = self
            .anomalies
            .iter()
            .filter_map(|(id, whole)| Some((whole.anomaly.as_ref()?.ended_at?, id.clone())))
            .collect();
        over.sort();
        for (_, id) in over.iter().take(MOST / 10) {
            self.anomalies.remove(id);
        }
    }
}
