//! Views of metrics and their points.

use super::common::{Attributes, OfResource, View, Views, bytes, double, number, text, zigzag};
use super::wire::{Field, Fields, Value};
use crate::model::{SpanId, Timestamp, TraceId};

/// All metrics that one resource sent in a request.
pub type ResourceMetrics<'a> = OfResource<'a, MetricView<'a>>;

/// What the values of a sum or histogram are since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Also any number that has no meaning.
    #[default]
    Unspecified,
    /// Since the point before.
    Delta,
    /// Since the start time.
    Cumulative,
}

impl Temporality {
    pub(super) const fn from_wire(number: u64) -> Self {
        match number as u32 {
            1 => Self::Delta,
            2 => Self::Cumulative,
            _ => Self::Unspecified,
        }
    }
}

/// A metric with its points.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricView<'a> {
    pub name: &'a str,
    pub description: &'a str,
    /// UCUM.
    pub unit: &'a str,
    pub data: Data<'a>,
    message: &'a [u8],
}

/// The points of a metric, by its type.
#[derive(Clone, Copy, Debug, Default)]
pub enum Data<'a> {
    #[default]
    Empty,
    Gauge(Views<'a, NumberPoint<'a>>),
    Sum {
        points: Views<'a, NumberPoint<'a>>,
        temporality: Temporality,
        monotonic: bool,
    },
    Histogram {
        points: Views<'a, HistogramPoint<'a>>,
        temporality: Temporality,
    },
    Exponential {
        points: Views<'a, ExponentialPoint<'a>>,
        temporality: Temporality,
    },
    Summary(Views<'a, SummaryPoint<'a>>),
}

fn temporality(message: &[u8]) -> Temporality {
    let last = Fields::of(message).filter(|field| field.number == 2).last();
    last.map_or(Temporality::Unspecified, |field| Temporality::from_wire(number(field.value)))
}

fn monotonic(message: &[u8]) -> bool {
    Fields::of(message).filter(|field| field.number == 3).last().is_some_and(|field| number(field.value) != 0)
}

impl<'a> View<'a> for MetricView<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut metric = Self { message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            let data = bytes(value);
            match field {
                1 => metric.name = text(value),
                2 => metric.description = text(value),
                3 => metric.unit = text(value),
                5 => metric.data = Data::Gauge(Views::of(data, 1)),
                7 => {
                    metric.data = Data::Sum {
                        points: Views::of(data, 1),
                        temporality: temporality(data),
                        monotonic: monotonic(data),
                    }
                }
                9 => {
                    metric.data =
                        Data::Histogram { points: Views::of(data, 1), temporality: temporality(data) }
                }
                10 => {
                    metric.data =
                        Data::Exponential { points: Views::of(data, 1), temporality: temporality(data) }
                }
                11 => metric.data = Data::Summary(Views::of(data, 1)),
                _ => {}
            }
        }
        metric
    }
}

impl<'a> MetricView<'a> {
    #[must_use]
    pub const fn metadata(&self) -> Attributes<'a> {
        Attributes::of(self.message, 12)
    }

    /// How many points there are.
    #[must_use]
    pub fn points(&self) -> u64 {
        let points = match self.data {
            Data::Empty => 0,
            Data::Gauge(points) | Data::Sum { points, .. } => points.count(),
            Data::Histogram { points, .. } => points.count(),
            Data::Exponential { points, .. } => points.count(),
            Data::Summary(points) => points.count(),
        };
        points as u64
    }
}

/// The value of a point of a gauge or sum, or of an exemplar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    #[must_use]
    pub const fn as_f64(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Double(n) => n,
        }
    }
}

/// Bit of a point's flags: the stream has no value at this time (a staleness marker).
pub const NO_RECORDED_VALUE: u32 = 1;

/// A point of a gauge or sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberPoint<'a> {
    /// Zero when it is not known.
    pub start: Timestamp,
    pub time: Timestamp,
    pub value: Option<Number>,
    pub flags: u32,
    message: &'a [u8],
}

