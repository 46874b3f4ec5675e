//! The last run of a job that did not run when it was due: when it was, and how it ended. A job that failed the last
//! time may not have been started again for that.

use super::Error;
use super::capture::{LOG_RECORDS, Scope};
use super::config::Effort;
use super::decode::{add, decode};
use super::redact::Redaction;
use super::rows::{Gather, Limits, Rows, SpanRow};
use super::source::{Backwards, Source};
use super::span_clues::{duration, short};
use crate::journal::Filter;
use crate::model::{Signal, Timestamp, TraceId};
use std::ops::ControlFlow;
use std::time::Duration;

/// How long before its root begins and after it ends a run's other rows are looked for.
const AROUND: Duration = Duration::from_secs(60);
/// Clients batch and retry: what ended before a time arrives until so long after it.
const LATE: Duration = Duration::from_secs(90);
/// Most spans of a run.
const SPANS: usize = 20_000;

/// What came of looking for the last run of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct SoughtRun {
    pub run: Option<LastRun>,
    /// All that arrived from then on was looked through.
    pub since: Timestamp,
}

/// The last run of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct LastRun {
    pub trace: TraceId,
    pub service: String,
    pub operation: String,
    pub end: Timestamp,
    pub took_ns: u64,
    pub failed: bool,
    /// Of the job itself; "" if it gives none.
    pub message: String,
    /// All that is recorded of its trace.
    pub rows: Rows,
}

impl LastRun {
    /// When it was and how it ended.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
    pub fn in_words(&self) -> String {
        let took = duration(self.took_ns as f64);
        let run = format!("the last run of “{}”", short(&self.operation));
        let at = whole_second(self.end);
        let failed = self.rows.spans.iter().filter(|span| span.failed()).count();
        match (self.failed, failed) {
            (true, _) if self.message.is_empty() => format!("{run} failed at {at}, after {took}"),
            (true, _) => format!("{run} failed at {at}, after {took}: {}", short(&self.message)),
            (false, 0) => format!("{run} ended well at {at}, after {took}"),
            (false, 1) => format!("{run} ended well at {at}, after {took}, though one of its spans failed"),
            (false, failed) => {
                format!("{run} ended well at {at}, after {took}, though {failed} of its spans failed")
            }
        }
    }
}

impl SoughtRun {
    /// What is to be said of it.
    #[must_use]
    pub fn in_words(&self) -> String {
        match &self.run {
            Some(run) => run.in_words(),
            None => {
                format!("no run of it is in what was looked through, back to {}", whole_second(self.since))
            }
        }
    }
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_secs(at.secs())
}

/// Looks for the last run of the job that `scope` is about which ended before a time: from there back, until one is
/// found or a quarter of the effort is spent; as much again goes into what belongs to it.
///
/// # Errors
/// When the source cannot be read.
pub fn find(
    source: &dyn Source,
    scope: &Scope,
    before: Timestamp,
    effort: &Effort,
    redaction: &Redaction,
) -> Result<SoughtRun, Error> {
    // Of a service without a named operation, what nothing called.
    let is_run = |span: &SpanRow| {
        let is_named = scope.operations.iter().any(|(service, _)| *service == scope.service);
        let is_job = if is_named { scope.holds(span) } else { span.parent.is_none() };
        is_job && *span.service() == scope.service && span.end < before
    };
    let filter = Filter { services: Some([scope.service.clone()].into()), traces: None };
    let (mut found, mut since, mut inflated_bytes): (Option<SpanRow>, _, _) = (None, before, 0u64);
    source.read_backward(before.saturating_add(LATE), &filter, &mut |step| {
        let recorded = match step {
            Backwards::Since(at) => {
                since = at.min(since);
                // Within a part the order is forward: only at its end is the last known.
                return if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            }
            Backwards::Request(recorded) => recorded,
        };
        inflated_bytes = inflated_bytes.saturating_add(recorded.body.len() as u64);
        if inflated_bytes > effort.bytes / 4 {
            // Of a part that is not read to its end the last known is not the last.
            found = None;
            return ControlFlow::Break(());
        }
        if recorded.signal != Signal::Traces {
            return ControlFlow::Continue(());
        }
        let mut gather = Gather::new(Limits { spans: 400_000, log_records: 0, points: 0 });
        // A body that is damaged was refused: the others still count.
        let _ = decode(recorded.signal, recorded.body, redaction, &|at| at < before, &mut gather);
        // Where a job calls itself by the same name, the last of them to end is the outermost.
        let last = gather.finish().spans.into_iter().filter(is_run).max_by_key(rank);
        if let Some(last) = last
            && found.as_ref().is_none_or(|found| rank(found) < rank(&last))
        {
            found = Some(last);
        }
        ControlFlow::Continue(())
    })?;
    let run = found.map(|root| whole(source, root, effort, redaction)).transpose()?;
    Ok(SoughtRun { run, since })
}

