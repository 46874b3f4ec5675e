//! Messages laid out as encoders write them, checked and read in one pass.
//!
//! Everything here either answers with what [`super::Checked`] and the views would have shown, or with
//! `None`: not laid out plainly, ask them. So the slow and obvious way is the one that decides, and what
//! it would have said of plain messages is known without asking (`against_prost.rs` holds both to it).

use super::check::is_good_message;
use super::common::{AnyValue, ResourceView, View};
use super::logs::LogView;
use super::metric_rows::{MetricRow, MetricRows, PointRow};
use super::plain::{is_ascii, is_plain_pair, is_short_text_pair, small};
use super::schema;
use super::traces::{SpanView, StatusCode};
use super::wire::{ATTRIBUTES_LIMIT, Fields, delimited};
use crate::model::{SpanId, SpanKind, TraceId};

/// Items of one resource that are read at once, at most; more are for the slow way. Bounds the memory
/// of [`Rows`]: 600 KiB of spans.
pub(super) const ROWS: usize = 4_096;

/// How deep these lie below their resource.
const SCOPE_DEPTH: u32 = 1;
pub(super) const ITEM_DEPTH: u32 = 2;
const WITHIN_ITEM_DEPTH: u32 = 3;

/// Memory for the items of a resource, used again for the next one.
#[derive(Debug, Default)]
pub struct Rows {
    spans: Vec<SpanView<'static>>,
    logs: Vec<LogView<'static>>,
    metrics: MetricRows<'static>,
}

/// The items of one resource, all of them good.
pub type Read<'a, V> = (ResourceView<'a>, Vec<V>);

impl Rows {
    /// Reads a resource of spans, if every byte of it is good. `is_known` says of a `Resource` message that
    /// its very bytes were checked before. `None` when this way cannot tell. Give the list back with
    /// [`Rows::keep_spans`].
    pub fn spans<'a>(
        &mut self,
        resource: &'a [u8],
        is_known: impl FnMut(&[u8]) -> bool,
    ) -> Option<Read<'a, SpanView<'a>>> {
        let mut rows: Vec<SpanView<'a>> = std::mem::take(&mut self.spans);
        let scope = |bytes, rows: &mut Vec<_>| read_scope(bytes, rows, &schema::SPAN, &span);
        match read(resource, is_known, &mut rows, scope) {
            Some(found) => Some((found, rows)),
            None => {
                self.keep_spans(rows);
                None
            }
        }
    }

    /// The same of a resource of log records.
    pub fn logs<'a>(
        &mut self,
        resource: &'a [u8],
        is_known: impl FnMut(&[u8]) -> bool,
    ) -> Option<Read<'a, LogView<'a>>> {
        let mut rows: Vec<LogView<'a>> = std::mem::take(&mut self.logs);
        let scope = |bytes, rows: &mut Vec<_>| read_scope(bytes, rows, &schema::LOG_RECORD, &log);
        match read(resource, is_known, &mut rows, scope) {
            Some(found) => Some((found, rows)),
            None => {
                self.keep_logs(rows);
                None
            }
        }
    }

    /// The same of a resource of metrics, but for the attributes of their points: see [`PointRow`].
    pub fn metrics<'a>(
        &mut self,
        resource: &'a [u8],
        is_known: impl FnMut(&[u8]) -> bool,
    ) -> Option<(ResourceView<'a>, MetricRows<'a>)> {
        let mut rows: MetricRows<'a> = std::mem::take(&mut self.metrics);
        match read(resource, is_known, &mut rows, |bytes, rows| rows.read_scope(bytes)) {
            Some(found) => Some((found, rows)),
            None => {
                self.keep_metrics(rows);
                None
            }
        }
    }

    /// Takes back the memory of a list.
    pub fn keep_spans(&mut self, rows: Vec<SpanView<'_>>) {
        self.spans = emptied(rows);
    }

    /// The same of log records.
    pub fn keep_logs(&mut self, rows: Vec<LogView<'_>>) {
        self.logs = emptied(rows);
    }

    /// The same of metrics.
    pub fn keep_metrics(&mut self, mut rows: MetricRows<'_>) {
        rows.metrics.clear();
        rows.points.clear();
        self.metrics = MetricRows {
            metrics: rows.metrics.into_iter().map(|_| MetricRow::default()).collect(),
            points: rows.points.into_iter().map(|_| PointRow::default()).collect(),
        };
    }
}

/// The same memory without what it held, for items that borrow from elsewhere: collecting in place
/// keeps the allocation.
fn emptied<A, V: View<'static>>(mut rows: Vec<A>) -> Vec<V> {
    rows.clear();
    rows.into_iter().map(|_| V::of(&[])).collect()
}

