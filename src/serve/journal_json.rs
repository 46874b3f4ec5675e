//! Traces and log records as JSON, and as they are drawn.

use super::convert::from_proto;
use super::json::{kind_name, row, time};
use crate::api::v1;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A row of `traces`.
#[must_use]
pub fn trace_json(of: &v1::TraceSummary) -> Value {
    let services: Vec<Value> = of.services.iter().map(|service| row(Some(service), json!({}))).collect();
    row(
        of.service.as_ref(),
        json!({
            "trace": of.trace_id,
            "operation": of.operation,
            "start": time(of.start.as_ref()),
            "duration_ns": of.duration_ns,
            "spans": of.spans,
            "errors": of.errors,
            "services": services,
            "message": of.message,
        }),
    )
}

/// How far a search got.
#[must_use]
pub fn searched_json(of: Option<&v1::Searched>) -> Value {
    let of = of.cloned().unwrap_or_default();
    json!({ "since": time(of.since.as_ref()), "read_bytes": of.read_bytes })
}

/// A trace with its log records, and what is missing of it.
#[must_use]
pub fn whole_trace_json(of: &v1::GetTraceResponse) -> Value {
    let spans: Vec<Value> = of.spans.iter().map(span_json).collect();
    let logs: Vec<Value> = of.log_records.iter().map(log_json).collect();
    json!({
        "spans": spans,
        "log_records": logs,
        "searched": searched_json(of.searched.as_ref()),
        "incomplete": of.incomplete,
        "spans_left_out": of.spans_left_out,
        "log_records_left_out": of.log_records_left_out,
    })
}

/// What is missing of a trace, in words; nothing where all that is recorded of it is there.
#[must_use]
pub fn missing_of_trace(of: &v1::GetTraceResponse) -> Vec<String> {
    let mut missing = Vec::new();
    if of.incomplete {
        let searched = of.searched.unwrap_or_default();
        missing.push(format!(
            "The journal was looked through back to {} ({} read), and no further: what is older of this trace is not here.",
            super::text::time(searched.since.as_ref()),
            super::text::bytes(searched.read_bytes)
        ));
    }
    for (what, shown, left_out) in [
        ("spans", of.spans.len(), of.spans_left_out),
        ("log records", of.log_records.len(), of.log_records_left_out),
    ] {
        if left_out > 0 {
            missing
                .push(format!("Only the first {shown} {what} are here, about {left_out} more are left out."));
        }
    }
    missing
}

/// A span of a trace.
#[must_use]
pub fn span_json(of: &v1::Span) -> Value {
    row(
        of.service.as_ref(),
        json!({
            "trace": of.trace_id,
            "span": of.span_id,
            "parent": of.parent_span_id,
            "instance": of.instance,
            "operation": of.operation,
            "kind": kind_name(of.kind()),
            "start": time(of.start.as_ref()),
            "duration_ns": of.duration_ns,
            "error": of.error,
            "message": of.message,
            "attributes": of.attributes,
        }),
    )
}

/// A log record.
#[must_use]
pub fn log_json(of: &v1::LogRecord) -> Value {
    row(
        of.service.as_ref(),
        json!({
            "time": time(of.time.as_ref()),
            "instance": of.instance,
            "severity": of.severity,
            "severity_text": severity_text(of.severity),
            "body": of.body,
            "trace": of.trace_id,
            "span": of.span_id,
            "attributes": of.attributes,
        }),
    )
}

/// The name of a `SeverityNumber`; empty if unknown.
#[must_use]
pub fn severity_text(number: u32) -> &'static str {
    match number {
        1..=4 => "TRACE",
        5..=8 => "DEBUG",
        9..=12 => "INFO",
        13..=16 => "WARN",
        17..=20 => "ERROR",
        21..=24 => "FATAL",
        _ => "",
    }
}

/// A trace as it is drawn: callers above what they call, each in the order of their starts.
#[derive(Clone, Debug, Default)]
pub struct Waterfall<'a> {
    pub bars: Vec<Bar<'a>>,
    pub duration_ns: i64,
}

/// A span in a drawing.
#[derive(Clone, Copy, Debug)]
pub struct Bar<'a> {
    pub span: &'a v1::Span,
    pub depth: usize,
    /// After the start of the trace.
    pub after_ns: i64,
    /// Shares of the whole trace, 0..=1: where it begins and how long it is.
    pub from: f64,
    pub width: f64,
}

