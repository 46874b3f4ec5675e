//! One pass against two: whatever [`Rows`] reads is what the check and the views show.

use super::against_prost::{damage, draw};
use super::every_field::every_field;
use super::schema;
use super::wire::Damage;
use super::*;
use crate::limits::RejectedReason;
use crate::model::Signal;
use fastrand::Rng;
use opentelemetry_proto::tonic::{logs::v1 as logs, metrics::v1 as metrics, trace::v1 as trace};
use proptest::prelude::*;
use prost::Message;

/// All that a span shows, however it was read.
fn shown(span: SpanView<'_>) -> String {
    let mut fields = span;
    fields.begin_attributes(&[]);
    format!("{fields:?} {:?}", span.attributes().collect::<Vec<_>>())
}

/// All that the point of a metric shows.
fn point(
    (start, time, flags): (crate::model::Timestamp, crate::model::Timestamp, u32),
    value: &str,
    attributes: Attributes<'_>,
) -> String {
    format!("{start:?} {time:?} {flags} {value} {:?}", attributes.collect::<Vec<_>>())
}

fn explicit_value(
    (count, sum, min, max): (u64, Option<f64>, Option<f64>, Option<f64>),
    counts: impl Iterator<Item = u64>,
    bounds: impl Iterator<Item = f64>,
) -> String {
    let (counts, bounds): (Vec<_>, Vec<_>) = (counts.collect(), bounds.collect());
    format!("{count} {sum:?} {min:?} {max:?} {counts:?} {bounds:?}")
}

/// All that a metric shows, read from its view.
fn metric_view(scope: InstrumentationScope<'_>, view: &MetricView<'_>) -> String {
    let number = |of: NumberPoint<'_>| {
        point((of.start, of.time, of.flags), &format!("{:?}", of.value), of.attributes())
    };
    let explicit = |of: HistogramPoint<'_>| {
        let value =
            explicit_value((of.count, of.sum, of.min, of.max), of.bucket_counts(), of.explicit_bounds());
        point((of.start, of.time, of.flags), &value, of.attributes())
    };
    let (kind, points): (String, Vec<String>) = match view.data {
        Data::Gauge(points) | Data::Sum { points, monotonic: false, .. } => {
            ("level".into(), points.map(number).collect())
        }
        Data::Sum { points, temporality, .. } => {
            (format!("total {temporality:?}"), points.map(number).collect())
        }
        Data::Histogram { points, temporality } => {
            (format!("explicit {temporality:?}"), points.map(explicit).collect())
        }
        other => (format!("{other:?}"), Vec::new()),
    };
    format!("{scope:?} {} {} {kind} {points:?}", view.name, view.unit)
}

/// The same, read from rows; `None` when the attributes of a point are not good.
fn metric_row(row: &MetricRow<'_>, points: &[PointRow<'_>]) -> Option<String> {
    let kind = match row.kind {
        MetricKind::Viewed(view) => return Some(metric_view(row.scope, &view)),
        MetricKind::Level => "level".into(),
        MetricKind::Total(temporality) => format!("total {temporality:?}"),
        MetricKind::Explicit(temporality) => format!("explicit {temporality:?}"),
    };
    if !points.iter().all(PointRow::has_good_attributes) {
        return None;
    }
    let points: Vec<String> = points
        .iter()
        .map(|of| {
            let value = match of.value {
                PointValue::Number(value) => format!("{value:?}"),
                PointValue::Explicit(value) => explicit_value(
                    (value.count, value.sum, value.min, value.max),
                    value.counts(),
                    value.bounds(),
                ),
            };
            point((of.start, of.time, of.flags), &value, of.attributes())
        })
        .collect();
    Some(format!("{:?} {} {} {kind} {points:?}", row.scope, row.name, row.unit))
}

