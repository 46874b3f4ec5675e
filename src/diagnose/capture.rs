//! What is read for an anomaly, and which of it goes into the bundle: complete traces that tell
//! something (the first failures, every distinct error, the slowest, typical ones), their healthy
//! counterparts, and the log lines of both.

use super::config::Effort;
use super::decode::add;
use super::forest::{Forest, Operations};
use super::last_run::{self, SoughtRun};
use super::redact::Redaction;
use super::rows::{Distance, Gather, Limits, LogRow, Rows, SpanRow};
use super::source::Source;
use super::templates::signature;
use super::{Config, Error};
use crate::aggregate::operation_name;
use crate::confirm::Anomaly;
use crate::detect::Symptom;
use crate::journal::Filter;
use crate::model::{ServiceKey, Timestamp, TraceId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::time::Duration;

/// What began shortly before the onset belongs to the fault; what lies this close before is neither.
const BEFORE_ONSET: Duration = Duration::from_secs(2);
/// Most log records of a bundle.
pub(super) const LOG_RECORDS: usize = 20_000;
/// No request inflates to more times its size than this.
const LARGEST_INFLATION: u64 = 64;
/// Of the first failures, so many are looked up where rows were left out.
const LOOKED_UP: usize = 128;
/// Most traces shown of one distinct error.
const OF_ONE_ERROR: usize = 5;
/// Most lines of one template that come before those of others.
const OF_ONE_LINE: usize = 100;

/// A period's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    Faulty,
    Healthy,
    /// Of before the onset, and of no period: kept when the journal had it.
    Keepsake,
    /// The same: of the last run of a job that did not run.
    LastRun,
}

impl Period {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Faulty => "faulty",
            Self::Healthy => "healthy",
            Self::Keepsake => "keepsake",
            Self::LastRun => "last_run",
        }
    }
}

/// All rows of the two periods.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    pub healthy_times: Range<Timestamp>,
    pub faulty_times: Range<Timestamp>,
    pub healthy: Rows,
    pub faulty: Rows,
    /// Rows of traces that failed first, where `faulty` is a sample that may lack them: they are to be shown,
    /// and would bend every comparison.
    pub failed: Rows,
    /// The last run of a job that did not run: to be shown, and of no period. Compared with nothing: one run of
    /// yesterday says little about the minutes before.
    pub last_run: Option<SoughtRun>,
    /// How many times as long the healthy period is of which `healthy` is the part next to the onset.
    pub past_factor: f64,
    /// Bytes read of the two periods, and what the journal holds of them.
    pub read_bytes: u64,
    pub held_bytes: u64,
}

impl Capture {
    /// The share of what the journal holds of both periods that was looked at, 0..=1: of the bytes, and
    /// of the rows within them.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn share(&self) -> f64 {
        let read = if self.held_bytes == 0 {
            1.0
        } else {
            (self.read_bytes as f64 / self.held_bytes as f64).min(1.0)
        };
        let (mut kept, mut there) = (0.0, 0.0);
        for rows in [&self.healthy, &self.faulty] {
            for (rows, one_in) in [(rows.spans.len(), rows.one_in), (rows.logs.len(), rows.logs_one_in)] {
                kept += rows as f64;
                there += rows as f64 * one_in.max(1) as f64;
            }
        }
        if there > 0.0 { read * kept / there } else { read }
    }
}

