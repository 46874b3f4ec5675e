//! Finding: from the newest part of the range to the oldest, until there is enough or it costs too much.

use super::Condition;
use crate::diagnose::decode::{add, decode};
use crate::diagnose::rows::{Gather, Limits, LogRow, Rows, SpanRow};
use crate::diagnose::source::Backwards;
use crate::diagnose::{Error, Redaction, Source};
use crate::journal::Filter;
use crate::model::{ServiceKey, Signal, Timestamp, TraceId};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::time::Duration;

/// The newest part is searched first, each further one is twice as long.
const FIRST_PART: Duration = Duration::from_secs(5);
/// How long before and after a span was found its trace's other spans are looked for.
const AROUND: Duration = Duration::from_secs(60);
/// Requests decoded with one memory of texts, and rows: so few that none is left out for want of room.
const REQUESTS_TOGETHER: usize = 256;
pub(super) const ROWS_TOGETHER: usize = 50_000;
/// Most spans and log records of one trace, and how many are gathered before what is too much goes.
pub(super) const OF_A_TRACE: usize = 20_000;
const OF_A_TRACE_TOGETHER: usize = 5_000;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Search<'a> {
    /// Of event time: of spans the end.
    pub times: Range<Timestamp>,
    /// All must hold.
    pub conditions: &'a [Condition],
    /// Only these services, which the conditions need not name again.
    pub services: Option<BTreeSet<ServiceKey>>,
    /// Most items found.
    pub limit: usize,
    pub redaction: &'a Redaction,
}

/// What was found, newest first.
#[derive(Clone, Debug)]
pub struct Found<T> {
    pub items: Vec<T>,
    /// From here on nothing was left out.
    pub since: Timestamp,
    /// Bytes of the journal that were read.
    pub read_bytes: u64,
}

/// Asked with the bytes read so far; breaks a search off.
pub type Leave<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

impl Search<'_> {
    fn filter(&self) -> Filter {
        let traces: BTreeSet<TraceId> = self.conditions.iter().filter_map(Condition::trace).collect();
        Filter { services: self.services.clone(), traces: (!traces.is_empty()).then_some(traces) }
    }

    fn is_of_service(&self, service: &ServiceKey) -> bool {
        self.services.as_ref().is_none_or(|wanted| wanted.contains(service))
    }

    /// Rows of one signal that `wants` takes, newest first by `order`.
    fn run<T>(
        &self,
        source: &dyn Source,
        leave: Leave<'_>,
        signal: Signal,
        take: impl Fn(Rows) -> Vec<T>,
        order: impl Fn(&T) -> (Timestamp, TraceId),
    ) -> Result<Found<T>, Error> {
        let oldest = source.oldest().unwrap_or(self.times.end).min(self.times.end);
        let begin = self.times.start.max(oldest.saturating_sub(AROUND));
        let filter = self.filter();
        let mut found = Found { items: Vec::new(), since: self.times.end, read_bytes: 0 };
        let mut length = FIRST_PART;
        while found.since > begin && found.items.len() < self.limit {
            let part = found.since.saturating_sub(length).max(begin)..found.since;
            let mut of_part: Vec<T> = Vec::new();
            let mut gather = Gather::new(Limits::default());
            let (mut requests, mut rows, mut is_cut) = (0, 0, false);
            source.read(part.clone(), &filter, &mut |recorded| {
                if recorded.signal != signal {
                    return ControlFlow::Continue(());
                }
                found.read_bytes = found.read_bytes.saturating_add(recorded.read_bytes);
                if leave(found.read_bytes).is_break() {
                    is_cut = true;
                    return ControlFlow::Break(());
                }
                requests += 1;
                let mut first = 0;
                loop {
                    let met = Cell::new(0usize);
                    let wanted = |at| {
                        let number = met.get();
                        if !part.contains(&at) {
                            return false;
                        }
                        met.set(number.saturating_add(1));
                        number >= first && number - first < ROWS_TOGETHER
                    };
                    // A body that is damaged was refused: the others still count.
                    let _ = decode(recorded.signal, recorded.body, self.redaction, &wanted, &mut gather);
                    rows += met.get().saturating_sub(first).min(ROWS_TOGETHER);
                    if requests >= REQUESTS_TOGETHER || rows >= ROWS_TOGETHER {
                        let full = std::mem::replace(&mut gather, Gather::new(Limits::default()));
                        (requests, rows) = (0, 0);
                        of_part.extend(take(full.finish()));
                        // What is in memory stays bounded: of one part only the newest can be told.
                        of_part.sort_by_key(|item| std::cmp::Reverse(order(item)));
                        of_part.truncate(self.limit);
                    }
                    // What is too much for one time is taken in several.
                    first = first.saturating_add(ROWS_TOGETHER);
                    if met.get() <= first {
                        return ControlFlow::Continue(());
                    }
                    if leave(found.read_bytes).is_break() {
                        is_cut = true;
                        return ControlFlow::Break(());
                    }
                }
            })?;
            of_part.extend(take(gather.finish()));
            of_part.sort_by_key(|item| std::cmp::Reverse(order(item)));
            found.items.extend(of_part);
            found.items.truncate(self.limit);
            if is_cut {
                return Ok(found);
            }
            found.since = part.start;
            length = length.saturating_mul(2);
        }
        // Before the oldest request there is what it holds itself, and nothing else.
        found.since = found.since.max(begin.max(oldest));
        if found.items.len() >= self.limit
            && let Some(last) = found.items.last()
        {
            found.since = found.since.max(order(last).0);
        }
        Ok(found)
    }
}