fn read<'a, R>(
    resource: &'a [u8],
    mut is_known: impl FnMut(&[u8]) -> bool,
    rows: &mut R,
    scope: impl Fn(&'a [u8], &mut R) -> Option<()>,
) -> Option<ResourceView<'a>> {
    let mut found = None;
    let mut rest = resource;
    while let [tag, after @ ..] = rest {
        let (inner, after) = delimited(after)?;
        match tag {
            0x0a if found.is_none() => {
                if !is_known(inner) && !is_good_message(&schema::RESOURCE, inner, SCOPE_DEPTH) {
                    return None;
                }
                found = Some(ResourceView::of(inner));
            }
            0x12 => scope(inner, rows)?,
            0x1a => drop(std::str::from_utf8(inner).ok()?),
            _ => return None,
        }
        rest = after;
    }
    Some(found.unwrap_or_default())
}

fn read_scope<'a, V: View<'a>>(
    scope: &'a [u8],
    rows: &mut Vec<V>,
    item_schema: &'static schema::Message,
    item: &impl Fn(&'a [u8]) -> Option<V>,
) -> Option<()> {
    let mut has_scope = false;
    let mut rest = scope;
    while let [tag, after @ ..] = rest {
        let (inner, after) = delimited(after)?;
        match tag {
            0x12 => {
                if rows.len() >= ROWS {
                    return None;
                }
                match item(inner) {
                    Some(view) => rows.push(view),
                    None if is_good_message(item_schema, inner, ITEM_DEPTH) => rows.push(V::of(inner)),
                    None => return None,
                }
            }
            0x0a if !has_scope => {
                has_scope = true;
                if !is_good_message(&schema::SCOPE, inner, ITEM_DEPTH) {
                    return None;
                }
            }
            0x1a => drop(std::str::from_utf8(inner).ok()?),
            _ => return None,
        }
        rest = after;
    }
    Some(())
}

#[inline(always)]
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[inline(always)]
pub(super) fn fixed64(rest: &[u8]) -> Option<(u64, &[u8])> {
    let (bytes, rest) = rest.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*bytes), rest))
}

/// A 16-byte id and the rest.
#[inline(always)]
fn trace_id(rest: &[u8]) -> Option<(TraceId, &[u8])> {
    match rest {
        [16, rest @ ..] => rest.split_first_chunk::<16>().map(|(id, rest)| (TraceId(*id), rest)),
        [0, rest @ ..] => Some((TraceId::NONE, rest)),
        _ => None,
    }
}

/// An 8-byte id and the rest.
#[inline(always)]
fn span_id(rest: &[u8]) -> Option<(SpanId, &[u8])> {
    match rest {
        [8, rest @ ..] => rest.split_first_chunk::<8>().map(|(id, rest)| (SpanId(*id), rest)),
        [0, rest @ ..] => Some((SpanId::NONE, rest)),
        _ => None,
    }
}

/// A flags field, whose number needs a second byte.
#[inline(always)]
fn fixed32(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (bytes, rest) = rest.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*bytes), rest))
}

/// Whether the attributes that begin with the tag at the front of `rest` are good, all that lie one behind another;
/// the rest behind them. `depth` is theirs.
#[inline(always)]
fn good_attributes(tag: u8, rest: &[u8], depth: u32) -> Option<&[u8]> {
    let mut behind = rest;
    // From here on there are short texts only: that they are ASCII is seen of all of them at one glance.
    let mut texts = rest;
    while let [next, after @ ..] = behind
        && *next == tag
    {
        let (pair, after) = delimited(after)?;
        if !is_short_text_pair(pair) {
            if !are_good_texts(tag, before(texts, behind)?, depth) || !is_good_pair(pair, depth) {
                return None;
            }
            texts = after;
        }
        behind = after;
    }
    are_good_texts(tag, before(texts, behind)?, depth).then_some(behind)
}

/// Whether a message has no more attributes, as fields of this number, than it may: each takes two bytes at least, so
/// that those of a short one need not be counted.
#[inline(always)]
pub(super) fn has_few_attributes(number: u32, bytes: &[u8]) -> bool {
    bytes.len() <= 2 * ATTRIBUTES_LIMIT || count_attributes(number, bytes) <= ATTRIBUTES_LIMIT
}

#[cold]
fn count_attributes(number: u32, bytes: &[u8]) -> usize {
    Fields::of(bytes).filter(|field| field.number == number).count()
}

#[inline(always)]
fn are_good_texts(tag: u8, texts: &[u8], depth: u32) -> bool {
    is_ascii(texts) || are_good_pairs(tag, texts, depth)
}

/// What of `bytes` lies before `rest`, which is their end.
#[inline(always)]
fn before<'a>(bytes: &'a [u8], rest: &[u8]) -> Option<&'a [u8]> {
    bytes.get(..bytes.len().checked_sub(rest.len())?)
}