/// What reading and checking in one pass makes of a resource: all items, written out.
fn in_one_pass(signal: Signal, bytes: &[u8]) -> Option<String> {
    let mut rows = Rows::default();
    match signal {
        Signal::Traces => rows.spans(bytes, |_| false).map(|(resource, spans)| {
            format!("{resource:?} {:?}", spans.into_iter().map(shown).collect::<Vec<_>>())
        }),
        Signal::Logs => rows.logs(bytes, |_| false).map(|read| format!("{read:?}")),
        Signal::Metrics => {
            let (resource, rows) = rows.metrics(bytes, |_| false)?;
            let metrics: Option<Vec<String>> =
                rows.metrics.iter().map(|row| metric_row(row, &rows.points[row.points.clone()])).collect();
            Some(format!("{resource:?} {:?}", metrics?))
        }
    }
}

/// The same after the check of the whole.
fn in_two_passes(signal: Signal, bytes: &[u8]) -> Option<String> {
    let checked = Checked::new(signal, bytes).ok()?;
    match signal {
        Signal::Traces => {
            let spans: Vec<_> = checked.spans().scopes().flat_map(|scope| scope.items()).collect();
            let resource = checked.spans().resource();
            Some(format!("{resource:?} {:?}", spans.into_iter().map(shown).collect::<Vec<_>>()))
        }
        Signal::Logs => {
            let logs: Vec<_> = checked.logs().scopes().flat_map(|scope| scope.items()).collect();
            Some(format!("{:?}", (checked.logs().resource(), logs)))
        }
        Signal::Metrics => {
            let scopes = checked.metrics().scopes();
            let metrics: Vec<String> = scopes
                .flat_map(|scope| scope.items().map(move |view| metric_view(scope.scope(), &view)))
                .collect();
            Some(format!("{:?} {metrics:?}", checked.metrics().resource()))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6_000))]

    #[test]
    fn one_pass_shows_what_two_do_or_leaves_it_to_them(seed: u64, as_encoded: bool, damaged: bool) {
        let mut rng = Rng::with_seed(seed);
        let signal = *rng.choice(&[Signal::Traces, Signal::Logs, Signal::Metrics]).unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < 40 {
            draw(&mut rng, schema::resource(signal), 0, &mut bytes);
        }
        if as_encoded {
            // What prost would have written of it: laid out plainly.
            bytes = match signal {
                Signal::Traces => trace::ResourceSpans::decode(&*bytes).map(|of| of.encode_to_vec()),
                Signal::Logs => logs::ResourceLogs::decode(&*bytes).map(|of| of.encode_to_vec()),
                Signal::Metrics => metrics::ResourceMetrics::decode(&*bytes).map(|of| of.encode_to_vec()),
            }.unwrap_or(bytes);
        }
        if damaged {
            damage(&mut rng, &mut bytes);
        }
        if let Some(one) = in_one_pass(signal, &bytes) {
            prop_assert_eq!(Some(one), in_two_passes(signal, &bytes));
        }
    }
}

/// The lists' memory is used again, whatever became of a resource.
#[test]
fn rows_keep_their_memory() {
    let [spans, ..] = every_field();
    let many: Vec<u8> = {
        let of = trace::ResourceSpans::decode(&*spans).unwrap();
        let mut scope = of.scope_spans[0].clone();
        scope.spans = vec![scope.spans[0].clone(); 300];
        trace::ResourceSpans { scope_spans: vec![scope], ..of }.encode_to_vec()
    };
    let mut rows = Rows::default();
    let (_, read) = rows.spans(&many, |_| false).unwrap();
    let (memory, room) = (read.as_ptr().addr(), read.capacity());
    assert_eq!(read.len(), 300);
    rows.keep_spans(read);
    assert!(rows.spans(&many[..many.len() - 1], |_| false).is_none(), "damaged");
    let (_, read) = rows.spans(&many, |_| false).unwrap();
    assert_eq!((read.as_ptr().addr(), read.capacity()), (memory, room));
}