/// The end of the healthy and the beginning of the faulty period, of which about `most` bytes are recorded: each
/// may have half of them, and what the other leaves.
fn bounded(
    source: &dyn Source,
    healthy: Range<Timestamp>,
    faulty: Range<Timestamp>,
    most: u64,
) -> (Range<Timestamp>, Range<Timestamp>) {
    let (good, bad) = (source.bytes(&healthy), source.bytes(&faulty));
    if good.saturating_add(bad) <= most {
        return (healthy, faulty);
    }
    // Of a period that begins before all that is held, a part of its length would hold nothing.
    let (healthy, faulty) = (held(source, healthy), held(source, faulty));
    let for_bad = bad.min((most / 2).max(most.saturating_sub(good)));
    let for_good = most.saturating_sub(for_bad).min(good);
    // Rates change little within minutes; what remains too long is cut while it is read.
    let part = |length: Duration, wanted: u64, held: u64| {
        let ns = length.as_nanos().saturating_mul(u128::from(wanted)) / u128::from(held.max(1));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)).max(Duration::from_secs(1)).min(length)
    };
    let before = part(healthy.end.since(healthy.start), for_good, good);
    let after = part(faulty.end.since(faulty.start), for_bad, bad);
    (healthy.end.saturating_sub(before)..healthy.end, faulty.start..faulty.start.saturating_add(after))
}

/// What of a period something may be held of.
fn held(source: &dyn Source, times: Range<Timestamp>) -> Range<Timestamp> {
    let oldest = source.oldest().unwrap_or(times.start);
    times.start.max(oldest).min(times.end)..times.end
}

/// Why a trace was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    FirstFailure,
    DistinctError,
    Slowest,
    Typical,
    Healthy,
    /// Healthy, and older than what the journal holds.
    Keepsake,
    /// The last run of a job that did not run, however it ended.
    LastRun,
}

impl Role {
    /// Whether it shows what it was like before something was wrong.
    #[must_use]
    pub const fn is_from_before(self) -> bool {
        matches!(self, Self::Healthy | Self::Keepsake | Self::LastRun)
    }
}

impl Role {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstFailure => "first_failure",
            Self::DistinctError => "distinct_error",
            Self::Slowest => "slowest",
            Self::Typical => "typical",
            Self::Healthy => "healthy",
            Self::Keepsake => "keepsake",
            Self::LastRun => "last_run",
        }
    }
}

/// What goes into the bundle.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// Each trace with why it was chosen, in the order of choice.
    pub traces: Vec<(TraceId, Role)>,
    pub spans: Vec<(Period, SpanRow)>,
    pub logs: Vec<(Period, LogRow)>,
    pub failed_traces: u64,
}

impl Chosen {
    /// Adds the rows of keepsakes.
    pub fn add_keepsakes(&mut self, rows: &Rows) {
        let traces: BTreeSet<TraceId> = rows.spans.iter().map(|row| row.trace).collect();
        self.traces.extend(traces.into_iter().map(|trace| (trace, Role::Keepsake)));
        self.spans.extend(rows.spans.iter().map(|row| (Period::Keepsake, row.clone())));
        self.logs.extend(rows.logs.iter().map(|row| (Period::Keepsake, row.clone())));
    }

    /// Traces that are keepsakes.
    #[must_use]
    pub fn keepsakes(&self) -> BTreeSet<TraceId> {
        let keepsakes = self.traces.iter().filter(|(_, role)| *role == Role::Keepsake);
        keepsakes.map(|(trace, _)| *trace).collect()
    }
}

/// The operations and services an anomaly is about.
#[derive(Clone, Debug)]
pub struct Scope {
    pub service: ServiceKey,
    pub services: BTreeSet<ServiceKey>,
    /// (service, operation) of the members.
    pub operations: BTreeSet<(ServiceKey, String)>,
    pub symptom: Symptom,
}

impl Scope {
    #[must_use]
    pub fn of(anomaly: &Anomaly) -> Self {
        let members = || anomaly.members.iter();
        Self {
            service: anomaly.service.clone(),
            services: members()
                .map(|member| member.service.clone())
                .chain([anomaly.service.clone()])
                .collect(),
            operations: members()
                .map(|member| (member.service.clone(), operation_name(&member.signal).into_owned()))
                .collect(),
            symptom: anomaly.symptom,
        }
    }

    /// Its operations; of a service without one, some that nothing is called.
    fn asked(&self) -> BTreeSet<(ServiceKey, String)> {
        let services = self.services.iter().map(|service| (service.clone(), String::new()));
        self.operations.iter().cloned().chain(services).collect()
    }

