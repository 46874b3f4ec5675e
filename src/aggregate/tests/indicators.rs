//! What indicators count, and whose users.

use super::*;

/// Good and total of an indicator over all seconds.
fn indicated(bodies: &[(Signal, Vec<u8>)], source: Source, only: Vec<Matcher>) -> (u64, u64) {
    let indicator = Indicator { source, only, ..indicator("a") };
    let counted = count(bodies, 2, 0b101, &[indicator]);
    counted.seconds.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
}

#[test]
fn indicators_count_spans_by_any_attribute() {
    let spans =
        [("5", "gold"), ("2", "gold"), ("5", "free"), ("3", "gold"), ("2", "")].map(|(code, tier)| {
            let end_time_unix_nano = NOW * NS;
            let attributes = vec![pair("http.code", code), pair("tier", tier)];
            Span { name: "get".into(), kind: 2, end_time_unix_nano, attributes, ..Span::default() }
        });
    let scope_spans = vec![ScopeSpans { spans: spans.to_vec(), ..ScopeSpans::default() }];
    let resource_spans =
        vec![ResourceSpans { resource: resource("a", "i"), scope_spans, ..ResourceSpans::default() }];
    let bodies = [(Signal::Traces, ExportTraceServiceRequest { resource_spans }.encode_to_vec())];
    let code = |pattern: &str, negated| Matcher {
        key: "http.code".into(),
        negated,
        test: Test::Matches(Pattern::new(pattern).unwrap()),
    };
    let source = |good: GoodSpans| Source::Spans { operation: None, good };
    let not_5 = source(GoodSpans { matching: vec![code("5", true)], ..GoodSpans::default() });
    assert_eq!(indicated(&bodies, not_5.clone(), vec![]), (3, 5));
    assert_eq!(indicated(&bodies, not_5, vec![Matcher::equals("tier", "gold")]), (2, 3));
    let bad_5 = source(GoodSpans { bad: vec![code("5", false)], ..GoodSpans::default() });
    assert_eq!(indicated(&bodies, bad_5, vec![Matcher::equals("tier", "")]), (1, 1));
}

#[test]
fn users_are_told_apart_over_shards_and_cuts() {
    let request = |instance: &str, users: &[(&str, i32)]| {
        let spans = users.iter().map(|(user, status)| Span {
            name: "get".into(),
            kind: 2,
            end_time_unix_nano: NOW * NS,
            start_time_unix_nano: NOW * NS - 1,
            attributes: vec![pair("session.id", user)],
            status: Some(Status { code: *status, ..Status::default() }),
            ..Span::default()
        });
        let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans {
            resource: resource("a", instance),
            scope_spans,
            ..ResourceSpans::default()
        }];
        (Signal::Traces, ExportTraceServiceRequest { resource_spans }.encode_to_vec())
    };
    let bodies = [
        request("1", &[("ada", 0), ("bob", 2), ("", 2)]),
        request("2", &[("ada", 0), ("eve", 2), ("bob", 0)]),
        request("1", &[("ada", 0), ("bob", 2), ("dan", 0)]),
    ];
    let watched = Indicator { users: Some("session.id".into()), ..indicator("a") };
    let users = count(&bodies, 2, 0b11, std::slice::from_ref(&watched)).users;
    assert_eq!((users.all.count(), users.affected.count()), (4, 2));
    let unwatched = count(&bodies, 2, 0b11, &[indicator("a")]).users;
    assert!(unwatched.is_empty(), "nobody asked for them");
}

