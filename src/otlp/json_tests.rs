//! JSON requests against what prost decodes from their wire bytes.

use super::{json_to_wire, json_to_wire_within, wire_bytes_at_most};
use crate::model::Signal;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

#[test]
fn traces_are_read_as_the_specification_writes_them() {
    let json = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]},
      "scopeSpans":[{"scope":{"name":"lib","unknownField":{"a":[1,{}]}},"spans":[
        {"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174","parentSpanId":"",
         "name":"caf\u00e9 \ud83d\ude00","kind":2,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
         "attributes":[{"key":"n","value":{"intValue":"-5"}},{"key":"d","value":{"doubleValue":"NaN"}},
           {"key":"e","value":{"boolValue":false}},{"key":"b","value":{"bytesValue":"AQID"}},{"key":"z","value":{}},
           {"key":"l","value":{"arrayValue":{"values":[{"stringValue":""},{"intValue":1e3}]}}}],
         "status":{"code":"STATUS_CODE_ERROR","message":"m"},"flags":257,"droppedEventsCount":0,"events":null}]}]}]}"#;
    let request =
        ExportTraceServiceRequest::decode(&*json_to_wire(Signal::Traces, json.as_bytes()).unwrap()).unwrap();
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.trace_id, 0x5B8E_FFF7_9803_8103_D269_B633_813F_C60C_u128.to_be_bytes());
    assert_eq!(span.span_id, 0xeee1_9b7e_c3c1_b174_u64.to_be_bytes());
    assert!(span.parent_span_id.is_empty() && span.events.is_empty());
    assert_eq!((span.name.as_str(), span.kind, span.flags), ("café 😀", 2, 257));
    assert_eq!(span.start_time_unix_nano, 1_544_712_660_000_000_000);
    assert_eq!(span.end_time_unix_nano, 1_544_712_661_000_000_000);
    assert_eq!(span.status.as_ref().unwrap().code, 2);
    let values: Vec<_> = span.attributes.iter().map(|pair| pair.value.clone().unwrap().value).collect();
    assert_eq!(values[0], Some(Any::IntValue(-5)));
    assert!(matches!(values[1], Some(Any::DoubleValue(n)) if n.is_nan()));
    assert_eq!(values[2], Some(Any::BoolValue(false)), "members of a oneof are written though they are zero");
    assert_eq!(values[3], Some(Any::BytesValue(vec![1, 2, 3])));
    assert_eq!(values[4], None);
    let Some(Any::ArrayValue(list)) = &values[5] else { panic!("{:?}", values[5]) };
    assert_eq!(
        list.values,
        [Any::StringValue(String::new()), Any::IntValue(1000)].map(|value| AnyValue { value: Some(value) })
    );
}

#[test]
fn metrics_and_logs_are_read_with_both_kinds_of_names() {
    let json = r#"{"resource_metrics":[{"scope_metrics":[{"metrics":[
        {"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[
          {"count":"3","sum":0,"bucketCounts":["1",2],"explicit_bounds":[0.5],"timeUnixNano":"7"}]}},
        {"name":"e","exponentialHistogram":{"dataPoints":[{"scale":-2,"positive":{"offset":-1,"bucketCounts":["300",1]}}]}},
        {"name":"g","gauge":{"dataPoints":[{"asInt":"-1"},{"asDouble":"-Infinity"},{"asDouble":0}]}}]}]}]}"#;
    let wire = json_to_wire(Signal::Metrics, json.as_bytes()).unwrap();
    let request = ExportMetricsServiceRequest::decode(&*wire).unwrap();
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let Some(Data::Histogram(histogram)) = &metrics[0].data else { panic!() };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.sum, point.time_unix_nano), (3, Some(0.0), 7));
    assert_eq!((point.bucket_counts.as_slice(), point.explicit_bounds.as_slice()), (&[1, 2][..], &[0.5][..]));
    let Some(Data::ExponentialHistogram(histogram)) = &metrics[1].data else { panic!() };
    let point = &histogram.data_points[0];
    assert_eq!(point.scale, -2);
    let buckets = point.positive.as_ref().unwrap();
    assert_eq!((buckets.offset, buckets.bucket_counts.as_slice()), (-1, &[300, 1][..]));
    let Some(Data::Gauge(gauge)) = &metrics[2].data else { panic!() };
    assert_eq!(gauge.data_points.len(), 3);
    assert!(gauge.data_points.iter().all(|point| point.value.is_some()));

    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":17,"body":{"stringValue":"x"}}]}]}]}"#;
    let request =
        ExportLogsServiceRequest::decode(&*json_to_wire(Signal::Logs, json.as_bytes()).unwrap()).unwrap();
    assert_eq!(request.resource_logs[0].scope_logs[0].log_records[0].severity_number, 17);
}

