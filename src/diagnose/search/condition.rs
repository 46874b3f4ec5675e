//! What a span or a log record must be like to be found.

use crate::diagnose::rows::{LogRow, Resource, SpanRow, find};
use crate::model::TraceId;
use crate::settings::Seconds;

/// One of the things that must hold. Values are compared as captures show them, so a secret is never
/// found by what it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A span with status ERROR; a log record of ERROR or above.
    Failed,
    Compared {
        key: String,
        comparison: Comparison,
        value: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Differs,
    /// The text occurs, whatever its case.
    Contains,
    AtLeast,
    AtMost,
    Above,
    Below,
}

/// Two characters come before one, so that `>=` is not read as `>`.
const COMPARISONS: [(&str, Comparison); 7] = [
    ("!=", Comparison::Differs),
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("=", Comparison::Equal),
    ("~", Comparison::Contains),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

/// Most conditions of one search, and the longest text of them.
const CONDITIONS: usize = 32;
const TEXT_BYTES: usize = 4_096;

/// Reads conditions separated by commas: `error`, or `KEY=VALUE` with `=`, `!=`, `~` (contains), `>=`, `<=`,
/// `>` or `<`. A value with a comma in it stands in double quotes. `KEY` is `service`, `operation`, `kind`,
/// `trace`, `duration`, `message`, `severity`, `body`, `instance`, `version` or `host`; any other is an
/// attribute of the item or of its resource.
///
/// # Errors
/// What is wrong, and what is allowed.
pub fn conditions(text: &str) -> Result<Vec<Condition>, String> {
    if text.len() > TEXT_BYTES {
        return Err(format!("conditions of more than {TEXT_BYTES} bytes"));
    }
    let mut is_quoted = false;
    let parts = text.split(|c: char| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    });
    let found = parts.map(str::trim).filter(|part| !part.is_empty()).map(condition);
    let found: Vec<Condition> = found.collect::<Result<_, _>>()?;
    if found.len() > CONDITIONS {
        return Err(format!("more than {CONDITIONS} conditions"));
    }
    Ok(found)
}

fn condition(text: &str) -> Result<Condition, String> {
    if text == "error" {
        return Ok(Condition::Failed);
    }
    let wrong = || format!("{text:?} is neither `error` nor KEY=VALUE (or !=, ~, >=, <=, >, <)");
    let at = text.find(['!', '>', '<', '=', '~']).ok_or_else(wrong)?;
    let (key, rest) = text.split_at_checked(at).ok_or_else(wrong)?;
    let (comparison, value) = COMPARISONS
        .iter()
        .find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?)))
        .ok_or_else(wrong)?;
    let (key, value) = (key.trim().to_owned(), value.trim().trim_matches('"').to_owned());
    if key.is_empty() {
        return Err(wrong());
    }
    if key == "trace" && TraceId::from_hex(&value).is_none() {
        return Err(format!("{value:?} is not a trace id of 32 hexadecimal digits"));
    }
    if key == "duration" && Seconds::parse(&value).is_none() {
        return Err(format!("{value:?} is not a duration such as 250ms"));
    }
    Ok(Condition::Compared { key, comparison, value })
}

/// The least `SeverityNumber` of a name such as `WARN`, or the number itself.
fn severity(text: &str) -> Option<u8> {
    let named = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let at = named.iter().position(|name| name.eq_ignore_ascii_case(text));
    at.and_then(|at| u8::try_from(at * 4 + 1).ok()).or_else(|| text.parse().ok())
}

impl Comparison {
    fn of_order(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal | Self::Contains => order.is_eq(),
            Self::Differs => order.is_ne(),
            Self::AtLeast => order.is_ge(),
            Self::AtMost => order.is_le(),
            Self::Above => order.is_gt(),
            Self::Below => order.is_lt(),
        }
    }

    /// Compares texts; where they are to be ordered, as numbers, which both must be.
    fn holds(self, found: Option<&str>, wanted: &str) -> bool {
        let Some(found) = found else { return self == Self::Differs };
        match self {
            Self::Equal => found == wanted,
            Self::Differs => found != wanted,
            Self::Contains => found.to_lowercase().contains(&wanted.to_lowercase()),
            _ => match (found.parse::<f64>(), wanted.parse::<f64>()) {
                (Ok(found), Ok(wanted)) => {
                    found.partial_cmp(&wanted).is_some_and(|order| self.of_order(order))
                }
                _ => false,
            },
        }
    }
}

