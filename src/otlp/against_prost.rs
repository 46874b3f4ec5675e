//! The rule of this room, with prost as the oracle: a resource is accepted exactly if prost decodes its
//! bytes alone, and the views show the same values.

use super::every_field::every_field;
use super::schema::{self, Kind, Label, Message as Schema};
use super::wire::{Fields, Value, put_varint};
use super::*;
use crate::model::{Signal, SpanId, SpanKind, TraceId};
use fastrand::Rng;
use opentelemetry_proto::tonic::{
    common::v1 as common, logs::v1 as logs, metrics::v1 as metrics, resource::v1::Resource,
    trace::v1 as trace,
};
use proptest::prelude::*;
use prost::Message;

// Bytes drawn from the tables: fields in any order, twice, packed or not, scattered, unknown.

pub(super) fn draw(rng: &mut Rng, schema: &'static Schema, depth: u32, out: &mut Vec<u8>) {
    let known: Vec<_> = schema.by_number.iter().flatten().collect();
    for _ in 0..rng.usize(0..7) {
        if rng.u8(0..12) == 0 {
            draw_unknown(rng, out);
            continue;
        }
        let field = rng.choice(&known).unwrap();
        let key =
            |out: &mut Vec<u8>, wire_type: u32| put_varint(out, u64::from(field.number << 3 | wire_type));
        match field.kind {
            Kind::Message(of) => {
                if depth < 9 {
                    let mut inner = Vec::new();
                    draw(rng, of, depth + 1, &mut inner);
                    key(out, 2);
                    put_varint(out, inner.len() as u64);
                    out.extend(inner);
                }
            }
            Kind::Text | Kind::Bytes | Kind::Id(_) => {
                let text: &[u8] = match rng.u8(0..24) {
                    0 => b"\xff\xfe",
                    1 => "Grüße".as_bytes(),
                    2 => b"",
                    3..8 => &[7; 16],
                    8..12 => &[9; 8],
                    _ => b"text",
                };
                key(out, 2);
                put_varint(out, text.len() as u64);
                out.extend(text);
            }
            kind => {
                let wire_type = match kind.wire_type() {
                    WireType::Varint => 0,
                    WireType::Fixed64 => 1,
                    _ => 5,
                };
                if field.label == Label::Repeated && rng.bool() {
                    let mut packed = Vec::new();
                    for _ in 0..rng.usize(0..4) {
                        draw_number(rng, wire_type, &mut packed);
                    }
                    key(out, 2);
                    put_varint(out, packed.len() as u64);
                    out.extend(packed);
                } else {
                    key(out, wire_type);
                    draw_number(rng, wire_type, out);
                }
            }
        }
    }
}

fn draw_number(rng: &mut Rng, wire_type: u32, out: &mut Vec<u8>) {
    let n = if rng.bool() { rng.u64(..) } else { rng.u64(..6) };
    match wire_type {
        0 => put_varint(out, n),
        1 => out.extend(n.to_le_bytes()),
        _ => out.extend((n as u32).to_le_bytes()),
    }
}

fn draw_unknown(rng: &mut Rng, out: &mut Vec<u8>) {
    let number = rng.u32(17..2000);
    let wire_type = *rng.choice(&[0u32, 1, 2, 3, 5]).unwrap();
    put_varint(out, u64::from(number << 3 | wire_type));
    match wire_type {
        2 => out.extend([2, 0xff, 0xff]),
        3 => {
            draw_number(rng, 0, &mut Vec::new());
            out.extend([0x08, 0x01, 0x13, 0x14]);
            put_varint(out, u64::from(number << 3 | 4));
        }
        wire_type => draw_number(rng, wire_type, out),
    }
}

pub(super) fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.usize(1..3) {
        let at = rng.usize(0..=bytes.len());
        match rng.u8(0..4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, *rng.choice(&[0u8, 0x80, 0xff, 0x0b, 0x0c, 0x0a, 0x12]).unwrap()),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(0..8),
            _ if at < bytes.len() => drop(bytes.remove(at)),
            _ => {}
        }
    }
}