/// Metrics are read in rows wherever that is meant to be, also when a message's last fields come first,
/// as the Collector writes them.
#[test]
fn plain_metrics_are_rows_in_either_order() {
    let [.., metrics] = every_field();
    let ascending = in_one_pass(Signal::Metrics, &metrics).unwrap();
    let mut rows = Rows::default();
    let (_, read) = rows.metrics(&metrics, |_| false).unwrap();
    let in_rows = read.metrics.iter().filter(|row| !matches!(row.kind, MetricKind::Viewed(_))).count();
    assert_eq!((in_rows, read.metrics.len()), (3, 5), "gauge, sum and histogram of the five types");
    rows.keep_metrics(read);
    let descending = descending(schema::resource(Signal::Metrics), &metrics);
    assert_eq!(in_one_pass(Signal::Metrics, &descending), in_two_passes(Signal::Metrics, &descending));
    assert_eq!(ascending.len(), in_one_pass(Signal::Metrics, &descending).unwrap().len());
}

/// The same message with the fields of each message in it the other way round, but for those that repeat.
fn descending(of: &'static schema::Message, bytes: &[u8]) -> Vec<u8> {
    let mut runs: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut fields = Fields::of(bytes);
    let mut rest = bytes;
    while let Some(field) = fields.next() {
        let (mut raw, after) = rest.split_at(rest.len() - (bytes.len() - fields.offset()));
        rest = after;
        let inner;
        if let (Value::Bytes(message), Some(schema::Kind::Message(of))) =
            (field.value, of.field(field.number).map(|known| known.kind))
        {
            let mut turned = Vec::new();
            put_varint(&mut turned, u64::from(field.number << 3 | 2));
            put_varint(&mut turned, message.len() as u64);
            turned.extend(descending(of, message));
            inner = turned;
            raw = &inner;
        }
        match runs.last_mut() {
            Some((number, run)) if *number == field.number => run.extend_from_slice(raw),
            _ => runs.push((field.number, raw.to_vec())),
        }
    }
    runs.into_iter().rev().flat_map(|(_, run)| run).collect()
}

/// What every encoder writes is read in one pass, with every field set.
#[test]
fn plain_messages_are_read_in_one_pass() {
    let [spans, logs, metrics] = every_field();
    for (signal, bytes) in [(Signal::Traces, spans), (Signal::Logs, logs), (Signal::Metrics, metrics)] {
        let one = in_one_pass(signal, &bytes);
        assert!(one.is_some(), "{signal:?}");
        assert_eq!(one, in_two_passes(signal, &bytes));
    }
}

/// A length-delimited field by its tag.
fn field(tag: u8, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    put_varint(&mut out, inner.len() as u64);
    [out, inner.to_vec()].concat()
}

/// Attributes are looked at several at once: what is wrong with one of them, or unusual, is found at each place.
#[test]
fn no_attribute_hides_among_others() {
    let pair = |key: &[u8], value: &[u8]| [field(0x0a, key), field(0x12, value)].concat();
    let (text, long) = (field(0x0a, b"value"), field(0x0a, &[b'v'; 200]));
    // Each with whether it is good.
    let kinds: [(Vec<u8>, bool); 10] = [
        (pair(b"key", &text), true),
        (pair("größe".as_bytes(), &text), true),
        (pair(b"key", &field(0x0a, "größe".as_bytes())), true),
        (pair(b"key", &field(0x0a, b"\xff")), false),
        (pair(b"\xff", &text), false),
        (pair(b"key", &long), true),
        (pair(b"key", &[0x18, 0x90, 0x3f]), true),
        (pair(b"key", &[0x18, 0x90]), false),
        // Lengths that do not fit each other.
        ([b"\x0a\x03key\x12\x07".as_slice(), &field(0x0a, b"values")].concat(), false),
        (Vec::new(), true),
    ];
    for triple in 0..kinds.len().pow(3) {
        let of = [triple % 10, triple / 10 % 10, triple / 100].map(|kind| &kinds[kind]);
        for (signal, tag) in [(Signal::Traces, 0x4a), (Signal::Logs, 0x32)] {
            let attributes: Vec<u8> = of.iter().flat_map(|(pair, _)| field(tag, pair)).collect();
            let bytes = field(0x12, &field(0x12, &attributes));
            let one = in_one_pass(signal, &bytes);
            assert_eq!(one.is_some(), of.iter().all(|(_, is_good)| *is_good), "{signal:?} {triple}");
            assert_eq!(one, in_two_passes(signal, &bytes), "{signal:?} {triple}");
        }
    }
}

