//! Reads objectives from OpenSLO v1 YAML (`kind: SLO`, with its indicator inline or as `kind: SLI`).
//!
//! An indicator is a ratio whose good events come from our own counts:
//!
//! ```yaml
//! ratioMetric:
//!   good:
//!     metricSource:
//!       type: barograph
//!       spec: { service: payment, operation: POST /charge, good: latency, threshold: 300ms }
//! ```
//!
//! `good` is `not_error`, `latency` (not slower than `threshold`), or `both`.

use crate::settings::Seconds;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An objective as its author wrote it; it holds for each service that it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub name: String,
    /// `[ENVIRONMENT/][NAMESPACE/]NAME`.
    pub service: String,
    pub operation: Option<String>,
    pub target: f64,
    pub period: Duration,
    pub threshold_ns: Option<u64>,
    pub errors_are_bad: bool,
}

/// A file that cannot be taken: `FILE:LINE: KEY: what is wrong`.
#[derive(Debug, thiserror::Error)]
pub enum OpenSloError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {key}: {wrong}", path.display())]
    Wrong { path: PathBuf, line: u64, key: String, wrong: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: Spanned<String>,
    kind: Spanned<String>,
    metadata: Metadata,
    #[serde(default)]
    spec: Option<Spanned<Spec>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    service: Option<Spanned<String>>,
    indicator: Option<Box<Inline>>,
    indicator_ref: Option<Spanned<String>>,
    time_window: Option<Vec<TimeWindow>>,
    budgeting_method: Option<Spanned<String>>,
    objectives: Option<Vec<ObjectiveSpec>>,
    ratio_metric: Option<RatioMetric>,
}

#[derive(Deserialize)]
struct Inline {
    spec: IndicatorSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndicatorSpec {
    ratio_metric: RatioMetric,
}

#[derive(Clone, Deserialize)]
struct RatioMetric {
    good: Source,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    metric_source: MetricSource,
}

#[derive(Clone, Deserialize)]
struct MetricSource {
    #[serde(rename = "type")]
    kind: Spanned<String>,
    spec: Spanned<OwnSpec>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnSpec {
    service: Option<String>,
    operation: Option<String>,
    good: Spanned<String>,
    threshold: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TimeWindow {
    duration: Spanned<String>,
    is_rolling: Option<Spanned<bool>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectiveSpec {
    target: Option<Spanned<f64>>,
    target_percent: Option<Spanned<f64>>,
}

struct File<'a> {
    path: &'a Path,
}

impl File<'_> {
    fn wrong(&self, line: u64, key: &str, wrong: impl Into<String>) -> OpenSloError {
        OpenSloError::Wrong { path: self.path.to_owned(), line, key: key.to_owned(), wrong: wrong.into() }
    }
}

/// Reads a file.
///
/// # Errors
/// The file cannot be read, is no YAML, or says what is not understood: with file, line and key.
pub fn read_file(path: &Path) -> Result<Vec<Definition>, OpenSloError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| OpenSloError::Read { path: path.to_owned(), source })?;
    read(path, &text)
}

/// Reads the text of a file.
///
/// # Errors
/// As [`read_file`].
pub fn read(path: &Path, text: &str) -> Result<Vec<Definition>, OpenSloError> {
    let file = File { path };
    let documents: Vec<Document> = serde_saphyr::from_multiple(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let message = error.without_snippet().to_string();
        let first = message.lines().next().unwrap_or_default();
        let key = first.split('`').nth(1).unwrap_or("document").to_owned();
        file.wrong(line, &key, first)
    })?;
    let mut indicators: BTreeMap<String, RatioMetric> = BTreeMap::new();
    for document in &documents {
        if document.api_version.value != "openslo/v1" {
            let line = document.api_version.referenced.line();
            return Err(file.wrong(line, "apiVersion", "is not supported, allowed: openslo/v1"));
        }
        if document.kind.value == "SLI"
            && let Some(metric) = document.spec.as_ref().and_then(|spec| spec.value.ratio_metric.clone())
        {
            indicators.insert(document.metadata.name.value.clone(), metric);
        }
    }
    let objectives = documents.iter().filter(|document| document.kind.value == "SLO");
    objectives.map(|document| objective(&file, document, &indicators)).collect()
}

