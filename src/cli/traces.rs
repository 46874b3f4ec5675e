//! `barograph traces`.

use super::connection::{ANSWER_LIMIT_BYTES, Channel, Daemon};
use super::failure::{Failure, finish};
use super::graph::service_path;
use super::moment::History;
use super::output::{Answer, Output, Watch};
use super::table::Table;
use crate::api::v1;
use crate::api::v1::journal_service_client::JournalServiceClient;
use crate::serve::text::{bytes, duration, plain, time};
use crate::serve::{Waterfall, missing_of_trace, searched_json, trace_json, whole_trace_json};
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Traces that the journal still holds: by what a span of them is like, or one by its id, also if it was kept beyond.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph traces --service cart --where error
  barograph traces --since 15m --where 'service=cart,duration>=250ms,http.route=/cart'
  barograph traces 4bf92f3577b34da6a3ce929d0e0e4736

Conditions: `error`, or KEY and VALUE with =, !=, ~ (contains), >=, <=, > or < between them; all must hold for one
span. KEY is service, operation, kind, trace, duration, message, instance, version, host or an attribute.")]
pub(super) struct Arguments {
    /// Only the trace of this id, with its spans and log records.
    #[arg(value_name = "TRACE", conflicts_with_all = ["service", "conditions", "since", "until", "limit"])]
    id: Option<String>,
    #[command(flatten)]
    search: Search,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    daemon: Daemon,
}

/// What to look for.
#[derive(Debug, Args)]
pub(super) struct Search {
    /// Only of this service.
    #[arg(
        long,
        value_name = "[ENVIRONMENT/][NAMESPACE/]NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub service: String,
    /// What must hold, separated by commas; may be repeated.
    #[arg(long = "where", value_name = "CONDITIONS")]
    pub conditions: Vec<String>,
    /// At most so many, the newest.
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    #[command(flatten)]
    pub history: History,
}

pub(super) fn client(channel: Channel) -> JournalServiceClient<Channel> {
    JournalServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES)
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    finish(match &arguments.id {
        Some(id) => one(id, &arguments),
        None => list(&arguments),
    })
}

fn list(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { search, output, watch, daemon, .. } = arguments;
    output.ask(daemon, watch, async |channel| {
        let request = v1::SearchTracesRequest {
            range: search.history.range(),
            service: search.service.clone(),
            r#where: search.conditions.join(","),
            limit: search.limit.unwrap_or_default(),
        };
        let answer = client(channel).search_traces(request).await;
        let answer = answer.map_err(|status| daemon.failure(&status))?.into_inner();
        let again = answer.clone();
        Ok(Answer {
            table: Box::new(move || table(&answer)),
            json: Box::new(move || {
                let traces: Vec<Value> = again.traces.iter().map(trace_json).collect();
                json!({ "traces": traces, "searched": searched_json(again.searched.as_ref()) })
            }),
        })
    })
}

fn table(answer: &v1::SearchTracesResponse) -> String {
    let mut table =
        Table::new(&["TRACE", "START", ">DURATION", ">SPANS", ">ERRORS", "SERVICE", "OPERATION", "MESSAGE"]);
    for trace in &answer.traces {
        table.row([
            trace.trace_id.clone(),
            time(trace.start.as_ref()),
            duration(trace.duration_ns),
            trace.spans.to_string(),
            trace.errors.to_string(),
            trace.service.as_ref().map(service_path).unwrap_or_default(),
            trace.operation.clone(),
            trace.message.clone(),
        ]);
    }
    format!("{}\n{}", table.show("No such trace."), searched(answer.searched.as_ref()))
}

/// How far a search got.
pub(super) fn searched(of: Option<&v1::Searched>) -> String {
    of.map(|of| format!("searched back to {}, {} read\n", time(of.since.as_ref()), bytes(of.read_bytes)))
        .unwrap_or_default()
}

fn one(id: &str, arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { output, watch, daemon, .. } = arguments;
    output.ask(daemon, watch, async |channel| {
        let answer = client(channel).get_trace(v1::GetTraceRequest { trace_id: id.to_owned() }).await;
        let trace = answer.map_err(|status| daemon.failure(&status))?.into_inner();
        let again = trace.clone();
        Ok(Answer {
            table: Box::new(move || waterfall(&trace)),
            json: Box::new(move || whole_trace_json(&again)),
        })
    })
}

/// Columns of the drawing of when a span was.
const COLUMNS: f64 = 32.0;

fn waterfall(trace: &v1::GetTraceResponse) -> String {
    let drawn = Waterfall::of(trace);
    let mut table = Table::new(&[">AFTER", ">DURATION", "WHEN", "SPAN", "MESSAGE"]);
    for bar in &drawn.bars {
        let before = (bar.from * COLUMNS) as usize;
        let width = ((bar.width * COLUMNS).round() as usize).max(1);
        let mark = if bar.span.error { "!" } else { "=" };
        table.row([
            duration(bar.after_ns),
            duration(bar.span.duration_ns),
            format!("{}{}", ".".repeat(before), mark.repeat(width)),
            format!(
                "{}{} {}",
                "  ".repeat(bar.depth),
                bar.span.service.as_ref().map(service_path).unwrap_or_default(),
                bar.span.operation
            ),
            bar.span.message.clone(),
        ]);
    }
    let none = if trace.incomplete { "No span of it was found." } else { "No span of it is recorded." };
    let mut out = table.show(none);
    for log in &trace.log_records {
        out.push_str(&format!("{}\n", super::logs::line(log)));
    }
    for missing in missing_of_trace(trace) {
        out.push_str(&format!("{missing}\n"));
    }
    plain_lines(&out)
}

/// Keeps the line ends of our own.
fn plain_lines(text: &str) -> String {
    text.lines().map(|line| plain(line) + "\n").collect()
}
