//! Small curves.

use std::fmt::Write as _;

/// Width and height of the box that curves are drawn in; pages stretch it.
const WIDTH: f64 = 100.0;
const HEIGHT: f64 = 24.0;
/// Room above and below for the stroke.
const MARGIN: f64 = 1.5;

/// A curve as the `d` of SVG paths: digits and path letters alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spark {
    pub line: String,
    pub area: String,
    /// Where an anomaly began, if it did within the curve.
    pub onset: Option<String>,
}

/// A curve through the points; `None` leaves a gap. The lowest point of the scale is zero, the highest
/// the largest value or `least_top`, so that noise around nothing stays flat.
pub(super) fn spark(points: &[Option<f64>], least_top: f64) -> Spark {
    let top = points.iter().flatten().copied().filter(|value| value.is_finite()).fold(least_top, f64::max);
    if points.len() < 2 || top <= 0.0 {
        return Spark::default();
    }
    let step = WIDTH / (points.len() - 1) as f64;
    let (mut line, mut area) = (String::new(), String::new());
    let mut begun: Option<f64> = None;
    let mut last = 0.0;
    for (at, point) in points.iter().enumerate() {
        let x = at as f64 * step;
        let Some(value) = point.filter(|value| value.is_finite()) else {
            close(&mut area, begun.take(), last);
            continue;
        };
        let y = HEIGHT - MARGIN - (value / top).clamp(0.0, 1.0) * (HEIGHT - 2.0 * MARGIN);
        let letter = if begun.is_none() { 'M' } else { 'L' };
        let _ = write!(line, "{letter}{x:.1} {y:.1}");
        let _ = write!(area, "{letter}{x:.1} {y:.1}");
        begun.get_or_insert(x);
        last = x;
    }
    close(&mut area, begun, last);
    Spark { line, area, onset: None }
}

fn close(area: &mut String, begun: Option<f64>, last: f64) {
    if let Some(begun) = begun {
        let _ = write!(area, "L{last:.1} {HEIGHT}L{begun:.1} {HEIGHT}Z");
    }
}

impl Spark {
    /// Marks a moment, given as a share of the curve's width.
    pub fn with_onset(mut self, share: Option<f64>) -> Self {
        self.onset =
            share.filter(|share| (0.0..=1.0).contains(share)).map(|share| format!("{:.1}", share * WIDTH));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_break_the_line_and_close_the_area() {
        let spark = spark(&[Some(1.0), Some(2.0), None, Some(2.0)], 0.0);
        assert_eq!(spark.line, "M0.0 12.0L33.3 1.5M100.0 1.5");
        assert_eq!(spark.area, "M0.0 12.0L33.3 1.5L33.3 24L0.0 24ZM100.0 1.5L100.0 24L100.0 24Z");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(spark(&[None, None], 0.0), Spark::default());
        assert_eq!(spark(&[Some(f64::NAN), Some(0.0)], 0.0), Spark::default());
        assert!(spark(&[Some(0.0), Some(0.0)], 1.0).line.starts_with("M0.0 22.5"));
    }
}
