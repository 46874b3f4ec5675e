//! Captures of more rows than may be read or kept.

use super::capture::{Capture, Scope, capture, choose};
use super::source::Recorded;
use super::tests::{END_S, MS, ONSET_S, START_S, anomaly, diagnosed, rows, text};
use super::*;
use crate::detect::Symptom;
use crate::journal::Filter;
use crate::model::{Signal, Timestamp, TraceId};
use crate::settings::ByteSize;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status as OtlpStatus};
use prost::Message;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

/// Traces of four spans in four services, each span sent by itself with the others of its time; of
/// `one_in` traces one fails from the onset on. In the last service one in ten always does.
fn rare_failures(traces: u64, one_in: u64) -> Memory {
    failures(traces, one_in, 0)
}

/// The same, where so many log records are written within each span.
fn failures(traces: u64, one_in: u64, lines: u64) -> Memory {
    let mut random = fastrand::Rng::with_seed(11);
    let mut source = Memory::default();
    let length_ns = (END_S - START_S) * 1_000_000_000;
    let mut sent: BTreeMap<(u64, &str), (Vec<Span>, Vec<LogRecord>)> = BTreeMap::new();
    for number in 0..traces {
        let trace = random.u128(1..).to_be_bytes().to_vec();
        let start = START_S * 1_000_000_000 + length_ns / traces * number;
        let fails = start >= ONSET_S * 1_000_000_000 && number.is_multiple_of(one_in);
        let mut parent = Vec::new();
        for (place, service) in ["gateway", "orders", "billing", "stock"].into_iter().enumerate() {
            let id = random.u64(1..).to_be_bytes().to_vec();
            let (from, to) = (start + place as u64 * MS, start + (10 - place as u64) * MS);
            let usual = place == 3 && number % 10 == 3;
            let status =
                ((fails && place < 3) || usual).then(|| OtlpStatus { code: 2, message: "lost".to_owned() });
            let span = Span {
                trace_id: trace.clone(),
                span_id: id.clone(),
                parent_span_id: std::mem::replace(&mut parent, id),
                name: format!("POST /{service}"),
                kind: 2,
                start_time_unix_nano: from,
                end_time_unix_nano: to,
                status,
                ..Span::default()
            };
            let line = |number: u64| LogRecord {
                time_unix_nano: from + number,
                severity_number: 9,
                body: Some(AnyValue {
                    value: Some(any_value::Value::StringValue(format!("step {number} of {service}"))),
                }),
                trace_id: span.trace_id.clone(),
                span_id: span.span_id.clone(),
                ..LogRecord::default()
            };
            let written: Vec<LogRecord> = (0..lines).map(line).collect();
            let sent = sent.entry((to / 1_000_000_000, service)).or_default();
            sent.0.push(span);
            sent.1.extend(written);
        }
    }
    for ((second, service), (spans, log_records)) in sent {
        let resource =
            Some(OtlpResource { attributes: vec![text("service.name", service)], ..Default::default() });
        if !log_records.is_empty() {
            let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
            let group = ResourceLogs { resource: resource.clone(), scope_logs, ..ResourceLogs::default() };
            let body = ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec();
            source.requests.push((Signal::Logs, body.into(), Timestamp::from_secs(second)));
        }
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let group = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
        let body = ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec();
        source.requests.push((Signal::Traces, body.into(), Timestamp::from_secs(second)));
    }
    source
}

#[test]
fn the_first_hundred_failed_traces_are_whole_in_the_bundle_however_rare_and_however_many_rows() {
    // 5,000 traces since the onset, of which 125 fail; spans of one trace in eight are kept, and of log records fewer.
    let source = failures(45_000, 40, 2);
    let directory = tempfile::tempdir().unwrap();
    let config = Config { first_rows: 3_000, ..Config::default() };
    let anomaly = anomaly(Symptom::Errors);
    let evidence = diagnosed(config, directory.path(), &anomaly, (Pass::First, END_S), &source);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(evidence.bundle.path.join("manifest.json")).unwrap()).unwrap();
    let share = manifest["read"]["share_of_rows"].as_f64().unwrap();
    assert!(share < 0.25, "rows were left out: {manifest:#}");
    assert!(manifest["seen"]["faulty"]["one_trace_in"].as_u64().unwrap() > 1);
    assert!(manifest["seen"]["faulty"]["log_records_of_one_trace_in"].as_u64().unwrap() > 1);
    // Every failed trace since the onset, in the order in which they failed, of four spans and eight log records each.
    let mut failed: Vec<(Timestamp, TraceId)> = Vec::new();
    for row in rows(&source).spans.iter().filter(|row| row.failed() && *row.operation == *"POST /billing") {
        failed.push((row.end, row.trace));
    }
    failed.sort_unstable();
    let bundle = Bundle::open(&evidence.bundle.path).unwrap();
    let whole = failed.iter().take(100).filter(|(_, trace)| {
        let spans = bundle.faulty.spans.iter().filter(|row| row.trace == *trace).count();
        let log_records = bundle.faulty.logs.iter().filter(|row| row.trace == *trace).count();
        spans == 4 && log_records == 8
    });
    let (whole, of) = (whole.count(), failed.len().min(100));
    assert!(of == 100 && whole * 100 >= of * 95, "{whole} of {of}");
}

/// Requests of which each holds one second, so that those of other times need not be read. Those of before the onset
/// are recorded in so small a part of their size.
struct BySecond {
    all: Memory,
    packed: u64,
}

impl BySecond {
    fn new(all: Memory) -> Self {
        Self { all, packed: 1 }
    }

