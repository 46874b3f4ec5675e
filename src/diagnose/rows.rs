//! Decoded rows of a period: spans, log records, metric points. Bounded: when a period holds more
//! than the limit, whole traces are left out by their id, so that what is kept stays complete: of its spans, and
//! of its log records.

use crate::model::{Interner, ServiceKey, SpanId, SpanKind, Timestamp, TraceId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Key and value, both as text.
pub type Attribute = (Arc<str>, Arc<str>);

/// Who sent something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    pub service: ServiceKey,
    /// `service.instance.id`, else `k8s.pod.name`, else empty.
    pub instance: Arc<str>,
    /// `service.version`, or empty.
    pub version: Arc<str>,
    /// `host.name`, else `k8s.node.name`, else empty.
    pub host: Arc<str>,
    /// All of them, sorted by key.
    pub attributes: Vec<Attribute>,
}

/// `Status.code` of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    #[default]
    Unset,
    Ok,
    Error,
}

/// A span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanRow {
    pub trace: TraceId,
    pub span: SpanId,
    pub parent: SpanId,
    pub resource: Arc<Resource>,
    pub operation: Arc<str>,
    pub kind: SpanKind,
    pub start: Timestamp,
    pub end: Timestamp,
    pub status: Status,
    /// The status message, or the recorded exception's type and message; empty if there is neither.
    pub message: Arc<str>,
    /// Sorted by key.
    pub attributes: Vec<Attribute>,
}

impl SpanRow {
    #[must_use]
    pub fn failed(&self) -> bool {
        self.status == Status::Error
    }

    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    #[must_use]
    pub fn service(&self) -> &ServiceKey {
        &self.resource.service
    }

    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<&str> {
        find(&self.attributes, key)
    }

    /// The database system this span calls, if it is such a call.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        if self.kind.is_entry() {
            return None;
        }
        self.attribute("db.system.name").or_else(|| self.attribute("db.system"))
    }

    /// The address, host or name of what this span calls, if it says so.
    #[must_use]
    pub fn peer(&self) -> Option<&str> {
        ["peer.service", "service.peer.name", "server.address", "net.peer.name", "rpc.service"]
            .into_iter()
            .find_map(|key| self.attribute(key))
    }
}

/// A log record.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRow {
    /// The record's own time, else when it was observed.
    pub time: Timestamp,
    pub resource: Arc<Resource>,
    /// `SeverityNumber`, 1..=24; derived from the severity text where only that is given; 0 if unknown.
    pub severity: u8,
    pub body: Arc<str>,
    pub trace: TraceId,
    pub span: SpanId,
    /// Sorted by key.
    pub attributes: Vec<Attribute>,
}

impl LogRow {
    #[must_use]
    pub fn service(&self) -> &ServiceKey {
        &self.resource.service
    }

    /// WARN or above.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        self.severity >= 13
    }

    /// ERROR or above.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity >= 17
    }

    #[must_use]
    pub const fn severity_text(&self) -> &'static str {
        match self.severity {
            1..=4 => "TRACE",
            5..=8 => "DEBUG",
            9..=12 => "INFO",
            13..=16 => "WARN",
            17..=20 => "ERROR",
            21..=24 => "FATAL",
            _ => "",
        }
    }
}

/// How values of one metric follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointKind {
    /// A level.
    Gauge,
    /// What was added since the last point.
    Delta,
    /// A running total.
    Cumulative,
}

/// A metric point. A histogram is its sum, with its count beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct PointRow {
    pub time: Timestamp,
    pub resource: Arc<Resource>,
    pub metric: Arc<str>,
    pub unit: Arc<str>,
    pub kind: PointKind,
    pub value: f64,
    /// Of a histogram or summary.
    pub count: Option<u64>,
    /// Sorted by key.
    pub attributes: Vec<Attribute>,
}

/// How much of a period is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub spans: usize,
    pub log_records: usize,
    pub points: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { spans: 400_000, log_records: 400_000, points: 400_000 }
    }
}

/// The rows of a period, in the order of their times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    pub spans: Vec<SpanRow>,
    pub logs: Vec<LogRow>,
    pub points: Vec<PointRow>,
    /// Of one in this many traces the spans are kept; 1 = of all.
    pub one_in: u64,
    /// The same of log records, which may be sampled more, or less. The fewer traces are among the more.
    pub logs_one_in: u64,
    /// Points that were left out because of the limit.
    pub points_left_out: u64,
}

