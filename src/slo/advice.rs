//! Objectives that a service could have, and what they would have paged.

use super::burn::preset;
use super::counts::Counts;
use super::lint::Traffic;
use super::objective::{Before, Caution, Reading, judge};
use crate::slo::burn_rate;
use std::time::Duration;

/// Targets that people use, highest first.
pub(super) const TARGETS: [f64; 7] = [0.9999, 0.9995, 0.999, 0.995, 0.99, 0.95, 0.9];
/// A period's budget must allow so many failures.
const FAILURES_ALLOWED: f64 = 10.0;
const PERIOD: Duration = Duration::from_secs(30 * 86_400);

/// A time in which an objective would have alerted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alerted {
    pub from_second: u64,
    pub until_second: u64,
    pub page: bool,
}

/// What an objective over 30 days with these counts (second, good, total; ascending) would have told, by the
/// workbook's rules. What began in overlapping times is one.
#[must_use]
pub fn rehearse(counts: &[(u64, u64, u64)], target: f64, bad_requests: u64, improbable: f64) -> Vec<Alerted> {
    let rules = preset("workbook", PERIOD).unwrap_or_default();
    let mut kept = Counts::new(PERIOD.as_secs());
    // Whether each holds, and in which second it last ceased to.
    let mut standing: Vec<(bool, Option<u64>)> = vec![(false, None); rules.len()];
    let first = counts.first().map_or(0, |(second, ..)| *second);
    let mut told: Vec<Alerted> = Vec::new();
    let mut open: Option<Alerted> = None;
    for &(second, good, total) in counts {
        kept.add(second, second, good.min(total), total);
        let read = |seconds: u64| {
            let (good, total) = kept.between(second, seconds, second.saturating_sub(seconds), u64::MAX);
            Reading { bad: total - good.min(total), total, burn: burn_rate(good, total, target) }
        };
        let caution = Caution { floor: bad_requests, improbable };
        for (rule, (held, ceased)) in rules.iter().zip(&mut standing) {
            let before = match *ceased {
                _ if *held => Before::Held,
                None => Before::Never,
                Some(at) => Before::Ceased(second.saturating_sub(at)),
            };
            let seen_s = second.saturating_sub(first);
            let holds = judge(rule, target, PERIOD, || 1.0, caution, before, seen_s, read).holds;
            if *held && !holds {
                *ceased = Some(second);
            }
            *held = holds;
        }
        let burning =
            |page: bool| rules.iter().zip(&standing).any(|(rule, (held, _))| *held && (!page || rule.page()));
        match &mut open {
            Some(alert) if burning(false) => {
                alert.until_second = second;
                alert.page |= burning(true);
            }
            Some(alert) => {
                told.push(*alert);
                open = None;
            }
            None if burning(false) => {
                open = Some(Alerted { from_second: second, until_second: second, page: burning(true) });
            }
            None => {}
        }
    }
    told.extend(open);
    told
}

/// An objective worth having.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    pub name: String,
    pub target: f64,
    /// For latency: what is too slow.
    pub threshold_ns: Option<u64>,
    pub reason: String,
}

/// What could be asked of a service (as `[ENVIRONMENT/][NAMESPACE/]NAME`) that did this in `over`, its operations taken
/// together. Objectives are called after its name alone, as OpenSLO has names.
#[must_use]
pub fn suggest(service: &str, operations: &[Traffic], over: Duration) -> Vec<Suggestion> {
    let requests: u64 = operations.iter().map(|of| of.requests).sum();
    let errors: u64 = operations.iter().map(|of| of.errors).sum();
    let a_period = requests as f64 * PERIOD.as_secs_f64() / over.as_secs_f64().max(1.0);
    let allows = |target: &&f64| a_period * (1.0 - **target) >= FAILURES_ALLOWED;
    let mut suggestions = Vec::new();
    if requests == 0 {
        return suggestions;
    }
    let name = service.rsplit('/').next().unwrap_or(service);
    let share = errors as f64 / requests as f64;
    // Half of the budget is left for what is yet to come.
    let met = TARGETS.iter().filter(allows).find(|target| share <= (1.0 - **target) / 2.0);
    if let Some(target) = met {
        suggestions.push(Suggestion {
            name: format!("{name}-availability"),
            target: *target,
            threshold_ns: None,
            reason: format!("{errors} of {requests} requests failed ({:.3} %)", share * 100.0),
        });
    }
    let p99 = operations.iter().map(|of| of.p99_ns).max().unwrap_or(0);
    if p99 > 0 && allows(&&0.99) {
        let unit = 10f64.powf(((p99 as f64).log10().floor() - 1.0).max(0.0));
        let threshold_ns = (((p99 as f64) * 1.25 / unit).ceil() * unit) as u64;
        suggestions.push(Suggestion {
            name: format!("{name}-latency"),
            target: 0.99,
            threshold_ns: Some(threshold_ns),
            reason: format!(
                "the slowest hundredth of its slowest operation takes {:.1} ms",
                p99 as f64 / 1e6
            ),
        });
    }
    suggestions
}

