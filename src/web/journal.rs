//! The pages that search what is recorded, and that of one trace.

use super::dashboard::path_of;
use super::head::Head;
use crate::api::v1;
use crate::serve::text::{bytes, duration, time};
use crate::serve::{Waterfall, missing_of_trace, severity_text};
use askama::Template;
use serde::Deserialize;

/// What the form of a search holds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    pub service: String,
    pub r#where: String,
    /// An age such as `15m`.
    pub since: String,
}

#[derive(Debug, Template)]
#[template(path = "traces.html", config = "src/web/askama.toml")]
pub(super) struct TracesPage {
    head: Head,
    asked: Asked,
    rows: Vec<TraceLine>,
    searched: String,
}

#[derive(Debug)]
struct TraceLine {
    id: String,
    start: String,
    duration: String,
    spans: u64,
    errors: u64,
    service: String,
    operation: String,
    message: String,
}

fn searched(of: Option<&v1::Searched>) -> String {
    of.map(|of| format!("searched back to {}, {} read", time(of.since.as_ref()), bytes(of.read_bytes)))
        .unwrap_or_default()
}

impl TracesPage {
    pub fn new(head: Head, asked: Asked, of: &v1::SearchTracesResponse) -> Self {
        let rows = of.traces.iter().map(|trace| TraceLine {
            id: trace.trace_id.clone(),
            start: time(trace.start.as_ref()),
            duration: duration(trace.duration_ns),
            spans: trace.spans,
            errors: trace.errors,
            service: path_of(trace.service.as_ref()),
            operation: trace.operation.clone(),
            message: trace.message.clone(),
        });
        Self { head, asked, rows: rows.collect(), searched: searched(of.searched.as_ref()) }
    }
}

#[derive(Debug, Template)]
#[template(path = "logs.html", config = "src/web/askama.toml")]
pub(super) struct LogsPage {
    head: Head,
    asked: Asked,
    rows: Vec<LogLine>,
    searched: String,
}

#[derive(Debug)]
struct LogLine {
    time: String,
    severity: &'static str,
    is_error: bool,
    service: String,
    body: String,
    trace: String,
}

impl LogLine {
    fn new(of: &v1::LogRecord) -> Self {
        Self {
            time: time(of.time.as_ref()),
            severity: severity_text(of.severity),
            is_error: of.severity >= 17,
            service: path_of(of.service.as_ref()),
            body: of.body.clone(),
            trace: of.trace_id.clone(),
        }
    }
}

impl LogsPage {
    pub fn new(head: Head, asked: Asked, of: &v1::SearchLogsResponse) -> Self {
        let rows = of.log_records.iter().map(LogLine::new).collect();
        Self { head, asked, rows, searched: searched(of.searched.as_ref()) }
    }
}

#[derive(Debug, Template)]
#[template(path = "trace.html", config = "src/web/askama.toml")]
pub(super) struct TracePage {
    head: Head,
    id: String,
    title: String,
    duration: String,
    errors: usize,
    missing: Vec<String>,
    bars: Vec<BarLine>,
    logs: Vec<LogLine>,
}

#[derive(Debug)]
struct BarLine {
    service: String,
    operation: String,
    /// Of 100: how far right it stands, and how wide it is.
    from: String,
    width: String,
    indent: usize,
    duration: String,
    is_error: bool,
    message: String,
    facts: Vec<(String, String)>,
}

impl TracePage {
    pub fn new(head: Head, id: &str, of: &v1::GetTraceResponse) -> Self {
        let drawn = Waterfall::of(of);
        let bars: Vec<BarLine> = drawn
            .bars
            .iter()
            .map(|bar| BarLine {
                service: path_of(bar.span.service.as_ref()),
                operation: bar.span.operation.clone(),
                from: format!("{:.2}", bar.from * 100.0),
                width: format!("{:.2}", bar.width * 100.0),
                indent: bar.depth,
                duration: duration(bar.span.duration_ns),
                is_error: bar.span.error,
                message: bar.span.message.clone(),
                facts: bar.span.attributes.clone().into_iter().collect(),
            })
            .collect();
        let title = bars.first().map(|bar| format!("{} {}", bar.service, bar.operation));
        Self {
            head,
            id: id.to_owned(),
            title: title.unwrap_or_else(|| "Trace".to_owned()),
            duration: duration(drawn.duration_ns),
            errors: bars.iter().filter(|bar| bar.is_error).count(),
            missing: missing_of_trace(of),
            bars,
            logs: of.log_records.iter().map(LogLine::new).collect(),
        }
    }
}