// What views show, as prost's types.

fn any(value: AnyValue<'_>) -> Option<common::AnyValue> {
    use common::any_value::Value as Any;
    let value = match value {
        AnyValue::Empty => None,
        AnyValue::Text(text) => Some(Any::StringValue(text.into())),
        AnyValue::Bool(yes) => Some(Any::BoolValue(yes)),
        AnyValue::Int(n) => Some(Any::IntValue(n)),
        AnyValue::Double(n) => Some(Any::DoubleValue(n)),
        AnyValue::Array(values) => Some(Any::ArrayValue(common::ArrayValue {
            values: values.map(|value| any(value).unwrap_or_default()).collect(),
        })),
        AnyValue::KeyValues(pairs) => {
            Some(Any::KvlistValue(common::KeyValueList { values: attributes(pairs) }))
        }
        AnyValue::Bytes(bytes) => Some(Any::BytesValue(bytes.into())),
        AnyValue::TextIndex(index) => Some(Any::StringValueStrindex(index)),
    };
    Some(common::AnyValue { value })
}

fn attributes(pairs: Attributes<'_>) -> Vec<common::KeyValue> {
    pairs
        .map(|(key, value)| common::KeyValue { key: key.into(), value: any(value), key_strindex: 0 })
        .collect()
}

fn resource(view: ResourceView<'_>) -> Option<Resource> {
    Some(Resource { attributes: attributes(view.attributes()), ..Resource::default() })
}

fn scope(view: InstrumentationScope<'_>) -> Option<common::InstrumentationScope> {
    Some(common::InstrumentationScope {
        name: view.name.into(),
        version: view.version.into(),
        attributes: attributes(view.attributes()),
        dropped_attributes_count: 0,
    })
}

fn spans(view: ResourceSpans<'_>) -> trace::ResourceSpans {
    let span = |span: SpanView<'_>| trace::Span {
        trace_id: span.trace_id.0.into(),
        span_id: span.span_id.0.into(),
        trace_state: span.trace_state.into(),
        parent_span_id: span.parent_span_id.0.into(),
        flags: span.flags,
        name: span.name.into(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start.0,
        end_time_unix_nano: span.end.0,
        attributes: attributes(span.attributes()),
        dropped_attributes_count: span.dropped_attributes_count,
        events: span
            .events()
            .map(|event| trace::span::Event {
                time_unix_nano: event.time.0,
                name: event.name.into(),
                attributes: attributes(event.attributes()),
                dropped_attributes_count: 0,
            })
            .collect(),
        dropped_events_count: span.dropped_events_count,
        links: span
            .links()
            .map(|link| trace::span::Link {
                trace_id: link.trace_id.0.into(),
                span_id: link.span_id.0.into(),
                trace_state: link.trace_state.into(),
                attributes: attributes(link.attributes()),
                dropped_attributes_count: 0,
                flags: link.flags,
            })
            .collect(),
        dropped_links_count: span.dropped_links_count,
        status: Some(trace::Status { message: span.status_message.into(), code: span.status as i32 }),
    };
    trace::ResourceSpans {
        resource: resource(view.resource()),
        scope_spans: view
            .scopes()
            .map(|of_scope| trace::ScopeSpans {
                scope: scope(of_scope.scope()),
                spans: of_scope.items().map(span).collect(),
                schema_url: of_scope.schema_url().into(),
            })
            .collect(),
        schema_url: view.schema_url().into(),
    }
}

