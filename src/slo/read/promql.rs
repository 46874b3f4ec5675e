//! The little of PromQL that counts events: a sum over the rate of one counter. A general query has no
//! exact counts behind it, so it is refused.

use crate::aggregate::{Comparison, Matcher, Meaning, Part, Pattern, Source, Test};
use crate::slo::Counting;

/// Functions that change nothing of which events are counted.
const TRANSPARENT: [&str; 9] =
    ["sum", "rate", "irate", "increase", "delta", "avg", "avg_over_time", "max", "sum_over_time"];
/// A query is refused when it is longer.
const QUERY_BYTES: usize = 8_192;

/// The one selector of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selector {
    pub metric: String,
    /// The service that `job`, `service` or `service_name` names.
    pub service: Option<String>,
    /// The bound of a histogram's bucket.
    pub bound: Option<f64>,
    pub only: Vec<Matcher>,
}

impl Selector {
    /// Counts the growth of it.
    pub fn growth(self, part: Part) -> Counting {
        let counted = match self.bound {
            Some(bound) if bound.is_finite() => Meaning::UpTo(part, bound),
            _ => Meaning::Growth(part),
        };
        self.counted(counted)
    }

    /// Counts its points by what they say.
    pub fn compared(self, how: Comparison, value: f64) -> Counting {
        self.counted(Meaning::Compared(how, value))
    }

    pub fn counted(self, counted: Meaning) -> Counting {
        Counting { source: Source::Metric { name: self.metric.as_str().into(), counted }, only: self.only }
    }

    fn is_same_but_bound(&self, other: &Self) -> bool {
        let stem = |name: &str| name.trim_end_matches("_count").trim_end_matches("_bucket").to_owned();
        stem(&self.metric) == stem(&other.metric) && self.service == other.service && self.only == other.only
    }
}

/// Both sides of a division at the top of a query.
pub(super) fn divided(query: &str) -> Option<(&str, &str)> {
    let at = at_top(query, '/')?;
    Some((query.get(..at)?.trim(), query.get(at + 1..)?.trim()))
}

/// Where a character stands outside all brackets and texts.
fn at_top(query: &str, wanted: char) -> Option<usize> {
    let (mut depth, mut quote) = (0i32, None);
    let mut previous = ' ';
    for (at, c) in query.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open && previous != '\\' => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            (None, c) if c == wanted && depth == 0 => return Some(at),
            _ => {}
        }
        previous = c;
    }
    None
}

/// A query of bad events, or of good ones: one selector; or all minus those of a bucket, which are the ones
/// that are slower.
pub(super) enum Counter {
    One(Selector),
    Slower(Selector, f64),
}

/// Reads a query for events.
///
/// # Errors
/// In words, what of it is not understood.
pub(super) fn counter(query: &str) -> Result<Counter, String> {
    let mut query = query.trim();
    // Brackets around all of it say nothing.
    while let Some(inner) = query.strip_prefix('(')
        && closing(inner) == Some(inner.len() - 1)
    {
        query = inner.get(..inner.len() - 1).unwrap_or_default().trim();
    }
    if let Some(at) = at_top(query, '-') {
        let (all, fast) = (query.get(..at).unwrap_or_default(), query.get(at + 1..).unwrap_or_default());
        let (all, fast) = (selector(all)?, selector(fast)?);
        return match (all.bound, fast.bound) {
            (None, Some(bound)) if all.is_same_but_bound(&fast) => Ok(Counter::Slower(all, bound)),
            _ => Err("is a difference of what is no histogram's count and one of its buckets".to_owned()),
        };
    }
    selector(query).map(Counter::One)
}

/// Reads a query with one selector.
///
/// # Errors
/// In words, what of it is not understood.
pub(super) fn selector(query: &str) -> Result<Selector, String> {
    if query.len() > QUERY_BYTES {
        return Err(format!("is longer than {QUERY_BYTES} bytes"));
    }
    for operator in ['/', '*', '+', '-', '>', '<', '%', '^'] {
        if at_top(query, operator).is_some() {
            return Err(format!(
                "has {operator:?}; understood is a sum over the rate of one counter, such as sum(rate(http_requests_total{{job=\"shop\"}}[5m]))"
            ));
        }
    }
    let mut text = query.trim();
    loop {
        let name_end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '.'));
        let Some(end) = name_end else { break };
        let (name, rest) = text.split_at(end);
        let mut rest = rest.trim_start();
        if name.is_empty() && !rest.starts_with('(') {
            break;
        }
        // sum by (a, b) (…)
        for word in ["by", "without"] {
            if let Some(labels) = rest.strip_prefix(word).map(str::trim_start).filter(|_| name == "sum")
                && let Some(close) = labels.find(')')
            {
                rest = labels.get(close + 1..).unwrap_or_default().trim_start();
            }
        }
        let Some(inner) = rest.strip_prefix('(') else { break };
        if !name.is_empty() && !TRANSPARENT.contains(&name) {
            return Err(format!("has the function {name:?}, understood are: {}", TRANSPARENT.join(", ")));
        }
        let close = closing(inner).ok_or("has a bracket that is not closed")?;
        let after = inner.get(close + 1..).unwrap_or_default().trim();
        let is_grouping = after.starts_with("by") || after.starts_with("without");
        if !after.is_empty() && !is_grouping && !after.starts_with('[') {
            return Err(format!("has {after:?} behind a bracket"));
        }
        text = inner.get(..close).unwrap_or_default().trim();
        for operator in ['/', '*', '+', '-', '>', '<', '%', '^'] {
            if at_top(text, operator).is_some() {
                return Err(format!("has {operator:?} within a function"));
            }
        }
    }
    leaf(text)
}

