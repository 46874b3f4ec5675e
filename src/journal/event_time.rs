//! When the latest thing in an OTLP request happened.

use crate::model::{Signal, Timestamp};

/// Wire types of protobuf that OTLP uses, as the low three bits of a tag.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// The latest event time in a request: ends of spans, times of log records (of a record without one,
/// its observed time), times of data points. `None` if nothing in it has a time. What is malformed is
/// passed over, so that it is refused where requests are refused.
#[must_use]
pub fn latest_event(signal: Signal, request: &[u8]) -> Option<Timestamp> {
    let mut latest = 0;
    // Resource…, Scope…, and the repeated item are fields 1, 2 and 2 in all three signals.
    each(request, 1, &mut |resource| {
        each(resource, 2, &mut |scope| {
            each(scope, 2, &mut |item| latest = latest.max(item_time(signal, item)));
        });
    });
    (latest > 0).then_some(Timestamp(latest))
}

fn item_time(signal: Signal, item: &[u8]) -> u64 {
    match signal {
        Signal::Traces => fixed64(item, 8),
        Signal::Logs => match fixed64(item, 1) {
            0 => fixed64(item, 11),
            time => time,
        },
        Signal::Metrics => {
            let mut latest = 0;
            // gauge, sum, histogram, exponential histogram, summary; points are field 1 of each.
            for data in [5, 7, 9, 10, 11] {
                each(item, data, &mut |data| {
                    each(data, 1, &mut |point| latest = latest.max(fixed64(point, 3)));
                });
            }
            latest
        }
    }
}

/// Calls back with each length-delimited field of this number.
fn each(message: &[u8], number: u64, visit: &mut dyn FnMut(&[u8])) {
    for (field, value) in Fields(message) {
        if let (true, Value::Bytes(bytes)) = (field == number, value) {
            visit(bytes);
        }
    }
}

/// The last value of a fixed64 field, 0 if absent.
fn fixed64(message: &[u8], number: u64) -> u64 {
    let mut found = 0;
    for (field, value) in Fields(message) {
        if let (true, Value::Fixed64(value)) = (field == number, value) {
            found = value;
        }
    }
    found
}

enum Value<'a> {
    Bytes(&'a [u8]),
    Fixed64(u64),
    Other,
}

/// The fields of a message, up to the first that is damaged.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            VARINT => {
                self.varint()?;
                Value::Other
            }
            FIXED64 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            LENGTH => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            FIXED32 => {
                self.take(4)?;
                Value::Other
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::metrics::v1::{
        Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric,
    };
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message;

    #[test]
    fn the_latest_of_each_signal_is_found() {
        let span = |end| Span { name: "a".into(), end_time_unix_nano: end, ..Span::default() };
        let traces = ExportTraceServiceRequest {
            resource_spans: vec![
                ResourceSpans {
                    scope_spans: vec![ScopeSpans { spans: vec![span(5), span(9)], ..ScopeSpans::default() }],
                    ..ResourceSpans::default()
                },
                ResourceSpans {
                    scope_spans: vec![ScopeSpans { spans: vec![span(7)], ..ScopeSpans::default() }],
                    ..ResourceSpans::default()
                },
            ],
        };
        assert_eq!(latest_event(Signal::Traces, &traces.encode_to_vec()), Some(Timestamp(9)));

        let record = |time, observed| LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: observed,
            ..LogRecord::default()
        };
        let logs = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                scope_logs: vec![ScopeLogs {
                    log_records: vec![record(3, 99), record(0, 8)],
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        };
        assert_eq!(latest_event(Signal::Logs, &logs.encode_to_vec()), Some(Timestamp(8)));

        let metric = |data| Metric { data: Some(data), ..Metric::default() };
        let metrics = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                scope_metrics: vec![ScopeMetrics {
                    metrics: vec![
                        metric(metric::Data::Gauge(Gauge {
                            data_points: vec![NumberDataPoint {
                                time_unix_nano: 4,
                                ..NumberDataPoint::default()
                            }],
                        })),
                        metric(metric::Data::Histogram(Histogram {
                            data_points: vec![HistogramDataPoint {
                                start_time_unix_nano: 77,
                                time_unix_nano: 6,
                                ..HistogramDataPoint::default()
                            }],
                            ..Histogram::default()
                        })),
                    ],
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        assert_eq!(latest_event(Signal::Metrics, &metrics.encode_to_vec()), Some(Timestamp(6)));
    }

    #[test]
    fn damage_and_emptiness_have_no_time() {
        for bytes in [&[][..], &[0x0a], &[0x0a, 0xff], &[0xff; 20], &[0x0f, 1]] {
            assert_eq!(latest_event(Signal::Traces, bytes), None);
        }
    }
}
