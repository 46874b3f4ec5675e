//! Answers from what is recorded: traces, log records, what broke at a moment.

use super::api::Api;
use super::convert::{service, span_kind, to_proto};
use super::{Error, Meter, Range};
use crate::api::v1;
use crate::confirm::{Anomaly, AnomalyState, Severity};
use crate::context::Change;
use crate::diagnose::{
    Condition, Diagnosis, FAULTY, Inquiry, LogRow, Made, Redaction, Resource, Rows, Search, SpanRow,
    at_moment, conditions, find_logs, find_trace, find_traces,
};
use crate::model::{ServiceKey, Timestamp, TraceId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

/// A search that names no range.
const RANGE: Duration = Duration::from_secs(3_600);
/// Bytes of the journal that one search reads at most.
const READ_BYTES: u64 = 1 << 30;
/// What a search holds in memory while it works: decoded requests and what it found.
const MEMORY_BYTES: u64 = 48 << 20;
/// Rows of an answer: if none are asked for, and at most.
const TRACES: (u32, u32) = (20, 200);
const LOG_RECORDS: (u32, u32) = (100, 1_000);

fn rows((usual, most): (u32, u32), asked: u32) -> usize {
    let rows = if asked == 0 { usual } else { asked.min(most) };
    usize::try_from(rows).unwrap_or(1)
}

/// What a request looks for.
struct Wanted {
    range: Range,
    conditions: Vec<Condition>,
    services: Option<BTreeSet<ServiceKey>>,
}

impl Api {
    fn wanted(
        &self,
        range: Option<&v1::TimeRange>,
        service: &str,
        conditions_text: &str,
    ) -> Result<Wanted, Error> {
        let conditions = conditions(conditions_text).map_err(Error::Invalid)?;
        let mut services: Option<BTreeSet<ServiceKey>> =
            self.queries.service(service)?.map(|one| [one].into());
        for text in conditions.iter().filter_map(Condition::service) {
            let meant = self.queries.services_meant(text);
            services = Some(match services {
                Some(before) => before.intersection(&meant).cloned().collect(),
                None => meant,
            });
        }
        Ok(Wanted { range: Range::of(range, self.now(), RANGE)?, conditions, services })
    }

    fn redaction(&self) -> Redaction {
        self.sources.diagnose.redaction()
    }

    /// # Errors
    /// `Invalid` for conditions that cannot be read, `NotFound` for a service that is not known.
    pub fn search_traces(
        &self,
        asked: &v1::SearchTracesRequest,
        meter: &mut Meter,
    ) -> Result<v1::SearchTracesResponse, Error> {
        let wanted = self.wanted(asked.range.as_ref(), &asked.service, &asked.r#where)?;
        let redaction = self.redaction();
        let search = wanted.search(rows(TRACES, asked.limit), &redaction, self.now());
        meter.take(MEMORY_BYTES)?;
        let found = find_traces(&*self.sources.recorded, &search, &mut |read| leave(meter, read))
            .map_err(|error| Error::Storage(error.to_string()))?;
        let traces = found.items.iter().map(|(span, rows)| summary(span, rows)).collect();
        Ok(v1::SearchTracesResponse { traces, searched: Some(searched(found.since, found.read_bytes)) })
    }

    /// # Errors
    /// As [`Self::search_traces`].
    pub fn search_logs(
        &self,
        asked: &v1::SearchLogsRequest,
        meter: &mut Meter,
    ) -> Result<v1::SearchLogsResponse, Error> {
        let wanted = self.wanted(asked.range.as_ref(), &asked.service, &asked.r#where)?;
        let redaction = self.redaction();
        let search = wanted.search(rows(LOG_RECORDS, asked.limit), &redaction, self.now());
        meter.take(MEMORY_BYTES)?;
        let found = find_logs(&*self.sources.recorded, &search, &mut |read| leave(meter, read))
            .map_err(|error| Error::Storage(error.to_string()))?;
        let log_records = found.items.iter().map(log_message).collect();
        Ok(v1::SearchLogsResponse { log_records, searched: Some(searched(found.since, found.read_bytes)) })
    }

    /// # Errors
    /// `Invalid` if that is no id, `NotFound` if nothing is recorded of it and it is no keepsake.
    pub fn trace(&self, id: &str, meter: &mut Meter) -> Result<v1::GetTraceResponse, Error> {
        let id = TraceId::from_hex(id.trim())
            .ok_or_else(|| Error::Invalid(format!("{id:?} is not a trace id of 32 hexadecimal digits")))?;
        meter.take(MEMORY_BYTES)?;
        let mut found = find_trace(&*self.sources.recorded, id, self.now(), &self.redaction(), &mut |read| {
            leave(meter, read)
        })
        .map_err(|error| Error::Storage(error.to_string()))?;
        let is_found = |rows: &Rows| !rows.spans.is_empty() || !rows.logs.is_empty();
        if !is_found(&found.rows) {
            let keepsakes = self.sources.keepsakes.as_ref();
            let kept = keepsakes.map(|kept| kept.rows(&[id].into(), &self.redaction())).filter(is_found);
            match kept {
                // It was kept whole, so nothing of it is missing.
                Some(kept) => (found.rows, found.is_whole) = (kept, true),
                None if found.is_whole => {
                    return Err(Error::NotFound(format!(
                        "nothing that the journal still holds is of trace {id}, and it is no keepsake"
                    )));
                }
                // What was not looked through may hold it: that is an answer, and not that it is not there.
                None => {}
            }
        }
        let mut spans = found.rows.spans;
        spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end), span.span));
        Ok(v1::GetTraceResponse {
            spans: spans.iter().map(span_message).collect(),
            log_records: found.rows.logs.iter().map(log_message).collect(),
            searched: Some(searched(found.since, found.read_bytes)),
            incomplete: !found.is_whole,
            spans_left_out: found.spans_left_out,
            log_records_left_out: found.log_records_left_out,
        })
    }

    /// What is asked about a moment.
    fn asked(&self, asked: &v1::ExplainRequest) -> Result<Asked, Error> {
        let service = self.queries.service(&asked.service)?;
        let at = asked.at.as_ref().map_or_else(|| self.now(), super::from_proto).min(self.now());
        let oldest = self.sources.recorded.oldest();
        if oldest.is_none_or(|oldest| at <= oldest) {
            return Err(Error::Invalid(match oldest {
                Some(oldest) => format!("the journal begins at {oldest}, after {at}"),
                None => "nothing is recorded yet".to_owned(),
            }));
        }
        let healthy = asked.healthy.as_ref().map(|range| healthy(range, self.now(), at)).transpose()?;
        let faults = self.board().look(|fold| {
            let anomalies = fold.anomalies.values().filter_map(|whole| whole.anomaly.as_ref());
            anomalies.filter_map(|anomaly| Some((anomaly.id.0.clone(), wrong(anomaly, at)?))).collect()
        })?;
        Ok(Asked { at, service, healthy, faults })
    }

    /// Changes that are known.
    fn changes(&self) -> Result<Vec<Change>, Error> {
        self.board().look(|fold| fold.changes.values().cloned().collect())
    }

    /// What broke at a moment, with the files of its evidence.
    ///
    /// # Errors
    /// As [`Self::explain`].
    pub fn explain_whole(&self, asked: &v1::ExplainRequest, meter: &mut Meter) -> Result<Made, Error> {
        let asked = self.asked(asked)?;
        meter.take(MEMORY_BYTES)?;
        let changes = self.changes()?;
        let diagnosis = Diagnosis::new(self.sources.diagnose.clone(), &self.sources.evidence);
        let diagnosis = match &self.sources.keepsakes {
            Some(keepsakes) => diagnosis.with_keepsakes(keepsakes.clone()),
            None => diagnosis,
        };
        let made = diagnosis
            .of_moment(&asked.inquiry(&asked.times()), &changes, &*self.sources.recorded)
            .map_err(|error| Error::Storage(error.to_string()))?;
        // They are held until the client has them.
        meter.take(made.files.iter().map(|(_, bytes)| bytes.len() as u64).sum())?;
        Ok(made)
    }

    /// # Errors
    /// `NotFound` for a service that is not known, `Invalid` for a moment of which nothing is held any more, and for a
    /// healthy period that is not before what is looked at.
    pub fn explain(
        &self,
        asked: &v1::ExplainRequest,
        meter: &mut Meter,
    ) -> Result<v1::ExplainResponse, Error> {
        let asked = self.asked(asked)?;
        meter.take(MEMORY_BYTES)?;
        let recorded = &*self.sources.recorded;
        let changes = self.changes()?;
        let found = at_moment(recorded, &asked.inquiry(&asked.times()), &changes, &self.sources.diagnose)
            .map_err(|error| Error::Storage(error.to_string()))?;
        let healthy = found.healthy_times;
        let since =
            recorded.oldest().map_or(healthy.start, |oldest| oldest.clamp(healthy.start, healthy.end));
        let within = |times: &std::ops::Range<Timestamp>| times.start < healthy.end && times.end > since;
        let within = asked.faults.iter().filter(|(_, times)| within(times));
        Ok(v1::ExplainResponse {
            at: Some(to_proto(asked.at)),
            causes: found.causes.iter().map(super::anomaly::cause).collect(),
            share: found.share,
            healthy_rows: found.healthy_rows,
            healthy_since: Some(to_proto(since)),
            healthy_until: Some(to_proto(healthy.end)),
            faults_in_healthy: within.map(|(id, _)| id.clone()).collect(),
        })
    }
}