fn log_records(view: ResourceLogs<'_>) -> logs::ResourceLogs {
    let log = |log: LogView<'_>| logs::LogRecord {
        time_unix_nano: log.time.0,
        observed_time_unix_nano: log.observed_time.0,
        severity_number: log.severity_number,
        severity_text: log.severity_text.into(),
        body: any(log.body),
        attributes: attributes(log.attributes()),
        dropped_attributes_count: log.dropped_attributes_count,
        flags: log.flags,
        trace_id: log.trace_id.0.into(),
        span_id: log.span_id.0.into(),
        event_name: log.event_name.into(),
    };
    logs::ResourceLogs {
        resource: resource(view.resource()),
        scope_logs: view
            .scopes()
            .map(|of_scope| logs::ScopeLogs {
                scope: scope(of_scope.scope()),
                log_records: of_scope.items().map(log).collect(),
                schema_url: of_scope.schema_url().into(),
            })
            .collect(),
        schema_url: view.schema_url().into(),
    }
}

fn exemplars<'a>(views: Views<'a, ExemplarView<'a>>) -> Vec<metrics::Exemplar> {
    use metrics::exemplar::Value as Prost;
    views
        .map(|exemplar| metrics::Exemplar {
            filtered_attributes: attributes(exemplar.filtered_attributes()),
            time_unix_nano: exemplar.time.0,
            span_id: exemplar.span_id.0.into(),
            trace_id: exemplar.trace_id.0.into(),
            value: exemplar.value.map(|value| match value {
                Number::Int(n) => Prost::AsInt(n),
                Number::Double(n) => Prost::AsDouble(n),
            }),
        })
        .collect()
}

fn numbers<'a>(points: Views<'a, NumberPoint<'a>>) -> Vec<metrics::NumberDataPoint> {
    use metrics::number_data_point::Value as Prost;
    points
        .map(|point| metrics::NumberDataPoint {
            attributes: attributes(point.attributes()),
            start_time_unix_nano: point.start.0,
            time_unix_nano: point.time.0,
            exemplars: exemplars(point.exemplars()),
            flags: point.flags,
            value: point.value.map(|value| match value {
                Number::Int(n) => Prost::AsInt(n),
                Number::Double(n) => Prost::AsDouble(n),
            }),
        })
        .collect()
}

fn metric(view: MetricView<'_>) -> metrics::Metric {
    use metrics::metric::Data as Prost;
    let buckets = |buckets: Buckets<'_>| {
        Some(metrics::exponential_histogram_data_point::Buckets {
            offset: buckets.offset,
            bucket_counts: buckets.counts().collect(),
        })
    };
    let data = match view.data {
        Data::Empty => None,
        Data::Gauge(points) => Some(Prost::Gauge(metrics::Gauge { data_points: numbers(points) })),
        Data::Sum { points, temporality, monotonic } => Some(Prost::Sum(metrics::Sum {
            data_points: numbers(points),
            aggregation_temporality: temporality as i32,
            is_monotonic: monotonic,
        })),
        Data::Histogram { points, temporality } => Some(Prost::Histogram(metrics::Histogram {
            data_points: points
                .map(|point| metrics::HistogramDataPoint {
                    attributes: attributes(point.attributes()),
                    start_time_unix_nano: point.start.0,
                    time_unix_nano: point.time.0,
                    count: point.count,
                    sum: point.sum,
                    bucket_counts: point.bucket_counts().collect(),
                    explicit_bounds: point.explicit_bounds().collect(),
                    exemplars: exemplars(point.exemplars()),
                    flags: point.flags,
                    min: point.min,
                    max: point.max,
                })
                .collect(),
            aggregation_temporality: temporality as i32,
        })),
        Data::Exponential { points, temporality } => {
            Some(Prost::ExponentialHistogram(metrics::ExponentialHistogram {
                data_points: points
                    .map(|point| metrics::ExponentialHistogramDataPoint {
                        attributes: attributes(point.attributes()),
                        start_time_unix_nano: point.start.0,
                        time_unix_nano: point.time.0,
                        count: point.count,
                        sum: point.sum,
                        scale: point.scale,
                        zero_count: point.zero_count,
                        positive: buckets(point.positive),
                        negative: buckets(point.negative),
                        flags: point.flags,
                        exemplars: exemplars(point.exemplars()),
                        min: point.min,
                        max: point.max,
                        zero_threshold: point.zero_threshold,
                    })
                    .collect(),
                aggregation_temporality: temporality as i32,
            }))
        }
        Data::Summary(points) => Some(Prost::Summary(metrics::Summary {
            data_points: points
                .map(|point| metrics::SummaryDataPoint {
                    attributes: attributes(point.attributes()),
                    start_time_unix_nano: point.start.0,
                    time_unix_nano: point.time.0,
                    count: point.count,
                    sum: point.sum,
                    quantile_values: point
                        .quantiles()
                        .map(|at| metrics::summary_data_point::ValueAtQuantile {
                            quantile: at.quantile,
                            value: at.value,
                        })
                        .collect(),
                    flags: point.flags,
                })
                .collect(),
        })),
    };
    metrics::Metric {
        name: view.name.into(),
        description: view.description.into(),
        unit: view.unit.into(),
        metadata: attributes(view.metadata()),
        data,
    }
}

