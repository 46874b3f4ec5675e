//! What is wrong with objectives that can be read: those that say nothing, or that people will learn to ignore.

use super::advice::TARGETS;
use super::burn::Rule;
use super::definition::{Counting, Definition, Origin, Period};
use crate::aggregate::{Meaning, Part, Source, same_name};
use crate::model::ServiceKey;
use std::sync::Arc;
use std::time::Duration;

/// What an operation did in the time that advice is taken from.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    pub service: ServiceKey,
    pub operation: String,
    /// Whether these are requests: SERVER or CONSUMER spans, and roots of a service.
    pub entry: bool,
    pub requests: u64,
    pub errors: u64,
    /// Quantiles of the durations.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
}

/// What a service sent in the time that advice is taken from.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub service: ServiceKey,
    /// How long ago the first of it came.
    pub seen: Duration,
    pub requests: u64,
    /// Its metrics, where they are known.
    pub metrics: Option<Vec<MetricName>>,
}

/// A series of a metric, as its sender named it.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricName {
    pub name: String,
    pub unit: String,
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

/// A kind of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Smell {
    CannotFail,
    AlwaysFails,
    NoRatio,
    LittleTraffic,
    LongPolls,
    CountsNothing,
    CannotAlert,
}

impl Smell {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CannotFail => "cannot-fail",
            Self::AlwaysFails => "always-fails",
            Self::NoRatio => "no-ratio",
            Self::LittleTraffic => "little-traffic",
            Self::LongPolls => "long-polls",
            Self::CountsNothing => "counts-nothing",
            Self::CannotAlert => "cannot-alert",
        }
    }
}

/// A mistake in an objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    pub slo: String,
    pub origin: Origin,
    pub smell: Smell,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub advice: String,
}

/// Failures that the budget of a period must allow for a single one not to decide.
const FAILURES_ALLOWED: f64 = 10.0;
/// An operation that takes as long as this at the median, and hardly ever much longer, waits for something.
const WAITS: Duration = Duration::from_secs(5);
/// Requests that must have been seen before anything is said of them.
const SEEN: u64 = 100;

