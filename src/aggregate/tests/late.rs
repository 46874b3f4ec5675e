//! Late items: how many cells they open, and how much memory these take.

use super::*;
use crate::limits::LateReason;

#[test]
fn late_items_open_no_more_cells_than_they_may_and_all_are_counted() {
    const LATE_CELLS: usize = 40;
    const WINDOWS: u64 = 100;
    let mut shard = Shard::new(0, 1, &Config::default());
    shard.late_cells = LATE_CELLS;
    for number in 0..WINDOWS {
        // On time, and later by one window more each time.
        for second in [NOW, NOW - 30 - number * 10] {
            let body = named_at(second, "shop", ["x".to_owned()].into_iter());
            let (request, pending) = admitted(Signal::Traces, body);
            request.reply.recorded(0);
            shard.apply(Position(0), Timestamp::from_secs(NOW), &request);
            assert_eq!(outcome(pending).rejected, 0);
        }
    }
    let mut partial = shard.cut(cut(NOW + 1, false));
    partial.settle();
    assert_eq!(partial.accepted.spans, 2 * WINDOWS);
    assert_eq!(partial.cells.iter().map(|(_, _, cell)| cell.items()).sum::<u64>(), 2 * WINDOWS);
    // Beyond them there are those of the first two windows.
    assert!(partial.cells.len() <= LATE_CELLS + 2, "{} cells", partial.cells.len());
    assert!(partial.cells.len() > LATE_CELLS, "{} cells", partial.cells.len());
    let crowded = partial.late.get(&LateReason::Crowded).copied();
    assert_eq!(crowded, Some(2 * WINDOWS - WINDOWS - partial.cells.len() as u64 + 1), "{:?}", partial.late);
    // The next second has room again.
    let (request, _pending) =
        admitted(Signal::Traces, named_at(NOW - 60, "shop", ["x".to_owned()].into_iter()));
    shard.apply(Position(0), Timestamp::from_secs(NOW), &request);
    assert!(shard.cut(cut(NOW + 2, false)).late.is_empty());
}

/// A request of many spans of all durations, each of a call to the same address.
fn calls(second: u64) -> (Signal, Vec<u8>) {
    let end_time_unix_nano = second * NS;
    let spans = (0..600u64).map(|number| Span {
        name: "x".into(),
        kind: 3,
        trace_id: vec![1; 16],
        end_time_unix_nano,
        start_time_unix_nano: end_time_unix_nano - (1 << (number % 40)),
        attributes: vec![pair("server.address", "db")],
        ..Span::default()
    });
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
    let resource_spans =
        vec![ResourceSpans { resource: resource("shop", "i"), scope_spans, ..ResourceSpans::default() }];
    (Signal::Traces, ExportTraceServiceRequest { resource_spans }.encode_to_vec())
}

const BUCKETS: usize = 1_000;

fn explicit(second: u64) -> (Signal, Vec<u8>) {
    let point = HistogramDataPoint {
        time_unix_nano: second * NS,
        count: BUCKETS as u64,
        bucket_counts: vec![1; BUCKETS],
        explicit_bounds: (1..BUCKETS).map(|bound| bound as f64).collect(),
        ..HistogramDataPoint::default()
    };
    let aggregation_temporality = AggregationTemporality::Delta as i32;
    let histogram = Explicit { data_points: vec![point], aggregation_temporality };
    (Signal::Metrics, metrics("shop", vec![("size", Data::Histogram(histogram))]))
}

fn exponential(second: u64) -> (Signal, Vec<u8>) {
    let point = ExponentialHistogramDataPoint {
        time_unix_nano: second * NS,
        count: BUCKETS as u64 * 1_000,
        scale: 6,
        positive: Some(Buckets { offset: 0, bucket_counts: vec![1_000; BUCKETS] }),
        ..ExponentialHistogramDataPoint::default()
    };
    let aggregation_temporality = AggregationTemporality::Delta as i32;
    let histogram = ExponentialHistogram { data_points: vec![point], aggregation_temporality };
    (Signal::Metrics, metrics("shop", vec![("size", Data::ExponentialHistogram(histogram))]))
}

/// A request of many instances of one service, which has one cell in a window.
fn lines(second: u64) -> (Signal, Vec<u8>) {
    let of = |instance: u64| ResourceLogs {
        resource: resource("shop", &format!("i{instance}")),
        scope_logs: vec![ScopeLogs {
            log_records: vec![LogRecord { time_unix_nano: second * NS, ..LogRecord::default() }],
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    let resource_logs = (0..100).map(of).collect();
    (Signal::Logs, ExportLogsServiceRequest { resource_logs }.encode_to_vec())
}

#[test]
fn late_items_take_no_more_memory_than_they_may_however_few_cells_it_is_for() {
    const LATE_BYTES: usize = 100_000;
    const WINDOWS: u64 = 100;
    let cases: [(&str, fn(u64) -> (Signal, Vec<u8>)); 4] =
        [("calls", calls), ("explicit", explicit), ("exponential", exponential), ("lines", lines)];
    for (what, body) in cases {
        let mut shard = Shard::new(0, 1, &Config::default());
        shard.late_bytes = LATE_BYTES;
        for number in 0..WINDOWS {
            for second in [NOW, NOW - 30 - number * 10] {
                let (signal, body) = body(second);
                let (request, pending) = admitted(signal, body);
                request.reply.recorded(0);
                shard.apply(Position(0), Timestamp::from_secs(NOW), &request);
                assert_eq!(outcome(pending).rejected, 0, "{what}");
            }
        }
        let mut partial = shard.cut(cut(NOW + 1, false));
        partial.settle();
        let accepted = &partial.accepted;
        let all = accepted.spans + accepted.log_records + accepted.metric_points;
        assert_eq!(partial.cells.iter().map(|(_, _, cell)| cell.items()).sum::<u64>(), all, "{what}");
        let windows: std::collections::BTreeSet<_> = partial.facets.iter().map(|(_, id, _)| *id).collect();
        assert!((4..60).contains(&windows.len()), "{what}: {} windows", windows.len());
        let crowded = partial.late.get(&LateReason::Crowded).copied().unwrap_or_default();
        let each = all / (2 * WINDOWS);
        let beyond = (WINDOWS + 1 - windows.len() as u64) * each;
        // The request that took the last of the room may have been taken in part.
        assert!((beyond..beyond + each).contains(&crowded), "{what}: {crowded} of {beyond}");
        // The next second has room again.
        let (signal, body) = body(NOW - 60);
        let (request, _pending) = admitted(signal, body);
        shard.apply(Position(0), Timestamp::from_secs(NOW), &request);
        let late = shard.cut(cut(NOW + 2, false)).late;
        assert!(late.is_empty(), "{what}: {late:?}");
    }
}
