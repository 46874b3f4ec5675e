//! Metrics laid out as encoders write them, read in one pass: for [`super::Rows`].
//!
//! Attributes of points are found but not checked here. They are most of a point's bytes, and mostly the
//! very bytes of an earlier point: whoever knows them again need not look at what they say.

use super::check::is_good_message;
use super::common::{Attributes, InstrumentationScope, View};
use super::metrics::{MetricView, Number, Temporality};
use super::plain::{is_plain_pair, small};
use super::rows::{ITEM_DEPTH, ROWS, fixed64, has_few_attributes, set, text};
use super::schema;
use super::wire::delimited;
use crate::model::Timestamp;
use std::ops::Range;

/// How deep these lie below their resource.
const WITHIN_METRIC_DEPTH: u32 = 3;
const WITHIN_POINT_DEPTH: u32 = 5;

/// The metrics of one resource and their points.
#[derive(Debug, Default)]
pub struct MetricRows<'a> {
    pub metrics: Vec<MetricRow<'a>>,
    pub points: Vec<PointRow<'a>>,
}

/// A metric.
#[derive(Clone, Debug, Default)]
pub struct MetricRow<'a> {
    pub scope: InstrumentationScope<'a>,
    pub name: &'a str,
    pub unit: &'a str,
    pub kind: MetricKind<'a>,
    /// Which of the points are this one's.
    pub points: Range<usize>,
}

/// What the points of a metric are.
#[derive(Clone, Copy, Debug, Default)]
pub enum MetricKind<'a> {
    /// Of a gauge, or of a sum that is not monotonic.
    #[default]
    Level,
    /// Of a monotonic sum.
    Total(Temporality),
    /// Of a histogram with explicit bounds.
    Explicit(Temporality),
    /// All else, checked whole: its points are to be read from the view.
    Viewed(MetricView<'a>),
}

/// A point. All of it is good, but its attributes may not be: [`PointRow::has_good_attributes`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PointRow<'a> {
    /// Zero when it is not known.
    pub start: Timestamp,
    pub time: Timestamp,
    pub flags: u32,
    pub value: PointValue<'a>,
    /// The attributes with the tags and lengths before them: equal bytes mean equal attributes.
    pub raw_attributes: &'a [u8],
    /// For the reader's use.
    pub note: u32,
}

/// The value of a [`PointRow`].
#[derive(Clone, Copy, Debug)]
pub enum PointValue<'a> {
    Number(Option<Number>),
    Explicit(ExplicitRow<'a>),
}

impl Default for PointValue<'_> {
    fn default() -> Self {
        Self::Number(None)
    }
}

/// A point of a histogram with explicit bounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExplicitRow<'a> {
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// Counts (u64) and bounds (f64) as they lie on the wire: 8 bytes each, little-endian.
    pub raw_counts: &'a [u8],
    pub raw_bounds: &'a [u8],
}

impl<'a> PointRow<'a> {
    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        let number = match self.value {
            PointValue::Number(_) => 7,
            PointValue::Explicit(_) => 9,
        };
        Attributes::of(self.raw_attributes, number)
    }

    /// Whether every byte of the attributes is good.
    #[must_use]
    pub fn has_good_attributes(&self) -> bool {
        self.attributes()
            .messages()
            .all(|pair| is_plain_pair(pair) || is_good_message(&schema::KEY_VALUE, pair, WITHIN_POINT_DEPTH))
    }
}

impl ExplicitRow<'_> {
    /// One more than there are bounds.
    pub fn counts(&self) -> impl ExactSizeIterator<Item = u64> {
        self.raw_counts.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// Upper bounds, inclusive, ascending.
    pub fn bounds(&self) -> impl ExactSizeIterator<Item = f64> {
        self.raw_bounds.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes))
    }
}

