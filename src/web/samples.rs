//! Pages of made-up data, for tests and to look at.

use super::dashboard::{Curves, Dashboard, Seen};
use super::detail::{AnomalyPage, IncidentPage, MessagePage};
use super::head::Head;
use super::slos::SlosPage;
use crate::api::v1;
use crate::model::{ServiceKey, Timestamp};
use crate::serve::{Beat, to_proto};
use askama::Template as _;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_secs(1_714_565_525);

fn ago(seconds: u64) -> Timestamp {
    NOW.saturating_sub(Duration::from_secs(seconds))
}

fn service(name: &str) -> v1::Service {
    v1::Service { environment: "production".into(), namespace: "shop".into(), name: name.into() }
}

fn beats(random: &mut fastrand::Rng, rate: f64, p99_ms: f64, broken: f64, minutes: u64) -> Vec<Beat> {
    let step = Curves::default().step.as_secs();
    let first = (NOW.secs() - minutes * 60) / step;
    (first..NOW.secs() / step)
        .map(|at| {
            let start = Timestamp::from_secs(at * step);
            let bad = start > ago(150) && broken > 0.0;
            let requests = (rate * step as f64 * (0.85 + 0.3 * random.f64())) as u64;
            let ratio = if bad { broken } else { 0.003 * random.f64() };
            Beat {
                start,
                requests,
                errors: (requests as f64 * ratio) as u64,
                p99_ns: (requests > 0).then(|| {
                    (p99_ms * 1e6 * (0.8 + 0.4 * random.f64()) * if bad { 6.0 } else { 1.0 }) as i64
                }),
            }
        })
        .collect()
}

fn anomaly(id: &str, state: v1::AnomalyState, title: &str) -> v1::Anomaly {
    v1::Anomaly {
        id: id.into(),
        fingerprint: "00".into(),
        service: Some(service("payment")),
        symptom: "latency".into(),
        onset: Some(to_proto(ago(130))),
        onset_latest: Some(to_proto(ago(129))),
        detected_at: Some(to_proto(ago(126))),
        fired_at: Some(to_proto(ago(124))),
        severity: v1::Severity::Page as i32,
        state: state as i32,
        title: title.into(),
        signals: ["payment", "checkout-api", "frontend"]
            .map(|name| v1::AnomalySignal {
                service: Some(service(name)),
                metric: "POST /charge".into(),
                attributes: [("db.system.name".to_owned(), "postgresql".to_owned())].into(),
                symptom: "latency".into(),
                observed: 912e6,
                expected_low: 41e6,
                expected_high: 98e6,
                unit: "ns".into(),
                onset: Some(to_proto(ago(130))),
                recovered: name == "frontend",
                p_value: 3.2e-11,
                log_evidence: 24.2,
            })
            .to_vec(),
        causes: vec![
            v1::Cause {
                rank: 1,
                service: Some(service("payment")),
                kind: "database".into(),
                operation: Some("SELECT payments".into()),
                score: 0.87,
                reason: "its database calls take 9.3 times as long as before 11:59:55, and explain 94 % of the added time".into(),
                reasons: vec!["SELECT payments: p50 4.10 ms → 38.2 ms".into(), "31 of 40 slow traces spend their time there".into()],
            },
            v1::Cause {
                rank: 2,
                service: Some(service("payment")),
                kind: "deploy".into(),
                operation: None,
                score: 0.08,
                reason: "payment 1.4.2 → 1.5.0 came 21 min before".into(),
                reasons: vec![],
            },
        ],
        p_value: 3.2e-11,
        evidence: Some(format!("evidence/{id}")),
        budget_draw: Some(v1::BudgetDraw { share: 0.18, in_week: 0.31, per_week: 1.0 }),
        exemptions_examined: 4,
        nearest_exemptions: vec![v1::Uncovering {
            line: "service=payment symptom=errors daily=02:00-04:00 because=nightly settlement".into(),
            why_not: "symptom is latency, not errors".into(),
        }],
        silencers: vec![v1::Silencer {
            when: "until it has recovered".into(),
            command: "barograph exempt add 'service=payment symptom=latency until=recovery because=WHY'".into(),
            line: "service=payment symptom=latency until=recovery because=WHY".into(),
        }],
        ..v1::Anomaly::default()
    }
}

