//! A signal around the onset, drawn over the band in which healthy values lie.

use crate::api::v1;
use crate::model::Timestamp;
use crate::serve::Plot;
use crate::serve::text::time;
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
        let plot = Plot::new(of)?;
        let step = u64::try_from(of.step_ns).unwrap_or(1).max(1);
        let x = |at: Timestamp| plot.across(at) * WIDTH;
        let y = |below: f64| MARGIN + below * (HEIGHT - 2.0 * MARGIN);
        let mut line = String::new();
        let mut before: Option<Timestamp> = None;
        for (at, value) in &plot.points {
            let goes_on = before.is_some_and(|before| at.ns().saturating_sub(before.ns()) <= step);
            let letter = if goes_on { 'L' } else { 'M' };
            let _ = write!(line, "{letter}{:.1} {:.1}", x(*at), y(plot.below(*value)));
            if !goes_on {
                // A step alone is a dot.
                line.push_str("h0.1");
            }
            before = Some(*at);
        }
        let band = plot.band().map(|(upper, lower)| {
            let (upper, lower) = (upper.map_or(0.0, y), lower.map_or(HEIGHT, y));
            (format!("{upper:.1}"), format!("{:.1}", (lower - upper).max(1.5)))
        });
        Some(Self {
            what: of.what.clone(),
            line,
            usual: plot.usual().unwrap_or_default(),
            band,
            onset: plot.holds(onset).then(|| format!("{:.1}", x(onset))),
            from: clock(plot.first),
            to: clock(plot.last),
            top: plot.show(plot.high),
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
