//! Indicators: what of a service counts, and what of it is good.
//!
//! ```yaml
//! ratioMetric:
//!   good:
//!     metricSource:
//!       type: barograph
//!       spec: { service: payment, operation: POST /charge, good: latency, threshold: 300ms }
//! ```
//!
//! Of spans (the requests of a service), `good` is `not_error`, `latency` (not slower than `threshold`) or
//! `both`. Of logs, `severity` names the lowest class that is bad. Of metrics, `metric` is a name, as
//! OpenTelemetry or as Prometheus writes it. `event` names log records of which an attribute (`value`) is
//! compared, as in a `thresholdMetric`. `users` is the attribute of spans or log records that tells users
//! apart. `attributes` narrow any of them down; a value that begins with
//! `~` is a regular expression, and `!` in front of all means that it must not be so. `type: prometheus`
//! with a `query` counts the same metrics.

use super::document::{Document, FileError};
use super::promql::{self, Counter};
use crate::aggregate::{Comparison, GoodSpans, Matcher, Meaning, Part, Pattern, Source, Test};
use crate::settings::Seconds;
use crate::slo::Counting;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IndicatorSpec {
    #[allow(dead_code, reason = "known, and of no meaning here")]
    pub description: Option<serde::de::IgnoredAny>,
    pub ratio_metric: Option<Spanned<RatioMetric>>,
    pub threshold_metric: Option<Spanned<Measured>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RatioMetric {
    #[allow(dead_code, reason = "both are understood: how a metric counts is told by its points")]
    counter: Option<bool>,
    good: Option<Spanned<Measured>>,
    bad: Option<Spanned<Measured>>,
    total: Option<Spanned<Measured>>,
    raw: Option<Spanned<Measured>>,
    raw_type: Option<Spanned<String>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Measured {
    metric_source: Spanned<MetricSource>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MetricSource {
    metric_source_ref: Option<Spanned<String>>,
    #[serde(rename = "type")]
    kind: Option<Spanned<String>>,
    spec: Spanned<SourceSpec>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceSpec {
    signal: Option<Spanned<String>>,
    service: Option<String>,
    operation: Option<Spanned<String>>,
    metric: Option<Spanned<String>>,
    severity: Option<Spanned<String>>,
    event: Option<Spanned<String>>,
    value: Option<String>,
    users: Option<Spanned<String>>,
    attributes: Option<BTreeMap<String, Spanned<String>>>,
    good: Option<Spanned<String>>,
    threshold: Option<Spanned<String>>,
    query: Option<Spanned<String>>,
}

/// What an indicator comes to.
pub(super) struct Measure {
    pub service: Option<String>,
    pub parts: Vec<Counting>,
    pub some_is_bad: bool,
    /// The attribute that tells users apart.
    pub users: Option<String>,
}

/// A threshold of an objective: how a value is compared, and with what.
pub(super) type Threshold = (Comparison, f64);

/// Something that a document says of a metric source.
struct Read {
    service: Option<String>,
    users: Option<String>,
    what: What,
}

enum What {
    Spans { operation: Option<Arc<str>>, good: GoodSpans, is_plain: bool, only: Vec<Matcher> },
    Logs { bad_from: Option<i32>, only: Vec<Matcher> },
    Events { name: Arc<str>, value: Arc<str>, only: Vec<Matcher> },
    Metric { name: String, only: Vec<Matcher> },
    Query(Counter),
}

/// Reads an indicator. `sources` are the types of the data sources that documents define.
///
/// # Errors
/// What is not understood.
pub(super) fn read(
    document: &Document<'_>,
    spec: &Spanned<IndicatorSpec>,
    threshold: Option<Threshold>,
    sources: &BTreeMap<String, String>,
) -> Result<Measure, FileError> {
    match (&spec.value.ratio_metric, &spec.value.threshold_metric) {
        (Some(ratio), None) => ratio_of(document, ratio, sources),
        (None, Some(measured)) => {
            let Some((how, value)) = threshold else {
                return Err(document.wrong_at(
                    measured,
                    "thresholdMetric",
                    "needs op and value in the objective",
                ));
            };
            let source = &measured.value.metric_source;
            let read = source_of(document, source, sources)?;
            let counting = match read.what {
                What::Metric { name, only } => {
                    let counted = Meaning::Compared(how, value);
                    Counting { source: Source::Metric { name: name.as_str().into(), counted }, only }
                }
                What::Query(Counter::One(selector)) if selector.bound.is_none() => {
                    selector.compared(how, value)
                }
                What::Events { name, value: attribute, only } => {
                    let source = Source::Events { name, value: attribute, how, threshold: value };
                    Counting { source, only }
                }
                What::Spans { operation, is_plain: true, only, .. } => {
                    if !matches!(how, Comparison::AtMost | Comparison::Below) {
                        return Err(document.wrong_at(source, "op", "of a span's duration is lte or lt"));
                    }
                    let ns = (value * 1e9).round().clamp(0.0, u64::MAX as f64) as u64;
                    let limit = if how == Comparison::Below { ns.saturating_sub(1) } else { ns };
                    let good = GoodSpans { threshold_ns: Some(limit), ..GoodSpans::default() };
                    Counting { source: Source::Spans { operation, good }, only }
                }
                _ => {
                    let allowed = "is nothing whose value can be compared, allowed: a metric, a query of one, an event, or spans (seconds)";
                    return Err(document.wrong_at(source, "thresholdMetric", allowed));
                }
            };
            let Read { service, users, .. } = read;
            Ok(Measure { service, parts: vec![counting], some_is_bad: false, users })
        }
        _ => Err(document.wrong_at(spec, "indicator", "needs either ratioMetric or thresholdMetric")),
    }
}

fn ratio_of(
    document: &Document<'_>,
    ratio: &Spanned<RatioMetric>,
    sources: &BTreeMap<String, String>,
) -> Result<Measure, FileError> {
    let RatioMetric { good, bad, total, raw, raw_type, .. } = &ratio.value;
    let measured = |of: &Spanned<Measured>| source_of(document, &of.value.metric_source, sources);
    if let Some(raw) = raw {
        let of_good = match raw_type.as_ref().map(|kind| (kind, kind.value.as_str())) {
            Some((_, "success")) => true,
            Some((_, "failure")) => false,
            Some((at, _)) => {
                return Err(document.wrong_at(at, "rawType", "is not understood, allowed: success, failure"));
            }
            None => return Err(document.wrong_at(raw, "rawType", "is missing, allowed: success, failure")),
        };
        let read = measured(raw)?;
        let counted = Meaning::Ratio { of_good };
        let counting = match read.what {
            What::Metric { name, only } => {
                Counting { source: Source::Metric { name: name.as_str().into(), counted }, only }
            }
            What::Query(Counter::One(selector)) => selector.counted(counted),
            _ => return Err(document.wrong_at(raw, "raw", "is no metric")),
        };
        return Ok(Measure { service: read.service, parts: vec![counting], some_is_bad: false, users: None });
    }
    let (some, some_is_bad, key) = match (good, bad) {
        (Some(good), None) => (good, false, "good"),
        (None, Some(bad)) => (bad, true, "bad"),
        _ => return Err(document.wrong_at(ratio, "ratioMetric", "needs either good or bad, and total")),
    };
    let one = measured(some)?;
    let all = total.as_ref().map(measured).transpose()?;
    if let Some(all) = &all
        && let (Some(a), Some(b)) = (&one.service, &all.service)
        && a != b
    {
        return Err(document.wrong_at(
            ratio,
            "service",
            format!("{a:?} of the {key} ones is not {b:?} of total"),
        ));
    }
    let service = one.service.or_else(|| all.as_ref().and_then(|all| all.service.clone()));
    let users = one.users.or_else(|| all.as_ref().and_then(|all| all.users.clone()));
    let all_line = total.as_ref().unwrap_or(some);
    let (parts, some_is_bad) = match (one.what, all.map(|all| all.what)) {
        (What::Spans { operation, good, only, is_plain }, all) => {
            (vec![spans(document, some, (operation, good, only, is_plain), all, some_is_bad)?], false)
        }
        (What::Logs { bad_from, only }, all) => {
            let only = match all {
                None => only,
                Some(What::Logs { bad_from: None, only: all }) if only.is_empty() || only == all => all,
                Some(_) => {
                    return Err(document.wrong_at(
                        all_line,
                        "total",
                        "has to be the log records that are counted",
                    ));
                }
            };
            let Some(bad_from) = bad_from else {
                return Err(document.wrong_at(
                    some,
                    "severity",
                    "is missing: from which class on records are bad",
                ));
            };
            (vec![Counting { source: Source::Logs { bad_from }, only }], false)
        }
        (one, Some(all)) => {
            let of = |what: What, part: Part| match what {
                What::Metric { name, only } => {
                    let counted = Meaning::Growth(part);
                    Some(Counting { source: Source::Metric { name: name.as_str().into(), counted }, only })
                }
                What::Query(Counter::One(selector)) => Some(selector.growth(part)),
                _ => None,
            };
            if let (What::Query(Counter::Slower(selector, bound)), true) = (&one, some_is_bad) {
                (vec![selector.clone().compared(Comparison::AtMost, *bound)], false)
            } else {
                let mixed = || document.wrong_at(ratio, "ratioMetric", "counts one thing by another");
                let some = of(one, Part::Some).ok_or_else(mixed)?;
                (vec![some, of(all, Part::Total).ok_or_else(mixed)?], some_is_bad)
            }
        }
        (_, None) => return Err(document.wrong_at(ratio, "total", "is missing")),
    };
    Ok(Measure { service, parts, some_is_bad, users })
}

/// Requests of which some are good, or bad.
fn spans(
    document: &Document<'_>,
    at: &Spanned<Measured>,
    (operation, mut good, only, is_plain): (Option<Arc<str>>, GoodSpans, Vec<Matcher>, bool),
    all: Option<What>,
    some_is_bad: bool,
) -> Result<Counting, FileError> {
    let counted = match all {
        None => None,
        Some(What::Spans { operation, only, is_plain: true, .. }) => Some((operation, only)),
        Some(_) => return Err(document.wrong_at(at, "total", "has to be the spans that are counted")),
    };
    if some_is_bad {
        let Some((of, every)) = counted else {
            return Err(document.wrong_at(at, "total", "is missing"));
        };
        if is_plain && only.is_empty() {
            return Err(document.wrong_at(at, "bad", "needs attributes, or good: what the others are"));
        }
        if is_plain {
            good.bad = only;
        }
        return Ok(Counting { source: Source::Spans { operation: of, good }, only: every });
    }
    let Some((of, every)) = counted else {
        if is_plain {
            return Err(document.wrong_at(at, "good", "is missing, allowed: not_error, latency, both"));
        }
        return Ok(Counting { source: Source::Spans { operation, good }, only });
    };
    good.matching = only;
    Ok(Counting { source: Source::Spans { operation: of.or(operation), good }, only: every })
}

fn source_of(
    document: &Document<'_>,
    source: &Spanned<MetricSource>,
    sources: &BTreeMap<String, String>,
) -> Result<Read, FileError> {
    let (at, MetricSource { metric_source_ref, kind, spec }) = (source, &source.value);
    let kind = match (kind, metric_source_ref) {
        (Some(kind), _) => kind.value.clone(),
        (None, Some(name)) => sources.get(&name.value).cloned().ok_or_else(|| {
            document.wrong_at(
                name,
                "metricSourceRef",
                format!("{:?} is no DataSource of these files, and type is missing", name.value),
            )
        })?,
        (None, None) => return Err(document.wrong_at(at, "metricSource.type", "is missing")),
    };
    match kind.to_lowercase().as_str() {
        "barograph" => own(document, spec),
        "prometheus" => {
            let Some(query) = &spec.value.query else {
                return Err(document.wrong_at(spec, "query", "is missing"));
            };
            let counter =
                promql::counter(&query.value).map_err(|wrong| document.wrong_at(query, "query", wrong))?;
            let selector = match &counter {
                Counter::One(selector) | Counter::Slower(selector, _) => selector,
            };
            Ok(Read { service: selector.service.clone(), users: None, what: What::Query(counter) })
        }
        _ => Err(document.wrong_at(
            at,
            "metricSource.type",
            "is not supported, allowed: barograph, prometheus",
        )),
    }
}

fn own(document: &Document<'_>, at: &Spanned<SourceSpec>) -> Result<Read, FileError> {
    let spec = &at.value;
    if let Some(query) = &spec.query {
        return Err(document.wrong_at(query, "query", "goes with type: prometheus; with type: barograph say operation, metric, attributes, good or threshold"));
    }
    let mut only = Vec::new();
    for (key, value) in spec.attributes.iter().flatten() {
        only.push(condition(key, &value.value).map_err(|wrong| document.wrong_at(value, key, wrong))?);
    }
    let signal = match &spec.signal {
        Some(signal) => signal.value.as_str(),
        None if spec.metric.is_some() => "metrics",
        None if spec.severity.is_some() || spec.event.is_some() => "logs",
        None => "spans",
    };
    let what = match signal {
        "spans" => {
            if let Some(operation) = spec.operation.as_ref().filter(|name| name.value.starts_with(['~', '!']))
            {
                let wrong = "is compared as it is: ~ and ! go with attributes";
                return Err(document.wrong_at(operation, "operation", wrong));
            }
            let operation = spec.operation.as_ref().map(|name| Arc::from(name.value.as_str()));
            let good = good_spans(document, at)?;
            What::Spans { operation, good, is_plain: spec.good.is_none(), only }
        }
        "logs" if spec.event.is_some() => {
            let (name, value) = (spec.event.as_ref(), spec.value.as_deref());
            What::Events {
                name: name.map_or("", |name| &name.value).into(),
                value: value.unwrap_or("value").into(),
                only,
            }
        }
        "logs" => {
            let bad_from = match &spec.severity {
                None => None,
                Some(severity) => Some(severity_number(&severity.value).ok_or_else(|| {
                    document.wrong_at(
                        severity,
                        "severity",
                        "is not understood, allowed: TRACE, DEBUG, INFO, WARN, ERROR, FATAL",
                    )
                })?),
            };
            What::Logs { bad_from, only }
        }
        "metrics" => match &spec.metric {
            Some(metric) => What::Metric { name: metric.value.clone(), only },
            None => return Err(document.wrong_at(at, "metric", "is missing")),
        },
        _ => {
            let at = spec.signal.as_ref().map_or(at.referenced.line(), |signal| signal.referenced.line());
            return Err(document.wrong(at, "signal", "is not understood, allowed: spans, logs, metrics"));
        }
    };
    if let (Some(users), What::Metric { .. }) = (&spec.users, &what) {
        return Err(document.wrong_at(users, "users", "are told apart by spans and log records alone"));
    }
    let users = spec.users.as_ref().map(|users| users.value.clone()).filter(|users| !users.is_empty());
    Ok(Read { service: spec.service.clone().filter(|service| !service.is_empty()), users, what })
}

/// A condition on an attribute: `value`, `~pattern`, and `!` in front of either.
fn condition(key: &str, text: &str) -> Result<Matcher, String> {
    let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let test = match text.strip_prefix('~') {
        Some(pattern) => {
            Test::Matches(Pattern::new(pattern).map_err(|_| format!("{pattern:?} is no regular expression"))?)
        }
        None => Test::Equals(text.into()),
    };
    Ok(Matcher { key: key.into(), negated, test })
}

fn severity_number(name: &str) -> Option<i32> {
    let classes = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let at = classes.iter().position(|class| class.eq_ignore_ascii_case(name))?;
    Some(i32::try_from(at).ok()? * 4 + 1)
}

fn good_spans(document: &Document<'_>, at: &Spanned<SourceSpec>) -> Result<GoodSpans, FileError> {
    let spec = &at.value;
    let (latency, errors_are_bad) = match spec.good.as_ref().map(|good| (good, good.value.as_str())) {
        None => (false, false),
        Some((_, "not_error")) => (false, true),
        Some((_, "latency")) => (true, false),
        Some((_, "both")) => (true, true),
        Some((good, _)) => {
            let allowed = "is not understood, allowed: not_error, latency, both";
            return Err(document.wrong_at(good, "good", allowed));
        }
    };
    let threshold_ns = match (&spec.threshold, latency) {
        (Some(threshold), true) => Some(
            Seconds::parse(&threshold.value)
                .and_then(|length| u64::try_from(length.0.as_nanos()).ok())
                .filter(|ns| *ns > 0)
                .ok_or_else(|| document.wrong_at(threshold, "threshold", "is no duration such as 300ms"))?,
        ),
        (None, true) => return Err(document.wrong_at(at, "threshold", "is missing")),
        (Some(threshold), false) => {
            return Err(document.wrong_at(threshold, "threshold", "goes with good: latency or both"));
        }
        (None, false) => None,
    };
    Ok(GoodSpans { threshold_ns, errors_are_bad, ..GoodSpans::default() })
}
