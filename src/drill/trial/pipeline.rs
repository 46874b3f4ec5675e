//! Faults of the pipeline: users are well, so nobody is paged, and somebody is told of the data.

use super::super::random::Random;
use super::*;
use opentelemetry_proto::tonic::trace::v1::Span;

/// When the fault begins and ends, and the trial.
const FROM: u64 = 150;
const UNTIL: u64 = 240;
const END: u64 = 330;

fn is_faulty(at: Timestamp) -> bool {
    at >= after(FROM) && at < after(UNTIL)
}

fn is_of(instance: &Instance, service: &str) -> bool {
    instance.description().name == service
}

/// Changes the spans of a request; those that are `None` are gone.
fn spans(request: Request, change: impl Fn(Span) -> Option<Span>) -> Request {
    let Request::Traces(mut request) = request else { return request };
    for resource in &mut request.resource_spans {
        for scope in &mut resource.scope_spans {
            scope.spans = std::mem::take(&mut scope.spans).into_iter().filter_map(&change).collect();
        }
    }
    Request::Traces(request)
}

/// What is sampled by trace: about one in so many of 256.
fn sampled(span: &Span, of_256: u8) -> bool {
    span.trace_id.last().is_some_and(|byte| *byte < of_256)
}

fn behind(mut span: Span, ns: u64) -> Span {
    span.start_time_unix_nano = span.start_time_unix_nano.saturating_sub(ns);
    span.end_time_unix_nano = span.end_time_unix_nano.saturating_sub(ns);
    span
}

const SECOND_NS: u64 = 1_000_000_000;

/// Name, and what it does to an export.
type Case = (&'static str, fn(Timestamp, &Instance, Request) -> Vec<(Timestamp, Request)>);

const CASES: [Case; 12] = [
    ("the exporter of a service dies", |at, instance, request| {
        if is_of(instance, "payment") { Vec::new() } else { vec![(at, request)] }
    }),
    ("half the pods of a service are silent", |at, instance, request| {
        if is_of(instance, "inventory") && instance.slot == 0 { Vec::new() } else { vec![(at, request)] }
    }),
    ("spans are sampled, and do not say so", |at, _, request| {
        vec![(at, spans(request, |span| sampled(&span, 50).then_some(span)))]
    }),
    ("spans are sampled, and say so", |at, _, request| {
        let sample = |mut span: Span| {
            span.trace_state = "ot=th:c".to_owned();
            sampled(&span, 64).then_some(span)
        };
        vec![(at, spans(request, sample))]
    }),
    ("one pod's clock is two minutes behind", |at, instance, request| {
        let hit = is_of(instance, "cart") && instance.slot == 0;
        vec![(at, spans(request, |span| Some(if hit { behind(span, 120 * SECOND_NS) } else { span })))]
    }),
    ("a service's clocks jump back by 90 s", |at, instance, request| {
        let hit = is_of(instance, "checkout");
        vec![(at, spans(request, |span| Some(if hit { behind(span, 90 * SECOND_NS) } else { span })))]
    }),
    ("a backlog comes after an outage of the collector", |_, _, request| vec![(after(UNTIL), request)]),
    ("the collector restarts and loses 25 s", |at, _, request| {
        if at < after(FROM + 25) { Vec::new() } else { vec![(at, request)] }
    }),
    ("batches are delayed by 45 s", |at, _, request| {
        vec![(at.saturating_add(Duration::from_secs(45)), request)]
    }),
    ("everything is delivered twice", |at, _, request| {
        vec![(at, request.clone()), (at.saturating_add(Duration::from_secs(2)), request)]
    }),
    ("operations get new names", |at, instance, request| {
        let hit = is_of(instance, "inventory");
        let rename = |mut span: Span| {
            if hit {
                span.name = format!("HTTP {}", span.name);
            }
            Some(span)
        };
        vec![(at, spans(request, rename))]
    }),
    ("only the spans of a service are lost", |at, instance, request| {
        let hit = is_of(instance, "inventory");
        vec![(at, spans(request, |span| (!hit).then_some(span)))]
    }),
];

#[test]
fn twelve_faults_of_the_pipeline_page_nobody_and_are_told_as_tickets() {
    let mut wrong = Vec::new();
    for (number, (name, fault)) in CASES.into_iter().enumerate() {
        // Among them what has to be told apart from requests that stay away.
        if !is_full() && ![0, 2, 5, 10, 11].contains(&number) {
            continue;
        }
        let seed = Random::new(name.len() as u64).below(1_000) as u64;
        let trial = Trial { fault: Fault::None, seed, traffic: 0.4, times: [FROM, UNTIL, END] };
        let (_, told) = trial.run(&mut |at, instance, request| {
            if is_faulty(at) { fault(at, instance, request) } else { vec![(at, request)] }
        });
        let (pages, data) = (told.pages().len(), told.data().len());
        println!("{name}: {pages} pages, {data} tickets about data\n{}", told.in_words());
        if pages > 0 || data == 0 {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "paged, or not told: {wrong:#?}");
}

/// Points of the next window that have not come yet are no requests that stay away.
#[test]
fn spans_that_are_lost_page_nobody_where_metrics_come_late() {
    let mut wrong = Vec::new();
    for delay in [0, 3, 8] {
        for number in [2, 11] {
            let (name, fault) = CASES[number];
            let trial = Trial { fault: Fault::None, seed: 5, traffic: 0.4, times: [FROM, UNTIL, END] };
            let (_, told) = trial.run(&mut |at, instance, request| {
                let sent = with_slow_metrics(Duration::from_secs(delay), (at, instance, request));
                let sent = sent.into_iter();
                sent.flat_map(|(came, request)| {
                    if is_faulty(at) { fault(came, instance, request) } else { vec![(came, request)] }
                })
                .collect()
            });
            println!("{name}, metrics {delay} s late: {}", told.in_words());
            if !told.pages().is_empty() || told.data().is_empty() {
                wrong.push((name, delay, told.in_words()));
            }
        }
    }
    assert!(wrong.is_empty(), "paged, or not told: {wrong:#?}");
}

/// Half-blind, nobody says that a service has recovered.
#[test]
fn nothing_is_called_recovered_while_half_blind() {
    let trial = Trial { fault: Fault::FailingDependency, seed: 3, traffic: 0.4, times: [120, 400, 420] };
    let (service, told) = trial.run(&mut |at, instance, request| {
        let name = instance.description().name;
        // The telemetry of all that sees the fault stops a little after it began.
        let blind = at >= after(160) && name != "postgres" && name != "rabbitmq";
        if blind { Vec::new() } else { vec![(at, request)] }
    });
    assert_eq!(told.pages().len(), 1, "{service}: {}", told.in_words());
    let recovered = told.recovered_between(160, 420);
    assert!(recovered.iter().all(|anomaly| anomaly.severity < Severity::Page), "{}", told.in_words());
}