fn metric_points(view: ResourceMetrics<'_>) -> metrics::ResourceMetrics {
    metrics::ResourceMetrics {
        resource: resource(view.resource()),
        scope_metrics: view
            .scopes()
            .map(|of_scope| metrics::ScopeMetrics {
                scope: scope(of_scope.scope()),
                metrics: of_scope.items().map(metric).collect(),
                schema_url: of_scope.schema_url().into(),
            })
            .collect(),
        schema_url: view.schema_url().into(),
    }
}

// What views do not tell apart, or do not show, taken from what prost decoded.

fn plain_any(value: &mut Option<common::AnyValue>) {
    use common::any_value::Value as Any;
    match &mut value.get_or_insert_default().value {
        Some(Any::ArrayValue(array)) => {
            for value in &mut array.values {
                let mut inner = Some(std::mem::take(value));
                plain_any(&mut inner);
                *value = inner.unwrap();
            }
        }
        Some(Any::KvlistValue(list)) => plain_attributes(&mut list.values),
        _ => {}
    }
}

fn plain_attributes(attributes: &mut [common::KeyValue]) {
    for attribute in attributes {
        attribute.key_strindex = 0;
        plain_any(&mut attribute.value);
    }
}

fn plain_resource(resource: &mut Option<Resource>) {
    let resource = resource.get_or_insert_default();
    resource.dropped_attributes_count = 0;
    resource.entity_refs.clear();
    plain_attributes(&mut resource.attributes);
}

fn plain_scope(scope: &mut Option<common::InstrumentationScope>) {
    let scope = scope.get_or_insert_default();
    scope.dropped_attributes_count = 0;
    plain_attributes(&mut scope.attributes);
}

fn plain_trace_id(id: &mut Vec<u8>) {
    *id = TraceId::from_wire(id).0.into();
}

fn plain_span_id(id: &mut Vec<u8>) {
    *id = SpanId::from_wire(id).0.into();
}

fn plain_number(number: &mut i32, largest: i32) {
    if !(0..=largest).contains(number) {
        *number = 0;
    }
}

fn plain_spans(mut of: trace::ResourceSpans) -> trace::ResourceSpans {
    plain_resource(&mut of.resource);
    for of_scope in &mut of.scope_spans {
        plain_scope(&mut of_scope.scope);
        for span in &mut of_scope.spans {
            plain_trace_id(&mut span.trace_id);
            plain_span_id(&mut span.span_id);
            plain_span_id(&mut span.parent_span_id);
            plain_number(&mut span.kind, SpanKind::Consumer as i32);
            plain_number(&mut span.status.get_or_insert_default().code, 2);
            plain_attributes(&mut span.attributes);
            for event in &mut span.events {
                event.dropped_attributes_count = 0;
                plain_attributes(&mut event.attributes);
            }
            for link in &mut span.links {
                link.dropped_attributes_count = 0;
                plain_trace_id(&mut link.trace_id);
                plain_span_id(&mut link.span_id);
                plain_attributes(&mut link.attributes);
            }
        }
    }
    of
}