impl Rows {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.logs.is_empty() && self.points.is_empty()
    }

    /// The rows timed in `from..to`: spans by their end, as windows count them.
    #[must_use]
    pub fn between(&self, from: Timestamp, to: Timestamp) -> Self {
        let inside = |at: Timestamp| at >= from && at < to;
        Self {
            spans: self.spans.iter().filter(|row| inside(row.end)).cloned().collect(),
            logs: self.logs.iter().filter(|row| inside(row.time)).cloned().collect(),
            points: self.points.iter().filter(|row| inside(row.time)).cloned().collect(),
            one_in: self.one_in,
            logs_one_in: self.logs_one_in,
            points_left_out: self.points_left_out,
        }
    }

    /// Earliest and latest time of any row.
    #[must_use]
    pub fn extent(&self) -> Option<(Timestamp, Timestamp)> {
        let times = || {
            let spans = self.spans.iter().map(|row| row.end);
            spans.chain(self.logs.iter().map(|row| row.time)).chain(self.points.iter().map(|row| row.time))
        };
        Some((times().min()?, times().max()?))
    }
}

/// Failed traces remembered whatever is thinned out: twice as many are gathered before the later half goes.
const FIRST_FAILED: usize = 256;

/// How far a failed span is from what is asked about. Elsewhere something always fails: without this, what
/// usually fails in large traffic leaves no room for what is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Distance {
    Operation,
    Service,
    #[default]
    Elsewhere,
}

/// Gathers rows under [`Limits`], gives equal texts and resources one allocation.
#[derive(Debug)]
pub struct Gather {
    limits: Limits,
    rows: Rows,
    /// Spans of traces whose hash is not a multiple of `2^level` are left out.
    span_level: u32,
    /// The same of log records: however many are written, no span is left out for them.
    log_level: u32,
    /// How far from what is asked about each of the traces failed that failed first, and when; thinned out or not.
    failed: BTreeMap<TraceId, (Distance, Timestamp)>,
    asked: BTreeSet<(ServiceKey, String)>,
    pub(super) interner: Interner,
    /// An empty list in which the attributes of the next row are gathered.
    pub(super) attributes: Vec<Attribute>,
    resources: HashMap<Resource, Arc<Resource>>,
}