#[test]
fn indicators_count_log_records_and_points_of_metrics() {
    let log_records = [9, 17, 13, 21, 0].map(|severity_number| LogRecord {
        time_unix_nano: NOW * NS,
        severity_number,
        attributes: vec![pair("area", if severity_number == 21 { "test" } else { "main" })],
        ..LogRecord::default()
    });
    let scope_logs = vec![ScopeLogs { log_records: log_records.to_vec(), ..ScopeLogs::default() }];
    let resource_logs =
        vec![ResourceLogs { resource: resource("a", "i"), scope_logs, ..ResourceLogs::default() }];
    let logs = [(Signal::Logs, ExportLogsServiceRequest { resource_logs }.encode_to_vec())];
    assert_eq!(indicated(&logs, Source::Logs { bad_from: 17 }, vec![]), (3, 5));
    assert_eq!(
        indicated(&logs, Source::Logs { bad_from: 17 }, vec![Matcher::equals("area", "main")]),
        (3, 4)
    );

    // Events by a number that they carry, as a browser sends its web vitals.
    let vital = |name: &str, page: &str, value: f64| LogRecord {
        time_unix_nano: NOW * NS,
        event_name: if page == "/old" { String::new() } else { "browser.web_vital".into() },
        attributes: vec![
            pair("name", name),
            pair("url.path", page),
            pair("event.name", "browser.web_vital"),
            KeyValue {
                key: "value".into(),
                value: Some(AnyValue { value: Some(any_value::Value::DoubleValue(value)) }),
                ..KeyValue::default()
            },
        ],
        ..LogRecord::default()
    };
    let log_records = vec![
        vital("ttfb", "/", 120.0),
        vital("ttfb", "/", 900.0),
        vital("ttfb", "/old", 800.0),
        vital("ttfb", "/cart", 10.0),
        vital("lcp", "/", 9_000.0),
        LogRecord { time_unix_nano: NOW * NS, ..LogRecord::default() },
    ];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs =
        vec![ResourceLogs { resource: resource("a", "i"), scope_logs, ..ResourceLogs::default() }];
    let vitals = [(Signal::Logs, ExportLogsServiceRequest { resource_logs }.encode_to_vec())];
    let fast = || Source::Events {
        name: "browser.web_vital".into(),
        value: "value".into(),
        how: Comparison::AtMost,
        threshold: 800.0,
    };
    let ttfb = Matcher::equals("name", "ttfb");
    assert_eq!(indicated(&vitals, fast(), vec![ttfb.clone()]), (3, 4));
    assert_eq!(indicated(&vitals, fast(), vec![ttfb, Matcher::equals("url.path", "/")]), (1, 2));

    // Sums and histograms, cumulative and as deltas: the first point of a stream that began before us says
    // nothing of its growth.
    let metric = |name: &str, counted| Source::Metric { name: name.into(), counted };
    let cumulative = AggregationTemporality::Cumulative;
    let grown: Vec<_> = [(10, [1, 2, 3]), (17, [2, 4, 6]), (25, [2, 5, 9])]
        .into_iter()
        .zip(0..)
        .map(|((value, buckets), at)| {
            (Signal::Metrics, numbers("a", cumulative, NOW - 100_000, NOW - 2 + at, value, buckets))
        })
        .collect();
    let size = |counted| indicated(&grown, metric("size", counted), vec![]);
    assert_eq!(size(Meaning::Compared(Comparison::AtMost, 1.0)), (1, 10));
    assert_eq!(size(Meaning::Compared(Comparison::AtMost, 10.0)), (4, 10));
    assert_eq!(size(Meaning::UpTo(Part::Some, 10.0)), (4, 0));
    assert_eq!(size(Meaning::Growth(Part::Total)), (0, 10));
    let requests =
        |only| indicated(&grown, metric("requests_bytes_total", Meaning::Growth(Part::Total)), only);
    assert_eq!(requests(vec![]), (0, 15));
    assert_eq!(requests(vec![Matcher::equals("a", "1")]), (0, 15));
    assert_eq!(requests(vec![Matcher::equals("a", "2")]), (0, 0));
    let delta = AggregationTemporality::Delta;
    let deltas = [(Signal::Metrics, numbers("a", delta, NOW - 10, NOW, 7, [1, 2, 4]))];
    let size = |counted| indicated(&deltas, metric("size", counted), vec![]);
    assert_eq!(size(Meaning::Compared(Comparison::Above, 10.0)), (4, 7));

    let data_points = [0.0, 1.0, 1.0].map(|value| NumberDataPoint {
        time_unix_nano: NOW * NS,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    });
    let up = Data::Gauge(Gauge { data_points: data_points.to_vec() });
    let gauges = [(Signal::Metrics, metrics("a", vec![("up", up)]))];
    let alive = metric("up", Meaning::Compared(Comparison::AtLeast, 1.0));
    assert_eq!(indicated(&gauges, alive, vec![]), (2, 3));
}