fn objective(
    file: &File<'_>,
    document: &Document,
    indicators: &BTreeMap<String, RatioMetric>,
) -> Result<Definition, OpenSloError> {
    let name_line = document.metadata.name.referenced.line();
    let Some(spec) = &document.spec else {
        return Err(file.wrong(name_line, "spec", "is missing"));
    };
    let (spec_line, spec) = (spec.referenced.line(), &spec.value);
    let metric = match (&spec.indicator, &spec.indicator_ref) {
        (Some(inline), _) => &inline.spec.ratio_metric,
        (None, Some(name)) => indicators.get(&name.value).ok_or_else(|| {
            let known: Vec<&str> = indicators.keys().map(String::as_str).collect();
            file.wrong(
                name.referenced.line(),
                "indicatorRef",
                format!(
                    "{:?} is no SLI of this file with a ratioMetric, allowed: {}",
                    name.value,
                    known.join(", ")
                ),
            )
        })?,
        (None, None) => return Err(file.wrong(spec_line, "indicator", "is missing, as is indicatorRef")),
    };
    let source = &metric.good.metric_source;
    if source.kind.value != "barograph" {
        return Err(file.wrong(
            source.kind.referenced.line(),
            "metricSource.type",
            "is not supported, allowed: barograph",
        ));
    }
    if let Some(method) = spec.budgeting_method.as_ref().filter(|method| method.value != "Occurrences") {
        return Err(file.wrong(
            method.referenced.line(),
            "budgetingMethod",
            "is not supported, allowed: Occurrences",
        ));
    }
    let own = &source.spec.value;
    let service = own.service.clone().or_else(|| spec.service.as_ref().map(|service| service.value.clone()));
    let Some(service) = service.filter(|service| !service.is_empty()) else {
        return Err(file.wrong(spec_line, "service", "is missing"));
    };
    let (latency, errors_are_bad) = match own.good.value.as_str() {
        "not_error" => (false, true),
        "latency" => (true, false),
        "both" => (true, true),
        _ => {
            return Err(file.wrong(
                own.good.referenced.line(),
                "good",
                "is not understood, allowed: not_error, latency, both",
            ));
        }
    };
    let threshold_ns = match (&own.threshold, latency) {
        (Some(threshold), true) => Some(
            Seconds::parse(&threshold.value)
                .and_then(|length| u64::try_from(length.0.as_nanos()).ok())
                .filter(|ns| *ns > 0)
                .ok_or_else(|| {
                    file.wrong(threshold.referenced.line(), "threshold", "is no duration such as 300ms")
                })?,
        ),
        (None, true) => return Err(file.wrong(own.good.referenced.line(), "threshold", "is missing")),
        (Some(threshold), false) => {
            return Err(file.wrong(
                threshold.referenced.line(),
                "threshold",
                "goes with good: latency or both",
            ));
        }
        (None, false) => None,
    };
    Ok(Definition {
        name: document.metadata.name.value.clone(),
        service,
        operation: own.operation.clone(),
        target: target(file, spec, spec_line)?,
        period: period(file, spec, spec_line)?,
        threshold_ns,
        errors_are_bad,
    })
}

fn target(file: &File<'_>, spec: &Spec, spec_line: u64) -> Result<f64, OpenSloError> {
    let Some([objective]) = spec.objectives.as_deref() else {
        return Err(file.wrong(spec_line, "objectives", "one is needed, and no more"));
    };
    let (line, key, target) = match (&objective.target, &objective.target_percent) {
        (Some(target), None) => (target.referenced.line(), "target", target.value),
        (None, Some(percent)) => (percent.referenced.line(), "targetPercent", percent.value / 100.0),
        _ => return Err(file.wrong(spec_line, "objectives", "needs either target or targetPercent")),
    };
    if !(target > 0.0 && target < 1.0) {
        return Err(file.wrong(line, key, "is out of range, allowed: above 0 and below all"));
    }
    Ok(target)
}