/// Log records for which all conditions hold.
///
/// # Errors
/// When what is recorded cannot be read.
pub fn logs(source: &dyn Source, search: &Search<'_>, leave: Leave<'_>) -> Result<Found<LogRow>, Error> {
    let wanted = |log: &LogRow| {
        search.is_of_service(log.service())
            && search.conditions.iter().all(|condition| condition.holds_for_log(log))
    };
    let take = |rows: Rows| rows.logs.into_iter().filter(|log| wanted(log)).collect();
    search.run(source, leave, Signal::Logs, take, |log| (log.time, log.trace))
}

/// All that is recorded of the traces in which a span meets all conditions: each with the span that was
/// found last. The order is that of the spans found, newest first.
///
/// # Errors
/// When what is recorded cannot be read.
pub fn traces(
    source: &dyn Source,
    search: &Search<'_>,
    leave: Leave<'_>,
) -> Result<Found<(SpanRow, Rows)>, Error> {
    let wanted = |span: &SpanRow| {
        !span.trace.is_none()
            && search.is_of_service(span.service())
            && search.conditions.iter().all(|condition| condition.holds_for_span(span))
    };
    // One span of a trace is enough: more would crowd other traces out.
    let take = |rows: Rows| {
        let mut last: BTreeMap<TraceId, SpanRow> = BTreeMap::new();
        for span in rows.spans.into_iter().filter(|span| wanted(span)) {
            last.insert(span.trace, span);
        }
        last.into_values().collect()
    };
    let found =
        search.run(source, &mut *leave, Signal::Traces, take, |span: &SpanRow| (span.end, span.trace))?;
    let mut seen: BTreeSet<TraceId> = BTreeSet::new();
    let spans: Vec<SpanRow> = found.items.into_iter().filter(|span| seen.insert(span.trace)).collect();
    let times = spans
        .iter()
        .map(|span| (span.start, span.end))
        .reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)));
    let mut whole: BTreeMap<TraceId, Rows> = BTreeMap::new();
    let mut read_bytes = found.read_bytes;
    if let Some((from, to)) = times {
        let around = from.saturating_sub(AROUND)..to.saturating_add(AROUND);
        let limits = Limits { spans: 200_000, log_records: 0, points: 0 };
        let rows = of_traces(source, around, &seen, limits, search.redaction, &mut |bytes| {
            read_bytes = read_bytes.saturating_add(bytes);
            leave(read_bytes)
        })?;
        for span in rows.spans {
            whole.entry(span.trace).or_default().spans.push(span);
        }
    }
    let items = spans.into_iter().map(|span| {
        let rows = whole.remove(&span.trace).unwrap_or_default();
        (span, rows)
    });
    Ok(Found { items: items.collect(), since: found.since, read_bytes })
}

/// What was found of one trace.
#[derive(Clone, Debug)]
pub struct FoundTrace {
    /// The first 20,000 spans, by start, and log records.
    pub rows: Rows,
    /// All that arrived from then on was looked through.
    pub since: Timestamp,
    /// Whether that is all that is held.
    pub is_whole: bool,
    /// Bytes of the journal that were read.
    pub read_bytes: u64,
    /// Beyond the first ones, about: what was sent twice may be counted twice.
    pub spans_left_out: u64,
    pub log_records_left_out: u64,
}

