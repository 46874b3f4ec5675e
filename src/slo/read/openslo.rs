//! OpenSLO v1: `SLO`, `SLI`, `AlertPolicy`, `AlertCondition` and `DataSource`. A `Service` or an
//! `AlertNotificationTarget` is read and says nothing: services are those that send, targets those of the
//! configuration.
//!
//! A composite is an objective for each indicator, named `SLO/displayName`, and one of all of them, whose
//! burn rate and spent budget are the means of theirs by `compositeWeight`. Only the latter alerts.

use super::alerting::{ConditionSpec, Either, Item, Known, PolicySpec};
use super::document::{Document, FileError, share_of_percent};
use super::indicator::{self, IndicatorSpec, Threshold};
use crate::aggregate::Comparison;
use crate::slo::{Calendar, Definition, Method, Origin, Period, Rule, is_time_zone, rolling, shorthand};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const METHODS: &str = "Occurrences, Timeslices, RatioTimeslices";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Full<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: Spanned<S>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: Spanned<String>,
    #[serde(rename = "displayName")]
    _display_name: Option<IgnoredAny>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    #[serde(rename = "annotations")]
    _annotations: Option<IgnoredAny>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SloSpec {
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
    service: Option<Spanned<String>>,
    indicator: Option<Inline>,
    indicator_ref: Option<Spanned<String>>,
    time_window: Option<Spanned<Vec<TimeWindow>>>,
    budgeting_method: Option<Spanned<String>>,
    objectives: Option<Spanned<Vec<Spanned<ObjectiveSpec>>>>,
    alert_policies: Option<Spanned<Vec<Either<Item<PolicySpec>>>>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Inline {
    #[serde(rename = "apiVersion")]
    _api_version: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    spec: Spanned<IndicatorSpec>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TimeWindow {
    duration: Spanned<String>,
    is_rolling: Option<Spanned<bool>>,
    calendar: Option<Spanned<CalendarSpec>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CalendarSpec {
    start_time: Spanned<String>,
    time_zone: Spanned<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ObjectiveSpec {
    display_name: Option<Spanned<String>>,
    op: Option<Spanned<String>>,
    value: Option<Spanned<f64>>,
    target: Option<Spanned<f64>>,
    target_percent: Option<Spanned<f64>>,
    time_slice_target: Option<Spanned<f64>>,
    time_slice_window: Option<Spanned<String>>,
    indicator: Option<Inline>,
    indicator_ref: Option<Spanned<String>>,
    composite_weight: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataSource {
    #[serde(rename = "type")]
    kind: String,
}

/// Reads documents; what refers to others is put together at the end.
#[derive(Default)]
pub(super) struct Reader<'a> {
    slos: Vec<(Document<'a>, Full<SloSpec>)>,
    indicators: BTreeMap<String, (Document<'a>, Spanned<IndicatorSpec>)>,
    sources: BTreeMap<String, String>,
    known: Known<'a>,
}

impl<'a> Reader<'a> {
    /// Takes a document.
    ///
    /// # Errors
    /// It is of an unknown kind, or not as its kind has to be.
    pub fn take(&mut self, document: Document<'a>, kind: &Spanned<String>) -> Result<(), FileError> {
        match kind.value.as_str() {
            "SLO" => self.slos.push((document, document.parse()?)),
            "SLI" => {
                let full: Full<IndicatorSpec> = document.parse()?;
                self.indicators.insert(full.metadata.name.value, (document, full.spec));
            }
            "AlertPolicy" => {
                let full: Full<PolicySpec> = document.parse()?;
                self.known.policies.insert(full.metadata.name.value, (document, full.spec.value));
            }
            "AlertCondition" => {
                let full: Full<ConditionSpec> = document.parse()?;
                self.known.conditions.insert(full.metadata.name.value, (document, full.spec));
            }
            "DataSource" => {
                let full: Full<DataSource> = document.parse()?;
                self.sources.insert(full.metadata.name.value, full.spec.value.kind);
            }
            "Service" | "AlertNotificationTarget" => {}
            _ => {
                let allowed = "is not supported, allowed: SLO, SLI, AlertPolicy, AlertCondition, DataSource, Service, AlertNotificationTarget";
                return Err(document.wrong_at(kind, "kind", allowed));
            }
        }
        Ok(())
    }

    /// The objectives of all documents, and the first mistake of each that refers to what is not there or says what
    /// is not understood.
    pub fn finish(self) -> (Vec<Definition>, Vec<FileError>) {
        let (mut definitions, mut wrong) = (Vec::new(), Vec::new());
        for (document, full) in &self.slos {
            wrong.extend(self.slo(document, full, &mut definitions).err());
        }
        (definitions, wrong)
    }

    fn slo(
        &self,
        document: &Document<'_>,
        full: &Full<SloSpec>,
        definitions: &mut Vec<Definition>,
    ) -> Result<(), FileError> {
        let (name, at, spec) = (&full.metadata.name, &full.spec, &full.spec.value);
        let missing = |key: &str| document.wrong_at(at, key, "is missing");
        let objectives = spec.objectives.as_ref().ok_or_else(|| missing("objectives"))?;
        let Some(first) = objectives.value.first() else {
            return Err(document.wrong_at(objectives, "objectives", "has none"));
        };
        let period = period(document, at)?;
        let rules = spec.alert_policies.as_ref().map(|all| self.known.rules(document, all)).transpose()?;
        let is_composite = objectives.value.len() > 1;
        let mut composed_of = Vec::new();
        for (number, objective) in objectives.value.iter().enumerate() {
            let has_own = objective.value.indicator.is_some() || objective.value.indicator_ref.is_some();
            let (inline, named) = if has_own {
                (&objective.value.indicator, &objective.value.indicator_ref)
            } else {
                (&spec.indicator, &spec.indicator_ref)
            };
            let threshold = threshold(document, objective)?;
            let measure = match (inline, named) {
                (Some(inline), _) => indicator::read(document, &inline.spec, threshold, &self.sources)?,
                (None, Some(name)) => {
                    let Some((of, spec)) = self.indicators.get(&name.value) else {
                        let known: Vec<&str> = self.indicators.keys().map(String::as_str).collect();
                        let text = format!(
                            "{:?} is no SLI of these files, allowed: {}",
                            name.value,
                            known.join(", ")
                        );
                        return Err(document.wrong_at(name, "indicatorRef", text));
                    };
                    indicator::read(of, spec, threshold, &self.sources)?
                }
                (None, None) => {
                    return Err(document.wrong_at(at, "indicator", "is missing, as is indicatorRef"));
                }
            };
            let service =
                measure.service.or_else(|| spec.service.as_ref().map(|service| service.value.clone()));
            let service = service.filter(|service| !service.is_empty()).ok_or_else(|| missing("service"))?;
            let own = match &objective.value.display_name {
                _ if !is_composite => name.value.clone(),
                Some(own) => format!("{}/{}", name.value, own.value),
                None => format!("{}/{}", name.value, number + 1),
            };
            let weight = objective.value.composite_weight.as_ref();
            if let Some(weight) = weight.filter(|weight| !(weight.value > 0.0 && weight.value.is_finite())) {
                return Err(document.wrong_at(
                    weight,
                    "compositeWeight",
                    "is out of range, allowed: above 0",
                ));
            }
            composed_of.push((own.clone(), weight.map_or(1.0, |weight| weight.value)));
            definitions.push(Definition {
                name: own,
                service,
                parts: measure.parts,
                some_is_bad: measure.some_is_bad,
                target: target(document, objective)?,
                method: method(document, at, objective)?,
                period: period.clone(),
                rules: if is_composite { Some(Vec::new()) } else { rules.clone() },
                composed_of: Vec::new(),
                floor: None,
                users: measure.users.as_deref().map(Arc::from),
                origin: origin(document, name),
            });
        }
        if is_composite {
            let service = spec.service.as_ref().map(|service| service.value.clone());
            let weights: f64 = composed_of.iter().map(|(_, weight)| weight).sum();
            let targets = definitions.iter().rev().take(composed_of.len()).rev();
            let target =
                targets.zip(&composed_of).map(|(of, (_, weight))| of.target * weight).sum::<f64>() / weights;
            definitions.push(Definition {
                name: name.value.clone(),
                service: service.ok_or_else(|| missing("service"))?,
                parts: Vec::new(),
                some_is_bad: false,
                target,
                method: method(document, at, first)?,
                period,
                rules,
                composed_of,
                floor: None,
                users: None,
                origin: origin(document, name),
            });
        }
        Ok(())
    }
}

pub(super) fn origin<T>(document: &Document<'_>, at: &Spanned<T>) -> Origin {
    Origin { path: document.path.to_owned(), line: document.line(at.referenced.line()) }
}

fn threshold(
    document: &Document<'_>,
    objective: &Spanned<ObjectiveSpec>,
) -> Result<Option<Threshold>, FileError> {
    match (&objective.value.op, &objective.value.value) {
        (Some(op), Some(value)) => {
            let how = match op.value.as_str() {
                "lte" => Comparison::AtMost,
                "lt" => Comparison::Below,
                "gte" => Comparison::AtLeast,
                "gt" => Comparison::Above,
                _ => return Err(document.wrong_at(op, "op", "is not understood, allowed: lte, lt, gte, gt")),
            };
            if !value.value.is_finite() {
                return Err(document.wrong_at(value, "value", "is no number"));
            }
            Ok(Some((how, value.value)))
        }
        (Some(op), None) => Err(document.wrong_at(op, "value", "is missing")),
        (None, Some(value)) => Err(document.wrong_at(value, "op", "is missing")),
        (None, None) => Ok(None),
    }
}

fn target(document: &Document<'_>, at: &Spanned<ObjectiveSpec>) -> Result<f64, FileError> {
    let (value, key, target) = match (&at.value.target, &at.value.target_percent) {
        (Some(target), None) => (target, "target", target.value),
        (None, Some(percent)) => (percent, "targetPercent", percent.value / 100.0),
        _ => return Err(document.wrong_at(at, "objectives", "needs either target or targetPercent")),
    };
    if !(0.0..1.0).contains(&target) {
        let allowed = if key == "target" { "0 to below 1" } else { "0 to below 100" };
        let hint = match share_of_percent(value.value) {
            // Below, it may as well be a slip of the point.
            Some(share) if key == "target" && value.value >= 50.0 => {
                format!("; write {share} for {} %", value.value)
            }
            _ => String::new(),
        };
        return Err(document.wrong_at(value, key, format!("is out of range, allowed: {allowed}{hint}")));
    }
    Ok(target)
}

fn method(
    document: &Document<'_>,
    spec: &Spanned<SloSpec>,
    at: &Spanned<ObjectiveSpec>,
) -> Result<Method, FileError> {
    let objective = &at.value;
    // The specification requires it. Files that leave it out count events, unless they speak of slices.
    let speaks_of_slices = objective.time_slice_target.is_some() || objective.time_slice_window.is_some();
    let Some(named) = &spec.value.budgeting_method else {
        if !speaks_of_slices {
            return Ok(Method::Occurrences);
        }
        let text = format!("is missing, allowed: {METHODS}");
        return Err(document.wrong_at(spec, "budgetingMethod", text));
    };
    let slice = || {
        let Some(text) = &objective.time_slice_window else {
            return Err(document.wrong_at(at, "timeSliceWindow", "is missing"));
        };
        // A number alone is minutes.
        let seconds = match (text.value.parse::<f64>(), shorthand(&text.value)) {
            (Ok(minutes), _) => (minutes * 60.0).round() as u64,
            (_, Some((count, unit))) => rolling(count, unit).as_secs(),
            _ => crate::settings::Seconds::parse(&text.value).map_or(0, |length| length.0.as_secs()),
        };
        if !(1..=86_400).contains(&seconds) {
            return Err(document.wrong_at(
                text,
                "timeSliceWindow",
                "is not understood, allowed: 1s to 1d, such as 1m",
            ));
        }
        Ok(seconds)
    };
    match named.value.as_str() {
        "Occurrences" => Ok(Method::Occurrences),
        "Timeslices" => {
            let Some(share) = &objective.time_slice_target else {
                return Err(document.wrong_at(at, "timeSliceTarget", "is missing"));
            };
            if !(share.value > 0.0 && share.value <= 1.0) {
                return Err(document.wrong_at(
                    share,
                    "timeSliceTarget",
                    "is out of range, allowed: above 0 to 1",
                ));
            }
            Ok(Method::Timeslices { slice_s: slice()?, share: share.value })
        }
        "RatioTimeslices" => Ok(Method::RatioTimeslices { slice_s: slice()? }),
        _ => {
            let text = format!("is not supported, allowed: {METHODS}");
            Err(document.wrong_at(named, "budgetingMethod", text))
        }
    }
}

fn period(document: &Document<'_>, at: &Spanned<SloSpec>) -> Result<Period, FileError> {
    let windows = at.value.time_window.as_ref();
    let Some([window]) = windows.map(|windows| windows.value.as_slice()) else {
        return Err(document.wrong_at(at, "timeWindow", "one is needed, and no more"));
    };
    let understood = shorthand(&window.duration.value);
    let wrong = |allowed: &str| {
        document.wrong_at(&window.duration, "duration", format!("is not understood, allowed: {allowed}"))
    };
    if let Some(calendar) = &window.calendar {
        if window.is_rolling.as_ref().is_some_and(|rolling| rolling.value) {
            return Err(document.wrong_at(calendar, "calendar", "goes with isRolling: false"));
        }
        let (count, unit) = understood.ok_or_else(|| wrong("1d to 1Y, such as 1M"))?;
        let CalendarSpec { start_time, time_zone } = &calendar.value;
        let from = start_time.value.parse();
        let from = from.map_err(|_| {
            document.wrong_at(start_time, "startTime", "is no date with a time, such as 2026-01-01 00:00:00")
        })?;
        if !is_time_zone(&time_zone.value) {
            return Err(document.wrong_at(
                time_zone,
                "timeZone",
                "is no name of the IANA data base, such as Europe/Berlin",
            ));
        }
        let calendar = Calendar { from, time_zone: time_zone.value.clone(), unit, count };
        let length = calendar.longest();
        if !(Duration::from_secs(3_600)..=Duration::from_secs(366 * 86_400)).contains(&length) {
            return Err(wrong("1h to 1Y, such as 1M"));
        }
        return Ok(Period::Calendar(calendar));
    }
    if window.is_rolling.as_ref().is_some_and(|rolling| !rolling.value) {
        return Err(document.wrong_at(
            &window.duration,
            "calendar",
            "is missing, which goes with isRolling: false",
        ));
    }
    let length = understood.map(|(count, unit)| rolling(count, unit));
    length
        .filter(|length| (3_600..=366 * 86_400).contains(&length.as_secs()))
        .map(Period::Rolling)
        .ok_or_else(|| wrong("1h to 1Y, such as 30d"))
}

/// Rules that say nothing.
pub(super) const fn silent() -> Option<Vec<Rule>> {
    Some(Vec::new())
}