fn period(file: &File<'_>, spec: &Spec, spec_line: u64) -> Result<Duration, OpenSloError> {
    let Some([window]) = spec.time_window.as_deref() else {
        return Err(file.wrong(spec_line, "timeWindow", "one is needed, and no more"));
    };
    let line = window.duration.referenced.line();
    if window.is_rolling.as_ref().is_some_and(|rolling| !rolling.value) {
        return Err(file.wrong(line, "isRolling", "is not supported, allowed: true"));
    }
    // OpenSLO writes 1h, 30d, 4w, 1M (28 days are meant by a rolling month here) …
    let text = &window.duration.value;
    let months = text.strip_suffix('M').and_then(|n| n.parse::<u64>().ok());
    let length =
        months.map(|n| Duration::from_secs(n * 28 * 86_400)).or_else(|| Seconds::parse(text).map(|s| s.0));
    length
        .filter(|length| (3_600..=90 * 86_400).contains(&length.as_secs()))
        .ok_or_else(|| file.wrong(line, "duration", "is not understood, allowed: 1h to 90d, such as 30d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: charge-fast
spec:
  service: payment
  indicator:
    metadata:
      name: fast
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: barograph
            spec:
              operation: POST /charge
              good: latency
              threshold: 300ms
  timeWindow:
    - duration: 30d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - displayName: fast
      target: 0.99
";

    #[test]
    fn a_file_is_read() {
        let read = read(Path::new("slo.yaml"), GOOD).unwrap();
        assert_eq!(
            read,
            [Definition {
                name: "charge-fast".into(),
                service: "payment".into(),
                operation: Some("POST /charge".into()),
                target: 0.99,
                period: Duration::from_secs(30 * 86_400),
                threshold_ns: Some(300_000_000),
                errors_are_bad: false,
            }]
        );
    }

    #[test]
    fn an_indicator_may_stand_apart() {
        let text = "\
apiVersion: openslo/v1
kind: SLI
metadata: { name: ok }
spec:
  ratioMetric:
    good:
      metricSource: { type: barograph, spec: { good: not_error } }
---
apiVersion: openslo/v1
kind: SLO
metadata: { name: payment-ok }
spec:
  service: shop/payment
  indicatorRef: ok
  timeWindow: [{ duration: 4w, isRolling: true }]
  objectives: [{ targetPercent: 99.9 }]
";
        let read = read(Path::new("slo.yaml"), text).unwrap();
        assert_eq!((read.len(), read[0].errors_are_bad, read[0].threshold_ns), (1, true, None));
        assert!((read[0].target - 0.999).abs() < 1e-12);
    }

    #[test]
    fn mistakes_are_named_with_file_line_and_key() {
        for (from, to, line, key) in [
            ("target: 0.99", "target: 99", 26, "target"),
            ("good: latency", "good: fast", 18, "good"),
            ("threshold: 300ms", "threshold: soon", 19, "threshold"),
            ("type: barograph", "type: prometheus", 15, "metricSource.type"),
            ("duration: 30d", "duration: ever", 21, "duration"),
            ("budgetingMethod: Occurrences", "budgetingMethod: Timeslices", 23, "budgetingMethod"),
            ("openslo/v1", "openslo/v2", 1, "apiVersion"),
            ("operation: POST /charge", "operatoin: POST /charge", 17, "operatoin"),
        ] {
            let error = read(Path::new("slo.yaml"), &GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("slo.yaml:{line}: {key}: ")), "{from} → {to}: {error}");
        }
        assert!(read(Path::new("slo.yaml"), "a: [").is_err());
    }
}
