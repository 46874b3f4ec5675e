//! Anomalies in words.

use super::anomaly::{Anomaly, Member};
use crate::detect::{Symptom, is_of_shape};
use crate::model::Timestamp;

/// A ratio as a percentage with two significant digits.
fn percent(ratio: f64) -> String {
    format!("{} %", number(ratio * 100.0))
}

/// Two to three significant digits.
fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "∞".to_owned()
    } else if size >= 100.0 || size == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        trim(format!("{value:.1}"))
    } else if size >= 0.1 {
        trim(format!("{value:.2}"))
    } else {
        trim(format!("{value:.4}"))
    }
}

fn trim(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Nanoseconds in the unit that suits.
fn duration(ns: f64) -> String {
    match ns {
        ns if ns >= 1e9 => format!("{} s", number(ns / 1e9)),
        ns if ns >= 1e6 => format!("{} ms", number(ns / 1e6)),
        ns => format!("{} µs", number(ns / 1e3)),
    }
}

fn seconds(s: f64) -> String {
    match s {
        s if s >= 7_200.0 => format!("{} h", number(s / 3_600.0)),
        s if s >= 120.0 => format!("{} min", number(s / 60.0)),
        s => format!("{} s", number(s)),
    }
}

/// `14:02:11` of a moment, in UTC.
fn clock(at: Timestamp) -> String {
    let day = at.secs() % 86_400;
    format!("{:02}:{:02}:{:02} UTC", day / 3_600, day / 60 % 60, day % 60)
}

/// One line: what broke, how much, since when.
pub(super) fn title(anomaly: &Anomaly, lead: Option<&Member>) -> String {
    let Some(member) = lead.or_else(|| anomaly.members.first()) else { return anomaly.service.to_string() };
    let what = match member.symptom {
        Symptom::Errors if member.expected.high.is_infinite() => {
            format!(
                "{} of {} fail, as far as is known always",
                percent(member.observed),
                operation(&member.signal)
            )
        }
        Symptom::Errors => format!(
            "{} of {} fail (normally under {})",
            percent(member.observed),
            operation(&member.signal),
            percent(member.expected.high)
        ),
        Symptom::Latency => format!(
            "{} take {} (normally under {})",
            operation(&member.signal),
            duration(member.observed),
            duration(member.expected.high)
        ),
        Symptom::TrafficDrop => format!(
            "{} requests/s arrive (normally at least {})",
            number(member.observed),
            number(member.expected.low)
        ),
        Symptom::Silence => format!("sends nothing any more, for {}", seconds(member.observed)),
        Symptom::MissedJob => format!(
            "job {} has not run for {} (normally within {})",
            member.signal,
            seconds(member.observed),
            seconds(member.expected.high)
        ),
        Symptom::Saturation => format!(
            "{} is {} full (normally up to {})",
            member.signal,
            percent(member.observed),
            percent(member.expected.high)
        ),
        Symptom::BudgetBurn => format!(
            "{} burns its error budget: {} bad ({} allowed)",
            member.signal,
            percent(member.observed),
            percent(member.expected.high)
        ),
        Symptom::Level => format!(
            "{}{} is {} (normally {} to {})",
            if is_of_shape(&member.attributes) { "the 99th percentile of " } else { "" },
            member.signal,
            number(member.observed),
            number(member.expected.low),
            number(member.expected.high)
        ),
        Symptom::Data => data(member),
        Symptom::Rule => format!("the rule {} fires", member.signal),
        Symptom::Exhaustion => {
            let minutes = (member.observed / 60.0).round();
            format!("{} is full in {} if it goes on like this", member.signal, seconds(60.0 * minutes))
        }
    };
    let mut services: Vec<_> = anomaly.members.iter().map(|member| &member.service).collect();
    services.sort();
    services.dedup();
    let others = services.iter().filter(|service| ***service != member.service).count();
    let others = match others {
        0 => String::new(),
        1 => "; 1 other service is affected".to_owned(),
        n => format!("; {n} other services are affected"),
    };
    // The latest of what a budget goes by is not when it began.
    let budget = member.symptom == Symptom::BudgetBurn;
    let since = if budget { anomaly.onset.earliest } else { anomaly.onset.latest };
    format!("{}: {what}, since {}{others}", member.service, clock(since))
}

fn operation(signal: &str) -> String {
    if signal == "all requests" || signal.starts_with("calls from ") {
        signal.to_owned()
    } else {
        format!("`{signal}` requests")
    }
}

/// What is wrong with the telemetry.
fn data(member: &Member) -> String {
    let (seen, usual) = (member.observed, &member.expected);
    match &*member.signal {
        "pipeline" => format!("nothing arrives, nor from most others, for {}", seconds(seen)),
        "lateness" => format!("{} of its telemetry comes too late to be judged", percent(seen)),
        "sampling" => format!(
            "a span stands for {} requests (normally {} to {})",
            number(seen),
            number(usual.low),
            number(usual.high)
        ),
        "spans a request" => format!(
            "{} spans come for each request that its metrics count (normally {} to {})",
            number(seen),
            number(usual.low),
            number(usual.high)
        ),
        "operations" => format!("{} of its requests have names that are new", percent(seen)),
        _ => format!("only {} of {} instances report", number(seen), number(usual.high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(percent(0.31), "31 %");
        assert_eq!(percent(0.005), "0.5 %");
        assert_eq!(percent(0.00234), "0.23 %");
        assert_eq!(duration(81_234_567.0), "81.2 ms");
        assert_eq!(duration(1.5e9), "1.5 s");
        assert_eq!(seconds(86_400.0), "24 h");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(1234.0), "1234");
    }
}
