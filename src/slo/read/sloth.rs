//! Sloth: `version: prometheus/v1` and the resource `PrometheusServiceLevel`. Its objectives last 30 days.

use super::document::{Document, FileError};
use super::indicator::Measure;
use super::openslo::{origin, silent};
use super::promql::{self, Counter};
use crate::aggregate::{Comparison, Part};
use crate::slo::{Definition, Method, Period, Rule, preset};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(30 * 86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(rename = "version")]
    _version: IgnoredAny,
    service: Spanned<String>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    slos: Vec<Objective>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kubernetes {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    kind: Spanned<String>,
    #[serde(rename = "metadata")]
    _metadata: IgnoredAny,
    spec: KubernetesSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KubernetesSpec {
    service: Spanned<String>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    slos: Vec<Objective>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Objective {
    name: Spanned<String>,
    objective: Spanned<f64>,
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    sli: Spanned<Sli>,
    alerting: Option<Alerting>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sli {
    events: Option<Events>,
    raw: Option<Raw>,
    plugin: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Events {
    #[serde(alias = "errorQuery")]
    error_query: Spanned<String>,
    #[serde(alias = "totalQuery")]
    total_query: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(alias = "errorRatioQuery")]
    error_ratio_query: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alerting {
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    #[serde(rename = "annotations")]
    _annotations: Option<IgnoredAny>,
    #[serde(alias = "pageAlert")]
    page_alert: Option<Tier>,
    #[serde(alias = "ticketAlert")]
    ticket_alert: Option<Tier>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tier {
    disable: Option<bool>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    #[serde(rename = "annotations")]
    _annotations: Option<IgnoredAny>,
}

/// A plain file.
///
/// # Errors
/// What is not understood.
pub(super) fn plain(document: Document<'_>) -> Result<Vec<Definition>, FileError> {
    let plain: Plain = document.parse()?;
    objectives(document, &plain.service.value, &plain.slos)
}

/// A Kubernetes resource.
///
/// # Errors
/// What is not understood.
pub(super) fn kubernetes(document: Document<'_>) -> Result<Vec<Definition>, FileError> {
    let resource: Kubernetes = document.parse()?;
    if resource.kind.value != "PrometheusServiceLevel" {
        return Err(document.wrong_at(
            &resource.kind,
            "kind",
            "is not supported, allowed: PrometheusServiceLevel",
        ));
    }
    objectives(document, &resource.spec.service.value, &resource.spec.slos)
}

fn objectives(
    document: Document<'_>,
    service: &str,
    slos: &[Objective],
) -> Result<Vec<Definition>, FileError> {
    let mut definitions = Vec::new();
    for slo in slos {
        let measure = sli(document, &slo.sli)?;
        let target = slo.objective.value / 100.0;
        if !(0.0..1.0).contains(&target) {
            return Err(document.wrong_at(
                &slo.objective,
                "objective",
                "is out of range, allowed: 0 to below 100",
            ));
        }
        let disabled = |tier: &Option<Tier>| tier.as_ref().is_some_and(|tier| tier.disable == Some(true));
        let rules = match &slo.alerting {
            None => silent(),
            Some(alerting) => {
                let (page, ticket) = (disabled(&alerting.page_alert), disabled(&alerting.ticket_alert));
                let all = preset("sloth", PERIOD).unwrap_or_default();
                Some(
                    all.into_iter().filter(|rule: &Rule| if rule.page() { !page } else { !ticket }).collect(),
                )
            }
        };
        definitions.push(Definition {
            name: slo.name.value.clone(),
            service: measure.service.unwrap_or_else(|| service.to_owned()),
            parts: measure.parts,
            some_is_bad: measure.some_is_bad,
            target,
            method: Method::Occurrences,
            period: Period::Rolling(PERIOD),
            rules,
            composed_of: Vec::new(),
            floor: None,
            users: None,
            origin: origin(&document, &slo.name),
        });
    }
    Ok(definitions)
}

fn sli(document: Document<'_>, at: &Spanned<Sli>) -> Result<Measure, FileError> {
    let (errors, total, error_at, total_at, key) = match &at.value {
        Sli { plugin: Some(plugin), .. } => {
            return Err(document.wrong_at(plugin, "plugin", "is not supported, allowed: events, raw"));
        }
        Sli { events: Some(events), raw: None, .. } => {
            let (errors, total) = (&events.error_query, &events.total_query);
            (errors.value.as_str(), total.value.as_str(), errors, total, ["error_query", "total_query"])
        }
        Sli { events: None, raw: Some(raw), .. } => {
            let query = &raw.error_ratio_query;
            let Some((errors, total)) = promql::divided(&query.value) else {
                let text =
                    "is no quotient of two counters, such as sum(rate(errors[5m])) / sum(rate(all[5m]))";
                return Err(document.wrong_at(query, "error_ratio_query", text));
            };
            (errors, total, query, query, ["error_ratio_query"; 2])
        }
        _ => return Err(document.wrong_at(at, "sli", "needs either events or raw")),
    };
    ratio(errors, total).map_err(|(is_total, wrong)| {
        let (at, key) = if is_total { (total_at, key[1]) } else { (error_at, key[0]) };
        document.wrong_at(at, key, wrong)
    })
}

/// A ratio of two queries, the first one of bad events. Of a mistake, whether it lies in the second.
///
/// # Errors
/// What is not understood, and whether of the second query.
pub(super) fn ratio(errors: &str, total: &str) -> Result<Measure, (bool, String)> {
    let errors = promql::counter(errors).map_err(|wrong| (false, wrong))?;
    let total = promql::selector(total).map_err(|wrong| (true, wrong))?;
    let service = match &errors {
        Counter::One(selector) | Counter::Slower(selector, _) => selector.service.clone(),
    };
    if let (Some(a), Some(b)) = (&service, &total.service)
        && a != b
    {
        return Err((true, format!("is of the service {b:?}, not {a:?}")));
    }
    let service = service.or_else(|| total.service.clone());
    let (parts, some_is_bad) = match errors {
        Counter::One(selector) => (vec![selector.growth(Part::Some), total.growth(Part::Total)], true),
        Counter::Slower(selector, bound) => (vec![selector.compared(Comparison::AtMost, bound)], false),
    };
    Ok(Measure { service, parts, some_is_bad, users: None })
}