impl<'a> MetricRows<'a> {
    /// Reads the metrics of one `ScopeMetrics`; `None` when this way cannot tell whether they are good.
    pub(super) fn read_scope(&mut self, message: &'a [u8]) -> Option<()> {
        let mut scope = None;
        let mut rest = message;
        // The scope may lie behind its metrics.
        while let [tag, after @ ..] = rest {
            let (inner, after) = delimited(after)?;
            match tag {
                0x0a if scope.is_none() && is_good_message(&schema::SCOPE, inner, ITEM_DEPTH) => {
                    scope = Some(InstrumentationScope::of(inner));
                }
                0x12 => {}
                0x1a => drop(text(inner)?),
                _ => return None,
            }
            rest = after;
        }
        let scope = scope.unwrap_or_default();
        let mut rest = message;
        while let [tag, after @ ..] = rest {
            let (inner, after) = delimited(after)?;
            if *tag == 0x12 {
                self.read_metric(scope, inner)?;
            }
            rest = after;
        }
        Some(())
    }

    fn read_metric(&mut self, scope: InstrumentationScope<'a>, message: &'a [u8]) -> Option<()> {
        if self.metrics.len() >= ROWS {
            return None;
        }
        let begin = self.points.len();
        let read = self.plain_metric(message);
        let (name, unit, kind) = match read {
            Some(plain) => plain,
            None => {
                self.points.truncate(begin);
                if !is_good_message(&schema::METRIC, message, ITEM_DEPTH) {
                    return None;
                }
                let view = MetricView::of(message);
                (view.name, view.unit, MetricKind::Viewed(view))
            }
        };
        self.metrics.push(MetricRow { scope, name, unit, kind, points: begin..self.points.len() });
        Some(())
    }

    fn plain_metric(&mut self, message: &'a [u8]) -> Option<(&'a str, &'a str, MetricKind<'a>)> {
        let (mut name, mut unit, mut data) = ("", "", None);
        let mut rest = message;
        while let [tag, after @ ..] = rest {
            let (inner, after) = delimited(after)?;
            match tag {
                0x0a => name = text(inner)?,
                0x12 => drop(text(inner)?),
                0x1a => unit = text(inner)?,
                0x2a | 0x3a | 0x4a if data.is_none() => data = Some((*tag, inner)),
                0x62 if is_good_message(&schema::KEY_VALUE, inner, WITHIN_METRIC_DEPTH) => {}
                _ => return None,
            }
            rest = after;
        }
        if !has_few_attributes(12, message) {
            return None;
        }
        let (tag, data) = data?;
        let (temporality, monotonic) = header(tag, data)?;
        match tag {
            0x4a => self.read_points(data, explicit_point)?,
            _ => self.read_points(data, number_point)?,
        }
        let kind = match (tag, monotonic) {
            (0x4a, _) => MetricKind::Explicit(temporality),
            (0x3a, true) => MetricKind::Total(temporality),
            _ => MetricKind::Level,
        };
        Some((name, unit, kind))
    }