impl Suggestion {
    /// As OpenSLO.
    #[must_use]
    pub fn yaml(&self, service: &str) -> String {
        let good = match self.threshold_ns {
            None => "good: not_error".to_owned(),
            Some(ns) => format!("good: latency, threshold: {}ms", ns as f64 / 1e6),
        };
        // JSON texts are YAML texts.
        let text = |of: &str| serde_json::Value::from(of).to_string();
        format!(
            "apiVersion: openslo/v1
kind: SLO
metadata: {{ name: {} }}
spec:
  description: {}
  service: {}
  indicator:
    spec:
      ratioMetric:
        good: {{ metricSource: {{ type: barograph, spec: {{ {good} }} }} }}
  timeWindow: [{{ duration: 30d, isRolling: true }}]
  budgetingMethod: Occurrences
  objectives: [{{ target: {} }}]
",
            text(&self.name),
            text(&self.reason),
            text(service),
            self.target
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceKey;

    fn operation(requests: u64, errors: u64, p99_ms: u64) -> Traffic {
        Traffic {
            service: ServiceKey::named("shop"),
            operation: "GET /".into(),
            entry: true,
            requests,
            errors,
            p50_ns: 1,
            p99_ns: p99_ms * 1_000_000,
            p999_ns: p99_ms * 2_000_000,
        }
    }

    #[test]
    fn suggestions_are_met_with_room_and_can_be_read_back() {
        let week = Duration::from_secs(7 * 86_400);
        let found = suggest("prod/shop", &[operation(1_000_000, 300, 40), operation(500_000, 100, 93)], week);
        let figures: Vec<_> = found.iter().map(|of| (of.target, of.threshold_ns)).collect();
        assert_eq!(figures, [(0.999, None), (0.99, Some(117_000_000))]);
        let text: Vec<String> = found.iter().map(|of| of.yaml("prod/shop")).collect();
        let read =
            crate::slo::read(std::path::Path::new("a.yaml"), &text.join("---\n")).expect("its own words");
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].name, "shop-availability");
        assert_eq!((read[1].service.as_str(), read[1].target), ("prod/shop", 0.99));
        // Little traffic allows no high target.
        assert_eq!(suggest("shop", &[operation(100, 0, 40)], week)[0].target, 0.95);
        assert!(suggest("shop", &[operation(5, 0, 40)], week).is_empty());
    }

    #[test]
    fn a_rehearsal_pages_for_the_outage_and_for_nothing_else() {
        let counts: Vec<(u64, u64, u64)> = (0..3 * 1_440u64)
            .map(|minute| {
                let bad = match minute {
                    2_000..2_030 => 50,
                    minute if minute.is_multiple_of(100) => 1,
                    _ => 0,
                };
                (1_700_000_000 + minute * 60, 100 - bad, 100)
            })
            .collect();
        let told = rehearse(&counts, 0.999, 3, 0.01);
        let pages: Vec<&Alerted> = told.iter().filter(|alerted| alerted.page).collect();
        let [page] = pages.as_slice() else { panic!("{told:?}") };
        let begin = (page.from_second - 1_700_000_000) / 60;
        assert!((2_000..2_005).contains(&begin), "{told:?}");
        assert!(rehearse(&counts[..1_900], 0.999, 3, 0.01).is_empty());
    }
}