impl Gather {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rows: Rows::default(),
            span_level: 0,
            log_level: 0,
            failed: BTreeMap::new(),
            asked: BTreeSet::new(),
            interner: Interner::default(),
            attributes: Vec::new(),
            resources: HashMap::new(),
        }
    }

    /// The same, asked about these operations of services: of traces that failed theirs are remembered first.
    #[must_use]
    pub fn about(self, asked: BTreeSet<(ServiceKey, String)>) -> Self {
        Self { asked, ..self }
    }

    pub fn resource(&mut self, resource: Resource) -> Arc<Resource> {
        if let Some(known) = self.resources.get(&resource) {
            return known.clone();
        }
        let shared = Arc::new(resource.clone());
        self.resources.insert(resource, shared.clone());
        shared
    }

    /// Keeps every trace at level 0, then one in 2, 4, 8 … . Records without a trace are kept by
    /// their time, so that they thin out alike.
    fn is_kept(level: u32, trace: TraceId, time: Timestamp) -> bool {
        let seed = if trace.is_none() {
            time.0
        } else {
            // Of all bytes: some senders draw only one half of an id.
            let half = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte));
            let (high, low) = trace.0.split_at(8);
            half(high).wrapping_mul(0x94d0_49bb_1331_11eb).rotate_left(31) ^ half(low)
        };
        let mixed =
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        level == 0 || (mixed >> 20).trailing_zeros() >= level
    }

    pub fn span(&mut self, row: SpanRow) {
        if self.keeps_span(row.trace, row.end) {
            self.rows.spans.push(row);
            if self.rows.spans.len() > self.limits.spans {
                self.thin_spans();
            }
        }
    }

    pub fn log(&mut self, row: LogRow) {
        if self.keeps_log(row.trace, row.time) {
            self.rows.logs.push(row);
            if self.rows.logs.len() > self.limits.log_records {
                self.thin_logs();
            }
        }
    }

    pub fn point(&mut self, row: PointRow) {
        if self.rows.points.len() < self.limits.points {
            self.rows.points.push(row);
        } else {
            self.rows.points_left_out = self.rows.points_left_out.saturating_add(1);
        }
    }

    /// Whether a span would be taken now.
    pub(super) fn keeps_span(&self, trace: TraceId, end: Timestamp) -> bool {
        Self::is_kept(self.span_level, trace, end)
    }

    /// Whether a log record would be taken now.
    pub(super) fn keeps_log(&self, trace: TraceId, time: Timestamp) -> bool {
        Self::is_kept(self.log_level, trace, time)
    }

    /// Remembers that an operation of a service failed in a trace, whether its rows are taken or not.
    pub(super) fn note_failed(
        &mut self,
        trace: TraceId,
        at: Timestamp,
        service: &ServiceKey,
        operation: &str,
    ) {
        if trace.is_none() {
            return;
        }
        let of_service = || self.asked.iter().filter(|(asked, _)| asked == service);
        let distance = match of_service().next() {
            None => Distance::Elsewhere,
            Some(_) if of_service().any(|(_, asked)| asked == operation) => Distance::Operation,
            Some(_) => Distance::Service,
        };
        let first = self.failed.entry(trace).or_insert((distance, at));
        *first = (distance, at).min(*first);
        if self.failed.len() >= FIRST_FAILED * 2 {
            self.failed = self.nearest_failed().into_iter().map(|(near, at, id)| (id, (near, at))).collect();
        }
    }

    fn nearest_failed(&self) -> Vec<(Distance, Timestamp, TraceId)> {
        let mut nearest: Vec<_> = self.failed.iter().map(|(id, (near, at))| (*near, *at, *id)).collect();
        nearest.sort_unstable();
        nearest.truncate(FIRST_FAILED);
        nearest
    }

    /// The traces that failed first in what is asked about, then those that did so elsewhere, with when: at
    /// most 256, also of those that were thinned out.
    #[must_use]
    pub fn first_failed(&self) -> Vec<(Timestamp, TraceId)> {
        self.nearest_failed().into_iter().map(|(_, at, trace)| (at, trace)).collect()
    }

    fn thin_spans(&mut self) {
        self.span_level = self.span_level.saturating_add(1).min(40);
        let level = self.span_level;
        self.rows.spans.retain(|row| Self::is_kept(level, row.trace, row.end));
        self.rows.spans.truncate(self.limits.spans);
    }

    fn thin_logs(&mut self) {
        self.log_level = self.log_level.saturating_add(1).min(40);
        let level = self.log_level;
        self.rows.logs.retain(|row| Self::is_kept(level, row.trace, row.time));
        self.rows.logs.truncate(self.limits.log_records);
    }

    /// The rows, in an order that does not depend on the one they came in; repeated spans once.
    #[must_use]
    pub fn finish(mut self) -> Rows {
        let one_in = |level| 1u64.checked_shl(level).unwrap_or(u64::MAX);
        (self.rows.one_in, self.rows.logs_one_in) = (one_in(self.span_level), one_in(self.log_level));
        self.rows.spans.sort_by_key(|span| (span.end, span.trace, span.span, span.start));
        self.rows
            .spans
            .dedup_by(|a, b| a.trace == b.trace && a.span == b.span && a.end == b.end && !a.span.is_none());
        self.rows.logs.sort_by(|a, b| {
            (a.time, &a.resource, a.trace, a.span, &a.body).cmp(&(
                b.time,
                &b.resource,
                b.trace,
                b.span,
                &b.body,
            ))
        });
        self.rows.points.sort_by(|a, b| {
            (a.time, &a.resource, &a.metric, &a.attributes).cmp(&(
                b.time,
                &b.resource,
                &b.metric,
                &b.attributes,
            ))
        });
        self.rows
    }
}

/// The value of `key` in attributes sorted by key.
#[must_use]
pub fn find<'a>(attributes: &'a [Attribute], key: &str) -> Option<&'a str> {
    let at = attributes.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
    attributes.get(at).map(|(_, value)| &**value)
}
