//! Looking through the journal for keepsakes, part by part, before it is recycled.

use super::choice::{Candidate, Wanted, wanted};
use super::extract::{Items, extract};
use super::keepsake::{Keepsake, Quality, Route};
use super::shelf::Keepsakes;
use crate::diagnose::decode::decode;
use crate::diagnose::forest::{Forest, Operations};
use crate::diagnose::rows::{Gather, Limits, Rows, SpanRow};
use crate::diagnose::{Config, Error, Redaction, Source};
use crate::journal::{Filter, Position, Recorder};
use crate::limits::ShedReason;
use crate::model::{Signal, Timestamp, TraceId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

/// A part is looked at once so long has passed since it arrived: by then its traces are whole.
const SETTLED: Duration = Duration::from_secs(30);
/// Before and after a span, its trace is looked for so far.
const AROUND: Duration = Duration::from_secs(10);
/// Traces that end this close to each other are looked for at once.
const NEAR: Duration = Duration::from_secs(1);
/// Bytes of the journal that one look samples, in so many pieces; and what these may inflate to.
const SAMPLE_BYTES: u64 = 4 << 20;
const PIECES: u64 = 16;
const SAMPLE_INFLATED_BYTES: usize = 16 << 20;
/// Spans held of a sample.
const SAMPLE_SPANS: usize = 40_000;
/// Bytes, inflated, that are read to copy what one look has chosen.
const COPY_BYTES: usize = 256 << 20;
/// Longest trace that is kept, in bytes of its requests and in spans.
const TRACE_BYTES: usize = 1 << 20;
const TRACE_SPANS: usize = 2_000;
/// Operations that a keepsake is known to hold.
const COVERS: usize = 64;
/// Parts that wait to settle.
const WAITING: usize = 1_000;

/// Looks at the journal's parts in their order. A step costs at most what the constants above allow, however
/// much arrives.
#[derive(Debug)]
pub struct Keeper {
    shelf: Arc<Keepsakes>,
    every: Duration,
    age: Duration,
    /// Arrival and end of the parts that are not settled yet.
    waiting: VecDeque<(Timestamp, Position)>,
    examined: Option<Position>,
}

impl Keeper {
    #[must_use]
    pub fn new(shelf: Arc<Keepsakes>, config: &Config) -> Self {
        let (every, age) = (config.keepsake_every.0, config.keepsake_age.0);
        Self { shelf, every, age, waiting: VecDeque::new(), examined: None }
    }

    /// Everything before `through` arrived before `arrived` and may be recycled from now on. Where ingest is
    /// pressed, the part whose turn it is goes by unseen, which is counted.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn step(
        &mut self,
        recorder: &Recorder,
        arrived: Timestamp,
        through: Position,
        is_pressed: bool,
    ) -> Result<(), Error> {
        self.waiting.push_back((arrived, through));
        if self.waiting.len() > WAITING {
            self.waiting.pop_front();
        }
        let mut end = None;
        while let Some((before, position)) = self.waiting.front().copied()
            && before.saturating_add(SETTLED) <= arrived
        {
            end = Some(position);
            self.waiting.pop_front();
        }
        let Some(end) = end else { return Ok(()) };
        let oldest = recorder.oldest().map_or(end, |(position, _)| position);
        // After a start everything that is held is one part.
        let begin = self.examined.unwrap_or(oldest);
        self.examined = Some(end);
        if end <= begin {
            return Ok(());
        }
        if is_pressed {
            self.shelf.shed(ShedReason::Pressure);
            return Ok(());
        }
        if oldest >= end {
            self.shelf.shed(ShedReason::Overtaken);
            return Ok(());
        }
        let rows = sample(recorder, begin.max(oldest)..end);
        let found = candidates(&rows, arrived, self.age);
        let chosen = wanted(&found, &self.shelf.held(), self.every);
        drop(rows);
        self.copy(recorder, chosen)?;
        self.shelf.tidy(arrived);
        Ok(())
    }

    /// Copies the traces that were chosen, those that lie near each other at once.
    fn copy(&self, source: &dyn Source, mut chosen: Vec<Wanted>) -> Result<(), Error> {
        chosen.sort_by_key(|one| (one.at, one.trace));
        let mut left_bytes = COPY_BYTES;
        let mut groups: Vec<&[Wanted]> = chosen.chunk_by(|one, next| next.at.since(one.at) <= NEAR).collect();
        // When there is not enough for all, twins come first.
        groups.sort_by_key(|near| near.iter().map(|one| one.quality).min());
        for near in groups {
            let mut items: BTreeMap<TraceId, Items> =
                near.iter().map(|one| (one.trace, Items::default())).collect();
            let starts = near.iter().map(|one| Timestamp(one.at.0.saturating_sub(one.duration_ns)));
            let (from, to) = (starts.min().unwrap_or_default(), near.iter().map(|one| one.at).max());
            let times = from.saturating_sub(AROUND)..to.unwrap_or_default().saturating_add(AROUND);
            let filter = Filter { services: None, traces: Some(items.keys().copied().collect()) };
            let mut is_whole = true;
            source.read(times, &filter, &mut |recorded| {
                is_whole = recorded.body.len() <= left_bytes;
                left_bytes = left_bytes.saturating_sub(recorded.body.len());
                if !is_whole {
                    return ControlFlow::Break(());
                }
                extract(recorded.signal, recorded.body, &mut items, TRACE_BYTES);
                ControlFlow::Continue(())
            })?;
            for one in near {
                let found = items.remove(&one.trace).unwrap_or_default();
                if !is_whole {
                    self.shelf.shed(ShedReason::Budget);
                } else if found.bytes > TRACE_BYTES {
                    self.shelf.shed(ShedReason::TooLarge);
                } else {
                    self.keep(one, found);
                }
            }
        }
        Ok(())
    }

    fn keep(&self, chosen: &Wanted, items: Items) {
        let requests = items.requests();
        let mut all = Gather::new(Limits { spans: TRACE_SPANS, log_records: 0, points: 0 });
        for (signal, body) in requests.iter().filter(|(signal, _)| *signal == Signal::Traces) {
            let _ = decode(*signal, body, &Redaction::default(), &|_| true, &mut all);
        }
        let rows = all.finish();
        if rows.one_in > 1 {
            return self.shelf.shed(ShedReason::TooLarge);
        }
        // The sample may not have seen what failed.
        let is_failed = rows.spans.iter().any(SpanRow::failed);
        if rows.spans.is_empty() || is_failed != (chosen.quality == Quality::Failed) {
            return;
        }
        let forest = Forest::new(&rows.spans, &mut Operations::default());
        let tops: BTreeSet<Route> = forest.tops().filter_map(|at| forest.span(at)).map(route).collect();
        let entries = rows.spans.iter().filter(|span| span.kind.is_entry()).map(route);
        let covers: BTreeSet<Route> = entries.chain(tops.iter().cloned()).collect();
        let keepsake = Keepsake {
            trace: chosen.trace,
            quality: chosen.quality,
            route: chosen.route.clone(),
            tops: tops.into_iter().take(COVERS).collect(),
            covers: covers.into_iter().take(COVERS).collect(),
            at: chosen.at,
            duration_ns: chosen.duration_ns,
        };
        self.shelf.add(keepsake, &requests);
    }
}

