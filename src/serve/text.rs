//! Text for people: units, and nothing that could act on a terminal.

use super::from_proto;
use crate::api::v1;
use crate::model::{ServiceKey, Timestamp};
use std::fmt::Write as _;

/// The text without characters that act on a terminal or hide: control characters, and those that
/// change the direction of text or have no width. They are shown as `\u{…}`.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let acts = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if acts {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// `cart has 4,998 span names like op-*: 95,002 of its items went to its overflow series`.
/// Or `the caller 10.0.0.7 brings more than its share: there are 4,705 service names like svc-*, and 95,002 of its
/// items went to overflow series`.
#[must_use]
pub fn crowded(of: &v1::CrowdedService) -> String {
    if !of.caller.is_empty() {
        return format!(
            "the caller {} brings more than its share: there are {} {} like {}, and {} of its items went to overflow series",
            plain(&of.caller),
            count(of.values),
            plain(&of.part),
            plain(&of.pattern),
            count(of.overflowed)
        );
    }
    let service = of.service.clone().unwrap_or_default();
    let service = ServiceKey::new(&service.environment, &service.namespace, &service.name);
    format!(
        "{} has {} {} like {}: {} of its items went to its overflow series",
        plain(&service.to_string()),
        count(of.values),
        plain(&of.part),
        plain(&of.pattern),
        count(of.overflowed)
    )
}

/// `cart: 120 future, 14 too_old`.
#[must_use]
pub fn untimely(of: &v1::UntimelyService) -> String {
    let service = of.service.clone().unwrap_or_default();
    let service = ServiceKey::new(&service.environment, &service.namespace, &service.name);
    let items: Vec<String> =
        of.items.iter().map(|(reason, n)| format!("{} {}", count(*n), plain(reason))).collect();
    format!("{}: {}", plain(&service.to_string()), items.join(", "))
}

/// `12,345`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 objective`, `12,345 objectives`: so many of what has an ordinary plural.
#[must_use]
pub fn so_many(n: u64, of: &str) -> String {
    format!("{} {of}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `1.23 ms`: three digits, in the largest unit that leaves something before the point.
#[must_use]
pub fn duration(ns: i64) -> String {
    let value = ns as f64;
    for (unit, factor) in [("s", 1e9), ("ms", 1e6), ("µs", 1e3)] {
        if value.abs() >= factor * 0.9995 {
            return format!("{} {unit}", three_digits(value / factor));
        }
    }
    format!("{ns} ns")
}

/// `1.23 ms`, or `-` if there is none.
#[must_use]
pub fn duration_or_none(ns: Option<i64>) -> String {
    ns.map_or_else(|| "-".to_owned(), duration)
}

/// `2m 5s`: for waits rather than latencies.
#[must_use]
pub fn span(ns: i64) -> String {
    let seconds = ns.max(0) / 1_000_000_000;
    let (d, h, m, s) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) if seconds < 10 => format!("{:.1}s", ns.max(0) as f64 / 1e9),
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {s}s"),
        (0, _, _) => format!("{h}h {m}m"),
        _ => format!("{d}d {h}h"),
    }
}

/// `0.52 %`.
#[must_use]
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent == 0.0 {
        return "0 %".to_owned();
    }
    if percent.abs() < 0.01 {
        return if percent > 0.0 { "<0.01 %".to_owned() } else { ">-0.01 %".to_owned() };
    }
    format!("{} %", three_digits(percent))
}

/// A value in its unit: `1.23 ms`, `0.52 %`, `12.0 {request}/s`.
#[must_use]
pub fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "ns" => duration(value as i64),
        "1" => percent(value),
        "" => three_digits(value),
        unit => format!("{} {unit}", three_digits(value)),
    }
}

/// `1 ms to 2 ms`, or what is left of it where an end is open.
#[must_use]
pub fn between(low: f64, high: f64, show: impl Fn(f64) -> String) -> String {
    // What an end that is open became where infinities have no form.
    let closed = |end: f64| end.is_finite() && end.abs() < f64::MAX;
    match (closed(low), closed(high)) {
        (true, true) => format!("{} to {}", show(low), show(high)),
        (true, false) => format!("at least {}", show(low)),
        (false, true) => format!("at most {}", show(high)),
        (false, false) => "any".to_owned(),
    }
}

/// `1.5 GiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    for (unit, factor) in [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if n >= factor {
            return format!("{} {unit}", three_digits(n as f64 / factor as f64));
        }
    }
    format!("{n} B")
}

/// Three digits that matter: `1.23`, `12.3`, `123`, `1,235`.
#[must_use]
pub fn three_digits(value: f64) -> String {
    match value.abs() {
        size if size >= 999.5 => {
            let whole = count(size.round() as u64);
            if value < 0.0 { format!("-{whole}") } else { whole }
        }
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `2024-05-01 12:00:05Z`, or `-` if there is none.
#[must_use]
pub fn time(at: Option<&prost_types::Timestamp>) -> String {
    let Some(at) = at else { return "-".to_owned() };
    let at = Timestamp::from_secs(from_proto(at).secs());
    at.to_string().replacen('T', " ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{202e}d\u{9b}é"), "a\\u{1b}[31mb\\u{a}c\\u{202e}d\\u{9b}é");
    }

    #[test]
    fn units_are_those_people_read() {
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_234), "1.23 µs");
        assert_eq!(duration(999_999), "1.00 ms");
        assert_eq!(duration(45_678_901), "45.7 ms");
        assert_eq!(duration(1_234_000_000_000), "1,234 s");
        assert_eq!(between(1.0, 2.0, three_digits), "1.00 to 2.00");
        assert_eq!(between(1.0, f64::INFINITY, three_digits), "at least 1.00");
        assert_eq!(between(f64::NEG_INFINITY, f64::MAX, three_digits), "any");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.005_2), "0.52 %");
        assert_eq!(percent(0.000_01), "<0.01 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(7), "7");
        assert_eq!(
            [0, 1, 1_200].map(|n| so_many(n, "trace")),
            ["0 traces", "1 trace", "1,200 traces"].map(str::to_owned)
        );
        assert_eq!(bytes(1_610_612_736), "1.50 GiB");
        assert_eq!(span(125_000_000_000), "2m 5s");
        assert_eq!(span(7_250_000_000), "7.2s");
    }
}