/// Latency of the first signal: usual for ten minutes, then not.
fn curves() -> Vec<v1::Curve> {
    let mut random = fastrand::Rng::with_seed(9);
    let points = (0..72u64).map(|at| {
        let start = ago(720 - 10 * at);
        let healthy = 60e6 + 30e6 * random.f64();
        let value = if start < ago(130) { healthy } else { 10.0 * healthy };
        v1::CurvePoint { start: Some(to_proto(start)), value }
    });
    let curve = v1::Curve {
        signal: 0,
        what: "99th percentile".into(),
        unit: "ns".into(),
        expected_low: Some(41e6),
        expected_high: Some(98e6),
        step_ns: 10_000_000_000,
        points: points.collect(),
    };
    vec![curve]
}

pub(super) fn seen(minutes: u64) -> Seen {
    let mut random = fastrand::Rng::with_seed(7);
    let mut seen = Seen { now: NOW, ..Seen::default() };
    seen.crowded.push(v1::CrowdedService {
        service: Some(v1::Service { name: "profile".into(), ..v1::Service::default() }),
        overflowed: 81_220,
        series: 5_200,
        part: "span names".into(),
        values: 5_187,
        pattern: "GET /user/*".into(),
        caller: String::new(),
    });
    for (name, error) in [("checkout-page", "HTTP status 503"), ("name-server", "")] {
        seen.checks.push(v1::Check {
            name: name.into(),
            url: format!("https://shop.example/{name}"),
            runs: 2_880,
            failed_runs: 6,
            last_at: Some(crate::serve::to_proto(NOW)),
            last_took_ns: 41_000_000,
            error: error.into(),
            since: Some(crate::serve::to_proto(NOW.saturating_sub(Duration::from_secs(180)))),
            ..v1::Check::default()
        });
    }
    for (name, rate, p99_ms, broken) in [
        ("frontend", 118.0, 210.0, 0.06),
        ("cart", 64.0, 38.0, 0.0),
        ("checkout-api", 21.0, 320.0, 0.11),
        ("payment", 20.0, 95.0, 0.31),
        ("shipping", 12.0, 61.0, 0.0),
        ("inventory", 88.0, 17.0, 0.0),
        ("suggestions-with-a-rather-long-name", 43.0, 120.0, 0.0),
        ("mail-queue", 6.4, 9.0, 0.0),
        ("nightly-report", 0.0, 0.0, 0.0),
    ] {
        let beats = beats(&mut random, rate, p99_ms, broken, minutes);
        let requests: u64 = beats.iter().rev().take(10).map(|beat| beat.requests).sum();
        let some = (requests > 0).then_some(());
        let scale = |factor: f64| some.map(|()| (p99_ms * 1e6 * factor) as i64);
        let ratio = if broken > 0.0 { broken / 2.0 } else { 0.001_4 };
        seen.services.push(v1::ServiceSummary {
            service: Some(service(name)),
            spans: requests * 3,
            log_records: requests,
            metric_points: 40,
            requests,
            errors: (requests as f64 * ratio) as u64,
            error_ratio: if requests > 0 { ratio } else { 0.0 },
            p50_ns: scale(0.21),
            p90_ns: scale(0.6),
            p95_ns: scale(0.74),
            p99_ns: scale(1.0),
            p999_ns: scale(1.7),
        });
        seen.slos.push(v1::Slo {
            slo: "availability".into(),
            service: Some(service(name)),
            target: 0.999,
            window_ns: 28 * 86_400_000_000_000,
            state: v1::DataState::Ok as i32,
            good: requests * 90,
            total: requests * 91,
            budget_remaining_ratio: if broken > 0.2 {
                -0.07
            } else if broken > 0.0 {
                0.18
            } else {
                0.93 - rate / 500.0
            },
            burn: vec![
                v1::Burn { window: "5m".into(), rate: broken * 1_000.0 },
                v1::Burn { window: "1h".into(), rate: if broken > 0.0 { broken * 70.0 } else { 0.4 } },
                v1::Burn { window: "6h".into(), rate: if broken > 0.0 { broken * 12.0 } else { 0.3 } },
            ],
            exhausted_at: None,
            is_default: true,
            users_affected: (name == "payment").then_some(1_240),
            users: (name == "payment").then_some(8_300),
            counted_since: None,
            excluded_ns: 0,
            silent_until: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        });
        if rate > 0.0 {
            seen.beats.insert(ServiceKey::new("production", "shop", name), beats);
        }
    }
    if minutes > 5 {
        seen.anomalies = vec![
            anomaly(
                "3f1c9a0d5e7b2468",
                v1::AnomalyState::Firing,
                "payment: POST /charge takes 912 ms at p99, 41.0 to 98.0 ms expected",
            ),
            v1::Anomaly {
                onset: Some(to_proto(ago(9_000))),
                resolved_at: Some(to_proto(ago(8_420))),
                causes: vec![],
                ..anomaly(
                    "77aa9a0d5e7b2468",
                    v1::AnomalyState::Resolved,
                    "inventory: 38.0 % of GET /stock fail, at most 1.20 % expected",
                )
            },
        ];
        seen.exemptions = vec![v1::Exemption {
            id: "1b4f0e9851971998".into(),
            line: "service=search symptom=latency until=recovery because=index is being rebuilt".into(),
            author: "ada".into(),
            told_at: Some(to_proto(ago(600))),
            ..v1::Exemption::default()
        }];
        seen.changes = vec![v1::Change {
            id: "c1".into(),
            at: Some(to_proto(ago(1_390))),
            service: Some(service("payment")),
            kind: v1::ChangeKind::Deploy as i32,
            title: "payment 1.4.2 → 1.5.0".into(),
            inferred: true,
            version: Some("1.5.0".into()),
        }];
    }
    seen
}