/// What was seen for so long should hold what an objective counts.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// Looks at objectives and at what the services that they mean did. Where nothing is known only what the files
/// themselves show is said.
#[must_use]
pub fn lint(definitions: &[Definition], traffic: &[Traffic], known: &[Known]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for definition in definitions {
        let mut warn = |smell: Smell, text: String, advice: String| {
            let (slo, origin) = (definition.name.clone(), definition.origin.clone());
            warnings.push(Warning { slo, origin, smell, text, advice });
        };
        if let Some((text, advice)) = cannot_fail(definition) {
            warn(Smell::CannotFail, text.to_owned(), advice.to_owned());
        }
        if let Some((text, advice)) = cannot_alert(definition) {
            warn(Smell::CannotAlert, text, advice);
        }
        if let Some((text, advice)) = no_ratio(&definition.parts) {
            warn(Smell::NoRatio, text, advice);
        }
        if let Some((text, advice)) = counts_nothing(definition, traffic, known) {
            warn(Smell::CountsNothing, text, advice);
        }
        let counted: Vec<&Traffic> = traffic.iter().filter(|of| counts(definition, of)).collect();
        let requests: u64 = counted.iter().map(|of| of.requests).sum();
        let threshold = definition.parts.iter().find_map(|part| match &part.source {
            Source::Spans { good, .. } => Some(good),
            _ => None,
        });
        let Some(good) = threshold.filter(|_| !counted.is_empty()) else { continue };
        let period = match &definition.period {
            Period::Rolling(length) => *length,
            Period::Calendar(calendar) => calendar.longest(),
        };
        let own = known.iter().filter(|of| definition.means(&of.service));
        let seen = own.map(|of| of.seen).max().unwrap_or_default();
        let expected = requests as f64 * period.as_secs_f64() / seen.as_secs_f64().max(1.0);
        let allowed = expected * (1.0 - definition.target);
        if allowed < FAILURES_ALLOWED {
            warn(
                Smell::LittleTraffic,
                format!("about {expected:.0} requests in a period allow {allowed:.1} failures: one decides"),
                "take a lower target, a longer window, or several services together".to_owned(),
            );
        }
        if requests < SEEN {
            continue;
        }
        if let Some(limit) = good.threshold_ns {
            let slowest = counted.iter().map(|of| of.p999_ns).max().unwrap_or(0);
            if slowest > 0 && limit / 20 > slowest && !good.errors_are_bad {
                let text =
                    format!("the slowest thousandth takes {}, a twentieth of the threshold", in_ms(slowest));
                let advice = format!(
                    "take the `threshold` that people begin to mind, such as {}, a little above the slowest \
                     hundredth",
                    in_ms(counted.iter().map(|of| of.p99_ns).max().unwrap_or(0).saturating_mul(5) / 4)
                );
                warn(Smell::CannotFail, text, advice);
            }
            let slow: u64 = counted.iter().filter(|of| of.p50_ns > limit).map(|of| of.requests / 2).sum();
            let polls: Vec<&&Traffic> = counted.iter().filter(|of| waits(of)).collect();
            let slow_polls: u64 = polls.iter().filter(|of| of.p50_ns > limit).map(|of| of.requests / 2).sum();
            if slow_polls > 0 && slow_polls * 2 > slow {
                let names: Vec<&str> = polls.iter().take(3).map(|of| of.operation.as_str()).collect();
                let text = format!("most of what is too slow waits on purpose: {}", names.join(", "));
                let advice =
                    "leave long polls and blocking pops out with `operation` or `attributes`".to_owned();
                warn(Smell::LongPolls, text, advice);
            } else if slow as f64 > requests as f64 * (1.0 - definition.target) * 2.0 {
                let text = format!(
                    "half of the requests and more are slower than the threshold of {}",
                    in_ms(limit)
                );
                let advice =
                    "raise `threshold` to what the service can do, or lower `target`: an objective that is \
                              never met wakes people for nothing"
                        .to_owned();
                warn(Smell::AlwaysFails, text, advice);
            }
        }
        let errors: u64 = counted.iter().map(|of| of.errors).sum();
        let share = errors as f64 / requests as f64;
        if good.errors_are_bad && share > (1.0 - definition.target) * 2.0 {
            let text = format!(
                "{:.3} % fail, and {:.3} % may: it would burn all the time",
                share * 100.0,
                (1.0 - definition.target) * 100.0
            );
            let advice = format!(
                "lower `target` to {}, or leave what fails as it should out with `attributes`",
                met_by(share).map_or_else(|| "what is met".to_owned(), |target| target.to_string())
            );
            warn(Smell::AlwaysFails, text, advice);
        }
    }
    warnings
}

/// The highest target that people use which leaves half of its budget where this share fails.
fn met_by(share: f64) -> Option<f64> {
    TARGETS.into_iter().find(|target| share <= (1.0 - target) / 2.0)
}

fn in_ms(ns: u64) -> String {
    format!("{:.1} ms", ns as f64 / 1e6)
}

/// A long poll or a blocking pop: its durations lie close together, and far from zero.
fn waits(of: &Traffic) -> bool {
    let name = of.operation.to_lowercase();
    let named = ["poll", "watch", "subscribe", "stream", "blpop", "brpop", "xread", "receive"];
    let is_long = u128::from(of.p50_ns) >= WAITS.as_nanos();
    is_long && (of.p99_ns < of.p50_ns.saturating_mul(2) || named.iter().any(|word| name.contains(word)))
}

fn counts(definition: &Definition, of: &Traffic) -> bool {
    definition.means(&of.service)
        && of.entry
        && definition.parts.iter().any(|part| match &part.source {
            // What attributes narrow down is not known of operations.
            Source::Spans { operation, good } => {
                part.only.is_empty()
                    && good.matching.is_empty()
                    && good.bad.is_empty()
                    && operation.as_ref().is_none_or(|name| **name == *of.operation)
            }
            _ => false,
        })
}