impl Condition {
    /// The trace that must be, if this says so.
    #[must_use]
    pub fn trace(&self) -> Option<TraceId> {
        match self {
            Self::Compared { key, comparison: Comparison::Equal, value } if key == "trace" => {
                TraceId::from_hex(value)
            }
            _ => None,
        }
    }

    /// The service that must be, if this says so.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Compared { key, comparison: Comparison::Equal, value } if key == "service" => Some(value),
            _ => None,
        }
    }

    #[must_use]
    pub(super) fn holds_for_span(&self, span: &SpanRow) -> bool {
        let Self::Compared { key, comparison, value } = self else { return span.failed() };
        match key.as_str() {
            "operation" => comparison.holds(Some(&span.operation), value),
            "kind" => comparison.holds(Some(span.kind.as_str()), &value.to_lowercase()),
            "trace" => comparison.holds(Some(&span.trace.to_string()), &value.to_lowercase()),
            "message" => comparison.holds(Some(&span.message), value),
            "duration" => {
                let wanted = Seconds::parse(value).map_or(0, |wanted| wanted.0.as_nanos());
                comparison.of_order(u128::from(span.duration_ns()).cmp(&wanted))
            }
            key => holds_beside(key, *comparison, value, &span.resource, span.attribute(key)),
        }
    }

    #[must_use]
    pub(super) fn holds_for_log(&self, log: &LogRow) -> bool {
        let Self::Compared { key, comparison, value } = self else { return log.is_error() };
        match key.as_str() {
            "body" | "message" => comparison.holds(Some(&log.body), value),
            "trace" => comparison.holds(Some(&log.trace.to_string()), &value.to_lowercase()),
            "severity" if *comparison == Comparison::Equal => log.severity_text().eq_ignore_ascii_case(value),
            "severity" => {
                severity(value).is_some_and(|wanted| comparison.of_order(log.severity.cmp(&wanted)))
            }
            key => holds_beside(key, *comparison, value, &log.resource, find(&log.attributes, key)),
        }
    }
}

/// What both kinds of items have in common.
fn holds_beside(
    key: &str,
    comparison: Comparison,
    value: &str,
    resource: &Resource,
    own: Option<&str>,
) -> bool {
    match key {
        "service" => match comparison {
            Comparison::Equal => resource.service.is_meant_by(value),
            Comparison::Differs => !resource.service.is_meant_by(value),
            _ => comparison.holds(Some(&resource.service.name), value),
        },
        "instance" => comparison.holds(Some(&resource.instance), value),
        "version" => comparison.holds(Some(&resource.version), value),
        "host" => comparison.holds(Some(&resource.host), value),
        key => comparison.holds(own.or_else(|| find(&resource.attributes, key)), value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(key: &str, comparison: Comparison, value: &str) -> Condition {
        Condition::Compared { key: key.into(), comparison, value: value.into() }
    }

    #[test]
    fn conditions_are_read_as_people_write_them() {
        assert_eq!(
            conditions("service=cart,error"),
            Ok(vec![compared("service", Comparison::Equal, "cart"), Condition::Failed])
        );
        assert_eq!(
            conditions("duration>=250ms, body~\"a, b\",http.route!=/x"),
            Ok(vec![
                compared("duration", Comparison::AtLeast, "250ms"),
                compared("body", Comparison::Contains, "a, b"),
                compared("http.route", Comparison::Differs, "/x"),
            ])
        );
        assert_eq!(conditions(" , "), Ok(vec![]));
        for wrong in ["nonsense", "=x", "trace=12", "duration>fast", "!x"] {
            assert!(conditions(wrong).is_err(), "{wrong}");
        }
        assert!(conditions(&"error,".repeat(40)).is_err());
    }

    #[test]
    fn what_is_missing_differs_from_everything_and_is_like_nothing() {
        assert!(Comparison::Differs.holds(None, "x"));
        assert!(!Comparison::Equal.holds(None, "x"));
        assert!(Comparison::Above.holds(Some("503"), "499"));
        assert!(!Comparison::Above.holds(Some("many"), "499"));
        assert!(Comparison::Contains.holds(Some("Out of Memory"), "memory"));
        assert_eq!(severity("warn"), Some(13));
    }
}