    fn recorded_bytes(&self, arrived: Timestamp, bytes: u64) -> u64 {
        if arrived < Timestamp::from_secs(ONSET_S - 2) { bytes / self.packed } else { bytes }
    }

    fn body_bytes(&self) -> u64 {
        self.all.requests.iter().map(|(_, body, _)| body.len() as u64).sum()
    }
}

impl Source for BySecond {
    fn read(
        &self,
        times: Range<Timestamp>,
        filter: &Filter,
        each: &mut dyn FnMut(Recorded<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut requests = self.all.requests.clone();
        requests
            .retain(|(_, _, at)| at.saturating_add(Duration::from_secs(1)) > times.start && *at < times.end);
        Memory { requests }.read(times, filter, &mut |recorded| {
            let read_bytes = self.recorded_bytes(recorded.arrived, recorded.read_bytes);
            each(Recorded { read_bytes, ..recorded })
        })
    }

    fn read_backward(
        &self,
        before: Timestamp,
        filter: &Filter,
        each: &mut dyn FnMut(Backwards<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.all.read_backward(before, filter, each)
    }

    fn bytes(&self, times: &Range<Timestamp>) -> u64 {
        let within = self.all.requests.iter().filter(|(_, _, at)| times.contains(at));
        within.map(|(_, body, at)| self.recorded_bytes(*at, body.len() as u64)).sum()
    }

    fn oldest(&self) -> Option<Timestamp> {
        self.all.oldest()
    }
}

#[test]
fn a_first_pass_reads_no_more_than_it_may_and_says_which_share_that_was() {
    let source = BySecond::new(rare_failures(20_000, 40));
    let all = source.body_bytes();
    let directory = tempfile::tempdir().unwrap();
    let config = Config { first_read_bytes: ByteSize(all / 5), ..Config::default() };
    let anomaly = anomaly(Symptom::Errors);
    let evidence = diagnosed(config, directory.path(), &anomaly, (Pass::First, END_S), &source);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(evidence.bundle.path.join("manifest.json")).unwrap()).unwrap();
    let of = |name: &str| manifest["read"][name].as_f64().unwrap();
    assert!(of("share_of_rows") < 0.35, "{manifest:#}");
    assert!(of("bytes") <= of("of_bytes"), "{manifest:#}");
    // What is near the onset is looked at, before and after.
    let from = Timestamp::parse_rfc3339(manifest["healthy"]["from"].as_str().unwrap()).unwrap();
    assert!(from > Timestamp::from_secs(ONSET_S - 60) && from < Timestamp::from_secs(ONSET_S - 2), "{from}");
    assert!(evidence.bundle.failed_traces > 0);
}

fn captured(source: &dyn Source, onset: Timestamp, bytes: u64) -> Capture {
    let mut anomaly = anomaly(Symptom::Errors);
    anomaly.onset.earliest = onset;
    let config = Config { first_read_bytes: ByteSize(bytes), ..Config::default() };
    let (effort, now) = (config.effort(Pass::First), Timestamp::from_secs(END_S));
    capture(source, &Scope::of(&anomaly), onset, now, &effort, &config).unwrap()
}

#[test]
fn an_onset_older_than_all_that_is_held_leaves_something_to_look_at() {
    let source = BySecond::new(rare_failures(20_000, 40));
    let all = source.body_bytes();
    let found = captured(&source, Timestamp::from_secs(START_S - 7_200), all / 5);
    assert!(found.faulty.spans.len() > 5_000, "{} spans", found.faulty.spans.len());
    assert_eq!(found.faulty_times.start, Timestamp::from_secs(START_S));
    // A healthy period that is held in part is cut by what is held of it.
    let found = captured(&source, Timestamp::from_secs(START_S + 10), all / 5);
    assert!(found.healthy.spans.len() > 1_000, "{} spans", found.healthy.spans.len());
    assert!(found.healthy_times.start >= Timestamp::from_secs(START_S));
}

#[test]
fn healthy_requests_that_inflate_further_leave_bytes_for_the_faulty_ones() {
    let source = BySecond { packed: 10, ..BySecond::new(rare_failures(20_000, 40)) };
    let all = source.body_bytes();
    let found = captured(&source, Timestamp::from_secs(ONSET_S), all / 4);
    assert!(found.healthy.spans.len() > 5_000, "{} spans", found.healthy.spans.len());
    assert!(found.faulty.spans.len() > 5_000, "{} spans", found.faulty.spans.len());
}

#[test]
fn what_was_kept_whole_is_not_replaced_by_what_was_looked_up_again() {
    let source = rare_failures(2_000, 40);
    let whole = rows(&source).between(Timestamp::from_secs(ONSET_S), Timestamp::from_secs(END_S));
    let anomaly = anomaly(Symptom::Errors);
    let of = |one_in: u64| {
        let mut capture = Capture::default();
        (capture.faulty, capture.failed) = (whole.clone(), whole.clone());
        (capture.faulty.one_in, capture.faulty.logs_one_in) = (one_in, 2);
        // It broke off after the first span of each trace.
        let mut seen = std::collections::BTreeSet::new();
        capture.failed.spans.retain(|row| seen.insert(row.trace));
        let chosen = choose(&capture, &Scope::of(&anomaly), None, 8);
        (chosen.spans.len(), chosen.traces.len())
    };
    let (spans, traces) = of(1);
    assert!(traces > 0 && spans == traces * 4, "{spans} of {traces}");
    let (spans, traces) = of(2);
    assert_eq!(spans, traces, "of a sample those that were looked up");
}