fn route(span: &SpanRow) -> Route {
    (span.service().clone(), span.operation.to_string())
}

/// Spans of a part of the journal: all of a small one, of a large one those of pieces spread evenly over it.
fn sample(recorder: &Recorder, part: Range<Position>) -> Rows {
    let mut all = Gather::new(Limits { spans: SAMPLE_SPANS, log_records: 0, points: 0 });
    let length = part.end.0.saturating_sub(part.start.0);
    let (pieces, piece) = if length <= SAMPLE_BYTES { (1, length) } else { (PIECES, SAMPLE_BYTES / PIECES) };
    for number in 0..pieces {
        let mut left = SAMPLE_INFLATED_BYTES / usize::try_from(pieces).unwrap_or(1);
        let from = part.start.0.saturating_add(length / pieces * number);
        let until = from.saturating_add(piece).min(part.end.0);
        for record in recorder.records_between(Position(from)..Position(until)) {
            if record.signal != Signal::Traces {
                continue;
            }
            let Ok(body) = record.body() else { continue };
            // Of a piece at least one request is looked at, however large it is.
            let _ = decode(record.signal, &body, &Redaction::default(), &|_| true, &mut all);
            left = left.saturating_sub(body.len());
            if left == 0 {
                break;
            }
        }
    }
    all.finish()
}

/// The requests among these spans: roots, and what a service was asked for.
fn candidates(rows: &Rows, now: Timestamp, age: Duration) -> Vec<Candidate> {
    let failed: BTreeSet<TraceId> =
        rows.spans.iter().filter(|span| span.failed()).map(|span| span.trace).collect();
    let requests = rows.spans.iter().filter(|span| {
        let is_request = span.kind.is_entry() || span.parent.is_none();
        // What a wrong clock makes too old would be copied and removed again and again.
        is_request && !span.trace.is_none() && now.since(span.end) < age
    });
    requests
        .map(|span| Candidate {
            route: route(span),
            trace: span.trace,
            // A clock that is ahead must not make it younger for ever.
            at: span.end.min(now),
            duration_ns: span.duration_ns(),
            is_root: span.parent.is_none(),
            is_failed: failed.contains(&span.trace),
        })
        .collect()
}
