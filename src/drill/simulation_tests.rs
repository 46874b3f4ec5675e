//! What the simulated shop must be like: complete traces, the same for the same seed, and faults that
//! show where they were injected and nowhere else.

use super::*;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use std::collections::{BTreeMap, BTreeSet};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

fn after(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

/// A minute of health, and a minute of the fault.
fn run(fault: Fault, seed: u64) -> (Simulation, Vec<Emission>, Vec<Emission>) {
    let mut simulation = Simulation::new(fault, seed, 1.0, START);
    let healthy = simulation.advance(after(60));
    simulation.inject(after(60));
    let faulty = simulation.advance(after(120));
    (simulation, healthy, faulty)
}

fn spans<'a>(
    simulation: &'a Simulation,
    emissions: &'a [Emission],
) -> impl Iterator<Item = (&'static str, &'a Span)> {
    emissions.iter().filter_map(|emission| match &emission.item {
        Item::Span(span) => Some((simulation.instances()[emission.instance].description().name, &**span)),
        _ => None,
    })
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == 2)
}

/// Share of failed ones and mean duration in ms of the spans of a service and kind.
fn figures(
    simulation: &Simulation,
    emissions: &[Emission],
    service: &str,
    kind: SpanKind,
) -> (f64, f64, usize) {
    let found: Vec<&Span> = spans(simulation, emissions)
        .filter(|(name, span)| *name == service && span.kind == i32::from(kind))
        .map(|(_, span)| span)
        .collect();
    let count = found.len().max(1) as f64;
    let errors = found.iter().filter(|span| is_error(span)).count() as f64;
    let total: u64 = found.iter().map(|span| span.end_time_unix_nano - span.start_time_unix_nano).sum();
    (errors / count, total as f64 / count / 1e6, found.len())
}

#[test]
fn traces_are_complete_and_nested() {
    let (simulation, emissions, _) = run(Fault::None, 7);
    let all: Vec<(&str, &Span)> = spans(&simulation, &emissions).collect();
    let by_id: BTreeMap<&[u8], &Span> = all.iter().map(|(_, span)| (&span.span_id[..], *span)).collect();
    assert_eq!(by_id.len(), all.len(), "span ids are unique");
    let last_end = after(60).ns();
    let mut orphans = 0;
    for (_, span) in &all {
        assert!(span.start_time_unix_nano < span.end_time_unix_nano);
        if span.parent_span_id.is_empty() {
            continue;
        }
        let Some(parent) = by_id.get(&span.parent_span_id[..]) else {
            orphans += 1;
            continue;
        };
        assert_eq!(parent.trace_id, span.trace_id);
        assert!(parent.start_time_unix_nano <= span.start_time_unix_nano);
        if span.kind != i32::from(SpanKind::Consumer) {
            assert!(span.end_time_unix_nano <= parent.end_time_unix_nano, "{} in {}", span.name, parent.name);
        }
        assert!(span.end_time_unix_nano <= last_end);
    }
    // Only those whose parents had not ended when the minute was over.
    assert!(orphans * 100 < all.len(), "{orphans} of {}", all.len());

    let services: BTreeSet<&str> = emissions
        .iter()
        .map(|emission| simulation.instances()[emission.instance].description().name)
        .collect();
    assert_eq!(services.len(), 10, "{services:?}");
    for kind in
        [SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer, SpanKind::Internal]
    {
        assert!(all.iter().any(|(_, span)| span.kind == i32::from(kind)), "{kind:?}");
    }
    // Each request logs a line within its trace.
    let logged: BTreeSet<&[u8]> = emissions
        .iter()
        .filter_map(|emission| match &emission.item {
            Item::Log(record) if !record.trace_id.is_empty() => Some(&record.trace_id[..]),
            _ => None,
        })
        .collect();
    assert!(all.iter().all(|(_, span)| {
        span.end_time_unix_nano + 1_000_000_000 > last_end || logged.contains(&span.trace_id[..])
    }));
}

#[test]
fn emissions_come_in_order_and_depend_on_the_seed_alone() {
    let (_, first, _) = run(Fault::SlowDatabase, 3);
    assert!(first.windows(2).all(|pair| pair[0].at <= pair[1].at));
    // Also when time passes in other steps.
    let mut other = Simulation::new(Fault::SlowDatabase, 3, 1.0, START);
    let mut steps = Vec::new();
    for half in 1..=120 {
        steps.extend(other.advance(START.saturating_add(Duration::from_millis(500 * half))));
    }
    let same = |a: &Emission, b: &Emission| a.at == b.at && a.instance == b.instance && a.item == b.item;
    assert_eq!(first.len(), steps.len());
    assert!(first.iter().zip(&steps).all(|(a, b)| same(a, b)));
    let (_, different, _) = run(Fault::SlowDatabase, 4);
    assert_ne!(first.len(), different.len());
}