fn head(title: &str) -> Head {
    let status = v1::Status {
        version: "0.1.0".into(),
        ready: true,
        accepted: Some(v1::Accepted { spans: 2_412_876, log_records: 803_112, metric_points: 91_204 }),
        journal: Some(v1::JournalStatus {
            bytes: 1 << 30,
            oldest: Some(to_proto(ago(5_300))),
            newest: Some(to_proto(NOW)),
            ..v1::JournalStatus::default()
        }),
        ..v1::Status::default()
    };
    Head::new(title, &status, NOW, 10)
}

fn incident() -> v1::Incident {
    let line = |seconds, who: &str, what: &str| v1::TimelineEntry {
        at: Some(to_proto(ago(seconds))),
        who: who.into(),
        what: what.into(),
    };
    v1::Incident {
        id: "3f1c9a0d5e7b2468".into(),
        anomalies: vec!["3f1c9a0d5e7b2468".into()],
        state: "acknowledged".into(),
        title: "payment: POST /charge takes 912 ms at p99, 41.0 to 98.0 ms expected".into(),
        service: Some(service("payment")),
        onset: Some(to_proto(ago(130))),
        alerted_at: Some(to_proto(ago(124))),
        time_to_detect_ns: Some(4_200_000_000),
        timeline: vec![
            line(130, "barograph", "It began"),
            line(126, "barograph", "Noticed: latency of POST /charge"),
            line(124, "barograph", "Told alertmanager http://127.0.0.1:9093"),
            line(60, "ada", "Acknowledged"),
            line(20, "ada", "rolled back payment to 1.4.2"),
        ],
        severity: v1::Severity::Page as i32,
        budget_spent: vec![v1::BudgetSpent {
            slo: "charge-fast".into(),
            service: Some(service("payment")),
            bad: 3_017,
            ratio: 0.121,
        }],
        users_affected: Some(1_240),
        users: Some(8_300),
        ..v1::Incident::default()
    }
}

/// A file with objectives that is refused; its name may say anything.
fn refused(file: &str) -> v1::RefusedFile {
    v1::RefusedFile {
        file: file.into(),
        line: Some(12),
        key: file.into(),
        reason: format!("{file:?} is out of range"),
        left_out: false,
    }
}

/// Every page by name.
pub(super) fn pages() -> Vec<(&'static str, String)> {
    let message =
        MessagePage { head: head("Not found"), heading: "Not found".into(), text: "no anomaly \"x\"".into() };
    let broken = seen(45);
    vec![
        ("overview", Dashboard::new(head("Overview"), &broken).render().unwrap()),
        ("fresh", Dashboard::new(head("Overview"), &seen(3)).render().unwrap()),
        ("empty", Dashboard::new(head("Overview"), &Seen { now: NOW, ..Seen::default() }).render().unwrap()),
        (
            "anomaly",
            AnomalyPage::new(head("Anomaly"), &broken.anomalies[0], &curves(), NOW).render().unwrap(),
        ),
        (
            "incident",
            IncidentPage::new(head("Incident"), &incident(), Some((&broken.anomalies[0], &curves())))
                .render()
                .unwrap(),
        ),
        (
            "slos",
            SlosPage::new(head("Objectives"), &broken.slos, &[refused("shop.yaml")], NOW).render().unwrap(),
        ),
        ("message", message.render().unwrap()),
    ]
}