    fn distance(&self, span: &SpanRow) -> Distance {
        if self.holds(span) {
            Distance::Operation
        } else if self.services.contains(span.service()) {
            Distance::Service
        } else {
            Distance::Elsewhere
        }
    }

    pub(super) fn holds(&self, span: &SpanRow) -> bool {
        self.operations
            .iter()
            .any(|(service, operation)| service == span.service() && *operation == *span.operation)
    }
}

/// Requests of each period of which it is told how much larger they are inflated.
const INFLATED: usize = 16;

/// How many times as large as recorded the requests of these periods are, about: so many of each are looked at.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn inflation(source: &dyn Source, periods: [&Range<Timestamp>; 2]) -> Result<f64, Error> {
    let (mut recorded_bytes, mut bytes) = (0u64, 0u64);
    for times in periods.map(|times| held(source, times.clone())) {
        let mut requests = 0;
        source.read(times, &Filter::default(), &mut |recorded| {
            recorded_bytes = recorded_bytes.saturating_add(recorded.read_bytes);
            bytes = bytes.saturating_add(recorded.body.len() as u64);
            requests += 1;
            if requests < INFLATED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    Ok((bytes as f64 / recorded_bytes.max(1) as f64).max(1.0))
}

/// Reads what is from the onset on, and the healthy period right before it, as much of both as the effort allows.
///
/// # Errors
/// When the source cannot be read.
pub fn capture(
    source: &dyn Source,
    scope: &Scope,
    onset: Timestamp,
    now: Timestamp,
    effort: &Effort,
    config: &Config,
) -> Result<Capture, Error> {
    let split = onset.saturating_sub(BEFORE_ONSET);
    let healthy = split.saturating_sub(effort.healthy)..split;
    let end = Timestamp(now.0.saturating_add(1));
    capture_of(source, scope, healthy, split..end, effort, config)
}

/// The same of two periods that need not follow each other, and do not overlap.
///
/// # Errors
/// When the source cannot be read.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a ratio of bytes"
)]
pub fn capture_of(
    source: &dyn Source,
    scope: &Scope,
    healthy: Range<Timestamp>,
    faulty: Range<Timestamp>,
    effort: &Effort,
    config: &Config,
) -> Result<Capture, Error> {
    let redaction = config.redaction();
    let limits = Limits { spans: effort.rows, log_records: effort.rows, points: effort.rows };
    let held_bytes = source.bytes(&healthy).saturating_add(source.bytes(&faulty));
    let oldest = source.oldest().unwrap_or(healthy.start).clamp(healthy.start, healthy.end);
    let past = healthy.end.since(oldest);
    let most_bytes = match held_bytes {
        held if held < effort.bytes / LARGEST_INFLATION => held,
        _ => (effort.bytes as f64 / inflation(source, [&healthy, &faulty])?) as u64,
    };
    let is_cut = held_bytes > most_bytes;
    let (healthy, faulty) = bounded(source, healthy, faulty, most_bytes);
    let kept = healthy.end.since(healthy.start).as_secs_f64().max(1.0);
    let past_factor = (past.as_secs_f64() / kept).max(1.0);
    let (healthy_times, faulty_times) = (healthy.clone(), faulty.clone());
    let mut capture = Capture { healthy_times, faulty_times, past_factor, held_bytes, ..Capture::default() };
    let mut gathers = [Gather::new(limits), Gather::new(limits).about(scope.asked())];
    let (good_bytes, bad_bytes) = (source.bytes(&healthy), source.bytes(&faulty));
    let good_share = good_bytes as f64 / good_bytes.saturating_add(bad_bytes).max(1) as f64;
    // Healthy requests that inflate further than was thought leave the faulty ones half of their share.
    let for_good = (effort.bytes as f64 * f64::midpoint(good_share, 1.0)) as u64;
    let (mut read_bytes, mut good_inflated, mut bad_inflated) = (0u64, 0u64, 0u64);
    // Says whether it broke off because the healthy requests, which are those until a time, were too many.
    let mut read = |part: &Range<Timestamp>, arrived_from: Timestamp, good_until: Timestamp| {
        let mut is_good_full = false;
        source.read(part.clone(), &Filter::default(), &mut |recorded| {
            if recorded.arrived < arrived_from {
                return ControlFlow::Continue(());
            }
            read_bytes = read_bytes.saturating_add(recorded.read_bytes);
            let bytes = recorded.body.len() as u64;
            if recorded.arrived < good_until {
                is_good_full = good_inflated.saturating_add(bytes) > for_good;
                good_inflated = good_inflated.saturating_add(bytes).min(for_good);
            } else {
                bad_inflated = bad_inflated.saturating_add(bytes);
            }
            if is_good_full || good_inflated.saturating_add(bad_inflated) > effort.bytes {
                return ControlFlow::Break(());
            }
            // A body that is damaged was refused: the others still count.
            let period = |at, _| part.contains(&at).then(|| usize::from(faulty.contains(&at)));
            let _ = add(recorded.signal, recorded.body, &redaction, &period, &mut gathers);
            ControlFlow::Continue(())
        })?;
        Ok::<bool, Error>(is_good_full)
    };
    // Where bytes are short, none go into requests that came before the period, of which hardly any is about it.
    let begin = if is_cut { healthy.start } else { Timestamp::ZERO };
    // Long requests end after the alarm; what the journal already holds of them is wanted.
    // Read at once where one follows the other: what lies at the seam is read once.
    if healthy.end == faulty.start {
        if read(&(healthy.start..faulty.end), begin, faulty.start)? {
            read(&faulty, faulty.start, Timestamp::ZERO)?;
        }
    } else {
        read(&healthy, begin, Timestamp::MAX)?;
        read(&faulty, Timestamp::ZERO, Timestamp::ZERO)?;
    }
    capture.read_bytes = read_bytes;
    let [good, bad] = gathers;
    if scope.symptom == Symptom::MissedJob {
        capture.last_run = Some(last_run::find(source, scope, faulty.start, effort, &redaction)?);
    }
    let first: Vec<(Timestamp, TraceId)> = bad.first_failed();
    (capture.healthy, capture.faulty) = (good.finish(), bad.finish());
    if capture.faulty.one_in > 1 || capture.faulty.logs_one_in > 1 {
        capture.failed = traces_of(source, &first, effort, &redaction)?;
    }
    Ok(capture)
}

