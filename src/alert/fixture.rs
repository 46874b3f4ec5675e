//! An anomaly for the tests of this room and those below it.

use crate::confirm::{Anomaly, AnomalyId, AnomalyState, Examined, Fingerprint, Member, Severity};
use crate::detect::{Band, Interval, Symptom};
use crate::model::{ServiceKey, Timestamp};
use std::time::Duration;

/// A gathering anomaly: errors of `payment`, seen one second after they began.
pub fn anomaly(id: &str, onset: Timestamp) -> Anomaly {
    let service = ServiceKey::new("prod", "shop", "payment");
    let onset = Interval { earliest: onset, latest: onset.saturating_add(Duration::from_millis(400)) };
    let member = |signal: &str, symptom, observed, expected, unit: &str| Member {
        service: service.clone(),
        signal: signal.to_owned(),
        attributes: Vec::new(),
        symptom,
        series: None,
        observed,
        expected,
        unit: unit.to_owned(),
        tail: 1e-9,
        log_evidence: 20.0,
        onset,
        last_seen: onset.latest,
        recovered: false,
    };
    Anomaly {
        id: AnomalyId(id.to_owned()),
        fingerprint: Fingerprint("00000000000000ff".to_owned()),
        service: service.clone(),
        symptom: Symptom::Errors,
        severity: Severity::Ticket,
        state: AnomalyState::Gathering,
        opened_at: onset.earliest.saturating_add(Duration::from_secs(1)),
        fired_at: None,
        ended_at: None,
        onset,
        members: vec![
            member("POST /pay", Symptom::Errors, 0.312, Band { low: 0.0, high: 0.004 }, "1"),
            member("POST /pay", Symptom::Latency, 4.2e9, Band { low: 8e7, high: 1.2e8 }, "ns"),
        ],
        p_value: 1e-9,
        suspects: Vec::new(),
        merged_into: None,
        suppressed_by: None,
        budget_draw: None,
        examined: Examined::default(),
        title: "payment: 31 % of requests fail".to_owned(),
        revision: 1,
    }
}
