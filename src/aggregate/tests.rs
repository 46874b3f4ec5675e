//! Shards against a naive count over what prost decodes.

use super::*;
use crate::journal::{Cut, Position};
use crate::limits::{Permit, RejectedReason, UntimelyReason};
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanId, SpanKind, Timestamp, TraceId, WindowId};
use crate::otlp::{Encoding, split};
use crate::receive::{Admitted, CallerTag, Outcome, Pending, Reply};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
    Histogram as Explicit, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    Summary, SummaryDataPoint, exponential_histogram_data_point::Buckets, metric::Data,
    number_data_point::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;
use std::future::Future;
use std::task::{Context, Poll, Waker};

mod indicators;
mod late;
mod oracle;
mod shares;

use oracle::{expected, indicator, traces};

pub(super) const NOW: u64 = 1_700_000_003;
pub(super) const NS: u64 = 1_000_000_000;

pub(super) fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) }),
        ..KeyValue::default()
    }
}

pub(super) fn resource(service: &str, instance: &str) -> Option<Resource> {
    let attributes = vec![
        pair("service.name", service),
        pair("service.instance.id", instance),
        pair("service.version", "1.2"),
        pair("deployment.environment", "prod"),
    ];
    Some(Resource { attributes, ..Resource::default() })
}

pub(super) fn admitted(signal: Signal, body: Vec<u8>) -> (Admitted, Pending) {
    let slices = split(signal, &body).unwrap();
    let (reply, pending) = Reply::new(slices.len() as u32);
    let body = bytes::Bytes::from(body);
    let wire = body.clone();
    let caller = CallerTag::NOBODY;
    let permit = Permit::free();
    (Admitted { signal, encoding: Encoding::Identity, wire, body, slices, caller, permit, reply }, pending)
}

fn outcome(mut pending: Pending) -> Outcome {
    match std::pin::Pin::new(&mut pending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("a slice was not reported on"),
    }
}

fn cut(number: u64, checkpoint: bool) -> Cut {
    Cut { number, arrived: Timestamp::from_secs(number), through: Position(number), checkpoint }
}

pub(super) type Cells = BTreeMap<(SeriesId, WindowId), Cell>;

/// Merges partials as a window stage does.
#[derive(Default)]
pub(super) struct Merged {
    pub cells: Cells,
    pub keys: BTreeMap<SeriesId, SeriesKey>,
    pub facets: BTreeMap<(FacetKey, WindowId), Facet>,
    seconds: BTreeMap<(IndicatorId, u64), (u64, u64)>,
    users: Users,
    peers: BTreeMap<(PeerKey, WindowId), EdgeCell>,
    halves: usize,
    pub accepted: Accepted,
    pub rejected: BTreeMap<RejectedReason, u64>,
    pub late: u64,
    pub untimely: BTreeMap<(ServiceKey, UntimelyReason), u64>,
    overflowed: u64,
}

impl Merged {
    fn take(&mut self, mut partial: Partial) {
        partial.settle();
        for (id, window, cell) in partial.cells {
            match self.cells.entry((id, window)) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(cell);
                }
                std::collections::btree_map::Entry::Occupied(mut place) => place.get_mut().merge(&cell),
            }
        }
        self.keys.extend(partial.new.into_iter().map(|(id, key)| (id, (*key).clone())));
        for (key, window, facet) in partial.facets {
            self.facets.entry(((*key).clone(), window)).or_default().merge(&facet);
        }
        for (id, count) in partial.indicators {
            let sum = self.seconds.entry((id, count.second)).or_default();
            *sum = (sum.0 + count.good, sum.1 + count.total);
        }
        for (_, users) in partial.users {
            self.users.merge(&users);
        }
        for (key, window, cell) in partial.peers {
            self.peers.entry(((*key).clone(), window)).or_default().merge(&cell);
        }
        self.halves += partial.halves.len();
        self.accepted.add(partial.accepted);
        for (reason, count) in partial.rejected {
            *self.rejected.entry(reason).or_default() += count;
        }
        self.late += partial.late.values().sum::<u64>();
        for ((service, reason), count) in partial.untimely {
            *self.untimely.entry(((*service).clone(), reason)).or_default() += count;
        }
        self.overflowed += partial.overflowed.iter().map(|(_, count)| count).sum::<u64>();
    }
}