#[test]
fn pages_say_what_matters() {
    let pages = pages();
    // To look at them: BAROGRAPH_PAGES=DIR cargo test --lib web::
    if let Some(folder) = std::env::var_os("BAROGRAPH_PAGES") {
        for (name, html) in &pages {
            std::fs::write(std::path::Path::new(&folder).join(format!("{name}.html")), html).unwrap();
        }
    }
    let overview = &pages[0].1;
    for wanted in [
        "payment: POST /charge takes 912 ms",
        "profile has 5,187 span names like GET /user/*: 81,220 of its items",
        "payment · database · 87.0 %",
        "href=\"/evidence/3f1c9a0d5e7b2468/\"",
        "-7 %",
        "21.7×",
        "payment 1.4.2 → 1.5.0",
        "failing for 3m 0s",
        "HTTP status 503",
    ] {
        assert!(overview.contains(wanted), "the overview lacks {wanted:?}");
    }
    for name in ["anomaly", "incident"] {
        let page = &pages.iter().find(|(page, _)| *page == name).expect("a page").1;
        for wanted in [
            "41.0 ms to 98.0 ms",
            "<rect x=\"0\"",
            "class=\"o\"",
            "18.0 % of a false page; the pages of this week come to 0.31 of 1.00",
            "4 exemptions were looked at",
            "symptom is latency, not errors",
            "barograph exempt add &#39;service=payment symptom=latency until=recovery",
        ] {
            assert!(page.contains(wanted), "the page of the {name} lacks {wanted:?}");
        }
    }
    let slos = &pages.iter().find(|(name, _)| *name == "slos").expect("a page").1;
    let incident = &pages.iter().find(|(name, _)| *name == "incident").expect("a page").1;
    assert!(incident.contains("12.1 % of &#34;charge-fast&#34; (3017 bad)"), "{incident}");
    assert!(slos.contains("about 1240 of 8300") && slos.contains("bar bad"), "{slos}");
    assert!(slos.contains("1 file refused: shop.yaml:12: shop.yaml: "), "{slos}");
    assert!(slos.contains("9 default objectives are young: until "), "{slos}");
    assert!(pages[2].1.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "an empty overview says how to begin");
}

#[test]
fn what_telemetry_says_is_escaped() {
    let hostile = "<script>alert(1)</script>\"'&";
    let mut seen = seen(45);
    for of in &mut seen.anomalies {
        of.title = hostile.into();
        of.id = hostile.into();
        for cause in &mut of.causes {
            (cause.reason, cause.kind, cause.operation) =
                (hostile.into(), hostile.into(), Some(hostile.into()));
            cause.reasons = vec![hostile.into()];
            cause.service = Some(v1::Service { name: hostile.into(), ..v1::Service::default() });
        }
        for signal in &mut of.signals {
            (signal.metric, signal.symptom, signal.unit) = (hostile.into(), hostile.into(), hostile.into());
        }
    }
    for one in &mut seen.anomalies[0].nearest_exemptions {
        (one.line, one.why_not) = (hostile.into(), hostile.into());
    }
    seen.changes[0].title = hostile.into();
    seen.services[0].service = Some(v1::Service { name: hostile.into(), ..v1::Service::default() });
    seen.slos[0].slo = hostile.into();
    let slos = SlosPage::new(head(hostile), &seen.slos, &[refused(hostile)], NOW).render().unwrap();
    let overview = Dashboard::new(head(hostile), &seen).render().unwrap();
    let detail = AnomalyPage::new(head(hostile), &seen.anomalies[0], &curves(), NOW).render().unwrap();
    for html in [overview, detail, slos] {
        assert!(!html.contains("<script"), "{html}");
        assert!(!html.contains("(1)</script>\"'"), "{html}");
    }
}
