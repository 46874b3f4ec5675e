//! When an objective alerts: OpenSLO's `AlertPolicy` and `AlertCondition`.
//!
//! Beside OpenSLO's `burnrate` there are two kinds more, and a second window:
//!
//! ```yaml
//! condition: { kind: burnrate, op: gte, threshold: 14.4, lookbackWindow: 1h, shortLookbackWindow: 5m }
//! condition: { kind: exhaustion, within: 24h }
//! condition: { kind: budgetdrop, threshold: 0.1, lookbackWindow: 1h }
//! ```

use super::document::{Document, FileError};
use crate::settings::Seconds;
use crate::slo::{BurnRule, Rule};
use serde::de::{IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// A name of something, or the thing itself.
#[derive(Clone)]
pub(super) enum Either<T> {
    Name(String),
    Inline(Box<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Either<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrInline<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for NameOrInline<T> {
            type Value = Either<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or what it would name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Either::Name(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Ok(Either::Inline(Box::new(T::deserialize(MapAccessDeserializer::new(map))?)))
            }
        }
        deserializer.deserialize_any(NameOrInline(PhantomData))
    }
}

/// A policy, a condition, or a reference to one, as a member of a list.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Item<T> {
    #[serde(rename = "apiVersion")]
    _api_version: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    alert_policy_ref: Option<Spanned<String>>,
    condition_ref: Option<Spanned<String>>,
    spec: Option<Spanned<T>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PolicySpec {
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
    #[serde(rename = "alertWhenNoData")]
    _alert_when_no_data: Option<bool>,
    #[serde(rename = "alertWhenResolved")]
    _alert_when_resolved: Option<bool>,
    alert_when_breaching: Option<bool>,
    conditions: Spanned<Vec<Either<Item<ConditionSpec>>>>,
    #[serde(rename = "notificationTargets")]
    _notification_targets: Option<IgnoredAny>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConditionSpec {
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
    severity: Option<Spanned<String>>,
    condition: Spanned<Condition>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    kind: Spanned<String>,
    op: Option<Spanned<String>>,
    threshold: Option<Spanned<f64>>,
    lookback_window: Option<Spanned<String>>,
    short_lookback_window: Option<Spanned<String>>,
    alert_after: Option<Spanned<String>>,
    within: Option<Spanned<String>>,
}

/// Policies and conditions by name, each with the document that it stands in.
#[derive(Default)]
pub(super) struct Known<'a> {
    pub policies: BTreeMap<String, (Document<'a>, PolicySpec)>,
    pub conditions: BTreeMap<String, (Document<'a>, Spanned<ConditionSpec>)>,
}

impl Known<'_> {
    /// The rules of a list of policies.
    ///
    /// # Errors
    /// What is not understood.
    pub fn rules(
        &self,
        document: &Document<'_>,
        policies: &Spanned<Vec<Either<Item<PolicySpec>>>>,
    ) -> Result<Vec<Rule>, FileError> {
        let mut rules = Vec::new();
        for policy in &policies.value {
            let (name, line) = match policy {
                Either::Name(name) => (Some(name.clone()), policies.referenced.line()),
                Either::Inline(item) => match (&item.spec, &item.alert_policy_ref) {
                    (Some(spec), _) => {
                        self.of_policy(document, &spec.value, &mut rules)?;
                        continue;
                    }
                    (None, Some(name)) => (Some(name.value.clone()), name.referenced.line()),
                    (None, None) => (None, policies.referenced.line()),
                },
            };
            let known = name.as_ref().and_then(|name| self.policies.get(name));
            let Some((of, spec)) = known else {
                let all: Vec<&str> = self.policies.keys().map(String::as_str).collect();
                let text = format!(
                    "{:?} is no AlertPolicy of these files, allowed: {}",
                    name.unwrap_or_default(),
                    all.join(", ")
                );
                return Err(document.wrong(line, "alertPolicies", text));
            };
            self.of_policy(of, spec, &mut rules)?;
        }
        Ok(rules)
    }

    fn of_policy(
        &self,
        document: &Document<'_>,
        policy: &PolicySpec,
        rules: &mut Vec<Rule>,
    ) -> Result<(), FileError> {
        if policy.alert_when_breaching == Some(false) {
            return Ok(());
        }
        for condition in &policy.conditions.value {
            let (name, line) = match condition {
                Either::Name(name) => (Some(name.clone()), policy.conditions.referenced.line()),
                Either::Inline(item) => match (&item.spec, &item.condition_ref) {
                    (Some(spec), _) => {
                        rules.push(rule(document, spec)?);
                        continue;
                    }
                    (None, Some(name)) => (Some(name.value.clone()), name.referenced.line()),
                    (None, None) => (None, policy.conditions.referenced.line()),
                },
            };
            let known = name.as_ref().and_then(|name| self.conditions.get(name));
            let Some((of, spec)) = known else {
                let all: Vec<&str> = self.conditions.keys().map(String::as_str).collect();
                let text = format!(
                    "{:?} is no AlertCondition of these files, allowed: {}",
                    name.unwrap_or_default(),
                    all.join(", ")
                );
                return Err(document.wrong(line, "conditionRef", text));
            };
            rules.push(rule(of, spec)?);
        }
        Ok(())
    }
}

/// One condition.
///
/// # Errors
/// What is not understood.
pub(super) fn rule(document: &Document<'_>, spec: &Spanned<ConditionSpec>) -> Result<Rule, FileError> {
    let page = match spec.value.severity.as_ref().map(|severity| (severity, severity.value.to_lowercase())) {
        None => true,
        Some((_, name)) if matches!(name.as_str(), "page" | "critical" | "high") => true,
        Some((_, name)) if matches!(name.as_str(), "ticket" | "warning" | "medium" | "low" | "info") => false,
        Some((at, _)) => {
            return Err(document.wrong_at(
                at,
                "severity",
                "is not understood, allowed: page (critical, high), ticket (warning, medium, low, info)",
            ));
        }
    };
    let at = &spec.value.condition;
    let condition = &at.value;
    let length = |text: &Option<Spanned<String>>, key: &str| match text {
        None => Ok(None),
        Some(text) => Seconds::parse(&text.value)
            .map(|length| Some(length.0))
            .filter(|length| length.is_some_and(|length| length <= Duration::from_secs(90 * 86_400)))
            .ok_or_else(|| document.wrong_at(text, key, "is no duration up to 90d, such as 1h")),
    };
    let missing = |key: &str| document.wrong_at(at, key, "is missing");
    let threshold = |allowed: std::ops::RangeInclusive<f64>| match &condition.threshold {
        None => Err(missing("threshold")),
        Some(value) if allowed.contains(&value.value) => Ok(value.value),
        Some(value) => {
            let text = format!("is out of range, allowed: {} to {}", allowed.start(), allowed.end());
            Err(document.wrong_at(value, "threshold", text))
        }
    };
    let long = length(&condition.lookback_window, "lookbackWindow")?;
    let short = length(&condition.short_lookback_window, "shortLookbackWindow")?;
    let after = length(&condition.alert_after, "alertAfter")?.unwrap_or_default();
    if let Some(op) = condition.op.as_ref().filter(|op| !matches!(op.value.as_str(), "gte" | "gt")) {
        return Err(document.wrong_at(op, "op", "is not understood, allowed: gte, gt"));
    }
    match condition.kind.value.to_lowercase().as_str() {
        "burnrate" => {
            let factor = threshold(0.001..=1_000_000.0)?;
            let long = long.filter(|long| !long.is_zero()).ok_or_else(|| missing("lookbackWindow"))?;
            let short = short.unwrap_or(long);
            if short > long || short.is_zero() {
                return Err(document.wrong_at(
                    at,
                    "shortLookbackWindow",
                    "has to be shorter than lookbackWindow",
                ));
            }
            let keep_firing_for = Duration::ZERO;
            Ok(Rule::Burn(BurnRule { long, short, factor, page, after, keep_firing_for }))
        }
        "exhaustion" => {
            let within = length(&condition.within, "within")?.ok_or_else(|| missing("within"))?;
            Ok(Rule::EndsWithin { within, page })
        }
        "budgetdrop" => {
            let over = long.filter(|long| !long.is_zero()).ok_or_else(|| missing("lookbackWindow"))?;
            Ok(Rule::Dropped { share: threshold(0.0001..=1.0)?, over, page })
        }
        _ => {
            let allowed = "is not understood, allowed: burnrate, exhaustion, budgetdrop";
            Err(document.wrong_at(&condition.kind, "kind", allowed))
        }
    }
}
