//! Anomalies for tests of alerting.

use barograph::confirm::Anomaly;
use barograph::model::Timestamp;
use serde_json::json;

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