/// Applies requests to `shards` shards, with a cut after each request whose bit is set and at the end.
pub(super) fn count(
    requests: &[(Signal, Vec<u8>)],
    shards: u16,
    cuts: u64,
    indicators: &[Indicator],
) -> Merged {
    let mut sum = Merged::default();
    let mut all: Vec<Shard> =
        (0..shards).map(|number| Shard::new(number, shards, &Config::default())).collect();
    let indicators = std::sync::Arc::new(indicators.to_vec());
    for shard in &mut all {
        shard.set_indicators(indicators.clone());
        shard.cut(cut(NOW - 50_000, false));
    }
    for (place, (signal, body)) in requests.iter().enumerate() {
        let (request, pending) = admitted(*signal, body.clone());
        for shard in &mut all {
            shard.apply(Position(place as u64), Timestamp(NOW * NS), &request);
        }
        outcome(pending);
        if cuts & (1 << (place % 64)) != 0 {
            let end = cut(NOW + 1, false);
            all.iter_mut().rev().for_each(|shard| sum.take(shard.cut(end)));
        }
    }
    all.iter_mut().for_each(|shard| sum.take(shard.cut(cut(NOW + 2, false))));
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn spans_are_counted_as_a_plain_loop_would(requests in prop::collection::vec(traces(), 1..6), shards in 1u16..5, cuts: u64) {
        let bodies: Vec<_> = requests.iter().map(|request| (Signal::Traces, request.encode_to_vec())).collect();
        let indicator = indicator("a");
        let got = count(&bodies, shards, cuts, std::slice::from_ref(&indicator));
        let want = expected(&requests, &indicator);
        prop_assert_eq!(got.cells, want.cells);
        prop_assert_eq!(got.keys, want.keys);
        prop_assert_eq!(got.facets, want.facets);
        prop_assert_eq!(got.seconds, want.seconds);
        prop_assert_eq!(got.peers, want.peers);
        prop_assert_eq!((got.accepted, got.rejected, got.late, got.halves), (want.accepted, want.rejected, want.late, want.halves));
    }

    #[test]
    fn log_records_are_counted_by_severity(records in prop::collection::vec((0i32..30, 0u64..50, any::<bool>()), 0..60), shards in 1u16..4, cuts: u64) {
        let request = |records: &[(i32, u64, bool)]| ExportLogsServiceRequest { resource_logs: vec![ResourceLogs {
            resource: resource("a", "i"),
            scope_logs: vec![ScopeLogs { log_records: records.iter().map(|&(severity_number, back_s, observed)| {
                let time = (NOW - back_s) * NS;
                LogRecord {
                    time_unix_nano: if observed { 0 } else { time },
                    observed_time_unix_nano: if observed { time } else { 5 },
                    severity_number,
                    ..LogRecord::default()
                }
            }).collect(), ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }] }.encode_to_vec();
        let bodies: Vec<_> = records.chunks(7).map(|records| (Signal::Logs, request(records))).collect();
        let got = count(&bodies, shards, cuts, &[]);
        let mut want: BTreeMap<WindowId, [u64; 7]> = BTreeMap::new();
        for (severity, back_s, _) in &records {
            let class = if (1..=24).contains(severity) { (severity + 3) / 4 } else { 0 };
            want.entry(WindowId::of(Timestamp::from_secs(NOW - back_s))).or_default()[class as usize] += 1;
        }
        let got_lines: BTreeMap<_, _> = got.cells.iter().map(|(&(_, window), cell)| match cell {
            Cell::Lines(lines) => (window, lines.by_severity),
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(got_lines, want);
        prop_assert_eq!(got.accepted.log_records, records.len() as u64);
    }

    #[test]
    fn cumulative_and_delta_tell_the_same(growth in prop::collection::vec((0u64..100, any::<bool>()), 1..20), shards in 1u16..4, cuts: u64) {
        // The same counter and histogram, sent as deltas by one instance and cumulative by another, which restarts at times.
        let (mut cumulative, mut buckets, mut start, mut total) = (0u64, [0u64; 3], NOW - 100, 0u64);
        let mut bodies = Vec::new();
        for (number, &(grown, restart)) in growth.iter().enumerate() {
            let time = NOW - 99 + number as u64;
            if restart && number > 0 {
                (cumulative, buckets, start) = (0, [0; 3], time - 1);
            }
            cumulative += grown;
            buckets[number % 3] += grown;
            total += grown;
            let mut delta = [0u64; 3];
            delta[number % 3] = grown;
            bodies.push((Signal::Metrics, numbers("delta", AggregationTemporality::Delta, time - 1, time, grown, delta)));
            bodies.push((Signal::Metrics, numbers("cumulative", AggregationTemporality::Cumulative, start, time, cumulative, buckets)));
        }
        let got = count(&bodies, shards, cuts, &[]);
        let mut by_service: BTreeMap<(String, WindowId), Vec<Cell>> = BTreeMap::new();
        for ((id, window), cell) in &got.cells {
            by_service.entry((got.keys[id].service.name.to_string(), *window)).or_default().push(cell.clone());
        }
        let of = |service: &str| -> Vec<_> {
            by_service.iter().filter(|((name, _), _)| name == service).flat_map(|(_, cells)| cells.clone()).map(|cell| match cell {
                Cell::Total(total) => (total.delta, total.points, None),
                Cell::Distribution(cell) => (cell.sum, cell.points, Some(cell.histogram)),
                other => panic!("{other:?}"),
            }).collect()
        };
        let key = |(a, points, b): &(f64, u64, Option<crate::sketch::Histogram>)| (b.is_some(), *points, b.as_ref().map_or(0, |histogram| histogram.count()), *a as u64);
        let (mut delta, mut cumulative) = (of("delta"), of("cumulative"));
        delta.sort_by_key(key);
        cumulative.sort_by_key(key);
        prop_assert_eq!(&delta, &cumulative);
        let counted: f64 = delta.iter().filter(|(_, _, histogram)| histogram.is_none()).map(|(sum, _, _)| sum).sum();
        prop_assert_eq!(counted, total as f64);
    }

    #[test]
    fn a_shard_goes_on_from_its_state_as_if_nothing_had_happened(growth in prop::collection::vec(0u64..100, 2..20), split_at in any::<prop::sample::Index>(), after in 1u16..4) {
        let mut cumulative = 0;
        let bodies: Vec<_> = growth.iter().enumerate().map(|(number, grown)| {
            cumulative += grown;
            numbers("a", AggregationTemporality::Cumulative, NOW - 100, NOW - 99 + number as u64, cumulative, [cumulative, 0, 1])
        }).collect();
        let split_at = split_at.index(bodies.len());
        let run = |restart: bool| {
            let mut sum = Merged::default();
            let mut shards: Vec<Shard> = (0..2).map(|number| Shard::new(number, 2, &Config::default())).collect();
            for (number, body) in bodies.iter().enumerate() {
                if number == split_at {
                    let partials: Vec<_> = shards.iter_mut().map(|shard| shard.cut(cut(NOW, true))).collect();
                    let states: Vec<_> = partials.iter().map(|partial| partial.state.clone().unwrap()).collect();
                    partials.into_iter().for_each(|partial| sum.take(partial));
                    if restart {
                        shards = (0..after).map(|number| Shard::new(number, after, &Config::default())).collect();
                        for state in &states {
                            shards.iter_mut().for_each(|shard| shard.restore(state).unwrap());
                        }
                    }
                }
                let (request, _) = admitted(Signal::Metrics, body.clone());
                shards.iter_mut().for_each(|shard| shard.apply(Position(number as u64), Timestamp::from_secs(NOW), &request));
            }
            shards.iter_mut().for_each(|shard| sum.take(shard.cut(cut(NOW + 1, false))));
            sum.cells
        };
        prop_assert_eq!(run(true), run(false));
    }
}

/// A counter and a histogram of one service.
fn numbers(
    service: &str,
    temporality: AggregationTemporality,
    start: u64,
    time: u64,
    value: u64,
    buckets: [u64; 3],
) -> Vec<u8> {
    let attributes = vec![pair("b", "2"), pair("a", "1")];
    let sum = Sum {
        data_points: vec![NumberDataPoint {
            attributes: attributes.clone(),
            start_time_unix_nano: start * NS,
            time_unix_nano: time * NS,
            value: Some(Value::AsInt(value as i64)),
            ..NumberDataPoint::default()
        }],
        aggregation_temporality: temporality as i32,
        is_monotonic: true,
    };
    let histogram = Explicit {
        data_points: vec![HistogramDataPoint {
            attributes,
            start_time_unix_nano: start * NS,
            time_unix_nano: time * NS,
            count: buckets.iter().sum(),
            sum: Some(buckets.iter().sum::<u64>() as f64),
            bucket_counts: buckets.to_vec(),
            explicit_bounds: vec![1.0, 10.0],
            ..HistogramDataPoint::default()
        }],
        aggregation_temporality: temporality as i32,
    };
    metrics(service, vec![("requests", Data::Sum(sum)), ("size", Data::Histogram(histogram))])
}

fn metrics(service: &str, metrics: Vec<(&str, Data)>) -> Vec<u8> {
    let metrics = metrics
        .into_iter()
        .map(|(name, data)| Metric {
            name: name.into(),
            unit: "By".into(),
            data: Some(data),
            ..Metric::default()
        })
        .collect();
    let resource_metrics = vec![ResourceMetrics {
        resource: resource(service, "i"),
        scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
        ..ResourceMetrics::default()
    }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

#[test]
fn every_type_of_metric_has_its_cell() {
    let time_unix_nano = NOW * NS;
    let gauge = |value: f64, flags: u32, order: bool| {
        let mut attributes = vec![pair("x", "1"), pair("y", "2")];
        if order {
            attributes.reverse();
        }
        NumberDataPoint {
            time_unix_nano,
            flags,
            value: Some(Value::AsDouble(value)),
            attributes,
            ..Default::default()
        }
    };
    let exponential = ExponentialHistogramDataPoint {
        time_unix_nano,
        count: 7,
        sum: Some(70.0),
        scale: 8,
        zero_count: 1,
        positive: Some(Buckets { offset: 4, bucket_counts: vec![1, 2, 3] }),
        ..Default::default()
    };
    let body = metrics(
        "a",
        vec![
            (
                "gauge",
                Data::Gauge(Gauge {
                    data_points: vec![gauge(1.5, 0, false), gauge(2.5, 0, true), gauge(99.0, 1, false)],
                }),
            ),
            (
                "exponential",
                Data::ExponentialHistogram(ExponentialHistogram {
                    data_points: vec![exponential],
                    aggregation_temporality: AggregationTemporality::Delta as i32,
                }),
            ),
            (
                "summary",
                Data::Summary(Summary {
                    data_points: vec![SummaryDataPoint {
                        start_time_unix_nano: (NOW - 5) * NS,
                        time_unix_nano,
                        count: 12,
                        sum: 1.0,
                        ..Default::default()
                    }],
                }),
            ),
        ],
    );
    let got = count(&[(Signal::Metrics, body)], 1, 0, &[]);
    assert_eq!(got.accepted.metric_points, 5);
    let cells: BTreeMap<&str, &Cell> =
        got.cells.iter().map(|((id, _), cell)| (&*got.keys[id].operation, cell)).collect();
    assert!(
        matches!(cells["gauge"], Cell::Level(level) if level.points == 2 && level.max == 2.5 && level.sum == 4.0),
        "{cells:?}"
    );
    assert!(matches!(cells["summary"], Cell::Total(total) if total.delta == 12.0));
    let Cell::Distribution(cell) = cells["exponential"] else { panic!("{cells:?}") };
    // Scale 8 to 6: four buckets become one; 4, 5 and 6 all lie in bucket 1.
    assert!(cell.histogram.positive().eq([(1, 6)]));
    assert_eq!((cell.histogram.count(), cell.sum), (7, 70.0));
    let gauge_key = got.keys.values().find(|key| &*key.operation == "gauge").unwrap();
    assert_eq!(gauge_key.attributes, [("x".into(), "1".into()), ("y".into(), "2".into())]);
}

fn named(service: &str, names: impl Iterator<Item = String>) -> Vec<u8> {
    named_at(NOW, service, names)
}

fn named_at(second: u64, service: &str, names: impl Iterator<Item = String>) -> Vec<u8> {
    let spans = names
        .map(|name| Span {
            name,
            kind: 2,
            trace_id: vec![1; 16],
            end_time_unix_nano: second * NS,
            start_time_unix_nano: second * NS - 5,
            ..Span::default()
        })
        .collect();
    let resource_spans = vec![ResourceSpans {
        resource: resource(service, "i"),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

#[test]
fn damage_in_one_resource_refuses_that_one_alone() {
    let mut body = named("good", ["x".into()].into_iter());
    let good = body.len();
    body.extend(named("bad", ["yyyy".into(), "zzzz".into()].into_iter()));
    let at = good + body[good..].windows(4).position(|bytes| bytes == b"zzzz").unwrap();
    body[at] = 0xff;
    let (request, pending) = admitted(Signal::Traces, body);
    let mut shard = Shard::new(0, 1, &Config::default());
    shard.apply(Position(0), Timestamp::from_secs(NOW), &request);
    let outcome = outcome(pending);
    assert_eq!((outcome.rejected, outcome.refused), (2, None));
    assert!(outcome.message.contains("spans[1].name"), "{}", outcome.message);
    let partial = shard.cut(cut(NOW + 1, false));
    assert_eq!(partial.accepted.spans, 1, "not even the whole spans before the damage");
    assert_eq!(partial.rejected, [(RejectedReason::Malformed, 2)].into());
}

#[test]
fn a_capture_finds_a_trace_by_the_index_that_shards_filled() {
    let dir = tempfile::tempdir().unwrap();
    let clock = std::sync::Arc::new(crate::model::ManualClock::default());
    let (mut sequencer, _, recorder) =
        crate::journal::Journal::open(dir.path(), &crate::journal::Config::default(), clock, None).unwrap();
    let mut shards: Vec<Shard> = (0..2).map(|number| Shard::new(number, 2, &Config::default())).collect();
    shards.iter_mut().for_each(|shard| shard.set_index(recorder.index()));
    // Names without any repetition, so that a request is large: 40 of them are about 8 MiB.
    for number in 0..40u8 {
        let names = (0..200).map(|n| format!("{n}-{number}-{}", "x".repeat(1_000)));
        let service = if number % 10 == 3 { "rare" } else { "common" };
        let mut request = ExportTraceServiceRequest::decode(named(service, names).as_slice()).unwrap();
        let spans = &mut request.resource_spans[0].scope_spans[0].spans;
        spans.iter_mut().for_each(|span| span.trace_id = vec![number + 1; 16]);
        let (request, _) = admitted(Signal::Traces, request.encode_to_vec());
        for step in sequencer.append_at(request, Timestamp::from_secs(NOW + u64::from(number) / 20)).unwrap()
        {
            match step {
                crate::journal::Step::Work { at, arrived, request } => {
                    shards.iter_mut().for_each(|shard| shard.apply(at, arrived, &request));
                }
                crate::journal::Step::Barrier(cut) => {
                    shards.iter_mut().for_each(|shard| drop(shard.cut(cut)))
                }
            }
        }
    }
    for step in sequencer.idle_until(Timestamp::from_secs(NOW + 5)) {
        if let crate::journal::Step::Barrier(cut) = step {
            shards.iter_mut().for_each(|shard| drop(shard.cut(cut)));
        }
    }
    let times = Timestamp::from_secs(NOW - 5)..Timestamp::from_secs(NOW + 60);
    let found = |filter: crate::journal::Filter| -> Vec<u8> {
        recorder
            .read(times.clone(), &filter)
            .map(|record| {
                let request = ExportTraceServiceRequest::decode(record.body().unwrap()).unwrap();
                request.resource_spans[0].scope_spans[0].spans[0].trace_id[0] - 1
            })
            .collect()
    };
    let all = found(crate::journal::Filter::default());
    assert_eq!(all, (0..40).collect::<Vec<_>>());
    let traces = Some([TraceId([18; 16])].into());
    let by_trace = found(crate::journal::Filter { traces, services: None });
    assert!(by_trace.contains(&17) && by_trace.len() < 15, "{by_trace:?}");
    let services = Some([ServiceKey::new("prod", "", "rare")].into());
    let by_service = found(crate::journal::Filter { services, traces: None });
    assert!([3, 13, 23, 33].iter().all(|number| by_service.contains(number)), "{by_service:?}");
    assert!(by_service.len() < 35, "{by_service:?}");
    let elsewhere =
        recorder.read(Timestamp::from_secs(NOW + 30)..times.end, &crate::journal::Filter::default());
    assert!(
        elsewhere.count() < 8,
        "the last block is not wholly known, all others hold nothing of that time"
    );
}

#[test]
fn attributes_of_resources_by_which_exemptions_are_scoped_are_facets() {
    let body = numbers("a", AggregationTemporality::Delta, NOW - 1, NOW, 1, [1, 0, 0]);
    let mut request = ExportMetricsServiceRequest::decode(body.as_slice()).unwrap();
    let of = request.resource_metrics[0].resource.as_mut().unwrap();
    of.attributes
        .extend([("k8s.cluster.name", "blue"), ("team", "x"), ("other", "y")].map(|(k, v)| pair(k, v)));
    let config = Config { resource_attributes: vec!["team".into(), "host.name".into()], ..Config::default() };
    let mut shard = Shard::new(0, 1, &config);
    let (request, _) = admitted(Signal::Metrics, request.encode_to_vec());
    shard.apply(Position(0), Timestamp::from_secs(NOW), &request);
    let mut sum = Merged::default();
    sum.take(shard.cut(cut(NOW + 1, false)));
    let known: Vec<(&str, &str)> = sum
        .facets
        .keys()
        .map(|(key, _)| (&*key.name, &*key.value))
        .filter(|(name, _)| !name.starts_with("service."))
        .collect();
    assert_eq!(known, [("k8s.cluster.name", "blue"), ("team", "x")]);
}
