//! Metrics that are read in rows against the same metrics read from views.

use super::tests::{NOW, NS, count, pair, resource};
use crate::model::Signal;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    metric::Data, number_data_point::Value,
};
use proptest::prelude::*;
use prost::Message;

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let one = (0..3u8, 0..3u8).prop_map(|(key, value)| pair(&format!("k{key}"), &format!("v{value}")));
    prop::collection::vec(one, 0..4)
}

fn number() -> impl Strategy<Value = NumberDataPoint> {
    let value = prop_oneof![
        any::<i32>().prop_map(|value| Some(Value::AsInt(value.into()))),
        (0.0f64..9.0).prop_map(|value| Some(Value::AsDouble(value))),
        Just(Some(Value::AsDouble(f64::NAN))),
        Just(None),
    ];
    (attributes(), value, 0u64..40, 0u32..2).prop_map(|(attributes, value, ago, flags)| NumberDataPoint {
        attributes,
        value,
        start_time_unix_nano: (NOW - 60) * NS,
        time_unix_nano: (NOW - ago) * NS,
        flags,
        ..NumberDataPoint::default()
    })
}

fn histogram() -> impl Strategy<Value = HistogramDataPoint> {
    let counts = prop::collection::vec(0u64..9, 4);
    let extreme = prop_oneof![Just(None), (0.0f64..20.0).prop_map(Some)];
    (attributes(), counts, extreme.clone(), extreme, 0u64..40, 0u8..5).prop_map(
        |(attributes, bucket_counts, min, max, ago, shape)| HistogramDataPoint {
            attributes,
            count: bucket_counts.iter().sum(),
            sum: Some(bucket_counts.iter().sum::<u64>() as f64),
            bucket_counts: if shape == 0 { Vec::new() } else { bucket_counts },
            explicit_bounds: match shape {
                0 => Vec::new(),
                1 => vec![1.0, 5.0, 25.0],
                _ => vec![0.1, 1.0, 10.0],
            },
            start_time_unix_nano: (NOW - 60) * NS,
            time_unix_nano: (NOW - ago) * NS,
            min,
            max,
            ..HistogramDataPoint::default()
        },
    )
}

fn metric() -> impl Strategy<Value = Metric> {
    let numbers = || prop::collection::vec(number(), 0..8);
    let data = prop_oneof![
        numbers().prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (numbers(), 0..3, any::<bool>()).prop_map(|(data_points, aggregation_temporality, is_monotonic)| {
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
        }),
        (prop::collection::vec(histogram(), 0..8), 0..3).prop_map(
            |(data_points, aggregation_temporality)| {
                Data::Histogram(Histogram { data_points, aggregation_temporality })
            }
        ),
    ];
    (0..2u8, data).prop_map(|(name, data)| Metric {
        name: format!("m{name}"),
        unit: "s".into(),
        data: Some(data),
        ..Metric::default()
    })
}

fn metrics() -> impl Strategy<Value = ResourceMetrics> {
    let scope = (0..2u8, prop::collection::vec(metric(), 0..4)).prop_map(|(scope, metrics)| ScopeMetrics {
        scope: Some(InstrumentationScope { name: format!("s{scope}"), ..InstrumentationScope::default() }),
        metrics,
        ..ScopeMetrics::default()
    });
    prop::collection::vec(scope, 1..3).prop_map(|scope_metrics| ResourceMetrics {
        resource: resource("cart", "a"),
        scope_metrics,
        ..ResourceMetrics::default()
    })
}

proptest! {
    /// A field that nobody knows is not wrong, but has a resource read the slow way: the outcome is
    /// the same.
    #[test]
    fn rows_and_views_count_the_same(
        requests in prop::collection::vec(metrics(), 1..5),
        shards in 1u16..3,
        cuts: u64,
    ) {
        let rows: Vec<(Signal, Vec<u8>)> = requests
            .iter()
            .map(|of| ExportMetricsServiceRequest { resource_metrics: vec![of.clone()] }.encode_to_vec())
            .map(|body| (Signal::Metrics, body))
            .collect();
        let views: Vec<(Signal, Vec<u8>)> = requests
            .iter()
            .map(|of| {
                let mut resource = of.encode_to_vec();
                resource.extend([0x7a, 0]);
                let mut body = vec![0x0a];
                prost::encoding::encode_varint(resource.len() as u64, &mut body);
                body.extend(resource);
                (Signal::Metrics, body)
            })
            .collect();
        let (rows, views) = (count(&rows, shards, cuts, &[]), count(&views, shards, cuts, &[]));
        // Sums of NaN never are: none gets in, so what is printed is what is equal.
        prop_assert_eq!(format!("{:?}", rows.cells), format!("{:?}", views.cells));
        prop_assert_eq!(rows.keys, views.keys);
        prop_assert_eq!(rows.facets, views.facets);
        prop_assert_eq!(rows.accepted, views.accepted);
        prop_assert_eq!((rows.rejected, rows.late), (views.rejected, views.late));
    }
}