/// What an objective asks for that does not come.
fn counts_nothing(definition: &Definition, traffic: &[Traffic], known: &[Known]) -> Option<(String, String)> {
    let own: Vec<&Known> = known.iter().filter(|of| definition.means(&of.service)).collect();
    let seen = |of: &[&Known]| of.iter().map(|of| of.seen).max().unwrap_or_default();
    if definition.parts.is_empty() {
        return None;
    }
    if own.is_empty() {
        return (seen(&known.iter().collect::<Vec<_>>()) >= KNOWN_FOR).then(|| {
            (
                format!("no service {:?} sends anything", definition.service),
                "name `service` as `barograph services` does".to_owned(),
            )
        });
    }
    definition.parts.iter().find_map(|part| match &part.source {
        Source::Spans { operation, .. } => {
            let requests = own.iter().map(|of| of.requests).fold(0, u64::saturating_add);
            let is_enough = requests >= SEEN || seen(&own) >= KNOWN_FOR;
            let named = |of: &Traffic| operation.as_ref().is_none_or(|name| **name == *of.operation);
            let comes = match operation {
                None => requests > 0,
                Some(_) => traffic.iter().any(|of| definition.means(&of.service) && named(of)),
            };
            let of_service = |of: &&Traffic| definition.means(&of.service);
            // A root of another kind is a request, too; which operation it is of is not known, and none has its name.
            let has_roots = traffic.iter().filter(of_service).any(|of| of.entry && of.operation.is_empty());
            let is_served =
                has_roots || traffic.iter().filter(of_service).any(|of| of.entry && named(of));
            if let Some(name) = operation
                && is_enough
                && comes
                && !is_served
            {
                return Some((
                    format!("{:?} does not serve {name:?}: it calls it, or does it within a request", definition.service),
                    "count the operation that serves (SERVER, CONSUMER in `barograph operations`), or that of the \
                     service that is called"
                        .to_owned(),
                ));
            }
            (is_enough && !comes).then(|| match operation {
                None => (
                    format!("{:?} serves no requests", definition.service),
                    "count its logs or a metric, or name the service that serves".to_owned(),
                ),
                Some(name) => (
                    format!("{:?} has no operation {name:?}", definition.service),
                    "name `operation` as `barograph operations` does".to_owned(),
                ),
            })
        }
        Source::Metric { name, .. } => {
            let matches = |of: &MetricName| {
                same_name(name, &of.name, &of.unit)
                    && part.only.iter().all(|matcher| matcher.holds_for(&of.attributes))
            };
            let comes = own.iter().any(|of| of.metrics.as_ref().is_none_or(|all| all.iter().any(matches)));
            (seen(&own) >= KNOWN_FOR && !comes).then(|| {
                (
                    format!("{:?} sends no metric {name:?} with these attributes", definition.service),
                    "name `metric` and `attributes` as they are sent".to_owned(),
                )
            })
        }
        Source::Logs { .. } | Source::Events { .. } => None,
    })
}

/// What is wrong, and what to do about it.
/// A condition of its own that stays unmet when everything fails.
fn cannot_alert(definition: &Definition) -> Option<(String, String)> {
    // Where everything fails, it burns so fast.
    let fastest = 1.0 / (1.0 - definition.target);
    definition.rules.iter().flatten().find_map(|rule| match rule {
        Rule::Burn(rule) if rule.factor > fastest * (1.0 + 1e-9) => Some((
            format!(
                "a burn rate of {} is never reached: with a target of {} % it is {} when everything fails",
                plain_number(rule.factor),
                plain_number(definition.target * 100.0),
                plain_number(fastest)
            ),
            format!("ask for a `threshold` below {}, or for a higher target", plain_number(fastest)),
        )),
        Rule::Burn(_) | Rule::EndsWithin { .. } | Rule::Dropped { .. } => None,
    })
}

/// Two digits behind the point at most.
fn plain_number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn cannot_fail(definition: &Definition) -> Option<(&'static str, &'static str)> {
    if definition.target <= 0.0 {
        return Some((
            "a target of 0 is met whatever happens",
            "ask for a `target` that can be missed, such as 0.99",
        ));
    }
    let idle = definition.parts.iter().any(|part| match &part.source {
        Source::Spans { good, .. } => {
            good.threshold_ns.is_none()
                && !good.errors_are_bad
                && good.matching.is_empty()
                && good.bad.is_empty()
        }
        Source::Logs { bad_from } => *bad_from > 24,
        Source::Events { how, threshold: value, .. }
        | Source::Metric { counted: Meaning::Compared(how, value), .. } => {
            // Nothing that is measured is infinite; most of it is not negative.
            matches!(how, crate::aggregate::Comparison::AtLeast) && *value <= 0.0
        }
        Source::Metric { .. } => false,
    });
    if idle {
        return Some((
            "everything that it counts is good",
            "say with `good`, `bad`, `severity` or the objective's `op` and `value` what is bad",
        ));
    }
    let [some, total] = definition.parts.as_slice() else { return None };
    let same = |a: &Counting, b: &Counting| match (&a.source, &b.source) {
        (
            Source::Metric { name: a_name, counted: Meaning::Growth(Part::Some) },
            Source::Metric { name, counted: Meaning::Growth(Part::Total) },
        ) => a_name == name && a.only == b.only,
        _ => false,
    };
    (same(some, total) && !definition.some_is_bad).then_some((
        "good and total are the same sum: the ratio is always 1",
        "narrow `good` down to what went well, such as by a status code, or give `bad` instead",
    ))
}

