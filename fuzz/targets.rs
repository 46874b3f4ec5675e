//! What is fuzzed, from which seeds, and what must hold of any input.

use barograph::model::Signal;
use barograph::otlp::{
    Checked, Encoding, PointRow, Rows, count_items, inflate, json_to_wire, json_to_wire_within, split,
    wire_bytes_at_most,
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message;
use std::io::Write;

/// One parser.
pub struct Target {
    pub name: &'static str,
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics if something does not hold.
    pub run: fn(&[u8]),
}

const INFLATED_LIMIT: usize = 1 << 20;

const TRACES_JSON: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}},{"key":"n","value":{"intValue":"7"}}]},"scopeSpans":[{"scope":{"name":"s"},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"","name":"GET /x","kind":2,"startTimeUnixNano":"1700000000000000000","endTimeUnixNano":1700000000100000000,"attributes":[{"key":"a","value":{"arrayValue":{"values":[{"boolValue":true},{"doubleValue":0.5},{"bytesValue":"AAE="}]}}}],"events":[{"timeUnixNano":"1","name":"e"}],"links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"}],"status":{"code":2,"message":"no"}}]}]}]}"#;
const LOGS_JSON: &str = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]},"scopeLogs":[{"logRecords":[{"timeUnixNano":"1700000000000000000","observedTimeUnixNano":"1700000000000000001","severityNumber":17,"severityText":"ERROR","body":{"kvlistValue":{"values":[{"key":"k","value":{"stringValue":"v\u00e9\n"}}]}},"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","flags":1}]}]}]}"#;
const METRICS_JSON: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]},"scopeMetrics":[{"metrics":[{"name":"g","unit":"1","gauge":{"dataPoints":[{"timeUnixNano":"1700000000000000000","asDouble":"NaN"},{"asInt":"-3"}]}},{"name":"c","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"startTimeUnixNano":"1","timeUnixNano":"2","asInt":"5"}]}},{"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"2","count":"3","sum":1.5,"bucketCounts":["1","2"],"explicitBounds":[0.5]}]}},{"name":"e","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"2","count":"3","scale":2,"zeroCount":"1","positive":{"offset":-1,"bucketCounts":["1","1"]}}]}},{"name":"s","summary":{"dataPoints":[{"timeUnixNano":"2","count":"3","sum":4.5,"quantileValues":[{"quantile":0.5,"value":1}]}]}}]}]}]}"#;
const OBJECTIVE: &str = "apiVersion: openslo/v1
kind: SLO
metadata:
  name: charge-fast
spec:
  service: payment
  indicator:
    metadata:
      name: fast
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: barograph
            spec:
              operation: POST /charges
              good: latency
              threshold: 250ms
  timeWindow:
    - duration: 30d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - target: 0.99
";

const SLOTH: &str = r#"version: "prometheus/v1"
service: "shop"
slos:
  - name: "requests"
    objective: 99.9
    sli:
      events:
        error_query: sum(rate(http_requests_total{job="shop",code=~"(5..|429)"}[{{.window}}]))
        total_query: sum(rate(http_requests_total{job="shop"}[{{.window}}]))
    alerting: { name: ShopErrors, page_alert: { labels: { severity: page } } }
"#;
const PYRRA: &str = r#"apiVersion: pyrra.dev/v1alpha1
kind: ServiceLevelObjective
metadata: { name: shop-errors, labels: { pyrra.dev/team: shop } }
spec:
  target: "99"
  window: 4w
  indicator:
    ratio:
      errors: { metric: 'http_requests_total{job="shop",code=~"5.."}' }
      total: { metric: 'http_requests_total{job="shop"}' }
"#;

pub fn json(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => TRACES_JSON,
        Signal::Logs => LOGS_JSON,
        Signal::Metrics => METRICS_JSON,
    }
}

pub fn wire(signal: Signal) -> Vec<u8> {
    json_to_wire(signal, json(signal).as_bytes()).expect("the seed is good")
}

fn prost_takes(signal: Signal, request: &[u8]) -> bool {
    match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(request).is_ok(),
        Signal::Logs => ExportLogsServiceRequest::decode(request).is_ok(),
        Signal::Metrics => ExportMetricsServiceRequest::decode(request).is_ok(),
    }
}

/// A request of one resource.
fn around(resource: &[u8]) -> Vec<u8> {
    let mut request = vec![0x0a];
    prost::encoding::encode_varint(resource.len() as u64, &mut request);
    request.extend_from_slice(resource);
    request
}