impl<'a> View<'a> for NumberPoint<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut point = Self { message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            match field {
                2 => point.start = Timestamp(number(value)),
                3 => point.time = Timestamp(number(value)),
                4 => point.value = Some(Number::Double(double(value))),
                6 => point.value = Some(Number::Int(number(value) as i64)),
                8 => point.flags = number(value) as u32,
                _ => {}
            }
        }
        point
    }
}

impl<'a> NumberPoint<'a> {
    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, 7)
    }

    #[must_use]
    pub const fn exemplars(&self) -> Views<'a, ExemplarView<'a>> {
        Views::of(self.message, 5)
    }
}

/// A point of a histogram with explicit bounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct HistogramPoint<'a> {
    pub start: Timestamp,
    pub time: Timestamp,
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub flags: u32,
    counts: Occurrences<'a>,
    bounds: Occurrences<'a>,
    message: &'a [u8],
}

impl<'a> View<'a> for HistogramPoint<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut point = Self { message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            match field {
                2 => point.start = Timestamp(number(value)),
                3 => point.time = Timestamp(number(value)),
                4 => point.count = number(value),
                5 => point.sum = Some(double(value)),
                6 => point.counts = point.counts.and(value),
                7 => point.bounds = point.bounds.and(value),
                10 => point.flags = number(value) as u32,
                11 => point.min = Some(double(value)),
                12 => point.max = Some(double(value)),
                _ => {}
            }
        }
        point
    }
}

impl<'a> HistogramPoint<'a> {
    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, 9)
    }

    #[must_use]
    pub const fn exemplars(&self) -> Views<'a, ExemplarView<'a>> {
        Views::of(self.message, 8)
    }

    /// One more than there are bounds: the first counts values ≤ the first bound.
    #[must_use]
    pub fn bucket_counts(&self) -> Numbers<'a> {
        Numbers::of_occurrences(self.counts, self.message, 6)
    }

    /// Upper bounds, inclusive, ascending.
    pub fn explicit_bounds(&self) -> impl Iterator<Item = f64> + Clone + use<'a> {
        Numbers::of_occurrences(self.bounds, self.message, 7).map(f64::from_bits)
    }
}

/// A point of an exponential histogram: bucket `i` holds values in (base^i, base^(i+1)], where base
/// is 2^(2^-scale).
#[derive(Clone, Copy, Debug, Default)]
pub struct ExponentialPoint<'a> {
    pub start: Timestamp,
    pub time: Timestamp,
    pub count: u64,
    pub sum: Option<f64>,
    pub scale: i32,
    pub zero_count: u64,
    pub zero_threshold: f64,
    pub positive: Buckets<'a>,
    pub negative: Buckets<'a>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub flags: u32,
    message: &'a [u8],
}

impl<'a> View<'a> for ExponentialPoint<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut point = Self { message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            match field {
                2 => point.start = Timestamp(number(value)),
                3 => point.time = Timestamp(number(value)),
                4 => point.count = number(value),
                5 => point.sum = Some(double(value)),
                6 => point.scale = zigzag(value),
                7 => point.zero_count = number(value),
                8 => point.positive = Buckets::of(bytes(value)),
                9 => point.negative = Buckets::of(bytes(value)),
                10 => point.flags = number(value) as u32,
                12 => point.min = Some(double(value)),
                13 => point.max = Some(double(value)),
                14 => point.zero_threshold = double(value),
                _ => {}
            }
        }
        point
    }
}

impl<'a> ExponentialPoint<'a> {
    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, 1)
    }

    #[must_use]
    pub const fn exemplars(&self) -> Views<'a, ExemplarView<'a>> {
        Views::of(self.message, 11)
    }
}

/// Buckets of an exponential histogram that follow each other from `offset`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buckets<'a> {
    pub offset: i32,
    message: &'a [u8],
}

impl<'a> Buckets<'a> {
    fn of(message: &'a [u8]) -> Self {
        let offset = Fields::of(message).filter(|field| field.number == 1).last();
        Self { offset: offset.map_or(0, |field| zigzag(field.value)), message }
    }

    #[must_use]
    pub fn counts(&self) -> Numbers<'a> {
        Numbers::of(self.message, 2, Layout::Varint)
    }
}