impl FoundTrace {
    fn take(&mut self, gather: &mut Gather) {
        let rows = std::mem::replace(gather, Gather::new(Limits::default())).finish();
        let all = &mut self.rows;
        all.spans.extend(rows.spans);
        all.spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end), span.span));
        all.spans
            .dedup_by(|a, b| a.span == b.span && a.start == b.start && a.end == b.end && !a.span.is_none());
        all.logs.extend(rows.logs);
        all.logs.sort_by_key(|log| (log.time, log.span));
        // What is in memory stays bounded: what is later than so many rows is not among the first of more, either.
        let left_out = |rows: usize| rows.saturating_sub(OF_A_TRACE) as u64;
        self.spans_left_out = self.spans_left_out.saturating_add(left_out(all.spans.len()));
        self.log_records_left_out = self.log_records_left_out.saturating_add(left_out(all.logs.len()));
        all.spans.truncate(OF_A_TRACE);
        all.logs.truncate(OF_A_TRACE);
    }
}

/// The spans and log records of one trace, looked for from the newest on, as far as `leave` lets it look: who asks for
/// a trace mostly saw its id a moment ago.
///
/// # Errors
/// When what is recorded cannot be read.
pub fn trace(
    source: &dyn Source,
    id: TraceId,
    now: Timestamp,
    redaction: &Redaction,
    leave: Leave<'_>,
) -> Result<FoundTrace, Error> {
    let filter = Filter { services: None, traces: Some([id].into()) };
    let mut found = FoundTrace {
        rows: Rows { one_in: 1, logs_one_in: 1, ..Rows::default() },
        since: now,
        is_whole: true,
        read_bytes: 0,
        spans_left_out: 0,
        log_records_left_out: 0,
    };
    let mut gather = Gather::new(Limits::default());
    let mut gathered = 0usize;
    source.read_backward(Timestamp::MAX, &filter, &mut |step| {
        let recorded = match step {
            Backwards::Request(recorded) => recorded,
            Backwards::Since(since) => {
                found.since = since.min(found.since);
                return ControlFlow::Continue(());
            }
        };
        found.read_bytes = found.read_bytes.saturating_add(recorded.read_bytes);
        if recorded.signal == Signal::Metrics {
            found.is_whole = leave(found.read_bytes).is_continue();
            return if found.is_whole { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        }
        let mut first = 0;
        loop {
            if leave(found.read_bytes).is_break() {
                found.is_whole = false;
                return ControlFlow::Break(());
            }
            let met = Cell::new(0usize);
            let wanted = |_, trace| {
                let number = met.get();
                if trace != id {
                    return None;
                }
                met.set(number.saturating_add(1));
                (number >= first && number - first < OF_A_TRACE_TOGETHER).then_some(0)
            };
            // A body that is damaged was refused: the others still count.
            let into = std::slice::from_mut(&mut gather);
            let _ = add(recorded.signal, recorded.body, redaction, &wanted, into);
            gathered += met.get().saturating_sub(first).min(OF_A_TRACE_TOGETHER);
            if gathered >= OF_A_TRACE_TOGETHER {
                gathered = 0;
                found.take(&mut gather);
            }
            // What is too much for one time is taken in several.
            first = first.saturating_add(OF_A_TRACE_TOGETHER);
            if met.get() <= first {
                return ControlFlow::Continue(());
            }
        }
    })?;
    found.take(&mut gather);
    Ok(found)
}

/// `leave` is asked with the bytes of each request.
fn of_traces(
    source: &dyn Source,
    times: Range<Timestamp>,
    ids: &BTreeSet<TraceId>,
    limits: Limits,
    redaction: &Redaction,
    leave: Leave<'_>,
) -> Result<Rows, Error> {
    let filter = Filter { services: None, traces: Some(ids.clone()) };
    let mut all = Gather::new(limits);
    source.read(times, &filter, &mut |recorded| {
        // What no row is kept of must not count as too much, or traces would be sampled.
        let is_wanted = match recorded.signal {
            Signal::Traces => true,
            Signal::Logs => limits.log_records > 0,
            Signal::Metrics => false,
        };
        if !is_wanted {
            return ControlFlow::Continue(());
        }
        if leave(recorded.read_bytes).is_break() {
            return ControlFlow::Break(());
        }
        let wanted = |_, trace| ids.contains(&trace).then_some(0);
        let _ = add(recorded.signal, recorded.body, redaction, &wanted, std::slice::from_mut(&mut all));
        ControlFlow::Continue(())
    })?;
    Ok(all.finish())
}