/// Deeper spans are drawn as deep as this.
const DEEPEST: usize = 40;

impl<'a> Waterfall<'a> {
    #[must_use]
    pub fn of(trace: &'a v1::GetTraceResponse) -> Self {
        let start = |span: &v1::Span| span.start.as_ref().map_or(0, |at| from_proto(at).ns());
        let end = |span: &v1::Span| start(span).saturating_add(u64::try_from(span.duration_ns).unwrap_or(0));
        let first = trace.spans.iter().map(start).min().unwrap_or(0);
        let last = trace.spans.iter().map(end).max().unwrap_or(0);
        let whole = last.saturating_sub(first).max(1) as f64;
        let known: BTreeSet<&str> = trace.spans.iter().map(|span| span.span_id.as_str()).collect();
        let mut below: BTreeMap<&str, Vec<&v1::Span>> = BTreeMap::new();
        // A span whose parent is not recorded stands at the top.
        for span in &trace.spans {
            let parent = span.parent_span_id.as_str();
            let is_known = known.contains(parent) && parent != span.span_id;
            below.entry(if is_known { parent } else { "" }).or_default().push(span);
        }
        let mut bars = Vec::new();
        let mut drawn: BTreeSet<*const v1::Span> = BTreeSet::new();
        let mut waiting: Vec<(usize, &v1::Span)> =
            below.get("").into_iter().flatten().rev().map(|span| (0, *span)).collect();
        // Spans that are each other's parents hang from nothing: they come last.
        let mut rest = trace.spans.iter();
        loop {
            let next = waiting.pop().or_else(|| {
                rest.by_ref()
                    .map(|span| (0, span))
                    .find(|(_, span)| !drawn.contains(&std::ptr::from_ref(*span)))
            });
            let Some((depth, span)) = next else { break };
            if !drawn.insert(std::ptr::from_ref(span)) {
                continue;
            }
            let after = start(span).saturating_sub(first);
            bars.push(Bar {
                span,
                depth: depth.min(DEEPEST),
                after_ns: i64::try_from(after).unwrap_or(i64::MAX),
                from: after as f64 / whole,
                width: end(span).saturating_sub(start(span)) as f64 / whole,
            });
            let children = below.get(span.span_id.as_str()).into_iter().flatten();
            waiting
                .extend(children.rev().filter(|_| !span.span_id.is_empty()).map(|span| (depth + 1, *span)));
        }
        Self { bars, duration_ns: i64::try_from(last.saturating_sub(first)).unwrap_or(i64::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::serve::to_proto;

    fn span(id: &str, parent: &str, start_ns: u64, duration_ns: i64) -> v1::Span {
        v1::Span {
            span_id: id.to_owned(),
            parent_span_id: parent.to_owned(),
            start: Some(to_proto(Timestamp(start_ns))),
            duration_ns,
            ..v1::Span::default()
        }
    }

    #[test]
    fn callers_stand_above_what_they_call_and_circles_end() {
        let spans = vec![
            span("root", "", 1_000, 100),
            span("late", "root", 1_050, 50),
            span("early", "root", 1_010, 20),
            span("inner", "late", 1_060, 10),
            span("lost", "unknown", 1_020, 1),
            span("a", "b", 1_030, 1),
            span("b", "a", 1_040, 1),
        ];
        let mut sorted = spans;
        sorted.sort_by_key(|span| span.start.as_ref().map(|at| at.nanos));
        let trace = v1::GetTraceResponse { spans: sorted, ..v1::GetTraceResponse::default() };
        let drawn = Waterfall::of(&trace);
        let order: Vec<(&str, usize)> =
            drawn.bars.iter().map(|bar| (bar.span.span_id.as_str(), bar.depth)).collect();
        let wanted = [("root", 0), ("early", 1), ("late", 1), ("inner", 2), ("lost", 0), ("a", 0), ("b", 1)];
        assert_eq!(order, wanted);
        assert_eq!(drawn.duration_ns, 100);
        assert!((drawn.bars[2].from - 0.5).abs() < 1e-9 && (drawn.bars[2].width - 0.5).abs() < 1e-9);
    }
}
