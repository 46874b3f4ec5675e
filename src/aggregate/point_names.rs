//! How the series and the stream of a metric point are named.

use super::names::NameHash;
use super::series::Head;
use super::shard::{Context, Shard};
use super::streams::Moment;
use crate::model::{SeriesKey, Signal, SpanKind, Timestamp};
use crate::otlp::{
    Attributes, ExponentialPoint, HistogramPoint, InstrumentationScope, NumberPoint, PointRow, SummaryPoint,
};
use std::sync::Arc;

/// Attributes in a series key; further ones are left out.
const ATTRIBUTES: usize = 64;

/// What all points of a metric share.
#[derive(Clone, Copy)]
pub(super) struct Metric<'a> {
    pub context: Context,
    pub name: &'a str,
    pub unit: &'a str,
    /// Type: tells overflow series and streams apart.
    pub shape: &'static str,
    pub scope: InstrumentationScope<'a>,
}

/// What every kind of point has.
#[derive(Clone, Copy)]
pub(super) struct Point<'a> {
    pub start: Timestamp,
    pub time: Timestamp,
    pub flags: u32,
    pub attributes: Attributes<'a>,
}

/// What every kind of point has is named alike in all of them.
macro_rules! point_from {
    ($($kind:ident),*) => {$(
        impl<'a> From<&$kind<'a>> for Point<'a> {
            fn from(point: &$kind<'a>) -> Self {
                Self { start: point.start, time: point.time, flags: point.flags, attributes: point.attributes() }
            }
        }
    )*};
}

point_from!(NumberPoint, HistogramPoint, ExponentialPoint, SummaryPoint, PointRow);

impl Shard {
    /// The part of a name that all points of a metric have in common.
    pub(super) fn name_of_metric(&mut self, service: u32, name: &str, unit: &str) -> NameHash {
        let mut raw = std::mem::take(&mut self.scratch);
        put_metric(&mut raw, name, unit);
        let hash = self.series.hash(head_of(service), &raw);
        self.scratch = raw;
        hash
    }

    #[cold]
    pub(super) fn series_of_row(&mut self, metric: Metric<'_>, point: &PointRow<'_>) -> u32 {
        let common = self.name_of_metric(metric.context.service, metric.name, metric.unit);
        let hash = self.series.hash_on(common, point.raw_attributes);
        let series = match self.series.find(hash) {
            Some(known) => known,
            None => {
                let key = self.key_of_point(metric, point.attributes());
                self.series.add(hash, metric.context.service, key, metric.shape)
            }
        };
        self.note_overflow(series, metric.context.service);
        series
    }

    /// Where a point of a cumulative stream stands.
    pub(super) fn moment(&mut self, metric: Metric<'_>, series: u32, point: Point<'_>) -> Option<Moment> {
        let scope = self.scope_identity(&metric.scope);
        let known = self.series.get(series)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.resources.get(metric.context.resource)?.identity);
        hasher.update(&scope);
        hasher.update(&known.id.0);
        hasher.update(metric.shape.as_bytes());
        if known.is_overflow {
            // One series, many streams.
            let mut raw = std::mem::take(&mut self.scratch);
            put_name(&mut raw, metric, point.attributes);
            hasher.update(&raw);
            self.scratch = raw;
        }
        let mut id = [0u8; 16];
        hasher.finalize_xof().fill(&mut id);
        Some(Moment {
            id: u128::from_le_bytes(id),
            start: point.start,
            time: point.time,
            partition: metric.context.partition,
            owner: self.series.service(metric.context.service).map_or(0, |service| service.owner),
            used: metric.context.arrived.secs(),
        })
    }

    fn scope_identity(&mut self, scope: &InstrumentationScope<'_>) -> [u8; 32] {
        match &self.last_scope {
            Some((raw, identity)) if **raw == *scope.bytes() => *identity,
            _ => {
                let identity = scope_identity(scope);
                self.last_scope = Some((scope.bytes().into(), identity));
                identity
            }
        }
    }

    pub(super) fn series_of_point(&mut self, metric: Metric<'_>, attributes: Attributes<'_>) -> u32 {
        let mut raw = std::mem::take(&mut self.scratch);
        put_name(&mut raw, metric, attributes);
        let hash = self.series.hash(head_of(metric.context.service), &raw);
        self.scratch = raw;
        match self.series.find(hash) {
            Some(known) => known,
            None => {
                let key = self.key_of_point(metric, attributes);
                self.series.add(hash, metric.context.service, key, metric.shape)
            }
        }
    }

    fn key_of_point(&mut self, metric: Metric<'_>, attributes: Attributes<'_>) -> SeriesKey {
        let mut sorted: Vec<(Arc<str>, Arc<str>)> = attributes
            .map(|(key, value)| (self.series.text(key), self.series.text(&value.to_string())))
            .collect();
        sorted.sort();
        // Of a key that is given twice the larger value stays; no sender may do that.
        sorted.reverse();
        sorted.dedup_by(|a, b| a.0 == b.0);
        sorted.reverse();
        sorted.truncate(ATTRIBUTES);
        self.key(head_of(metric.context.service), metric.name, metric.unit, sorted)
    }
}

const fn head_of(service: u32) -> Head {
    Head { service, signal: Signal::Metrics, kind: SpanKind::Unspecified, entry: false }
}

/// Appends a text behind its length, so that no two lists of texts look alike.
fn put(raw: &mut Vec<u8>, text: impl FnOnce(&mut Vec<u8>)) {
    let at = raw.len();
    raw.extend_from_slice(&[0; 4]);
    text(raw);
    let length = u32::try_from(raw.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(place) = raw.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// The front of the name of a series of a metric.
fn put_metric(raw: &mut Vec<u8>, name: &str, unit: &str) {
    raw.clear();
    put(raw, |raw| raw.extend_from_slice(name.as_bytes()));
    put(raw, |raw| raw.extend_from_slice(unit.as_bytes()));
}

/// A name of the series of a point, however its attributes are laid out.
fn put_name(raw: &mut Vec<u8>, metric: Metric<'_>, attributes: Attributes<'_>) {
    put_metric(raw, metric.name, metric.unit);
    for attribute in attributes.messages() {
        put(raw, |raw| raw.extend_from_slice(attribute));
    }
}

fn scope_identity(scope: &InstrumentationScope<'_>) -> [u8; 32] {
    let mut raw = Vec::new();
    for text in [scope.name, scope.version] {
        put(&mut raw, |raw| raw.extend_from_slice(text.as_bytes()));
    }
    let mut attributes: Vec<(&str, String)> =
        scope.attributes().map(|(key, value)| (key, value.to_string())).collect();
    attributes.sort();
    for (key, value) in &attributes {
        put(&mut raw, |raw| raw.extend_from_slice(key.as_bytes()));
        put(&mut raw, |raw| raw.extend_from_slice(value.as_bytes()));
    }
    *blake3::hash(&raw).as_bytes()
}
