//! Anomalies and the memory of deliveries, for tests of alerting.

use barograph::alert::{Delivered, Deliveries};
use barograph::confirm::Anomaly;
use barograph::model::Timestamp;
use serde_json::json;
use std::sync::Mutex;

/// An anomaly in a state: `gathering`, `confirmed`, `recovered`, …
pub fn anomaly(id: &str, state: &str, onset: Timestamp) -> Anomaly {
    let interval = json!({"earliest": onset, "latest": onset});
    let service = json!({"environment": "prod", "namespace": "shop", "name": "payment"});
    let ended = (state != "gathering" && state != "confirmed").then_some(onset);
    serde_json::from_value(json!({
        "id": id, "fingerprint": "00000000000000ff", "service": service, "symptom": "errors",
        "severity": "page", "state": state, "opened_at": onset, "fired_at": onset, "ended_at": ended,
        "onset": interval, "p_value": 1e-9, "suspects": [], "merged_into": null, "suppressed_by": null,
        "title": "payment: 31 % of requests fail", "revision": 1,
        "members": [{
            "service": service, "signal": "POST /pay", "attributes": [], "symptom": "errors",
            "observed": 0.31, "expected": {"low": 0.0, "high": 0.004}, "unit": "1", "tail": 1e-9,
            "log_evidence": 20.0, "onset": interval, "last_seen": onset, "recovered": false,
        }],
    }))
    .expect("an anomaly")
}

/// Deliveries kept in memory: outlives an outbox, as the ledger outlives the process.
#[derive(Default)]
pub struct Memory(Mutex<Vec<Delivered>>);

impl Deliveries for Memory {
    fn load(&self) -> Vec<Delivered> {
        self.0.lock().expect("not poisoned").clone()
    }

    fn keep(&self, delivered: &Delivered) -> Result<(), String> {
        let mut held = self.0.lock().expect("not poisoned");
        held.retain(|other| (&other.target, &other.anomaly) != (&delivered.target, &delivered.anomaly));
        held.push(delivered.clone());
        Ok(())
    }
}