/// All rows of the first of these failed traces, for a quarter of the effort at most.
fn traces_of(
    source: &dyn Source,
    failed: &[(Timestamp, TraceId)],
    effort: &Effort,
    redaction: &Redaction,
) -> Result<Rows, Error> {
    let failed = failed.get(..LOOKED_UP.min(failed.len())).unwrap_or_default();
    let ends = || failed.iter().map(|(at, _)| *at);
    let (Some(first), Some(last)) = (ends().min(), ends().max()) else {
        return Ok(Rows::default());
    };
    let around = effort.around_failure;
    let times = first.saturating_sub(around)..last.saturating_add(around);
    let traces: BTreeSet<TraceId> = failed.iter().map(|(_, trace)| *trace).collect();
    let mut all = Gather::new(Limits { spans: 100_000, log_records: LOG_RECORDS, points: 0 });
    let filter = Filter { services: None, traces: Some(traces.clone()) };
    let mut inflated_bytes = 0u64;
    source.read(times, &filter, &mut |recorded| {
        inflated_bytes = inflated_bytes.saturating_add(recorded.body.len() as u64);
        if inflated_bytes > effort.bytes / 4 {
            return ControlFlow::Break(());
        }
        let wanted = |_, trace| traces.contains(&trace).then_some(0);
        let _ = add(recorded.signal, recorded.body, redaction, &wanted, std::slice::from_mut(&mut all));
        ControlFlow::Continue(())
    })?;
    Ok(all.finish())
}

