//! What was seen of an anomaly, drawn beside what is usual, and why it was told.

use super::graph::service_path;
use super::table::Table;
use crate::api::v1;
use crate::model::Timestamp;
use crate::serve::text::{between, percent, plain, time};
use crate::serve::{Plot, Why, from_proto};
use std::fmt::Write as _;

/// Columns and rows of a chart.
const COLUMNS: usize = 72;
const ROWS: usize = 7;
/// A value, what is usual, and where it began.
const VALUE: char = '●';
const USUAL: char = '░';
const ONSET: char = '┆';

/// The signals, each that can be drawn as a chart, why it was told and what would have silenced it.
pub(super) fn told(anomaly: &v1::Anomaly, curves: &[v1::Curve]) -> String {
    let mut out = String::new();
    if !anomaly.signals.is_empty() {
        let _ = write!(out, "\n{}", signals(&anomaly.signals));
    }
    let onset = anomaly.onset.as_ref().map(from_proto).unwrap_or_default();
    for curve in curves {
        let signal = usize::try_from(curve.signal).ok().and_then(|at| anomaly.signals.get(at));
        if let Some(signal) = signal {
            out.push_str(&chart(signal, curve, onset));
        }
    }
    let why = Why::of(anomaly);
    let _ = writeln!(out, "\nTaken from the false-alarm budget: {}", why.budget);
    let _ = writeln!(out, "Why it was not suppressed: {}", plain(&why.exemptions));
    for one in &anomaly.nearest_exemptions {
        let _ = writeln!(out, "  {}\n    {}", plain(&one.line), plain(&one.why_not));
    }
    if !anomaly.silencers.is_empty() {
        out.push_str("What would have silenced it:\n");
    }
    for one in &anomaly.silencers {
        let _ = writeln!(out, "  {}\n    ({})", plain(&one.command), plain(&one.when));
    }
    out
}

fn signals(signals: &[v1::AnomalySignal]) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "SIGNAL",
        "SYMPTOM",
        ">OBSERVED",
        ">EXPECTED",
        "UNIT",
        ">P-VALUE",
        "RECOVERED",
    ]);
    for signal in signals {
        let (observed, expected, unit) = in_unit(signal);
        table.row([
            signal.service.as_ref().map(service_path).unwrap_or_default(),
            which(signal),
            signal.symptom.clone(),
            observed,
            expected,
            unit,
            format!("{:.1e}", signal.p_value),
            if signal.recovered { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.show("")
}

/// What is judged, with the attributes that tell it from others of its name (a burn's windows, a caller).
fn which(signal: &v1::AnomalySignal) -> String {
    let attributes: Vec<String> =
        signal.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if attributes.is_empty() {
        signal.metric.clone()
    } else {
        format!("{} {{{}}}", signal.metric, attributes.join(", "))
    }
}

/// Observed, expected and their unit for people.
fn in_unit(signal: &v1::AnomalySignal) -> (String, String, String) {
    let show = |value: f64| match signal.unit.as_str() {
        "ns" => crate::serve::text::duration(value as i64),
        "1" => percent(value),
        _ => crate::serve::text::three_digits(value),
    };
    let unit = if matches!(signal.unit.as_str(), "ns" | "1") { String::new() } else { signal.unit.clone() };
    (show(signal.observed), between(signal.expected_low, signal.expected_high, show), unit)
}

/// A curve over the band of what is usual; empty if it has no points.
fn chart(signal: &v1::AnomalySignal, of: &v1::Curve, onset: Timestamp) -> String {
    let Some(plot) = Plot::new(of) else { return String::new() };
    // Both are far below what a float cannot count.
    let row_of = |below: f64| (below * (ROWS - 1) as f64).round() as usize;
    let row = |value: f64| row_of(plot.below(value));
    let column = |at: Timestamp| (plot.across(at) * (COLUMNS - 1) as f64).round() as usize;
    let band = plot.band().map(|(upper, lower)| upper.map_or(0, row_of)..=lower.map_or(ROWS - 1, row_of));
    let mut rows: Vec<Vec<char>> = (0..ROWS)
        .map(|at| {
            vec![if band.as_ref().is_some_and(|band| band.contains(&at)) { USUAL } else { ' ' }; COLUMNS]
        })
        .collect();
    let mut put = |row: usize, column: usize, what: char| {
        if let Some(place) = rows.get_mut(row).and_then(|row| row.get_mut(column)) {
            *place = what;
        }
    };
    if plot.holds(onset) {
        (0..ROWS).for_each(|row| put(row, column(onset), ONSET));
    }
    plot.points.iter().for_each(|(at, value)| put(row(*value), column(*at), VALUE));
    let (top, bottom) = (plot.show(plot.high), plot.show(plot.low));
    let margin = top.chars().count().max(bottom.chars().count());
    let mut out = format!(
        "\n{}: {} of {}\n",
        plain(&signal.service.as_ref().map(service_path).unwrap_or_default()),
        plain(&of.what),
        plain(&which(signal))
    );
    for (at, row) in rows.iter().enumerate() {
        let label = if at == 0 {
            &*top
        } else if at == ROWS - 1 {
            &*bottom
        } else {
            ""
        };
        let row: String = row.iter().collect();
        let _ = writeln!(
            out,
            "{}{} {}",
            " ".repeat(margin - label.chars().count()),
            plain(label),
            row.trim_end()
        );
    }
    let usual = plot.usual().map(|usual| format!("{USUAL} usual: {}, ", plain(&usual))).unwrap_or_default();
    let [from, to, began] = [plot.first, plot.last, onset].map(|at| time(Some(&crate::serve::to_proto(at))));
    let _ = writeln!(out, "{} {from} to {to}; {usual}{ONSET} onset {began}", " ".repeat(margin));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::to_proto;

    #[test]
    fn a_chart_shows_what_left_the_band_and_since_when() {
        let at = |second: u64| Timestamp::from_secs(1_714_565_500 + second);
        let point = |n: u64| v1::CurvePoint {
            start: Some(to_proto(at(10 * n))),
            value: if n < 6 { 20e6 } else { 80e6 },
        };
        let curve = v1::Curve {
            what: "99th percentile".into(),
            unit: "ns".into(),
            expected_low: Some(0.0),
            expected_high: Some(40e6),
            step_ns: 10_000_000_000,
            points: (0..9).map(point).collect(),
            ..v1::Curve::default()
        };
        let signal = v1::AnomalySignal {
            service: Some(v1::Service { name: "cart".into(), ..v1::Service::default() }),
            metric: "GET /\u{1b}[2J".into(),
            ..v1::AnomalySignal::default()
        };
        let text = chart(&signal, &curve, at(60));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "cart: 99th percentile of GET /\\u{1b}[2J");
        // The highest row holds what came after the onset, the band begins in the middle.
        assert!(lines[2].starts_with("80.0 ms ") && lines[2].matches(VALUE).count() == 3, "{text}");
        assert!(!lines[4].contains(USUAL) && lines[5].contains(USUAL), "{text}");
        assert_eq!(text.matches(VALUE).count(), 9, "{text}");
        assert_eq!(lines[5].chars().filter(|c| *c == ONSET).count(), 1, "{text}");
        assert!(lines[9].contains("░ usual: 0 ns to 40.0 ms, ┆ onset 2024-05-01 12:12:40Z"), "{text}");
        assert_eq!(chart(&signal, &v1::Curve::default(), at(0)), "");
    }
}