/// Good ones that are not among all of them.
fn no_ratio(parts: &[Counting]) -> Option<(String, String)> {
    let [some, total] = parts else { return None };
    let (Source::Metric { name: a, .. }, Source::Metric { name: b, .. }) = (&some.source, &total.source)
    else {
        return None;
    };
    let stem = |name: &str| {
        let kinds = ["_bucket", "_count", "_total", "_sum"];
        kinds.iter().find_map(|kind| name.strip_suffix(kind)).unwrap_or(name).to_owned()
    };
    let missing = total.only.iter().find(|matcher| !some.only.contains(matcher));
    if let Some(matcher) = missing.filter(|_| stem(a) == stem(b)) {
        return Some((
            format!("total asks for {:?}, and its part does not: more than all can be good", matcher.key),
            format!("ask for {:?} in both, or in the part alone", matcher.key),
        ));
    }
    // Two metrics: the part has to be named after the whole, such as x_errors_total of x_total.
    let family = |name: &str| {
        let words: Vec<String> = stem(name).split(['_', '.']).map(str::to_owned).collect();
        words.into_iter().take(2).collect::<Vec<_>>()
    };
    (stem(a) != stem(b) && family(a) != family(b)).then(|| {
        (
            format!("{a} is not counted among {b}: two metrics that count different things are no ratio"),
            format!("take a part of {b}, such as by an attribute, or a total that counts {a}, too"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::read;
    use std::path::Path;

    const DAY: Duration = Duration::from_secs(86_400);

    fn slo(indicator: &str, target: f64) -> Vec<Definition> {
        slo_with(indicator, target, "")
    }

    fn slo_with(indicator: &str, target: f64, more: &str) -> Vec<Definition> {
        let text = format!(
            "apiVersion: openslo/v1
kind: SLO
metadata: {{ name: it }}
spec:
  service: shop
  indicator: {{ spec: {indicator} }}
  timeWindow: [{{ duration: 30d, isRolling: true }}]
  budgetingMethod: Occurrences
  objectives: [{{ target: {target} }}]
{more}"
        );
        read(Path::new("slo.yaml"), &text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn own(spec: &str) -> String {
        format!(
            "{{ ratioMetric: {{ good: {{ metricSource: {{ type: barograph, spec: {{ {spec} }} }} }} }} }}"
        )
    }

    fn sums(good: &str, total: &str) -> String {
        let source =
            |query: &str| format!("{{ metricSource: {{ type: prometheus, spec: {{ query: '{query}' }} }} }}");
        format!("{{ ratioMetric: {{ good: {}, total: {} }} }}", source(good), source(total))
    }

    fn traffic(operation: &str, requests: u64, errors: u64, [p50, p99, p999]: [u64; 3]) -> Traffic {
        let (p50_ns, p99_ns, p999_ns) = (p50 * 1_000_000, p99 * 1_000_000, p999 * 1_000_000);
        let service = ServiceKey::named("shop");
        Traffic {
            service,
            operation: operation.into(),
            entry: true,
            requests,
            errors,
            p50_ns,
            p99_ns,
            p999_ns,
        }
    }

    /// A service that has sent this for a day.
    fn known(traffic: &[Traffic]) -> Vec<Known> {
        let requests = traffic.iter().map(|of| of.requests).sum();
        let of = |of: &Traffic| Known { service: of.service.clone(), seen: DAY, requests, metrics: None };
        traffic.first().map(of).into_iter().collect()
    }

    #[test]
    fn requests_are_those_of_the_time_that_was_seen() {
        let requests = [traffic("GET /", 1_000, 0, [20, 100, 200])];
        let errors = slo(&own("good: not_error"), 0.999);
        for (seen_s, smells) in [(25, 0), (7 * 86_400, 1)] {
            let known = Known { seen: Duration::from_secs(seen_s), ..known(&requests).remove(0) };
            let found = lint(&errors, &requests, &[known]);
            assert_eq!(found.len(), smells, "{seen_s}: {found:?}");
        }
    }

    #[test]
    fn what_nothing_matches_is_noted_once_enough_was_seen() {
        let requests = [traffic("GET /", 1_000, 0, [20, 100, 200])];
        let other = Known { service: ServiceKey::named("other"), ..known(&requests).remove(0) };
        let label = |name: &str| MetricName {
            name: name.into(),
            unit: String::new(),
            attributes: vec![("code".into(), "500".into())],
        };
        let seen = |seen_s: u64, requests: u64, metrics: Option<&str>| Known {
            service: ServiceKey::named("shop"),
            seen: Duration::from_secs(seen_s),
            requests,
            metrics: metrics.map(|name| vec![label(name)]),
        };
        let operation = |name: &str| slo(&own(&format!("good: not_error, operation: {name}")), 0.9);
        let sum = slo(&sums("a_total{code=\"500\"}", "a_total"), 0.9);
        for (definitions, known, noted) in [
            (operation("GET /"), seen(60, 1_000, None), false),
            (operation("GET /no"), seen(60, 1_000, None), true),
            (operation("GET /no"), seen(60, 50, None), false),
            (operation("GET /no"), seen(600, 50, None), true),
            (operation("GET /"), other.clone(), true),
            (operation("GET /"), Known { seen: Duration::from_secs(60), ..other }, false),
            (slo(&own("good: not_error"), 0.9), seen(600, 0, None), true),
            (sum.clone(), seen(600, 0, Some("a")), false),
            (sum.clone(), seen(600, 0, Some("b")), true),
            (sum.clone(), seen(60, 0, Some("b")), false),
            (sum, seen(600, 0, None), false),
        ] {
            let found = lint(&definitions, &requests, std::slice::from_ref(&known));
            let is_noted = found.iter().any(|of| of.smell == Smell::CountsNothing);
            assert_eq!(is_noted, noted, "{definitions:?} {known:?}: {found:?}");
        }
        assert!(lint(&operation("GET /"), &[], &[]).is_empty(), "nothing was seen yet");
        // Spans of clients are no requests, however many; roots of other kinds may be those that it counts.
        let calls = Traffic { entry: false, ..traffic("GET /rates", 1_000, 0, [20, 100, 200]) };
        let roots = traffic("", 1_000, 0, [20, 100, 200]);
        for (also, noted) in [(None, true), (Some(roots), false)] {
            let traffic: Vec<Traffic> = requests.iter().chain([&calls]).chain(&also).cloned().collect();
            let found = lint(&operation("GET /rates"), &traffic, &[seen(600, 1_000, None)]);
            let is_noted = found.iter().any(|of| of.text.contains("does not serve \"GET /rates\""));
            assert_eq!((is_noted, found.len()), (noted, usize::from(noted)), "{found:?}");
        }
    }

    fn smells(definitions: &[Definition], traffic: &[Traffic]) -> Vec<&'static str> {
        lint(definitions, traffic, &known(traffic)).iter().map(|warning| warning.smell.as_str()).collect()
    }

    /// The advice on the one mistake that there is.
    fn advice(definitions: &[Definition], traffic: &[Traffic]) -> String {
        let found = lint(definitions, traffic, &known(traffic));
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.slo.as_str(), one.origin.line), ("it", 3));
        assert!(!one.text.is_empty() && one.origin.path == Path::new("slo.yaml"), "{one:?}");
        one.advice.clone()
    }

    #[test]
    fn each_mistake_comes_with_what_to_do_about_it() {
        let normal = [traffic("GET /", 100_000, 20, [20, 100, 200])];
        let latency = |ms: u64| slo(&own(&format!("good: latency, threshold: {ms}ms")), 0.99);
        let ratio = |good, total| slo(&sums(good, total), 0.9);
        for (definitions, traffic, wanted) in [
            (slo(&own("good: not_error"), 0.0), &[][..], "`target` that can be missed"),
            (ratio("a_total{job=\"shop\"}", "a_total{job=\"shop\"}"), &[], "narrow `good` down"),
            (slo(&own("good: latency, threshold: 60s"), 0.99), &normal, "such as 125.0 ms"),
            (latency(10), &normal, "raise `threshold`"),
            (slo(&own("good: not_error"), 0.9999), &normal, "lower `target` to 0.9995"),
            (ratio("jobs_done_total", "http_requests_total"), &[], "a total that counts jobs_done_total"),
            (ratio("a_total{code=\"2\"}", "a_total{method=\"GET\"}"), &[], "ask for \"method\" in both"),
            (
                slo(&own("good: not_error"), 0.999),
                &[traffic("GET /", 240, 0, [20, 100, 200])],
                "take a lower target, a longer window",
            ),
            (
                latency(300),
                &[traffic("GET /poll", 40_000, 0, [30_000, 30_500, 31_000])],
                "leave long polls and blocking pops out",
            ),
        ] {
            let said = advice(&definitions, traffic);
            assert!(said.contains(wanted), "{said:?} lacks {wanted:?}");
        }
    }

    /// One objective that has each fault, and one beside it that has not.
    #[test]
    fn each_kind_of_mistake_is_found_and_its_neighbour_is_left_alone() {
        let normal = [traffic("GET /", 100_000, 20, [20, 100, 200])];
        let latency = |ms: u64| slo(&own(&format!("good: latency, threshold: {ms}ms")), 0.99);
        let errors = |target| slo(&own("good: not_error"), target);
        let nothing: [&str; 0] = [];

        // Can never fail.
        assert_eq!(smells(&slo(&own("good: not_error"), 0.0), &[]), ["cannot-fail"]);
        assert_eq!(
            smells(&slo(&sums("a_total{job=\"shop\"}", "a_total{job=\"shop\"}"), 0.9), &[]),
            ["cannot-fail"]
        );
        assert_eq!(smells(&latency(60_000), &normal), ["cannot-fail"]);
        assert_eq!(smells(&latency(300), &normal), nothing);
        // Always fails.
        assert_eq!(smells(&latency(10), &normal), ["always-fails"]);
        assert_eq!(smells(&errors(0.9999), &normal), ["always-fails"]);
        assert_eq!(smells(&errors(0.999), &normal), nothing);
        // Alerts that cannot be: nothing burns faster than when everything fails.
        let alerting = |target: f64, condition: &str| {
            let policy = format!(
                "  alertPolicies:
    - kind: AlertPolicy
      metadata: {{ name: fast }}
      spec:
        conditions:
          - kind: AlertCondition
            metadata: {{ name: fast }}
            spec: {{ severity: page, condition: {{ {condition} }} }}
"
            );
            smells(&slo_with(&own("good: not_error"), target, &policy), &[])
        };
        let burn = "kind: burnrate, op: gte, threshold: 14.4, lookbackWindow: 1h";
        assert_eq!(alerting(0.9, burn), ["cannot-alert"]);
        assert_eq!(alerting(0.95, burn), nothing);
        // No ratio.
        let ratio = |good, total| smells(&slo(&sums(good, total), 0.9), &[]);
        assert_eq!(ratio("jobs_done_total", "http_requests_total"), ["no-ratio"]);
        assert_eq!(ratio("a_total{code=\"2\"}", "a_total{method=\"GET\"}"), ["no-ratio"]);
        assert_eq!(ratio("a_total{code=\"2\",method=\"GET\"}", "a_total{method=\"GET\"}"), nothing);
        assert_eq!(ratio("http_requests_good_total", "http_requests_total"), nothing);
        // Too little traffic.
        let quiet = [traffic("GET /", 240, 0, [20, 100, 200])];
        assert_eq!(smells(&errors(0.999), &quiet), ["little-traffic"]);
        assert_eq!(smells(&errors(0.99), &quiet), nothing);
        // Shaped by long polls.
        let polls = [
            traffic("GET /", 60_000, 0, [20, 100, 200]),
            traffic("GET /poll", 40_000, 0, [30_000, 30_500, 31_000]),
        ];
        assert_eq!(smells(&latency(300), &polls), ["long-polls"]);
        let slow = [traffic("GET /report", 40_000, 0, [600, 9_000, 20_000])];
        assert_eq!(smells(&latency(300), &slow), ["always-fails"]);
        assert_eq!(smells(&latency(300), &[polls[0].clone()]), nothing);
    }
}