/// A question about a moment, understood.
struct Asked {
    at: Timestamp,
    service: Option<ServiceKey>,
    healthy: Option<std::ops::Range<Timestamp>>,
    /// Anomalies with when they went on.
    faults: Vec<(String, std::ops::Range<Timestamp>)>,
}

impl Asked {
    fn times(&self) -> Vec<std::ops::Range<Timestamp>> {
        self.faults.iter().map(|(_, times)| times.clone()).collect()
    }

    fn inquiry<'a>(&'a self, faults: &'a [std::ops::Range<Timestamp>]) -> Inquiry<'a> {
        Inquiry { at: self.at, service: self.service.as_ref(), healthy: self.healthy.clone(), faults }
    }
}

/// The healthy period that somebody chose.
fn healthy(
    range: &v1::TimeRange,
    now: Timestamp,
    at: Timestamp,
) -> Result<std::ops::Range<Timestamp>, Error> {
    let Range { since, until } = Range::of(Some(range), now, RANGE)?;
    let (looked_at, longest) = (at.saturating_sub(FAULTY), Duration::from_secs(3_600));
    if until > looked_at {
        return Err(Error::Invalid(format!(
            "the healthy period ends at {until}, and what is looked at begins at {looked_at}: let it end there or before"
        )));
    }
    if until.since(since) > longest {
        return Err(Error::Invalid("the healthy period is longer than an hour".to_owned()));
    }
    Ok(since..until)
}