    fn read_points(
        &mut self,
        data: &'a [u8],
        point: impl Fn(&'a [u8]) -> Option<PointRow<'a>>,
    ) -> Option<()> {
        let mut rest = data;
        while let [tag, after @ ..] = rest {
            rest = match tag {
                0x0a => {
                    let (inner, after) = delimited(after)?;
                    if self.points.len() >= ROWS {
                        return None;
                    }
                    self.points.push(point(inner)?);
                    after
                }
                _ => small(after)?.1,
            };
        }
        Some(())
    }
}

/// Temporality, and whether it is monotonic, of the data of a metric, whose field's tag is given. Both
/// may lie behind the points.
fn header(of: u8, data: &[u8]) -> Option<(Temporality, bool)> {
    let (mut temporality, mut monotonic) = (Temporality::Unspecified, false);
    let mut rest = data;
    while let [tag, after @ ..] = rest {
        rest = match (tag, of) {
            (0x0a, _) => delimited(after)?.1,
            (0x10, 0x3a | 0x4a) => {
                let (value, after) = small(after)?;
                temporality = Temporality::from_wire(u64::from(value));
                after
            }
            (0x18, 0x3a) => {
                let (value, after) = small(after)?;
                monotonic = value != 0;
                after
            }
            _ => return None,
        };
    }
    Some((temporality, monotonic))
}

/// The attributes that begin with the tag at the front of `rest`, as they lie, and what is behind them.
#[inline(always)]
fn attributes(tag: u8, rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut behind = rest;
    while let [next, after @ ..] = behind
        && *next == tag
    {
        behind = delimited(after)?.1;
    }
    let (all, behind) = rest.split_at_checked(rest.len().checked_sub(behind.len())?)?;
    has_few_attributes(u32::from(tag >> 3), all).then_some((all, behind))
}

/// An exemplar; the rest behind it.
#[inline(never)]
fn exemplar(rest: &[u8]) -> Option<&[u8]> {
    let (inner, rest) = delimited(rest)?;
    is_good_message(&schema::EXEMPLAR, inner, WITHIN_POINT_DEPTH).then_some(rest)
}

#[inline(always)]
fn double(rest: &[u8]) -> Option<(Option<f64>, &[u8])> {
    let (bits, rest) = fixed64(rest)?;
    Some((Some(f64::from_bits(bits)), rest))
}

#[inline]
fn number_point(bytes: &[u8]) -> Option<PointRow<'_>> {
    let mut point = PointRow::default();
    let mut value = None;
    let mut rest = bytes;
    while let [tag, after @ ..] = rest {
        rest = match tag {
            0x3a if point.raw_attributes.is_empty() => {
                set(&mut point.raw_attributes, attributes(0x3a, rest)?)
            }
            0x11 => set(&mut point.start.0, fixed64(after)?),
            0x19 => set(&mut point.time.0, fixed64(after)?),
            0x21 => {
                let (number, after) = fixed64(after)?;
                value = Some(Number::Double(f64::from_bits(number)));
                after
            }
            0x31 => {
                let (number, after) = fixed64(after)?;
                value = Some(Number::Int(number as i64));
                after
            }
            0x2a => exemplar(after)?,
            0x40 => {
                let (flags, after) = small(after)?;
                set(&mut point.flags, (u32::from(flags), after))
            }
            _ => return None,
        };
    }
    point.value = PointValue::Number(value);
    Some(point)
}

#[inline]
fn explicit_point(bytes: &[u8]) -> Option<PointRow<'_>> {
    let mut point = PointRow::default();
    let mut of = ExplicitRow::default();
    let mut rest = bytes;
    while let [tag, after @ ..] = rest {
        rest = match tag {
            0x4a if point.raw_attributes.is_empty() => {
                set(&mut point.raw_attributes, attributes(0x4a, rest)?)
            }
            0x11 => set(&mut point.start.0, fixed64(after)?),
            0x19 => set(&mut point.time.0, fixed64(after)?),
            0x21 => set(&mut of.count, fixed64(after)?),
            0x29 => set(&mut of.sum, double(after)?),
            0x32 if of.raw_counts.is_empty() => set(&mut of.raw_counts, packed(after)?),
            0x3a if of.raw_bounds.is_empty() => set(&mut of.raw_bounds, packed(after)?),
            0x42 => exemplar(after)?,
            0x50 => {
                let (flags, after) = small(after)?;
                set(&mut point.flags, (u32::from(flags), after))
            }
            0x59 => set(&mut of.min, double(after)?),
            0x61 => set(&mut of.max, double(after)?),
            _ => return None,
        };
    }
    point.value = PointValue::Explicit(of);
    Some(point)
}

/// Numbers of 8 bytes in one piece, and the rest.
#[inline(always)]
fn packed(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    delimited(rest).filter(|(packed, _)| packed.len().is_multiple_of(8))
}