/// Two bytes each are the least that attributes take; those of the second request lie in two runs.
#[test]
fn attributes_are_counted_however_they_lie() {
    // Of an item: the tag of its attributes, and another field.
    let of_item = [
        (Signal::Traces, 0x4a, vec![0x30, 1], "scope_spans[0].spans[0].attributes[10000]"),
        (Signal::Logs, 0x32, vec![0x10, 1], "scope_logs[0].log_records[0].attributes[10000]"),
        (
            Signal::Metrics,
            0x3a,
            vec![0x40, 1],
            "scope_metrics[0].metrics[0].gauge.data_points[0].attributes[10000]",
        ),
    ];
    for (signal, tag, between, path) in of_item {
        for pair in [vec![], [field(0x0a, b"k"), field(0x12, &field(0x0a, b"value"))].concat()] {
            for (count, is_apart) in
                [(9_999, false), (10_000, false), (10_001, false), (10_000, true), (10_001, true)]
            {
                let mut item: Vec<u8> = field(tag, &pair).repeat(count - 1);
                if is_apart {
                    item.extend_from_slice(&between);
                }
                item.extend(field(tag, &pair));
                let item = if signal == Signal::Metrics { field(0x2a, &field(0x0a, &item)) } else { item };
                let bytes = field(0x12, &field(0x12, &item));
                let (one, two) = (in_one_pass(signal, &bytes), in_two_passes(signal, &bytes));
                let what = format!("{signal:?} {count} {is_apart} {}", pair.len());
                assert_eq!(two.is_some(), count <= 10_000, "{what}");
                // The one pass may leave what is laid out unusually to the other.
                assert!(one == two || one.is_none() && (is_apart || signal == Signal::Metrics), "{what}");
                if count > 10_000 {
                    let error = Checked::new(signal, &bytes).expect_err("too many");
                    assert_eq!(
                        (error.path.as_str(), error.what),
                        (path, Damage::TooManyAttributes),
                        "{what}"
                    );
                    assert_eq!(error.what.reason(), RejectedReason::TooLarge);
                }
            }
        }
    }
}

/// What else holds keys and values, beside the attributes of items.
#[test]
fn keys_and_values_are_counted_wherever_they_lie() {
    let (traces, metrics) = (Signal::Traces, Signal::Metrics);
    let of_span = |tag: u8, inner: Vec<u8>| field(0x12, &field(0x12, &field(tag, &inner)));
    // Makes a resource of what lies there.
    type Around = Box<dyn Fn(Vec<u8>) -> Vec<u8>>;
    let cases: [(&str, Signal, u8, Around); 6] = [
        ("resource", traces, 0x0a, Box::new(|many| field(0x0a, &many))),
        ("scope", traces, 0x1a, Box::new(|many| field(0x12, &field(0x0a, &many)))),
        ("event", traces, 0x1a, Box::new(move |many| of_span(0x5a, many))),
        ("link", traces, 0x22, Box::new(move |many| of_span(0x6a, many))),
        (
            "list of a value",
            traces,
            0x0a,
            Box::new(move |many| {
                of_span(0x4a, [field(0x0a, b"k"), field(0x12, &field(0x32, &many))].concat())
            }),
        ),
        (
            "metadata of a metric",
            metrics,
            0x62,
            Box::new(|many| field(0x12, &field(0x12, &[field(0x2a, &field(0x0a, &[])), many].concat()))),
        ),
    ];
    for (what, signal, tag, around) in &cases {
        for count in [10_000, 10_001] {
            let bytes = around(field(*tag, &[]).repeat(count));
            let (one, two) = (in_one_pass(*signal, &bytes), in_two_passes(*signal, &bytes));
            assert_eq!(two.is_some(), count == 10_000, "{what} {count}");
            assert!(one == two || one.is_none() && count == 10_000, "{what} {count}");
        }
    }
}