#[test]
fn a_healthy_shop_hardly_fails() {
    for seed in 0..5 {
        let (simulation, healthy, later) = run(Fault::None, seed);
        for emissions in [&healthy, &later] {
            let (errors, latency, count) = figures(&simulation, emissions, "frontend", SpanKind::Server);
            assert!(count > 2_000, "{count}");
            assert!(errors < 0.02, "{errors}");
            assert!(latency < 150.0, "{latency}");
        }
    }
}

#[test]
fn a_slow_database_shows_in_one_service_and_its_callers() {
    for seed in 0..6 {
        let (simulation, healthy, faulty) = run(Fault::SlowDatabase, seed);
        let service = simulation.drawn().service;
        let (errors, before, _) = figures(&simulation, &healthy, service, SpanKind::Client);
        assert!(errors < 0.01 && before < 20.0, "{service}: {errors} {before}");
        let (errors, after, count) = figures(&simulation, &faulty, service, SpanKind::Client);
        assert!(count > 300, "{service}: {count}");
        assert!(errors > 0.1 && after > 10.0 * before, "{service}: {errors} {after}");
        let untouched = ["payment", "inventory", "cart"].into_iter().find(|other| *other != service).unwrap();
        let (errors, ..) = figures(&simulation, &faulty, untouched, SpanKind::Client);
        assert!(errors < 0.02, "{untouched}: {errors}");
        let slow_lines = faulty.iter().filter(|emission| {
            simulation.instances()[emission.instance].description().name == shop::DATABASE
                && matches!(&emission.item, Item::Log(record) if record.severity_number >= 13)
        });
        assert!(slow_lines.count() > 50);
    }
}

#[test]
fn a_failing_dependency_fails_by_itself() {
    for seed in 0..6 {
        let (simulation, healthy, faulty) = run(Fault::FailingDependency, seed);
        let service = simulation.drawn().service;
        assert!(figures(&simulation, &healthy, service, SpanKind::Server).0 < 0.02);
        let (errors, ..) = figures(&simulation, &faulty, service, SpanKind::Server);
        assert!((0.2..0.6).contains(&errors), "{service}: {errors}");
        let (errors, ..) = figures(&simulation, &faulty, service, SpanKind::Client);
        assert!(errors < 0.01, "{service}'s own calls are fine: {errors}");
    }
}

#[test]
fn a_bad_deploy_fails_only_in_the_new_version_until_it_is_rolled_back() {
    let (mut simulation, _, _) = run(Fault::BadDeploy, 5);
    let service = simulation.drawn().service;
    let versions: BTreeSet<String> = simulation
        .instances()
        .iter()
        .filter(|instance| instance.description().name == service)
        .map(|instance| instance.version.clone())
        .collect();
    assert_eq!(versions.len(), 2, "{versions:?}");
    simulation.heal(after(120));
    simulation.advance(after(125));
    let healed = simulation.advance(after(180));
    let (errors, ..) = figures(&simulation, &healed, service, SpanKind::Server);
    assert!(errors < 0.02, "{service}: {errors}");
}

#[test]
fn fewer_visitors_come_in_a_traffic_drop() {
    let (simulation, healthy, faulty) = run(Fault::TrafficDrop, 2);
    let count = |emissions| figures(&simulation, emissions, "frontend", SpanKind::Server).2;
    assert!(count(&faulty) * 10 < count(&healthy), "{} of {}", count(&faulty), count(&healthy));
}

#[test]
fn a_saturated_pool_is_full_and_makes_wait() {
    for seed in 0..6 {
        let (simulation, _, faulty) = run(Fault::SaturatedPool, seed);
        let service = simulation.drawn().service;
        let (errors, latency, _) = figures(&simulation, &faulty, service, SpanKind::Server);
        assert!(errors > 0.1 && latency > 300.0, "{service}: {errors} {latency}");
        let idle: Vec<i64> = faulty
            .iter()
            .filter(|emission| simulation.instances()[emission.instance].description().name == service)
            .filter_map(|emission| match &emission.item {
                Item::Metrics(metrics) => {
                    metrics.iter().find(|metric| metric.name == "db.client.connection.count")
                }
                _ => None,
            })
            .filter_map(|metric| match &metric.data {
                Some(metric::Data::Sum(sum)) => match sum.data_points[1].value {
                    Some(number_data_point::Value::AsInt(idle)) => Some(idle),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        assert!(idle.len() > 20 && idle.iter().all(|idle| *idle == 0), "{idle:?}");
    }
}

#[test]
fn a_missed_job_does_not_run_and_comes_back() {
    let (mut simulation, healthy, faulty) = run(Fault::MissedJob, 2);
    let runs = |simulation: &Simulation, emissions: &[Emission]| {
        spans(simulation, emissions).filter(|(_, span)| span.name == "nightly report").count()
    };
    assert!((8..=16).contains(&runs(&simulation, &healthy)), "{}", runs(&simulation, &healthy));
    assert!(runs(&simulation, &faulty) <= 1);
    simulation.heal(after(120));
    let healed = simulation.advance(after(180));
    assert!(runs(&simulation, &healed) >= 8);
}
