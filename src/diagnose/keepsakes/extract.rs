//! The spans and log records of some traces, taken out of recorded requests as they came.

use crate::model::{Signal, TraceId};
use crate::otlp;
use memchr::memmem;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use std::collections::BTreeMap;

/// What one resource sent in a request is decoded only up to so many bytes.
const RESOURCE_BYTES: usize = 4 << 20;

/// What was found of one trace so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Items {
    spans: Vec<ResourceSpans>,
    logs: Vec<ResourceLogs>,
    /// Encoded, about; `usize::MAX` when a part was too large to look into.
    pub bytes: usize,
}

impl Items {
    /// As two requests.
    pub fn requests(self) -> Vec<(Signal, Vec<u8>)> {
        let traces = ExportTraceServiceRequest { resource_spans: self.spans };
        let logs = ExportLogsServiceRequest { resource_logs: self.logs };
        let mut requests = Vec::new();
        if !traces.resource_spans.is_empty() {
            requests.push((Signal::Traces, traces.encode_to_vec()));
        }
        if !logs.resource_logs.is_empty() {
            requests.push((Signal::Logs, logs.encode_to_vec()));
        }
        requests
    }
}

/// Adds what a request holds of these traces. A resource that is damaged is left out, as it was refused when it
/// came; of a trace that has `most` bytes no more is taken.
pub(super) fn extract(signal: Signal, body: &[u8], into: &mut BTreeMap<TraceId, Items>, most: usize) {
    if signal == Signal::Metrics {
        return;
    }
    // Most requests hold none: an id in the bytes is quickly looked for.
    let is_named = |bytes: &[u8], trace: &TraceId| memmem::find(bytes, &trace.0).is_some();
    if !into.keys().any(|trace| is_named(body, trace)) {
        return;
    }
    for slice in otlp::split(signal, body).unwrap_or_default() {
        let Some(bytes) = body.get(slice.range.start as usize..slice.range.end as usize) else { continue };
        let mut group = None;
        for (trace, items) in into.iter_mut().filter(|(trace, _)| is_named(bytes, trace)) {
            if items.bytes > most {
                continue;
            }
            if bytes.len() > RESOURCE_BYTES {
                items.bytes = usize::MAX;
                continue;
            }
            match signal {
                Signal::Traces => {
                    let group = group.get_or_insert_with(|| Group::Spans(ResourceSpans::decode(bytes).ok()));
                    group.add(*trace, items);
                }
                _ => {
                    let group = group.get_or_insert_with(|| Group::Logs(ResourceLogs::decode(bytes).ok()));
                    group.add(*trace, items);
                }
            }
        }
    }
}

/// What one resource sent, decoded once for all traces.
enum Group {
    Spans(Option<ResourceSpans>),
    Logs(Option<ResourceLogs>),
}

impl Group {
    fn add(&self, trace: TraceId, items: &mut Items) {
        match self {
            Self::Spans(Some(group)) => {
                let scope_spans: Vec<ScopeSpans> = group
                    .scope_spans
                    .iter()
                    .filter_map(|scope| {
                        let of = scope.spans.iter().filter(|span| span.trace_id == trace.0);
                        let spans: Vec<_> = of.cloned().collect();
                        (!spans.is_empty()).then(|| ScopeSpans {
                            scope: scope.scope.clone(),
                            schema_url: scope.schema_url.clone(),
                            spans,
                        })
                    })
                    .collect();
                if !scope_spans.is_empty() {
                    let (resource, schema_url) = (group.resource.clone(), group.schema_url.clone());
                    let found = ResourceSpans { resource, scope_spans, schema_url };
                    items.bytes = items.bytes.saturating_add(found.encoded_len());
                    items.spans.push(found);
                }
            }
            Self::Logs(Some(group)) => {
                let scope_logs: Vec<ScopeLogs> = group
                    .scope_logs
                    .iter()
                    .filter_map(|scope| {
                        let of = scope.log_records.iter().filter(|record| record.trace_id == trace.0);
                        let log_records: Vec<_> = of.cloned().collect();
                        (!log_records.is_empty()).then(|| ScopeLogs {
                            scope: scope.scope.clone(),
                            schema_url: scope.schema_url.clone(),
                            log_records,
                        })
                    })
                    .collect();
                if !scope_logs.is_empty() {
                    let (resource, schema_url) = (group.resource.clone(), group.schema_url.clone());
                    let found = ResourceLogs { resource, scope_logs, schema_url };
                    items.bytes = items.bytes.saturating_add(found.encoded_len());
                    items.logs.push(found);
                }
            }
            Self::Spans(None) | Self::Logs(None) => {}
        }
    }
}