/// The bracket that closes the one before `text`.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut previous) = (0i32, None, ' ');
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open && previous != '\\' => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') if depth == 0 => return Some(at),
            (None, ')') => depth -= 1,
            _ => {}
        }
        previous = c;
    }
    None
}

/// `metric{label="value",…}[range]`
fn leaf(text: &str) -> Result<Selector, String> {
    let end = text.find(['{', '[']).unwrap_or(text.len());
    let (metric, rest) = text.split_at(end);
    let metric = metric.trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.');
    if metric.is_empty() || !metric.chars().all(is_name) {
        return Err(format!("has no metric's name where {text:?} stands"));
    }
    let mut found = Selector { metric: metric.to_owned(), service: None, bound: None, only: Vec::new() };
    let Some(inner) = rest.trim().strip_prefix('{') else { return Ok(found) };
    let mut rest = inner;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\n', '\t', '\r']);
        if rest.starts_with('}') || rest.is_empty() {
            break;
        }
        let at = rest.find(['=', '!']).ok_or("has a label without a value")?;
        let (label, after) = rest.split_at(at);
        let operator = ["=~", "!~", "!=", "="].into_iter().find(|operator| after.starts_with(operator));
        let operator = operator.ok_or("has a label without a comparison")?;
        let value = after.get(operator.len()..).unwrap_or_default().trim_start();
        let quote = value
            .chars()
            .next()
            .filter(|c| matches!(c, '"' | '\''))
            .ok_or("has a label's value without quotes")?;
        let mut text = String::new();
        let mut characters = value.char_indices().skip(1);
        let mut close = None;
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => text.extend(characters.next().map(|(_, c)| c)),
                c if c == quote => {
                    close = Some(at);
                    break;
                }
                c => text.push(c),
            }
        }
        let close = close.ok_or("has a label's value that does not end")?;
        rest = value.get(close + 1..).unwrap_or_default();
        matcher(&mut found, label.trim(), operator, &text)?;
    }
    Ok(found)
}

fn matcher(found: &mut Selector, label: &str, operator: &str, value: &str) -> Result<(), String> {
    match (label, operator) {
        ("job" | "service" | "service_name" | "service.name", "=") => {
            // `job` is namespace/name in OpenTelemetry.
            found.service = Some(value.to_owned());
        }
        ("le", "=") => {
            found.bound = Some(value.parse().map_err(|_| format!("has the bound le={value:?}"))?);
        }
        ("le", _) => return Err("has the bound le without =".to_owned()),
        _ => {
            let test = if operator.ends_with('~') {
                Test::Matches(
                    Pattern::new(value).map_err(|_| format!("has no regular expression in {label}"))?,
                )
            } else {
                Test::Equals(value.into())
            };
            found.only.push(Matcher { key: label.into(), negated: operator.starts_with('!'), test });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_one_counter_are_understood() {
        for query in [
            r#"sum(rate(http_requests_total{job="shop",code=~"(5..|429)"}[{{.window}}]))"#,
            "sum by (a, b) (increase(http_requests_total{job=\"shop\", code=~\"(5..|429)\"}[5m]))",
            "sum(\n  rate(http_requests_total{code=~\"(5..|429)\",job='shop',}[5m])\n) by (a)",
            r#"http_requests_total{job="shop",code=~"(5..|429)"}"#,
        ] {
            let found = selector(query).unwrap_or_else(|wrong| panic!("{query}: {wrong}"));
            assert_eq!(
                (found.metric.as_str(), found.service.as_deref()),
                ("http_requests_total", Some("shop"))
            );
            assert_eq!(found.only.len(), 1, "{query}");
        }
        let slower = counter(r#"sum(rate(a_count{x="y"}[5m])) - sum(rate(a_bucket{le="0.4",x="y"}[5m]))"#);
        assert!(matches!(slower, Ok(Counter::Slower(_, bound)) if bound == 0.4));
    }

    #[test]
    fn all_else_is_refused() {
        for query in [
            "sum(rate(a[5m])) / sum(rate(b[5m]))",
            "sum(rate(a[5m]) * 2)",
            "histogram_quantile(0.9, sum(rate(a_bucket[5m])))",
            "sum(rate(a{x=~\"(\"}[5m]))",
            "sum(rate(a{x=y}[5m]))",
            "sum(rate(",
            "",
            "sum(rate(a_bucket{le=~\"1\"}[5m]))",
        ] {
            assert!(selector(query).is_err(), "{query}");
        }
    }
}