#[test]
fn long_messages_get_long_prefixes() {
    for length in [0, 127, 128, 16_383, 16_384, 3_000_000] {
        let name = "x".repeat(length);
        let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"name":"{name}"}}]}}]}}]}}"#);
        let wire = json_to_wire(Signal::Traces, json.as_bytes()).unwrap();
        let request = ExportTraceServiceRequest::decode(&*wire).unwrap();
        assert_eq!(request.resource_spans[0].scope_spans[0].spans[0].name, name);
        assert_eq!(wire, request.encode_to_vec());
    }
}

#[test]
fn errors_name_the_path() {
    let tell = |json: &str| json_to_wire(Signal::Traces, json.as_bytes()).unwrap_err().to_string();
    let span =
        |span: &str| format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{}},{{"spans":[{{}},{span}]}}]}}]}}"#);
    for (json, wrong) in [
        (String::new(), "empty, where a JSON object belongs (at byte 0)"),
        (" \n".into(), "empty, where a JSON object belongs (at byte 0)"),
        ("[]".into(), "expected an object, found an array (at byte 0)"),
        ("{}x".into(), "expected the end, found 'x' (at byte 2)"),
        (r#"{"resourceSpans":7}"#.into(), "resourceSpans: expected an array, found a number (at byte 17)"),
        (
            span(r#"{"traceId":"abc"}"#),
            "resourceSpans[0].scopeSpans[1].spans[1].traceId: expected 32 hexadecimal digits or none, found \"abc\" (at byte 60)",
        ),
        (
            span(r#"{"kind":"SERVER"}"#),
            "resourceSpans[0].scopeSpans[1].spans[1].kind: expected a number, found \"SERVER\" (at byte 57)",
        ),
        (
            span(r#"{"endTimeUnixNano":-1}"#),
            "resourceSpans[0].scopeSpans[1].spans[1].endTimeUnixNano: expected an integer of 64 bits, found -1 (at byte 68)",
        ),
        (
            span(r#"{"name":"#),
            "resourceSpans[0].scopeSpans[1].spans[1].name: expected text, found ']' (at byte 57)",
        ),
        (
            span(r#"{"attributes":[{"value":{"bytesValue":"*"}}]}"#),
            "resourceSpans[0].scopeSpans[1].spans[1].attributes[0].value.bytesValue: not Base64 (at byte 87)",
        ),
    ] {
        assert_eq!(tell(&json), wrong, "{json}");
    }
    // Two bytes of a list are eight on the wire: it ends at the limit, not after it.
    let list = |numbers: usize| {
        let bounds = vec!["1"; numbers].join(",");
        format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"explicitBounds":[{bounds}]}}]}}}}]}}]}}]}}"#
        )
    };
    let long = list(10_000);
    let wire = json_to_wire(Signal::Metrics, long.as_bytes()).unwrap();
    assert!(wire.len() > 3 * long.len() && wire.len() <= wire_bytes_at_most(long.as_bytes()));
    assert_eq!(json_to_wire_within(Signal::Metrics, long.as_bytes(), wire.len()), Ok(Some(wire)));
    assert_eq!(json_to_wire_within(Signal::Metrics, long.as_bytes(), 40_000), Ok(None));
    assert_eq!(json_to_wire(Signal::Logs, b"{}"), Ok(Vec::new()));
    assert_eq!(json_to_wire(Signal::Logs, b"{\"a\":\"\xff\"}").unwrap_err().offset, 6);
    let deep = |depth: usize| {
        let value = format!("{}{}", r#"{"arrayValue":{"values":["#.repeat(depth), "]}}".repeat(depth));
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{value}}}]}}]}}]}}"#)
    };
    assert!(json_to_wire(Signal::Logs, deep(30).as_bytes()).is_ok());
    assert!(json_to_wire(Signal::Logs, deep(300).as_bytes()).unwrap_err().what.contains("nested deeper"));
    let unknown = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(json_to_wire(Signal::Logs, unknown.as_bytes()).unwrap_err().what.contains("nested deeper"));
}