fn plain_logs(mut of: logs::ResourceLogs) -> logs::ResourceLogs {
    plain_resource(&mut of.resource);
    for of_scope in &mut of.scope_logs {
        plain_scope(&mut of_scope.scope);
        for log in &mut of_scope.log_records {
            plain_any(&mut log.body);
            plain_attributes(&mut log.attributes);
            plain_trace_id(&mut log.trace_id);
            plain_span_id(&mut log.span_id);
        }
    }
    of
}

fn plain_exemplars(exemplars: &mut [metrics::Exemplar]) {
    for exemplar in exemplars {
        plain_trace_id(&mut exemplar.trace_id);
        plain_span_id(&mut exemplar.span_id);
        plain_attributes(&mut exemplar.filtered_attributes);
    }
}

fn plain_metrics(mut of: metrics::ResourceMetrics) -> metrics::ResourceMetrics {
    use metrics::metric::Data as Prost;
    plain_resource(&mut of.resource);
    for of_scope in &mut of.scope_metrics {
        plain_scope(&mut of_scope.scope);
        for metric in &mut of_scope.metrics {
            plain_attributes(&mut metric.metadata);
            macro_rules! points {
                ($points:expr) => {
                    for point in &mut $points {
                        plain_attributes(&mut point.attributes);
                        plain_exemplars(&mut point.exemplars);
                    }
                };
            }
            match &mut metric.data {
                None => {}
                Some(Prost::Gauge(gauge)) => points!(gauge.data_points),
                Some(Prost::Sum(sum)) => {
                    plain_number(&mut sum.aggregation_temporality, 2);
                    points!(sum.data_points);
                }
                Some(Prost::Histogram(histogram)) => {
                    plain_number(&mut histogram.aggregation_temporality, 2);
                    points!(histogram.data_points);
                }
                Some(Prost::ExponentialHistogram(histogram)) => {
                    plain_number(&mut histogram.aggregation_temporality, 2);
                    points!(histogram.data_points);
                    for point in &mut histogram.data_points {
                        point.positive.get_or_insert_default();
                        point.negative.get_or_insert_default();
                    }
                }
                Some(Prost::Summary(summary)) => {
                    for point in &mut summary.data_points {
                        plain_attributes(&mut point.attributes);
                    }
                }
            }
        }
    }
    of
}

/// Both sides as bytes, so that doubles compare bit by bit; `None` where one refuses.
fn both(signal: Signal, bytes: &[u8]) -> (Result<Vec<u8>, Malformed>, Option<Vec<u8>>) {
    let checked = Checked::new(signal, bytes);
    match signal {
        Signal::Traces => (
            checked.map(|checked| spans(checked.spans()).encode_to_vec()),
            trace::ResourceSpans::decode(bytes).ok().map(|of| plain_spans(of).encode_to_vec()),
        ),
        Signal::Logs => (
            checked.map(|checked| log_records(checked.logs()).encode_to_vec()),
            logs::ResourceLogs::decode(bytes).ok().map(|of| plain_logs(of).encode_to_vec()),
        ),
        Signal::Metrics => (
            checked.map(|checked| metric_points(checked.metrics()).encode_to_vec()),
            metrics::ResourceMetrics::decode(bytes).ok().map(|of| plain_metrics(of).encode_to_vec()),
        ),
    }
}