/// The same one by one, for texts beyond ASCII.
#[cold]
fn are_good_pairs(tag: u8, mut rest: &[u8], depth: u32) -> bool {
    while let [next, after @ ..] = rest
        && *next == tag
        && let Some((pair, after)) = delimited(after)
    {
        if !is_good_pair(pair, depth) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

#[inline(always)]
fn is_good_pair(pair: &[u8], depth: u32) -> bool {
    is_plain_pair(pair) || is_good_message(&schema::KEY_VALUE, pair, depth)
}

/// Whether a message that may occur more than once is good; the rest behind it.
#[inline(never)]
fn message<'a>(of: &'static schema::Message, rest: &'a [u8]) -> Option<&'a [u8]> {
    let (inner, rest) = delimited(rest)?;
    is_good_message(of, inner, WITHIN_ITEM_DEPTH).then_some(rest)
}

#[inline]
fn span(bytes: &[u8]) -> Option<SpanView<'_>> {
    let mut span = SpanView::of_message(bytes);
    let (mut has_attributes, mut has_status) = (false, false);
    let mut rest = bytes;
    while let [tag, after @ ..] = rest {
        rest = match tag {
            0x4a => {
                if !has_attributes {
                    has_attributes = true;
                    span.begin_attributes(rest);
                }
                good_attributes(0x4a, rest, WITHIN_ITEM_DEPTH)?
            }
            0x0a => set(&mut span.trace_id, trace_id(after)?),
            0x12 => set(&mut span.span_id, span_id(after)?),
            0x22 => set(&mut span.parent_span_id, span_id(after)?),
            0x2a => {
                let (name, after) = delimited(after)?;
                set(&mut span.name, (text(name)?, after))
            }
            0x30 => {
                let (kind, after) = small(after)?;
                set(&mut span.kind, (SpanKind::from_wire(u64::from(kind)), after))
            }
            0x39 => set(&mut span.start.0, fixed64(after)?),
            0x41 => set(&mut span.end.0, fixed64(after)?),
            0x85 => match after {
                [0x01, after @ ..] => set(&mut span.flags, fixed32(after)?),
                _ => return None,
            },
            0x7a if !has_status => {
                has_status = true;
                let (status, after) = delimited(after)?;
                span.status = match status {
                    [] => StatusCode::Unset,
                    [0x18, 1] => StatusCode::Ok,
                    [0x18, 2] => StatusCode::Error,
                    _ if is_good_message(&schema::STATUS, status, WITHIN_ITEM_DEPTH) => {
                        span.read_status(status)
                    }
                    _ => return None,
                };
                after
            }
            0x5a => message(&schema::EVENT, after)?,
            0x6a => message(&schema::LINK, after)?,
            0x1a => {
                let (state, after) = delimited(after)?;
                set(&mut span.trace_state, (text(state)?, after))
            }
            0x50 => set_count(&mut span.dropped_attributes_count, small(after)?),
            0x60 => set_count(&mut span.dropped_events_count, small(after)?),
            0x70 => set_count(&mut span.dropped_links_count, small(after)?),
            _ => return None,
        };
    }
    has_few_attributes(9, bytes).then_some(span)
}

#[inline]
fn log(bytes: &[u8]) -> Option<LogView<'_>> {
    let mut log = LogView::of_message(bytes);
    let mut has_body = false;
    let mut rest = bytes;
    while let [tag, after @ ..] = rest {
        rest = match tag {
            0x32 => good_attributes(0x32, rest, WITHIN_ITEM_DEPTH)?,
            0x09 => set(&mut log.time.0, fixed64(after)?),
            0x59 => set(&mut log.observed_time.0, fixed64(after)?),
            0x10 => {
                let (severity, after) = small(after)?;
                set(&mut log.severity_number, (i32::from(severity), after))
            }
            0x1a => {
                let (severity, after) = delimited(after)?;
                set(&mut log.severity_text, (text(severity)?, after))
            }
            0x2a if !has_body => {
                has_body = true;
                let (body, after) = delimited(after)?;
                set(&mut log.body, (plain_value(body)?, after))
            }
            0x4a => set(&mut log.trace_id, trace_id(after)?),
            0x52 => set(&mut log.span_id, span_id(after)?),
            0x45 => set(&mut log.flags, fixed32(after)?),
            0x38 => set_count(&mut log.dropped_attributes_count, small(after)?),
            0x62 => {
                let (name, after) = delimited(after)?;
                set(&mut log.event_name, (text(name)?, after))
            }
            _ => return None,
        };
    }
    has_few_attributes(6, bytes).then_some(log)
}

/// Takes a value into its place and goes on with the rest.
#[inline(always)]
pub(super) fn set<'a, T>(place: &mut T, (value, rest): (T, &'a [u8])) -> &'a [u8] {
    *place = value;
    rest
}

#[inline(always)]
fn set_count<'a>(place: &mut u32, (value, rest): (u8, &'a [u8])) -> &'a [u8] {
    *place = u32::from(value);
    rest
}

/// An `AnyValue` that is one text or nothing; others are checked whole.
#[inline]
fn plain_value(bytes: &[u8]) -> Option<AnyValue<'_>> {
    if let [0x0a, rest @ ..] = bytes
        && let Some((inner, [])) = delimited(rest)
    {
        return text(inner).map(AnyValue::Text);
    }
    is_good_message(&schema::ANY_VALUE, bytes, WITHIN_ITEM_DEPTH).then(|| AnyValue::of(bytes))
}
