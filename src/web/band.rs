//! A signal around the onset, drawn over the band in which healthy values lie.

use crate::api::v1;
use crate::model::Timestamp;
use crate::serve::from_proto;
use crate::serve::text::{between, quantity, time};
use std::fmt::Write as _;

/// Width and height of the box that is drawn in; pages stretch it.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 80.0;
/// Room above and below for the stroke.
const MARGIN: f64 = 3.0;

/// A curve with its band: numbers for SVG, text for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BandChart {
    pub what: String,
    /// The `d` of a path.
    pub line: String,
    /// Upper edge and height of the band.
    pub band: Option<(String, String)>,
    /// The healthy range in words.
    pub usual: String,
    /// Where the onset is, if within the curve.
    pub onset: Option<String>,
    pub from: String,
    pub to: String,
    pub top: String,
}

impl BandChart {
    pub fn new(of: &v1::Curve, onset: Timestamp) -> Option<Self> {
        let points: Vec<(Timestamp, f64)> = of
            .points
            .iter()
            .filter_map(|point| Some((from_proto(point.start.as_ref()?), point.value)))
            .collect();
        let (&(first, _), &(last, _)) = (points.first()?, points.last()?);
        let step = u64::try_from(of.step_ns).unwrap_or(1).max(1);
        let width = last.ns().saturating_sub(first.ns()).max(1) as f64;
        let ends = [of.expected_low, of.expected_high];
        let (low, high) = points
            .iter()
            .map(|(_, value)| *value)
            .chain(ends.into_iter().flatten())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        // What cannot be negative is drawn from zero, unless that would make a line of it.
        let low = if low >= 0.0 && low < 0.5 * high { 0.0 } else { low };
        let scale = (high - low).max(f64::MIN_POSITIVE);
        let x = |at: Timestamp| at.ns().saturating_sub(first.ns()) as f64 / width * WIDTH;
        let y =
            |value: f64| HEIGHT - MARGIN - ((value - low) / scale).clamp(0.0, 1.0) * (HEIGHT - 2.0 * MARGIN);
        let mut line = String::new();
        let mut before: Option<Timestamp> = None;
        for (at, value) in &points {
            let goes_on = before.is_some_and(|before| at.ns().saturating_sub(before.ns()) <= step);
            let letter = if goes_on { 'L' } else { 'M' };
            let _ = write!(line, "{letter}{:.1} {:.1}", x(*at), y(*value));
            if !goes_on {
                // A step alone is a dot.
                line.push_str("h0.1");
            }
            before = Some(*at);
        }
        let band = (of.expected_low.is_some() || of.expected_high.is_some()).then(|| {
            let upper = of.expected_high.map_or(0.0, y);
            let lower = of.expected_low.map_or(HEIGHT, y);
            (format!("{upper:.1}"), format!("{:.1}", (lower - upper).max(1.5)))
        });
        let show = |value: f64| quantity(value, &of.unit);
        let open = (f64::NEG_INFINITY, f64::INFINITY);
        let usual = (of.expected_low.unwrap_or(open.0), of.expected_high.unwrap_or(open.1));
        Some(Self {
            what: of.what.clone(),
            line,
            usual: if band.is_some() { between(usual.0, usual.1, show) } else { String::new() },
            band,
            onset: (onset >= first && onset <= last).then(|| format!("{:.1}", x(onset))),
            from: clock(first),
            to: clock(last),
            top: show(high),
        })
    }
}

/// The time of day, UTC.
fn clock(at: Timestamp) -> String {
    let text = time(Some(&crate::serve::to_proto(at)));
    text.get(11..19).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::to_proto;

    fn curve(values: &[(u64, f64)], low: Option<f64>, high: Option<f64>) -> v1::Curve {
        let point = |&(second, value): &(u64, f64)| v1::CurvePoint {
            start: Some(to_proto(Timestamp::from_secs(1_714_565_500 + second))),
            value,
        };
        v1::Curve {
            what: "99th percentile".into(),
            unit: "ns".into(),
            expected_low: low,
            expected_high: high,
            step_ns: 10_000_000_000,
            points: values.iter().map(point).collect(),
            ..v1::Curve::default()
        }
    }

    #[test]
    fn the_band_lies_where_its_values_do_and_the_onset_is_marked() {
        let of = curve(&[(0, 1e6), (10, 1e6), (20, 1e7)], Some(0.0), Some(5e6));
        let chart = BandChart::new(&of, Timestamp::from_secs(1_714_565_515)).unwrap();
        assert_eq!(chart.band, Some(("40.0".to_owned(), "37.0".to_owned())), "the lower half");
        assert_eq!(chart.onset.as_deref(), Some("225.0"));
        assert!(chart.line.ends_with("L150.0 69.6L300.0 3.0"), "{}", chart.line);
        assert_eq!((chart.usual.as_str(), chart.top.as_str()), ("0 ns to 5.00 ms", "10.0 ms"));
    }

    #[test]
    fn gaps_break_the_line_and_open_ends_reach_the_edge() {
        let of = curve(&[(0, 5.0), (10, 5.0), (40, 0.0)], Some(4.0), None);
        let chart = BandChart::new(&of, Timestamp::from_secs(1)).unwrap();
        assert_eq!(chart.line.matches('M').count(), 2, "{}", chart.line);
        assert_eq!(chart.band.unwrap().0, "0.0");
        assert_eq!(chart.onset, None, "it began before");
        let alone = BandChart::new(&curve(&[(0, 5.0), (10, 5.0)], None, None), Timestamp::ZERO).unwrap();
        assert_eq!((alone.band, alone.usual), (None, String::new()));
        assert_eq!(BandChart::new(&v1::Curve::default(), Timestamp::ZERO), None);
    }
}
