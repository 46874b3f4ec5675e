//! Searches of more than fits.

use super::{Search, conditions, find, logs, trace};
use crate::diagnose::{Memory, Redaction};
use crate::model::{Signal, Timestamp, TraceId};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::ops::ControlFlow;

const AT_S: u64 = 1_700_000_000;

/// A request of so many log records, one in a hundred of which is looked for.
fn lines(records: u64) -> Bytes {
    let line = |number: u64| {
        let said = if number.is_multiple_of(100) { "needle" } else { "hay" };
        LogRecord {
            time_unix_nano: AT_S * 1_000_000_000 + number,
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(said.to_owned())) }),
            ..LogRecord::default()
        }
    };
    let scope_logs =
        vec![ScopeLogs { log_records: (0..records).map(line).collect(), ..ScopeLogs::default() }];
    let group = ResourceLogs { scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec().into()
}

fn needles(requests: Vec<Bytes>) -> usize {
    let at = Timestamp::from_secs(AT_S);
    let source = Memory { requests: requests.into_iter().map(|body| (Signal::Logs, body, at)).collect() };
    let (conditions, redaction) = (conditions("body=needle").unwrap(), Redaction::default());
    let search = Search {
        times: at..Timestamp::from_secs(AT_S + 1),
        conditions: &conditions,
        services: None,
        limit: 100_000,
        redaction: &redaction,
    };
    logs(&source, &search, &mut |_| ControlFlow::Continue(())).unwrap().items.len()
}

#[test]
fn nothing_is_left_out_of_large_requests() {
    // More together than is gathered at one time, and more by itself.
    let request = lines(2_000);
    assert_eq!(needles(vec![request; 210]), 210 * 20);
    let records = find::ROWS_TOGETHER as u64 * 2 + 100;
    assert_eq!(needles(vec![lines(300), lines(records), lines(300)]), 6 + find::ROWS_TOGETHER / 50 + 1);
}

const TRACE: TraceId = TraceId([7; 16]);

/// Requests of which each holds so many spans of one trace, and one of another; each a second after the one before.
fn spans(requests: &[std::ops::Range<u64>]) -> Memory {
    let span = |trace: TraceId, number: u64| Span {
        trace_id: trace.0.to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: "step".to_owned(),
        start_time_unix_nano: AT_S * 1_000_000_000 + number,
        end_time_unix_nano: AT_S * 1_000_000_000 + number + 1_000,
        ..Span::default()
    };
    let request = |numbers: &std::ops::Range<u64>| {
        let mut spans: Vec<Span> = numbers.clone().map(|number| span(TRACE, number)).collect();
        spans.push(span(TraceId([8; 16]), 0));
        let group = ResourceSpans {
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        };
        Bytes::from(ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec())
    };
    let at = (AT_S..).map(Timestamp::from_secs);
    Memory { requests: requests.iter().zip(at).map(|(of, at)| (Signal::Traces, request(of), at)).collect() }
}

#[test]
fn a_trace_is_looked_for_from_the_newest_on_and_says_how_far_back_that_was() {
    let source = spans(&[0..10, 10..30, 30..60]);
    let now = Timestamp::from_secs(AT_S + 100);
    let find = |requests: usize| {
        let mut left = requests;
        let mut leave = |_| {
            let goes_on = left > 0;
            left = left.saturating_sub(1);
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let found = trace(&source, TRACE, now, &Redaction::default(), &mut leave).unwrap();
        (found.rows.spans.len(), found.since, found.is_whole)
    };
    assert_eq!(find(99), (60, Timestamp::from_secs(AT_S), true));
    assert_eq!(find(2), (50, Timestamp::from_secs(AT_S + 1), false), "the oldest was not looked at");
    assert_eq!(find(0), (0, now, false));
}

#[test]
fn of_a_trace_with_too_many_spans_the_first_are_there() {
    let most = find::OF_A_TRACE as u64;
    // More in one request than is taken at one time; what was sent twice is there once.
    let source = spans(&[most - 100..most + 500, 0..most - 100, 20..30]);
    let now = Timestamp::from_secs(AT_S + 100);
    let found =
        trace(&source, TRACE, now, &Redaction::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    let starts: Vec<u64> = found.rows.spans.iter().map(|span| span.start.0 - AT_S * 1_000_000_000).collect();
    assert_eq!(starts, (0..most).collect::<Vec<_>>());
    assert_eq!((found.spans_left_out, found.log_records_left_out, found.is_whole), (500, 0, true));
}