/// A point of a summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct SummaryPoint<'a> {
    pub start: Timestamp,
    pub time: Timestamp,
    pub count: u64,
    pub sum: f64,
    pub flags: u32,
    message: &'a [u8],
}

impl<'a> View<'a> for SummaryPoint<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut point = Self { message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            match field {
                2 => point.start = Timestamp(number(value)),
                3 => point.time = Timestamp(number(value)),
                4 => point.count = number(value),
                5 => point.sum = double(value),
                8 => point.flags = number(value) as u32,
                _ => {}
            }
        }
        point
    }
}

impl<'a> SummaryPoint<'a> {
    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, 7)
    }

    #[must_use]
    pub const fn quantiles(&self) -> Views<'a, Quantile> {
        Views::of(self.message, 6)
    }
}

/// A value at a quantile (0..1) of a summary.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quantile {
    pub quantile: f64,
    pub value: f64,
}

impl<'a> View<'a> for Quantile {
    fn of(message: &'a [u8]) -> Self {
        let mut found = Self::default();
        for Field { number: field, value } in Fields::of(message) {
            match field {
                1 => found.quantile = double(value),
                2 => found.value = double(value),
                _ => {}
            }
        }
        found
    }
}

/// A measurement that shows what a point is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExemplarView<'a> {
    pub time: Timestamp,
    pub value: Option<Number>,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    message: &'a [u8],
}

impl<'a> View<'a> for ExemplarView<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut exemplar = Self { message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            match field {
                2 => exemplar.time = Timestamp(number(value)),
                3 => exemplar.value = Some(Number::Double(double(value))),
                4 => exemplar.span_id = SpanId::from_wire(bytes(value)),
                5 => exemplar.trace_id = TraceId::from_wire(bytes(value)),
                6 => exemplar.value = Some(Number::Int(number(value) as i64)),
                _ => {}
            }
        }
        exemplar
    }
}

impl<'a> ExemplarView<'a> {
    #[must_use]
    pub const fn filtered_attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, 7)
    }
}

/// How a repeated number field lies in its message.
#[derive(Clone, Copy, Debug, Default)]
enum Occurrences<'a> {
    #[default]
    Nowhere,
    /// Packed, in one piece.
    Once(&'a [u8]),
    Scattered,
}

impl<'a> Occurrences<'a> {
    fn and(self, value: Value<'a>) -> Self {
        match (self, value) {
            (Self::Nowhere, Value::Bytes(packed)) => Self::Once(packed),
            _ => Self::Scattered,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Varint,
    Fixed64,
}

/// A repeated number field, packed or not.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<'a> {
    fields: Fields<'a>,
    number: u32,
    layout: Layout,
    /// What is left of the packed field in hand.
    packed: Fields<'a>,
}

impl<'a> Numbers<'a> {
    const fn of(message: &'a [u8], number: u32, layout: Layout) -> Self {
        Self { fields: Fields::of(message), number, layout, packed: Fields::of(&[]) }
    }
}

impl<'a> Numbers<'a> {
    /// Of numbers of 64 bits each, without a search where one look has told where they are.
    const fn of_occurrences(of: Occurrences<'a>, message: &'a [u8], number: u32) -> Self {
        let (fields, packed): (&[u8], &[u8]) = match of {
            Occurrences::Nowhere => (&[], &[]),
            Occurrences::Once(packed) => (&[], packed),
            Occurrences::Scattered => (message, &[]),
        };
        let layout = Layout::Fixed64;
        Self { fields: Fields::of(fields), number, layout, packed: Fields::of(packed) }
    }
}

impl Iterator for Numbers<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let packed = match self.layout {
                Layout::Varint => self.packed.packed_varint(),
                Layout::Fixed64 => self.packed.packed_fixed64(),
            };
            if let Ok(Some(n)) = packed {
                return Some(n);
            }
            let field = self.fields.next()?;
            if field.number == self.number {
                match field.value {
                    Value::Bytes(packed) => self.packed = Fields::of(packed),
                    value => return Some(number(value)),
                }
            }
        }
    }
}
