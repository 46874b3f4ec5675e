//! Messages in which nothing is left out, for tests.

use opentelemetry_proto::tonic::{
    common::v1 as common, logs::v1 as logs, metrics::v1 as metrics, resource::v1::Resource,
    trace::v1 as trace,
};
use prost::Message;

/// A resource of each signal with every field set, as prost encodes it. No `..Default::default()`: a
/// field that is new in the protocol does not compile here.
pub(super) fn every_field() -> [Vec<u8>; 3] {
    use common::any_value::Value as Any;
    let any = |value| common::AnyValue { value: Some(value) };
    let attributes = || {
        let list = vec![
            any(Any::StringValue("x".into())),
            any(Any::BoolValue(true)),
            any(Any::IntValue(-1)),
            any(Any::DoubleValue(0.5)),
            any(Any::KvlistValue(common::KeyValueList {
                values: vec![common::KeyValue {
                    key: "k".into(),
                    value: Some(any(Any::IntValue(1))),
                    key_strindex: 1,
                }],
            })),
            any(Any::BytesValue(vec![1])),
            any(Any::StringValueStrindex(1)),
        ];
        vec![common::KeyValue {
            key: "key".into(),
            value: Some(any(Any::ArrayValue(common::ArrayValue { values: list }))),
            key_strindex: 3,
        }]
    };
    let resource = || {
        Some(Resource {
            attributes: attributes(),
            dropped_attributes_count: 1,
            entity_refs: vec![common::EntityRef {
                schema_url: "u".into(),
                r#type: "t".into(),
                id_keys: vec!["i".into()],
                description_keys: vec!["d".into()],
            }],
        })
    };
    let scope = || {
        Some(common::InstrumentationScope {
            name: "n".into(),
            version: "v".into(),
            attributes: attributes(),
            dropped_attributes_count: 1,
        })
    };
    let span = trace::Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        trace_state: "a=b".into(),
        parent_span_id: vec![3; 8],
        flags: 1,
        name: "n".into(),
        kind: 2,
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        attributes: attributes(),
        dropped_attributes_count: 1,
        events: vec![trace::span::Event {
            time_unix_nano: 1,
            name: "e".into(),
            attributes: attributes(),
            dropped_attributes_count: 1,
        }],
        dropped_events_count: 1,
        links: vec![trace::span::Link {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            trace_state: "a=b".into(),
            attributes: attributes(),
            dropped_attributes_count: 1,
            flags: 1,
        }],
        dropped_links_count: 1,
        status: Some(trace::Status { message: "m".into(), code: 2 }),
    };
    let log = logs::LogRecord {
        time_unix_nano: 1,
        observed_time_unix_nano: 2,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(any(Any::StringValue("b".into()))),
        attributes: attributes(),
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        event_name: "e".into(),
    };
    let exemplars = || {
        [metrics::exemplar::Value::AsInt(-1), metrics::exemplar::Value::AsDouble(0.5)]
            .map(|value| metrics::Exemplar {
                filtered_attributes: attributes(),
                time_unix_nano: 1,
                span_id: vec![2; 8],
                trace_id: vec![1; 16],
                value: Some(value),
            })
            .to_vec()
    };
    let number = |value| metrics::NumberDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        exemplars: exemplars(),
        flags: 1,
        value: Some(value),
    };
    let buckets =
        || Some(metrics::exponential_histogram_data_point::Buckets { offset: -3, bucket_counts: vec![1, 2] });
    let data = [
        metrics::metric::Data::Gauge(metrics::Gauge {
            data_points: vec![number(metrics::number_data_point::Value::AsDouble(1.5))],
        }),
        metrics::metric::Data::Sum(metrics::Sum {
            data_points: vec![number(metrics::number_data_point::Value::AsInt(-7))],
            aggregation_temporality: 2,
            is_monotonic: true,
        }),
        metrics::metric::Data::Histogram(metrics::Histogram {
            data_points: vec![metrics::HistogramDataPoint {
                attributes: attributes(),
                start_time_unix_nano: 1,
                time_unix_nano: 2,
                count: 3,
                sum: Some(0.0),
                bucket_counts: vec![1, 2],
                explicit_bounds: vec![0.5],
                exemplars: exemplars(),
                flags: 1,
                min: Some(0.0),
                max: Some(1.0),
            }],
            aggregation_temporality: 1,
        }),
        metrics::metric::Data::ExponentialHistogram(metrics::ExponentialHistogram {
            data_points: vec![metrics::ExponentialHistogramDataPoint {
                attributes: attributes(),
                start_time_unix_nano: 1,
                time_unix_nano: 2,
                count: 3,
                sum: Some(1.0),
                scale: -4,
                zero_count: 5,
                positive: buckets(),
                negative: buckets(),
                flags: 1,
                exemplars: exemplars(),
                min: Some(0.0),
                max: Some(1.0),
                zero_threshold: 0.25,
            }],
            aggregation_temporality: 2,
        }),
        metrics::metric::Data::Summary(metrics::Summary {
            data_points: vec![metrics::SummaryDataPoint {
                attributes: attributes(),
                start_time_unix_nano: 1,
                time_unix_nano: 2,
                count: 3,
                sum: 4.0,
                quantile_values: vec![metrics::summary_data_point::ValueAtQuantile {
                    quantile: 0.5,
                    value: 2.0,
                }],
                flags: 1,
            }],
        }),
    ];
    let metrics = data.map(|data| metrics::Metric {
        name: "n".into(),
        description: "d".into(),
        unit: "s".into(),
        metadata: attributes(),
        data: Some(data),
    });
    let schema_url = || "url".to_owned();
    [
        trace::ResourceSpans {
            resource: resource(),
            scope_spans: vec![trace::ScopeSpans {
                scope: scope(),
                spans: vec![span],
                schema_url: schema_url(),
            }],
            schema_url: schema_url(),
        }
        .encode_to_vec(),
        logs::ResourceLogs {
            resource: resource(),
            scope_logs: vec![logs::ScopeLogs {
                scope: scope(),
                log_records: vec![log],
                schema_url: schema_url(),
            }],
            schema_url: schema_url(),
        }
        .encode_to_vec(),
        metrics::ResourceMetrics {
            resource: resource(),
            scope_metrics: vec![metrics::ScopeMetrics {
                scope: scope(),
                metrics: metrics.into(),
                schema_url: schema_url(),
            }],
            schema_url: schema_url(),
        }
        .encode_to_vec(),
    ]
}
