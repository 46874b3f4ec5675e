//! How spans and log records are counted.

use super::hot::Sample;
use super::names::NameHash;
use super::series::{Head, NONE, weight_of};
use super::shard::{Context, Shard, Tally};
use super::template::operation_name;
use super::{Cell, Lines, SecondCount, SpanHalf};
use crate::model::{SeriesKey, Signal, SpanKind, Timestamp, WindowId};
use crate::otlp::{LogView, SpanView, StatusCode};

/// Spans whose series are looked up together.
const TOGETHER: usize = 16;

/// A span's series, and what of it is needed beside its cells.
#[derive(Clone, Copy, Debug)]
struct Found {
    number: u32,
    indicators: u32,
    is_overflow: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self { number: NONE, indicators: NONE, is_overflow: false }
    }
}

#[inline]
fn head_of(context: Context, span: &SpanView<'_>) -> Head {
    let entry = span.kind.is_entry() || span.parent_span_id.is_none();
    Head { service: context.service, signal: Signal::Traces, kind: span.kind, entry }
}

impl Shard {
    /// Counts spans of one resource. What is needed of several is fetched step by step before the first of
    /// them is counted, so that with many series their memory comes at once and not one after the other.
    pub(super) fn spans(&mut self, context: Context, spans: &[SpanView<'_>], tally: &mut Tally) {
        for spans in spans.chunks(TOGETHER) {
            self.bound_late(context.arrived, tally);
            let mut hashes = [NameHash::default(); TOGETHER];
            for (span, hash) in spans.iter().zip(&mut hashes) {
                *hash = self.series.hash(head_of(context, span), span.name.as_bytes());
            }
            let mut found = [Found::default(); TOGETHER];
            for (hash, found) in hashes.iter().zip(&mut found).take(spans.len()) {
                found.number = self.series.find(*hash).unwrap_or(NONE);
            }
            for found in found.iter_mut().take(spans.len()) {
                *found = self.found(found.number);
            }
            for (span, found) in spans.iter().zip(found) {
                self.span(context, span, found, tally);
            }
        }
    }

    #[inline]
    fn found(&self, number: u32) -> Found {
        self.series.get(number).map_or_else(Found::default, |series| Found {
            number,
            indicators: series.indicators,
            is_overflow: series.is_overflow,
        })
    }

    #[inline]
    fn span(&mut self, context: Context, span: &SpanView<'_>, mut found: Found, tally: &mut Tally) {
        let Some(time) = tally.place(span.end, context.arrived) else { return };
        tally.counted += 1;
        self.note(time, span.trace_id);
        let window = WindowId::of(time);
        let duration_ns = span.end.0.saturating_sub(span.start.0);
        let error = span.status == StatusCode::Error;
        let head = head_of(context, span);
        if found.number == NONE {
            let number = self.series_of_span(head, span.name);
            found = self.found(number);
        }
        let number = found.number;
        if found.is_overflow {
            self.note_overflow(number, context.service);
        }
        let weight = weight_of(span.trace_state);
        for &place in self.series.indicators_in(found.indicators) {
            let indicator = self.indicators.get(place as usize);
            if let (Some(indicator), Some(seconds)) = (indicator, self.seconds.get_mut(place as usize))
                && let Some(good) = indicator.span(error, duration_ns, span.attributes())
            {
                count_second(seconds, time, u64::from(good), 1);
                if let (Some(attribute), Some(users)) = (&indicator.users, self.users.get_mut(place as usize))
                {
                    users.note(span.attributes(), attribute, good);
                }
            }
        }
        let sample = Sample {
            time,
            duration_ns,
            error,
            weight,
            trace: span.trace_id,
            span: span.span_id,
            at: context.at,
        };
        let Some(series) = self.series.get_mut(number) else { return };
        self.hot.add_span(number, series, window, context.second, &sample);
        let facet = tally.facet(window);
        facet.items += 1;
        if head.entry {
            facet.requests += 1;
            facet.errors += u64::from(error);
            facet.sum_ns = facet.sum_ns.saturating_add(duration_ns);
        }
        let goes_out = matches!(span.kind, SpanKind::Client | SpanKind::Producer);
        let peer =
            if goes_out { self.peers.number(span, context.service, number, &mut self.series) } else { None };
        if let Some(peer) = peer {
            self.peers.add(peer, window, duration_ns, error);
        }
        if !span.trace_id.is_none() {
            let [_, _, _, _, _, _, _, _, low @ ..] = span.trace_id.0;
            let trace = u64::from_le_bytes(low);
            if self.halves.wants(trace)
                && let Some(service) = self.series.service(context.service)
            {
                self.halves.add(SpanHalf {
                    trace,
                    span: span.span_id,
                    parent: span.parent_span_id,
                    service: service.key.clone(),
                    kind: span.kind,
                    duration_ns,
                    error,
                    peer: peer.and_then(|peer| self.peers.key(peer)),
                    weight,
                    window,
                });
            }
        }
    }

    #[cold]
    fn series_of_span(&mut self, head: Head, name: &str) -> u32 {
        let hash = self.series.hash(head, name.as_bytes());
        match self.series.find(hash) {
            Some(known) => known,
            None => {
                let named = if self.template_names { operation_name(name) } else { name.into() };
                if let Some(known) = self.series.overflow_of_span(head, &named) {
                    return known;
                }
                let key = self.key(head, &named, "", Vec::new());
                self.series.add(hash, head.service, key, "")
            }
        }
    }

    pub(super) fn key(
        &mut self,
        head: Head,
        operation: &str,
        unit: &str,
        attributes: Vec<(std::sync::Arc<str>, std::sync::Arc<str>)>,
    ) -> SeriesKey {
        let service = self.series.service(head.service).map(|service| (*service.key).clone());
        SeriesKey {
            service: service.unwrap_or_else(|| crate::model::ServiceKey::named(super::config::OTHER)),
            signal: head.signal,
            operation: self.series.text(operation),
            kind: head.kind,
            entry: head.entry,
            unit: self.series.text(unit),
            attributes,
        }
    }

    pub(super) fn log_records<'a>(
        &mut self,
        context: Context,
        records: impl Iterator<Item = LogView<'a>>,
        tally: &mut Tally,
    ) {
        let head = Head {
            service: context.service,
            signal: Signal::Logs,
            kind: SpanKind::Unspecified,
            entry: false,
        };
        let hash = self.series.hash(head, b"");
        let number = match self.series.find(hash) {
            Some(known) => known,
            None => {
                let key = self.key(head, "", "", Vec::new());
                self.series.add(hash, head.service, key, "")
            }
        };
        let indicators = self
            .series
            .get(number)
            .map_or_else(Vec::new, |series| self.series.indicators_of(series).to_vec());
        let mut by_window: smallvec::SmallVec<[(WindowId, Lines); 2]> = smallvec::SmallVec::new();
        // They are of one series, so that one look is enough.
        self.bound_late(context.arrived, tally);
        for log in records {
            let Some(time) = tally.place(time_of_log(&log, context.arrived), context.arrived) else {
                continue;
            };
            tally.counted += 1;
            self.note(time, log.trace_id);
            let window = WindowId::of(time);
            tally.facet(window).items += 1;
            let place = by_window.iter().position(|(known, _)| *known == window).unwrap_or_else(|| {
                by_window.push((window, Lines::default()));
                by_window.len() - 1
            });
            for &place in &indicators {
                let indicator = self.indicators.get(place as usize);
                if let (Some(indicator), Some(seconds)) = (indicator, self.seconds.get_mut(place as usize))
                    && let Some(good) = indicator.log(&log)
                {
                    count_second(seconds, time, u64::from(good), 1);
                    if let (Some(attribute), Some(users)) =
                        (&indicator.users, self.users.get_mut(place as usize))
                    {
                        users.note(log.attributes(), attribute, good);
                    }
                }
            }
            let class = severity_class(log.severity_number);
            if let Some((_, lines)) = by_window.get_mut(place)
                && let Some(count) = lines.by_severity.get_mut(class)
            {
                *count += 1;
            }
        }
        if let Some(series) = self.series.get_mut(number) {
            for (window, lines) in by_window {
                self.hot.add(number, series, window, context.second, Cell::Lines(lines));
            }
        }
    }
}

/// A record that says neither when it happened nor when it was seen was seen when it arrived.
fn time_of_log(log: &LogView<'_>, arrived: Timestamp) -> Timestamp {
    Some(log.time_or_observed()).filter(|time| *time != Timestamp::ZERO).unwrap_or(arrived)
}

/// Place in [`super::SEVERITIES`] of a `SeverityNumber`.
fn severity_class(number: i32) -> usize {
    match number {
        1..=24 => usize::try_from((number - 1) / 4 + 1).unwrap_or(0),
        _ => 0,
    }
}

#[inline]
pub(super) fn count_second(seconds: &mut Vec<SecondCount>, time: Timestamp, good: u64, total: u64) {
    let second = time.secs();
    match seconds.iter_mut().rev().find(|count| count.second == second) {
        Some(count) => {
            count.total = count.total.saturating_add(total);
            count.good = count.good.saturating_add(good);
        }
        None => seconds.push(SecondCount { second, good, total }),
    }
}