/// When an anomaly went on, as far as it began before a time; none of what nobody was told of, what is part of another
/// and what was known to be so.
fn wrong(anomaly: &Anomaly, at: Timestamp) -> Option<std::ops::Range<Timestamp>> {
    let is_told = anomaly.fired_at.is_some() && anomaly.severity > Severity::Info;
    let is_fault = matches!(anomaly.state, AnomalyState::Confirmed | AnomalyState::Recovered);
    let onset = anomaly.onset.earliest;
    (is_told && is_fault && onset < at).then(|| onset..anomaly.ended_at.unwrap_or(at).max(onset))
}

impl Wanted {
    fn search<'a>(&'a self, limit: usize, redaction: &'a Redaction, now: Timestamp) -> Search<'a> {
        // Nothing that counts is timed later than a little after the newest arrival.
        let end = self.range.until.min(now.saturating_add(Duration::from_secs(60)));
        Search {
            times: self.range.since.min(end)..end,
            conditions: &self.conditions,
            services: self.services.clone(),
            limit,
            redaction,
        }
    }
}

fn leave(meter: &Meter, read_bytes: u64) -> ControlFlow<()> {
    if read_bytes > READ_BYTES || meter.is_nearly_over() {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

fn searched(since: Timestamp, read_bytes: u64) -> v1::Searched {
    v1::Searched { since: Some(to_proto(since)), read_bytes }
}

fn nanoseconds(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

fn summary(found: &SpanRow, rows: &Rows) -> v1::TraceSummary {
    let spans = || rows.spans.iter().chain(std::iter::once(found).filter(|_| rows.spans.is_empty()));
    let root = spans().min_by_key(|span| (!span.parent.is_none(), span.start, span.span)).unwrap_or(found);
    let start = spans().map(|span| span.start).min().unwrap_or(found.start);
    let end = spans().map(|span| span.end).max().unwrap_or(found.end);
    let services: BTreeSet<&ServiceKey> = spans().map(SpanRow::service).collect();
    v1::TraceSummary {
        trace_id: found.trace.to_string(),
        service: Some(service(root.service())),
        operation: root.operation.to_string(),
        start: Some(to_proto(start)),
        duration_ns: nanoseconds(end.0.saturating_sub(start.0)),
        spans: spans().count() as u64,
        errors: spans().filter(|span| span.failed()).count() as u64,
        services: services.into_iter().map(service).collect(),
        message: found.message.to_string(),
    }
}

/// Own attributes, and those of the resource that are not told apart already.
fn attributes(own: &[(std::sync::Arc<str>, std::sync::Arc<str>)], of: &Resource) -> BTreeMap<String, String> {
    let of_resource = of
        .attributes
        .iter()
        .filter(|(key, _)| !matches!(&**key, "service.name" | "service.namespace" | "service.instance.id"));
    of_resource.chain(own).map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn span_message(span: &SpanRow) -> v1::Span {
    v1::Span {
        trace_id: span.trace.to_string(),
        span_id: span.span.to_string(),
        parent_span_id: if span.parent.is_none() { String::new() } else { span.parent.to_string() },
        service: Some(service(span.service())),
        instance: span.resource.instance.to_string(),
        operation: span.operation.to_string(),
        kind: span_kind(span.kind).into(),
        start: Some(to_proto(span.start)),
        duration_ns: nanoseconds(span.duration_ns()),
        error: span.failed(),
        message: span.message.to_string(),
        attributes: attributes(&span.attributes, &span.resource),
    }
}

fn log_message(log: &LogRow) -> v1::LogRecord {
    v1::LogRecord {
        time: Some(to_proto(log.time)),
        service: Some(service(log.service())),
        instance: log.resource.instance.to_string(),
        severity: u32::from(log.severity),
        body: log.body.to_string(),
        trace_id: if log.trace.is_none() { String::new() } else { log.trace.to_string() },
        span_id: if log.span.is_none() { String::new() } else { log.span.to_string() },
        attributes: attributes(&log.attributes, &log.resource),
    }
}
