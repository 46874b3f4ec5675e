//! What this room writes into the ledger, and how it is told apart.

use super::{Alert, Delivered, Deliveries};
use crate::store::{Ledger, LedgerRecord, Stage};

/// Objects of deliveries begin so; those of alerts are ids of anomalies, which hold no `/`.
const DELIVERY: &str = "delivery/";

/// A record of `Stage::Alert`.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// An alert, whole, after a change.
    Alert(Box<Alert>),
    /// A target was told.
    Delivered(Delivered),
}

impl Recorded {
    /// Reads a record; `None` if it is none of this room's.
    #[must_use]
    pub fn read(record: &LedgerRecord) -> Option<Self> {
        if record.stage != Stage::Alert {
            return None;
        }
        let payload = record.payload.clone();
        if record.object.starts_with(DELIVERY) {
            serde_json::from_value(payload).ok().map(Self::Delivered)
        } else {
            serde_json::from_value(payload).ok().map(|alert| Self::Alert(Box::new(alert)))
        }
    }
}

impl Delivered {
    /// The ledger's object for what a target knows of an alert.
    #[must_use]
    pub fn object(&self) -> String {
        format!("{DELIVERY}{}/{}", self.target, self.anomaly)
    }

    /// The ledger's key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.object(), self.revision)
    }
}

impl Alert {
    /// The latest revision of every alert that the ledger holds.
    ///
    /// # Errors
    /// Of the ledger.
    pub fn latest(ledger: &Ledger) -> Result<Vec<Self>, crate::store::Error> {
        let records = ledger.latest(Stage::Alert)?;
        Ok(records
            .iter()
            .filter_map(|record| match Recorded::read(record) {
                Some(Recorded::Alert(alert)) => Some(*alert),
                _ => None,
            })
            .collect())
    }
}

impl Deliveries for Ledger {
    fn load(&self) -> Result<Vec<Delivered>, String> {
        let records = self.latest(Stage::Alert).map_err(|error| error.to_string())?;
        Ok(records
            .iter()
            .filter_map(|record| match Recorded::read(record) {
                Some(Recorded::Delivered(delivered)) => Some(delivered),
                _ => None,
            })
            .collect())
    }

    fn keep(&self, delivered: &Delivered) -> Result<(), String> {
        self.append(delivered.at, Stage::Alert, &delivered.object(), &delivered.key(), delivered)
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::fixture::anomaly;
    use crate::alert::{AlertState, Config, Lifecycle};
    use crate::confirm::AnomalyId;
    use crate::model::Timestamp;

    #[test]
    fn alerts_and_deliveries_are_told_apart_and_the_latest_count() {
        let ledger = Ledger::in_memory().unwrap();
        let at = Timestamp::from_secs(1_700_000_000);
        let mut lifecycle = Lifecycle::new(Config::default());
        let alert = lifecycle.step(at, &[anomaly("00000000000000aa", at)]).pop().unwrap();
        ledger.append(at, Stage::Alert, &alert.anomaly.0, &alert.key(), &alert).unwrap();
        let told = |target: &str, revision| Delivered {
            target: target.to_owned(),
            anomaly: AnomalyId("00000000000000aa".into()),
            revision,
            state: AlertState::Firing,
            at,
        };
        for delivered in
            [told("webhook http://a/", 1), told("webhook http://b/", 1), told("webhook http://a/", 2)]
        {
            ledger.keep(&delivered).unwrap();
        }
        assert_eq!(ledger.load().unwrap(), [told("webhook http://a/", 2), told("webhook http://b/", 1)]);
        assert_eq!(Alert::latest(&ledger).unwrap(), [alert]);
    }
}