/// What is known of a trace for choosing it.
#[derive(Default)]
struct Candidate {
    /// End of the first failure, if any.
    failed: Option<Timestamp>,
    /// How near to the scope something fails.
    distance: Distance,
    /// Where its errors begin.
    errors: BTreeSet<(ServiceKey, String, u64)>,
    /// Longest duration of a span in scope, in nanoseconds.
    longest: u64,
    in_scope: bool,
    near_scope: bool,
    last: Timestamp,
    top: Option<(ServiceKey, String)>,
}

fn candidates(rows: &Rows, scope: &Scope) -> BTreeMap<TraceId, Candidate> {
    let forest = Forest::new(&rows.spans, &mut Operations::default());
    let mut found: BTreeMap<TraceId, Candidate> = BTreeMap::new();
    for (span, node) in rows.spans.iter().zip(&forest.nodes) {
        let candidate = found.entry(span.trace).or_default();
        candidate.last = candidate.last.max(span.end);
        if scope.holds(span) {
            candidate.in_scope = true;
            candidate.longest = candidate.longest.max(span.duration_ns());
        }
        candidate.near_scope |= scope.services.contains(span.service());
        if span.failed() {
            candidate.distance = candidate.distance.min(scope.distance(span));
        }
        if node.error_origin && candidate.errors.len() < 16 {
            candidate.failed = Some(candidate.failed.map_or(span.end, |at| at.min(span.end)));
            candidate.errors.insert((
                span.service().clone(),
                span.operation.to_string(),
                // Messages that differ in a number or an id are one error.
                signature(&span.message),
            ));
        }
        if node.parent.is_none() {
            candidate.top = Some((span.service().clone(), span.operation.to_string()));
            if !scope.operations.iter().any(|(service, _)| service == span.service()) {
                candidate.longest = candidate.longest.max(span.duration_ns());
            }
        }
    }
    found.remove(&TraceId::NONE);
    found
}

/// Those of `most` lines that tell most, in their order: first those of the traces shown, then of lines near them some
/// of each kind, however often another is written.
fn lines(
    rows: &[LogRow],
    own: impl Fn(&LogRow) -> bool,
    near: impl Fn(&LogRow) -> bool,
    most: usize,
) -> Vec<&LogRow> {
    let mut told: BTreeMap<(&ServiceKey, u64), usize> = BTreeMap::new();
    let mut ranked: Vec<(u8, usize, &LogRow)> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        if own(row) {
            ranked.push((0, at, row));
        } else if near(row) {
            let times = told.entry((row.service(), signature(&row.body))).or_default();
            *times += 1;
            ranked.push((if *times <= OF_ONE_LINE { 1 } else { 2 }, at, row));
        }
    }
    ranked.sort_unstable_by_key(|(rank, at, _)| (*rank, *at));
    ranked.truncate(most);
    ranked.sort_unstable_by_key(|(_, at, _)| *at);
    ranked.into_iter().map(|(.., row)| row).collect()
}

