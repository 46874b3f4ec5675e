//! Which attributes an item must have to count: equality and patterns, as Prometheus has them.

use crate::otlp::Attributes;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};

/// One condition on one attribute. An attribute that is missing has the empty text as its value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matcher {
    /// Its name; `http_route` also means `http.route`.
    pub key: Arc<str>,
    /// Holds if the test does not.
    pub negated: bool,
    pub test: Test,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Test {
    Equals(Arc<str>),
    Matches(Pattern),
}

/// A regular expression that has to match the whole value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pattern {
    text: Arc<str>,
    #[serde(skip)]
    compiled: OnceLock<Option<Regex>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    /// # Errors
    /// The text is no regular expression, or a huge one: why, in words.
    pub fn new(text: &str) -> Result<Self, String> {
        compile(text).map_err(|error| error.to_string())?;
        Ok(Self { text: text.into(), compiled: OnceLock::new() })
    }

    fn matches(&self, value: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| compile(&self.text).ok());
        compiled.as_ref().is_some_and(|pattern| pattern.is_match(value))
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(1 << 20).build()
}

impl Matcher {
    #[must_use]
    pub fn equals(key: &str, value: &str) -> Self {
        Self { key: key.into(), negated: false, test: Test::Equals(value.into()) }
    }

    fn accepts(&self, value: &str) -> bool {
        let holds = match &self.test {
            Test::Equals(wanted) => **wanted == *value,
            Test::Matches(pattern) => pattern.matches(value),
        };
        holds != self.negated
    }

    /// Whether it holds for the attributes of an item on the wire.
    #[must_use]
    pub fn holds(&self, attributes: Attributes<'_>) -> bool {
        let mut value = attributes.get(&self.key);
        if value.is_none() && self.key.contains('_') {
            value = attributes.filter(|(name, _)| same_label(name, &self.key)).last().map(|(_, value)| value);
        }
        match value {
            Some(crate::otlp::AnyValue::Text(text)) => self.accepts(text),
            Some(value) => self.accepts(&value.to_string()),
            None => self.accepts(""),
        }
    }

    /// The same for the attributes of a series.
    #[must_use]
    pub fn holds_for(&self, attributes: &[(Arc<str>, Arc<str>)]) -> bool {
        let found = attributes.iter().find(|(name, _)| same_label(name, &self.key));
        self.accepts(found.map_or("", |(_, value)| value))
    }
}

/// Whether two names are the same one, as OpenTelemetry or as Prometheus writes it (dots and dashes as
/// underscores).
fn same_label(name: &str, wanted: &str) -> bool {
    name == wanted || name.len() == wanted.len() && plain(name).eq(plain(wanted))
}

fn plain(name: &str) -> impl Iterator<Item = u8> + '_ {
    name.bytes().map(|c| if c.is_ascii_alphanumeric() || c == b':' { c } else { b'_' })
}

/// Whether a metric is meant by a name: its own, or the one that Prometheus gives it, which has the unit
/// and the kind as suffixes (OpenTelemetry "Prometheus and OpenMetrics Compatibility").
#[must_use]
pub fn same_name(wanted: &str, name: &str, unit: &str) -> bool {
    if wanted == name {
        return true;
    }
    if !wanted.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b':') {
        return false;
    }
    let kinds = ["", "_total", "_bucket", "_count", "_sum"];
    let stem = kinds.iter().filter_map(|kind| wanted.strip_suffix(kind));
    let unit = match unit {
        "s" => "_seconds",
        "ms" => "_milliseconds",
        "us" => "_microseconds",
        "ns" => "_nanoseconds",
        "By" => "_bytes",
        "1" => "_ratio",
        "%" => "_percent",
        _ => "",
    };
    let mut stems = stem.flat_map(|stem| [Some(stem), stem.strip_suffix(unit)]).flatten();
    stems.any(|stem| {
        same_label(name, stem) || name.strip_suffix("_total").is_some_and(|n| same_label(n, stem))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_meant_by_its_names_in_both_worlds() {
        for (wanted, name, unit, same) in [
            ("http.server.request.duration", "http.server.request.duration", "s", true),
            ("http_server_request_duration_seconds_count", "http.server.request.duration", "s", true),
            ("http_server_request_duration_seconds_bucket", "http.server.request.duration", "s", true),
            ("http_server_request_duration_seconds", "http.server.request.duration", "ms", false),
            ("http_requests_total", "http.requests", "{request}", true),
            ("http_requests_total", "http_requests_total", "", true),
            ("http_requests", "http.request", "", false),
            ("http.requests", "http_requests", "", false),
        ] {
            assert_eq!(same_name(wanted, name, unit), same, "{wanted} {name}");
        }
    }

    #[test]
    fn conditions_hold_as_prometheus_says() {
        let attributes: Vec<(Arc<str>, Arc<str>)> =
            vec![("http.response.status_code".into(), "503".into()), ("job".into(), "shop".into())];
        let pattern = |text: &str| Test::Matches(Pattern::new(text).unwrap());
        let holds = |key: &str, negated: bool, test: Test| {
            Matcher { key: key.into(), negated, test }.holds_for(&attributes)
        };
        assert!(holds("http_response_status_code", false, pattern("5..|429")));
        assert!(!holds("http_response_status_code", false, pattern("5")), "the whole value");
        assert!(!holds("http.response.status_code", true, pattern("5..")));
        assert!(holds("job", false, Test::Equals("shop".into())));
        assert!(holds("missing", false, Test::Equals("".into())));
        assert!(holds("missing", true, Test::Equals("x".into())));
        assert!(Pattern::new("(").is_err());
    }
}