/// Splits, checks and walks; what passes the check is what prost takes.
fn walk(signal: Signal, request: &[u8]) {
    let Ok(slices) = split(signal, request) else { return };
    for slice in slices {
        let bytes = &request[slice.range.start as usize..slice.range.end as usize];
        let in_one_pass = match signal {
            Signal::Traces => Rows::default().spans(bytes, |_| false).map(|(_, spans)| spans.len()),
            Signal::Logs => Rows::default().logs(bytes, |_| false).map(|(_, logs)| logs.len()),
            Signal::Metrics => Rows::default()
                .metrics(bytes, |_| false)
                .filter(|(_, rows)| rows.points.iter().all(PointRow::has_good_attributes))
                .map(|(_, rows)| rows.metrics.len()),
        };
        let Ok(checked) = Checked::new(signal, bytes) else {
            assert_eq!(in_one_pass, None, "one pass lets through what the check refuses");
            let _ = count_items(signal, bytes);
            continue;
        };
        assert!(prost_takes(signal, &around(bytes)), "the check lets through what prost refuses");
        let walked = match signal {
            Signal::Traces => {
                let spans = checked.spans().scopes().flat_map(|scope| scope.items());
                assert!(
                    in_one_pass.is_none_or(|items| items == spans.clone().count()),
                    "one pass sees others"
                );
                spans.map(|span| span.attributes().count() + 1).sum()
            }
            Signal::Logs => checked.logs().scopes().flat_map(|scope| scope.items()).count(),
            Signal::Metrics => checked.metrics().scopes().flat_map(|scope| scope.items()).count(),
        };
        assert!(
            signal == Signal::Traces || in_one_pass.is_none_or(|items| items == walked),
            "one pass sees others"
        );
        assert!(walked <= bytes.len(), "more items than bytes");
    }
}

/// Puts JSON on the wire; what comes out, prost reads.
fn convert(signal: Signal, text: &[u8]) {
    if let Ok(wire) = json_to_wire(signal, text) {
        assert!(wire.len() <= wire_bytes_at_most(text), "more becomes of it than is known before");
        let exact = json_to_wire_within(signal, text, wire.len());
        assert_eq!(exact.as_ref(), Ok(&Some(wire.clone())), "a limit that is not passed changes nothing");
        if let Some(less) = wire.len().checked_sub(1) {
            assert_eq!(json_to_wire_within(signal, text, less), Ok(None), "the limit does not hold");
        }
        assert!(prost_takes(signal, &wire), "the converter writes what prost refuses");
    }
}

fn packed(encoding: Encoding) -> Vec<Vec<u8>> {
    let plain = [wire(Signal::Traces), vec![7; 100_000], Vec::new()];
    let pack = |bytes: &Vec<u8>| match encoding {
        Encoding::Gzip => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(bytes).expect("into memory");
            packer.finish().expect("into memory")
        }
        Encoding::Zstd => zstd::encode_all(&**bytes, 1).expect("into memory"),
        Encoding::Identity => bytes.clone(),
    };
    plain.iter().map(pack).collect()
}

fn unpack(encoding: Encoding, bytes: &[u8]) {
    let wire = bytes::Bytes::copy_from_slice(bytes);
    if let Ok(body) = inflate(encoding, &wire, INFLATED_LIMIT) {
        assert!(body.len() <= INFLATED_LIMIT, "the limit does not hold");
    }
}

macro_rules! signals {
    ($($wire:ident, $json:ident: $signal:ident;)*) => {
        $(
            pub fn $wire() -> Target {
                Target { name: stringify!($wire), seeds: || vec![wire(Signal::$signal)], run: |input| walk(Signal::$signal, input) }
            }

            pub fn $json() -> Target {
                Target {
                    name: stringify!($json),
                    seeds: || vec![json(Signal::$signal).as_bytes().to_vec(), b"{}".to_vec()],
                    run: |input| convert(Signal::$signal, input),
                }
            }
        )*
    };
}

signals! {
    otlp_traces, otlp_json_traces: Traces;
    otlp_logs, otlp_json_logs: Logs;
    otlp_metrics, otlp_json_metrics: Metrics;
}

pub fn gzip() -> Target {
    Target { name: "gzip", seeds: || packed(Encoding::Gzip), run: |input| unpack(Encoding::Gzip, input) }
}

pub fn zstd() -> Target {
    Target { name: "zstd", seeds: || packed(Encoding::Zstd), run: |input| unpack(Encoding::Zstd, input) }
}

/// Objectives as OpenSLO, Sloth and Pyrra have them.
pub fn objectives() -> Target {
    Target {
        name: "objectives",
        seeds: || [OBJECTIVE, SLOTH, PYRRA].map(|text| text.as_bytes().to_vec()).to_vec(),
        run: |input| {
            let text = String::from_utf8_lossy(input);
            if let Err(error) = barograph::slo::read(std::path::Path::new("slo.yaml"), &text) {
                assert!(error.to_string().starts_with("slo.yaml:"), "no place in {error}");
            }
        },
    }
}

pub fn configuration() -> Target {
    Target {
        name: "configuration",
        seeds: || {
            vec![barograph::app::reference().into_bytes(), b"[listen]\nhttp = \"127.0.0.1:0\"\n".to_vec()]
        },
        run: |input| {
            let text = String::from_utf8_lossy(input);
            if let Err(error) = barograph::app::Config::parse("barograph.toml", &text) {
                let text = error.to_string();
                assert!(
                    text.starts_with("barograph.toml:") && !text.contains('\n'),
                    "no place in one line: {text}"
                );
            }
        },
    }
}