/// Chooses at most `at_most` traces, of which a quarter are healthy ones, and their log records.
/// With a fault that shows as absence, the last good traces are all there is to show.
#[must_use]
pub fn choose(capture: &Capture, scope: &Scope, suspect: Option<&ServiceKey>, at_most: usize) -> Chosen {
    let absent = matches!(scope.symptom, Symptom::TrafficDrop | Symptom::Silence | Symptom::MissedJob);
    let mut wide = scope.clone();
    wide.services.extend(suspect.cloned());
    let (mut bad, good) = (candidates(&capture.faulty, &wide), candidates(&capture.healthy, &wide));
    // What is there whole replaces what a sample knows of it.
    bad.extend(candidates(&capture.failed, &wide));
    let for_bad = if absent { at_most / 2 } else { at_most.saturating_sub(at_most / 4) };
    let mut chosen: Vec<(TraceId, Role)> = Vec::new();
    let mut taken: BTreeSet<TraceId> = BTreeSet::new();
    let last_run = capture.last_run.as_ref().and_then(|sought| sought.run.as_ref());
    if let Some(run) = last_run {
        chosen.push((run.trace, Role::LastRun));
        taken.insert(run.trace);
    }
    // Traces of the faulty operations come first, then those of the services, then any that failed.
    for nearness in [2u8, 1, 0] {
        let of = || {
            bad.iter().filter(move |(_, candidate)| {
                let near = if candidate.in_scope { 2 } else { u8::from(candidate.near_scope) };
                near == nearness && (near > 0 || candidate.failed.is_some())
            })
        };
        let mut failed: Vec<_> =
            of().filter_map(|(id, candidate)| Some((candidate.distance, candidate.failed?, *id))).collect();
        failed.sort_unstable();
        let mut told: BTreeMap<&(ServiceKey, String, u64), usize> = BTreeMap::new();
        let distinct = failed.iter().filter(|(_, _, id)| {
            bad.get(id).into_iter().flat_map(|candidate| &candidate.errors).any(|error| {
                let times = told.entry(error).or_default();
                *times += 1;
                *times <= OF_ONE_ERROR
            })
        });
        let distinct: Vec<TraceId> = distinct.map(|(_, _, id)| *id).collect();
        let mut slowest: Vec<_> =
            of().map(|(id, candidate)| (std::cmp::Reverse(candidate.longest), *id)).collect();
        slowest.sort_unstable();
        let mut take = |ids: &mut dyn Iterator<Item = TraceId>, role, share: usize| {
            let until = (chosen.len() + share).min(for_bad);
            for id in ids {
                if chosen.len() >= until {
                    break;
                }
                if taken.insert(id) {
                    chosen.push((id, role));
                }
            }
        };
        take(&mut failed.iter().map(|(_, _, id)| *id), Role::FirstFailure, for_bad * 2 / 3);
        take(&mut distinct.into_iter(), Role::DistinctError, for_bad / 4);
        take(&mut slowest.iter().map(|(_, id)| *id), Role::Slowest, for_bad / 4);
        // Evenly over the rest, by id, which is random.
        take(&mut of().map(|(id, _)| *id), Role::Typical, for_bad);
    }
    let tops: BTreeSet<_> = taken.iter().filter_map(|id| bad.get(id)?.top.clone()).collect();
    let mut healthy: Vec<_> = good
        .iter()
        .filter(|(id, candidate)| {
            candidate.failed.is_none()
                && !taken.contains(*id)
                && (absent
                    || candidate.near_scope
                    || candidate.top.as_ref().is_some_and(|top| tops.contains(top)))
        })
        .map(|(id, candidate)| {
            let alike = candidate.top.as_ref().is_some_and(|top| tops.contains(top));
            (!candidate.in_scope, !alike, std::cmp::Reverse(candidate.last), *id)
        })
        .collect();
    healthy.sort_unstable();
    chosen.extend(
        healthy
            .into_iter()
            .take(at_most.saturating_sub(chosen.len()))
            .map(|(_, _, _, id)| (id, Role::Healthy)),
    );
    let is_of_last_run = |id: TraceId| last_run.is_some_and(|run| run.trace == id);
    let ids: BTreeSet<TraceId> = chosen.iter().map(|(id, _)| *id).filter(|id| !is_of_last_run(*id)).collect();
    let failed_traces =
        ids.iter().filter(|id| bad.get(id).is_some_and(|candidate| candidate.failed.is_some())).count();
    let mut result = Chosen { traces: chosen, failed_traces: failed_traces as u64, ..Chosen::default() };
    if let Some(run) = last_run {
        // Whole, where the healthy period may hold a sample of it.
        result.spans.extend(run.rows.spans.iter().map(|row| (Period::LastRun, row.clone())));
        result.logs.extend(run.rows.logs.iter().map(|row| (Period::LastRun, row.clone())));
    }
    // Of what is a sample, the rows of the traces that were looked up again take the place. What is whole stays.
    let looked_up = |one_in: u64| -> BTreeSet<TraceId> {
        let again = capture.failed.spans.iter().map(|row| row.trace);
        again.filter(|trace| one_in > 1 && ids.contains(trace)).collect()
    };
    let (spans_again, logs_again) = (looked_up(capture.faulty.one_in), looked_up(capture.faulty.logs_one_in));
    let spans = capture.failed.spans.iter().filter(|row| spans_again.contains(&row.trace));
    result.spans.extend(spans.map(|row| (Period::Faulty, row.clone())));
    let logs = capture.failed.logs.iter().filter(|row| logs_again.contains(&row.trace));
    result.logs.extend(logs.map(|row| (Period::Faulty, row.clone())));
    for (period, rows) in [(Period::Faulty, &capture.faulty), (Period::Healthy, &capture.healthy)] {
        let spans =
            rows.spans.iter().filter(|row| ids.contains(&row.trace) && !spans_again.contains(&row.trace));
        result.spans.extend(spans.map(|row| (period, row.clone())));
        // Beside the traces' own lines, warnings and errors of the services at fault that have no trace.
        let near =
            |row: &LogRow| row.trace.is_none() && row.is_warning() && wide.services.contains(row.service());
        let own = |row: &LogRow| ids.contains(&row.trace) && !logs_again.contains(&row.trace);
        let logs = lines(&rows.logs, own, near, LOG_RECORDS / 2);
        result.logs.extend(logs.into_iter().map(|row| (period, row.clone())));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{Resource, Status};
    use crate::model::{SpanId, SpanKind};
    use std::sync::Arc;

    fn sender() -> Arc<Resource> {
        Arc::new(Resource {
            service: ServiceKey::named("orders"),
            instance: "".into(),
            version: "".into(),
            host: "".into(),
            attributes: Vec::new(),
        })
    }

    #[test]
    fn errors_that_differ_in_a_number_are_one() {
        let span = |number: u8, message: &str| SpanRow {
            trace: TraceId([number; 16]),
            span: SpanId([number; 8]),
            parent: SpanId::NONE,
            resource: sender(),
            operation: "POST /orders".into(),
            kind: SpanKind::Server,
            start: Timestamp::from_secs(1),
            end: Timestamp::from_secs(2),
            status: Status::Error,
            message: message.into(),
            attributes: Vec::new(),
        };
        let spans = vec![span(1, "lost order 1234"), span(2, "lost order 98765"), span(3, "no stock")];
        let scope = Scope {
            service: ServiceKey::named("orders"),
            services: BTreeSet::new(),
            operations: BTreeSet::new(),
            symptom: Symptom::Errors,
        };
        let found = candidates(&Rows { spans, ..Rows::default() }, &scope);
        let errors: Vec<_> = found.values().map(|candidate| &candidate.errors).collect();
        assert!(errors.len() == 3 && errors[0] == errors[1] && errors[0] != errors[2], "{errors:?}");
    }

    #[test]
    fn a_line_that_is_written_often_leaves_room_for_the_others() {
        let line = |at: u64, body: String, trace: u8| LogRow {
            time: Timestamp::from_secs(at),
            resource: sender(),
            severity: 13,
            body: body.into(),
            trace: TraceId([trace; 16]),
            span: SpanId::NONE,
            attributes: Vec::new(),
        };
        let mut rows: Vec<LogRow> = (0..300).map(|at| line(at, format!("attempt {at} failed"), 0)).collect();
        rows.push(line(300, "the disk is full".into(), 0));
        rows.push(line(301, "cannot bill".into(), 1));
        let of_trace = |row: &LogRow| !row.trace.is_none();
        let chosen = lines(&rows, of_trace, |_| true, 150);
        assert_eq!(chosen.len(), 150);
        let last: Vec<&str> = chosen.iter().rev().take(2).map(|row| &*row.body).collect();
        assert_eq!(last, ["cannot bill", "the disk is full"]);
        assert_eq!(lines(&rows, of_trace, |_| true, 1_000).len(), rows.len());
        assert_eq!(lines(&rows, of_trace, |_| false, 1_000).len(), 1);
    }
}