/// Resources that are compared: `scripts/release-check` asks for more.
fn cases() -> u32 {
    std::env::var("BAROGRAPH_COMPARED").ok().and_then(|cases| cases.parse().ok()).unwrap_or(6_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn a_resource_is_accepted_exactly_if_prost_decodes_it_with_equal_values(seed: u64, damaged: bool) {
        let mut rng = Rng::with_seed(seed);
        let signal = *rng.choice(&Signal::ALL).unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < 40 {
            draw(&mut rng, schema::resource(signal), 0, &mut bytes);
        }
        if damaged {
            damage(&mut rng, &mut bytes);
        }
        let (ours, theirs) = both(signal, &bytes);
        match (ours, theirs) {
            (Ok(ours), Some(theirs)) => prop_assert_eq!(ours, theirs),
            (Err(_), None) => {}
            (ours, theirs) => prop_assert!(false, "ours {ours:?}, prost {theirs:?}, bytes {bytes:?}"),
        }
        let items = count_items(signal, &bytes);
        if let Ok(checked) = Checked::new(signal, &bytes) {
            let shown = match signal {
                Signal::Traces => checked.spans().scopes().flat_map(|scope| scope.items()).count() as u64,
                Signal::Logs => checked.logs().scopes().flat_map(|scope| scope.items()).count() as u64,
                Signal::Metrics => {
                    checked.metrics().scopes().flat_map(|scope| scope.items()).map(|metric| metric.points()).sum()
                }
            };
            prop_assert!(items >= shown, "parts of another type of metric may have been replaced");
        }
    }
}

/// The tables know every field that prost knows, with the same wire type.
#[test]
fn the_tables_know_every_field() {
    fn known(schema: &'static Schema, bytes: &[u8], path: &str) {
        for field in Fields::of(bytes) {
            let known_field =
                schema.field(field.number).unwrap_or_else(|| panic!("{path}: field {}", field.number));
            let path = format!("{path}.{}", known_field.name);
            if let (Kind::Message(of), Value::Bytes(inner)) = (known_field.kind, field.value) {
                known(of, inner, &path);
            } else if known_field.label != Label::Repeated {
                assert_eq!(known_field.kind.wire_type(), field.value.wire_type(), "{path}");
            }
        }
    }
    for (signal, resource) in Signal::ALL.into_iter().zip(every_field()) {
        known(schema::resource(signal), &resource, signal.as_str());
        let (ours, theirs) = both(signal, &resource);
        assert_eq!(ours.ok(), theirs);
    }
}

#[test]
fn errors_name_the_field_and_its_place() {
    let span = |name: &[u8]| {
        let mut span = vec![0x2a];
        put_varint(&mut span, name.len() as u64);
        span.extend(name);
        span
    };
    let delimited = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let scope = [delimited(2, &span(b"good")), delimited(2, &span(b"\xff"))].concat();
    let bytes = [delimited(2, &[]), delimited(2, &scope)].concat();
    let error = Checked::new(Signal::Traces, &bytes).unwrap_err();
    assert_eq!(error.to_string(), "scope_spans[1].spans[1].name: text that is not UTF-8 (at byte 14)");
    assert_eq!(count_items(Signal::Traces, &bytes), 2);
    let error = Checked::new(Signal::Traces, &[0x0a, 2, 0x10, 0x80]).unwrap_err();
    assert_eq!(error.to_string(), "resource.dropped_attributes_count: ends within a number (at byte 2)");
}

#[test]
fn values_nest_to_the_limit_and_no_further() {
    // Each array is two messages: the value and the array within it.
    let nested = |arrays: usize| {
        let mut value = Vec::new();
        for _ in 0..arrays {
            for key in [0x0a, 0x2a] {
                let mut outer = vec![key];
                put_varint(&mut outer, value.len() as u64);
                outer.extend(&value);
                value = outer;
            }
        }
        value
    };
    let log = |value: Vec<u8>| {
        let mut bytes = value;
        for key in [0x2a, 0x12, 0x12] {
            let mut outer = vec![key];
            put_varint(&mut outer, bytes.len() as u64);
            outer.extend(&bytes);
            bytes = outer;
        }
        bytes
    };
    assert!(Checked::new(Signal::Logs, &log(nested(30))).is_ok());
    let error = Checked::new(Signal::Logs, &log(nested(31))).unwrap_err();
    assert_eq!(error.what, Damage::TooDeep);
    assert!(error.path.starts_with("scope_logs[0].log_records[0].body.array_value.values[0]"), "{error}");
}
