//! Pyrra: the resource `ServiceLevelObjective`.

use super::document::{Document, FileError};
use super::indicator::Measure;
use super::openslo::{origin, silent};
use super::{promql, sloth};
use crate::aggregate::{Comparison, Part};
use crate::settings::Seconds;
use crate::slo::{Definition, Method, Period, preset};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resource {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    kind: Spanned<String>,
    metadata: Metadata,
    spec: Spanned<Spec>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    target: Spanned<String>,
    window: Spanned<String>,
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
    indicator: Spanned<Indicator>,
    alerting: Option<Alerting>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alerting {
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    disabled: Option<bool>,
    burnrates: Option<bool>,
    #[serde(rename = "absent")]
    _absent: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Indicator {
    ratio: Option<Ratio>,
    latency: Option<Latency>,
    #[serde(rename = "latencyNative")]
    latency_native: Option<LatencyNative>,
    #[serde(alias = "boolGauge")]
    bool_gauge: Option<Query>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratio {
    errors: Query,
    total: Query,
    grouping: Option<Spanned<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Latency {
    success: Query,
    total: Query,
    grouping: Option<Spanned<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LatencyNative {
    latency: Spanned<String>,
    total: Query,
    grouping: Option<Spanned<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    metric: Spanned<String>,
    grouping: Option<Spanned<Vec<String>>>,
}

/// Reads a document.
///
/// # Errors
/// What is not understood.
pub(super) fn read(document: Document<'_>) -> Result<Vec<Definition>, FileError> {
    let resource: Resource = document.parse()?;
    if resource.kind.value != "ServiceLevelObjective" {
        return Err(document.wrong_at(
            &resource.kind,
            "kind",
            "is not supported, allowed: ServiceLevelObjective",
        ));
    }
    let spec = &resource.spec.value;
    let target: Option<f64> = spec.target.value.parse().ok();
    let target = target.map(|percent| percent / 100.0).filter(|target| (0.0..1.0).contains(target));
    let target =
        target.ok_or_else(|| document.wrong_at(&spec.target, "target", "is no percentage below 100"))?;
    let window = Seconds::parse(&spec.window.value).map(|length| length.0);
    let window = window
        .filter(|window| (Duration::from_secs(3_600)..=Duration::from_secs(366 * 86_400)).contains(window))
        .ok_or_else(|| {
            document.wrong_at(&spec.window, "window", "is no duration from 1h to 366d, such as 4w")
        })?;
    let measure = measure(document, &spec.indicator)?;
    let Some(service) = measure.service else {
        let text = "names no service: a matcher job=\"…\" is missing in its metric";
        return Err(document.wrong_at(&spec.indicator, "indicator", text));
    };
    let off = spec
        .alerting
        .as_ref()
        .is_some_and(|alerting| alerting.disabled == Some(true) || alerting.burnrates == Some(false));
    Ok(vec![Definition {
        name: resource.metadata.name.value.clone(),
        service,
        parts: measure.parts,
        some_is_bad: measure.some_is_bad,
        target,
        method: Method::Occurrences,
        period: Period::Rolling(window),
        rules: if off { silent() } else { preset("pyrra", window) },
        composed_of: Vec::new(),
        floor: None,
        users: None,
        origin: origin(&document, &resource.metadata.name),
    }])
}

fn measure(document: Document<'_>, at: &Spanned<Indicator>) -> Result<Measure, FileError> {
    let ungrouped = |grouping: &Option<Spanned<Vec<String>>>| match grouping {
        Some(labels) if !labels.value.is_empty() => {
            Err(document.wrong_at(labels, "grouping", "is not supported: write an objective for each group"))
        }
        _ => Ok(()),
    };
    let selector = |query: &Query| {
        ungrouped(&query.grouping)?;
        promql::selector(&query.metric.value)
            .map_err(|wrong| document.wrong_at(&query.metric, "metric", wrong))
    };
    match &at.value {
        Indicator { ratio: Some(ratio), latency: None, latency_native: None, bool_gauge: None } => {
            ungrouped(&ratio.grouping)?;
            sloth::ratio(&ratio.errors.metric.value, &ratio.total.metric.value).map_err(
                |(is_total, wrong)| {
                    let query = if is_total { &ratio.total } else { &ratio.errors };
                    document.wrong_at(&query.metric, "metric", wrong)
                },
            )
        }
        Indicator { latency: Some(latency), ratio: None, latency_native: None, bool_gauge: None } => {
            ungrouped(&latency.grouping)?;
            let (success, total) = (selector(&latency.success)?, selector(&latency.total)?);
            if success.bound.is_none() {
                return Err(document.wrong_at(&latency.success.metric, "metric", "has no bound le=\"…\""));
            }
            let service = success.service.clone().or_else(|| total.service.clone());
            let parts = vec![success.growth(Part::Some), total.growth(Part::Total)];
            Ok(Measure { service, parts, some_is_bad: false, users: None })
        }
        Indicator { latency_native: Some(native), ratio: None, latency: None, bool_gauge: None } => {
            ungrouped(&native.grouping)?;
            let limit = Seconds::parse(&native.latency.value)
                .ok_or_else(|| document.wrong_at(&native.latency, "latency", "is no duration such as 1s"))?;
            let total = selector(&native.total)?;
            let service = total.service.clone();
            let parts = vec![total.compared(Comparison::AtMost, limit.0.as_secs_f64())];
            Ok(Measure { service, parts, some_is_bad: false, users: None })
        }
        Indicator { bool_gauge: Some(gauge), ratio: None, latency: None, latency_native: None } => {
            let gauge = selector(gauge)?;
            let service = gauge.service.clone();
            Ok(Measure {
                service,
                parts: vec![gauge.compared(Comparison::AtLeast, 1.0)],
                some_is_bad: false,
                users: None,
            })
        }
        _ => {
            Err(document.wrong_at(at, "indicator", "needs one of ratio, latency, latencyNative, bool_gauge"))
        }
    }
}
