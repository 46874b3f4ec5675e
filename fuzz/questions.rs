//! What people and pipelines write to a running daemon.

use super::targets::Target;
use barograph::context::Exemption;
use barograph::diagnose::conditions;
use barograph::model::Timestamp;
use barograph::serve::{Heard, read_alerts, read_change};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn texts(of: &[&str]) -> Vec<Vec<u8>> {
    of.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// `--where` of a search.
pub fn search() -> Target {
    Target {
        name: "search",
        seeds: || {
            texts(&["error,service=cart,duration>=250ms", "duration>=250ms, body~\"a, b\",http.route!=/x"])
        },
        run: |input| match conditions(&String::from_utf8_lossy(input)) {
            Ok(conditions) => assert!(conditions.len() <= 32, "more than the limit"),
            Err(why) => assert!(!why.is_empty() && !why.contains('\n'), "no reason in one line: {why}"),
        },
    }
}

/// An exemption in one line; what is read holds at a moment or does not, at any.
pub fn exemption() -> Target {
    Target {
        name: "exemption",
        seeds: || {
            texts(&[
                "service=cart symptom=latency at_most=0.5 until=recovery because=known since Monday",
                "service=cart daily=22:00-02:00 days=sat,sun from=2026-01-01T00:00:00Z because=backup",
            ])
        },
        run: |input| {
            if let Ok(exemption) = Exemption::parse(&String::from_utf8_lossy(input)) {
                for at in [Timestamp::ZERO, NOW, Timestamp::MAX] {
                    let _ = exemption.holds(at);
                }
            }
        },
    }
}

/// `POST /v1/changes`, in each form that is known.
pub fn change() -> Target {
    Target {
        name: "change",
        seeds: || {
            texts(&[
                r#"{"service":"cart","kind":"deploy","title":"cart 1.2","version":"1.2","at":"2026-01-01T00:00:00Z"}"#,
                r#"{"specversion":"1.0","type":"deploy","subject":"cart","time":"2026-01-01T00:00:00Z","data":{"title":"x"}}"#,
                r#"{"deployment_status":{"state":"success","created_at":"2026-01-01T00:00:00Z"},"deployment":{"ref":"v1","environment":"prod"},"repository":{"name":"cart"}}"#,
                r#"{"app":{"metadata":{"name":"cart"},"status":{"sync":{"revision":"abc"},"operationState":{"finishedAt":"2026-01-01T00:00:00Z","phase":"Succeeded"}}}}"#,
                r#"{"text":"deployed","tags":["service:cart"],"time":1700000000000}"#,
            ])
        },
        run: |input| match read_change(&|_| None, input) {
            Ok(Heard::Change(_) | Heard::Nothing(_)) => {}
            Err(why) => assert!(!why.is_empty(), "refused without a reason"),
        },
    }
}

/// `POST /api/v2/alerts`, as Prometheus and as an Alertmanager's webhook send it.
pub fn alerts() -> Target {
    Target {
        name: "alerts",
        seeds: || {
            texts(&[
                r#"[{"labels":{"alertname":"High","service":"cart","severity":"page"},"annotations":{"summary":"x"},"startsAt":"2026-01-01T00:00:00Z"}]"#,
                r#"{"version":"4","status":"resolved","alerts":[{"status":"resolved","labels":{"alertname":"High"},"endsAt":"2026-01-01T00:00:00Z"}]}"#,
            ])
        },
        run: |input| match read_alerts(input, NOW) {
            Ok((alerts, _)) => assert!(alerts.len() <= 1_000, "more than the limit"),
            Err(why) => assert!(!why.is_empty(), "refused without a reason"),
        },
    }
}