fn rank(span: &SpanRow) -> (Timestamp, bool) {
    (span.end, span.parent.is_none())
}

/// A run with all that belongs to its trace.
fn whole(
    source: &dyn Source,
    root: SpanRow,
    effort: &Effort,
    redaction: &Redaction,
) -> Result<LastRun, Error> {
    let mut all = Gather::new(Limits { spans: SPANS, log_records: LOG_RECORDS, points: 0 });
    if root.trace.is_none() {
        all.span(root.clone());
    } else {
        let times = root.start.saturating_sub(AROUND)..root.end.saturating_add(AROUND);
        let filter = Filter { services: None, traces: Some([root.trace].into()) };
        let mut inflated_bytes = 0u64;
        source.read(times, &filter, &mut |recorded| {
            inflated_bytes = inflated_bytes.saturating_add(recorded.body.len() as u64);
            if inflated_bytes > effort.bytes / 4 {
                return ControlFlow::Break(());
            }
            let wanted = |_, trace| (trace == root.trace).then_some(0);
            let into = std::slice::from_mut(&mut all);
            let _ = add(recorded.signal, recorded.body, redaction, &wanted, into);
            ControlFlow::Continue(())
        })?;
    }
    let mut rows = all.finish();
    // A sample of one trace is all of it or nothing: then the job itself is shown.
    if rows.spans.is_empty() {
        rows.spans.push(root.clone());
    }
    Ok(LastRun {
        trace: root.trace,
        service: root.service().to_string(),
        operation: root.operation.to_string(),
        end: root.end,
        took_ns: root.duration_ns(),
        failed: root.failed(),
        message: root.message.to_string(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Symptom;
    use crate::diagnose::tests::{END_S, MS, ONSET_S, anomaly, diagnosed, text};
    use crate::diagnose::{Config, Memory, Pass};
    use arrow::array::AsArray;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use prost::Message;

    const DAY_S: u64 = 86_400;

    fn span(trace: u8, id: u8, parent: Option<u8>, name: &str, start_s: u64) -> Span {
        Span {
            trace_id: vec![trace; 16],
            span_id: vec![id; 8],
            parent_span_id: parent.map(|id| vec![id; 8]).unwrap_or_default(),
            name: name.to_owned(),
            kind: 1,
            start_time_unix_nano: start_s * 1_000_000_000,
            end_time_unix_nano: start_s * 1_000_000_000 + 12_000 * MS,
            ..Span::default()
        }
    }

    fn failed(span: Span) -> Span {
        Span { status: Some(Status { code: 2, message: "disk full".to_owned() }), ..span }
    }

    /// Requests of the service of the job, in the order of the ends of their spans.
    fn recorded(groups: Vec<Vec<Span>>) -> Memory {
        let mut source = Memory::default();
        for spans in groups {
            let at = spans.iter().map(|span| span.end_time_unix_nano).max().unwrap_or(0);
            let group = ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![text("service.name", "orders")],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            };
            let body = ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec();
            source.requests.push((Signal::Traces, body.into(), Timestamp(at)));
        }
        source
    }

    /// A run three days ago, one the day before yesterday, and since then much else.
    fn runs(last: Vec<Span>) -> Memory {
        let mut groups = vec![vec![failed(span(1, 1, None, "POST /orders", ONSET_S - 3 * DAY_S))], last];
        groups.extend(
            (0..200).map(|n| vec![span(100, n, None, "GET /health", ONSET_S - 10_000 + u64::from(n))]),
        );
        recorded(groups)
    }

    fn sought(source: &Memory, effort: &Effort) -> SoughtRun {
        let (scope, before) = (Scope::of(&anomaly(Symptom::MissedJob)), Timestamp::from_secs(ONSET_S));
        find(source, &scope, before, effort, &Redaction::default()).unwrap()
    }

    #[test]
    fn the_last_run_is_found_however_long_ago_and_however_it_ended() {
        let run = || span(2, 1, None, "POST /orders", ONSET_S - 2 * DAY_S);
        let step = || span(2, 2, Some(1), "copy", ONSET_S - 2 * DAY_S);
        let effort = Config::default().effort(Pass::Complete);
        let words = |last| sought(&runs(last), &effort).in_words();
        let good = words(vec![run(), step()]);
        let end = Timestamp::from_secs(ONSET_S - 2 * DAY_S + 12);
        assert_eq!(good, format!("the last run of “POST /orders” ended well at {end}, after 12.0 s"));
        let bad = words(vec![failed(run()), step()]);
        assert!(bad.ends_with(&format!("failed at {end}, after 12.0 s: disk full")), "{bad}");
        let partly = words(vec![run(), failed(step())]);
        assert!(partly.ends_with("after 12.0 s, though one of its spans failed"), "{partly}");
        let source = recorded(vec![vec![span(9, 1, None, "GET /health", ONSET_S - 500)]]);
        assert!(
            sought(&source, &effort).in_words().starts_with("no run of it is in what was looked through")
        );
    }

    /// Within a part the order is forward.
    #[test]
    fn of_a_part_that_is_not_read_to_its_end_nothing_is_called_the_last() {
        let run = |trace, days: u64| vec![span(trace, 1, None, "POST /orders", ONSET_S - days * DAY_S)];
        let mut source = recorded(vec![run(1, 3), run(2, 2)]);
        let at = Timestamp::from_secs(ONSET_S - DAY_S);
        source.requests.iter_mut().for_each(|request| request.2 = at);
        let one = source.requests.first().map_or(0, |(_, body, _)| body.len() as u64);
        let effort =
            |requests: u64| Effort { bytes: 4 * requests * one, ..Config::default().effort(Pass::Complete) };
        let found = sought(&source, &effort(1));
        assert_eq!((found.run, found.since), (None, Timestamp::from_secs(ONSET_S)));
        let found = sought(&source, &effort(2));
        assert_eq!((found.run.map(|run| run.end.secs()), found.since), (Some(ONSET_S - 2 * DAY_S + 12), at));
    }

    /// What is inflated counts, whatever it is.
    #[test]
    fn metrics_of_the_service_are_part_of_the_effort() {
        let mut source = recorded(vec![vec![span(1, 1, None, "POST /orders", ONSET_S - 3 * DAY_S)]]);
        let later = Timestamp::from_secs(ONSET_S - DAY_S);
        source.requests.push((Signal::Metrics, vec![0; 1_000].into(), later));
        let effort = Effort { bytes: 4 * 999, ..Config::default().effort(Pass::Complete) };
        assert_eq!(sought(&source, &effort).run, None);
    }

    #[test]
    fn it_says_how_far_back_it_looked_where_it_did_not_look_at_all() {
        let source = runs(vec![span(2, 1, None, "POST /orders", ONSET_S - 2 * DAY_S)]);
        let one = source.requests.last().map_or(0, |(_, body, _)| body.len() as u64);
        let effort = Effort { bytes: one * 4 * 10, ..Config::default().effort(Pass::Complete) };
        let found = sought(&source, &effort);
        assert_eq!(found.run, None);
        assert_eq!(found.since, Timestamp::from_secs(ONSET_S - 10_000 + 190 + 12), "of ten requests");
    }

    #[test]
    fn evidence_of_a_missed_job_says_that_its_last_run_failed_and_shows_it() {
        let run = failed(span(2, 1, None, "POST /orders", ONSET_S - 2 * DAY_S));
        let source = runs(vec![run, span(2, 2, Some(1), "copy", ONSET_S - 2 * DAY_S)]);
        let directory = tempfile::tempdir().unwrap();
        let missed = anomaly(Symptom::MissedJob);
        let when = (Pass::Complete, END_S);
        let evidence = diagnosed(Config::default(), directory.path(), &missed, when, &source);
        let reasons = &evidence.causes.first().unwrap().reasons;
        assert!(
            reasons.iter().any(|reason| reason.contains(" failed at ") && reason.ends_with(", after 12.0 s: disk full")),
            "{reasons:?}"
        );
        let page = std::fs::read_to_string(evidence.bundle.path.join("index.html")).unwrap();
        assert!(page.contains(", after 12.0 s: disk full") && page.contains("last run among them"), "{page}");
        let spans = std::fs::read(evidence.bundle.path.join("spans.parquet")).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(spans)).unwrap();
        let periods = reader.build().unwrap().flat_map(|batch| {
            let periods = batch.unwrap().column_by_name("period").unwrap().clone();
            periods.as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
        });
        assert_eq!(periods.filter(|period| period == "last_run").count(), 2);
    }
}
