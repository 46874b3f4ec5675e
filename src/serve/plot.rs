//! Where the points of a curve and the band in which healthy values lie are to be drawn, in whatever.

use super::convert::from_proto;
use super::text::{between, quantity};
use crate::api::v1;
use crate::model::Timestamp;

/// A curve with its scales.
#[derive(Clone, Debug)]
pub struct Plot<'a> {
    of: &'a v1::Curve,
    pub points: Vec<(Timestamp, f64)>,
    /// Start of the first point and of the last.
    pub first: Timestamp,
    pub last: Timestamp,
    /// What the lowest edge stands for, and the highest.
    pub low: f64,
    pub high: f64,
}

impl<'a> Plot<'a> {
    /// `None` if the curve has no points.
    #[must_use]
    pub fn new(of: &'a v1::Curve) -> Option<Self> {
        let points: Vec<(Timestamp, f64)> = of
            .points
            .iter()
            .filter_map(|point| Some((from_proto(point.start.as_ref()?), point.value)))
            .collect();
        let (&(first, _), &(last, _)) = (points.first()?, points.last()?);
        let (low, high) = points
            .iter()
            .map(|(_, value)| *value)
            .chain([of.expected_low, of.expected_high].into_iter().flatten())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        // What cannot be negative is drawn from zero, unless that would make a line of it.
        let low = if low >= 0.0 && low < 0.5 * high { 0.0 } else { low };
        Some(Self { of, points, first, last, low, high })
    }

    /// How far from the left, from 0 to 1.
    #[must_use]
    pub fn across(&self, at: Timestamp) -> f64 {
        let width = self.last.ns().saturating_sub(self.first.ns()).max(1);
        (at.ns().saturating_sub(self.first.ns()) as f64 / width as f64).clamp(0.0, 1.0)
    }

    /// How far from the top, from 0 to 1.
    #[must_use]
    pub fn below(&self, value: f64) -> f64 {
        ((self.high - value) / (self.high - self.low).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
    }

    #[must_use]
    pub fn holds(&self, at: Timestamp) -> bool {
        at >= self.first && at <= self.last
    }

    /// Where the upper and the lower end of the band are, from the top; `None` where it is open. No band if nothing is
    /// known of it.
    #[must_use]
    pub fn band(&self) -> Option<(Option<f64>, Option<f64>)> {
        let end = |end: Option<f64>| end.map(|value| self.below(value));
        let (upper, lower) = (end(self.of.expected_high), end(self.of.expected_low));
        (upper.is_some() || lower.is_some()).then_some((upper, lower))
    }

    /// A value with its unit, for people.
    #[must_use]
    pub fn show(&self, value: f64) -> String {
        quantity(value, &self.of.unit)
    }

    /// The band in words.
    #[must_use]
    pub fn usual(&self) -> Option<String> {
        self.band()?;
        let (low, high) = (self.of.expected_low, self.of.expected_high);
        let show = |value| self.show(value);
        Some(between(low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY), show))
    }
}
