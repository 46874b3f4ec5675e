//! `barograph slo suggest`.

use super::known::{range, seen, traffic};
use crate::api::v1;
use crate::cli::connection::Daemon;
use crate::cli::failure::Failure;
use crate::cli::moment::{Moment, read_moment};
use crate::cli::output::{Answer, Output};
use crate::cli::services::query;
use crate::model::{ServiceKey, Timestamp};
use crate::serve::text::{plain, so_many};
use crate::slo::{Alerted, Suggestion, Traffic, rehearse, suggest};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Proposes objectives from what services did, with what each would have told.
#[derive(Debug, Args)]
pub(super) struct Suggest {
    /// Only for this service.
    #[arg(
        long,
        value_name = "[ENVIRONMENT/][NAMESPACE/]NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
    /// How much of the past is looked at.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = read_moment)]
    since: Moment,
    #[command(flatten)]
    daemon: Daemon,
}

/// An objective that is proposed.
struct Proposed {
    service: ServiceKey,
    suggestion: Suggestion,
    /// What it would have told; `None` where that is not known.
    told: Option<Vec<Alerted>>,
}

pub(super) fn run(arguments: Suggest, output: &Output) -> Result<(), Failure> {
    let Suggest { service, since, daemon } = arguments;
    let (range, length) = range(since)?;
    let mut by_service: BTreeMap<ServiceKey, Vec<Traffic>> = BTreeMap::new();
    for of in traffic(&daemon, &service, range)?.into_iter().filter(|of| of.entry) {
        by_service.entry(of.service.clone()).or_default().push(of);
    }
    let mut proposed = Vec::new();
    for (service, operations) in by_service {
        let path = service.to_string();
        let seen = seen(&daemon, &service, v1::Signal::Traces, length)?;
        for suggestion in suggest(&path, &operations, seen) {
            let told = match suggestion.threshold_ns {
                // How many were slower than something is not kept of the past.
                Some(_) => None,
                None => Some(rehearsed(&daemon, &path, range, suggestion.target)?),
            };
            proposed.push(Proposed { service: service.clone(), suggestion, told });
        }
    }
    output.print(Answer {
        table: Box::new(|| suggest_text(&proposed)),
        json: Box::new(|| proposed.iter().map(suggest_json).collect()),
    })
}

/// Documents of OpenSLO, with what is known of each in comments.
fn suggest_text(proposed: &[Proposed]) -> String {
    let mut text = String::new();
    for Proposed { service, suggestion, told } in proposed {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        let told = told
            .as_deref()
            .map_or_else(|| "what it would have told is not known of latencies".to_owned(), told_in_words);
        let _ = writeln!(text, "# {}\n# {told}", plain(&suggestion.reason));
        text.push_str(&suggestion.yaml(&service.to_string()));
    }
    if text.is_empty() {
        text.push_str("# no service had enough requests in this time\n");
    }
    text
}

fn suggest_json(of: &Proposed) -> Value {
    let Proposed { service, suggestion, told } = of;
    let alert = |of: &Alerted| {
        json!({
            "severity": if of.page { "page" } else { "ticket" },
            "from": Timestamp::from_secs(of.from_second).to_string(),
            "until": Timestamp::from_secs(of.until_second).to_string(),
        })
    };
    json!({
        "slo": suggestion.name,
        "service": &*service.name,
        "environment": &*service.environment,
        "namespace": &*service.namespace,
        "target": suggestion.target,
        "threshold_ns": suggestion.threshold_ns,
        "reason": suggestion.reason,
        "would_have_told": told.as_ref().map(|told| told.iter().map(alert).collect::<Vec<_>>()),
        "openslo": suggestion.yaml(&service.to_string()),
    })
}

/// What an objective would have told.
fn rehearsed(
    daemon: &Daemon,
    service: &str,
    range: v1::TimeRange,
    target: f64,
) -> Result<Vec<Alerted>, Failure> {
    let series = daemon.ask(async |channel| {
        let request = v1::GetTimeSeriesRequest {
            range: Some(range),
            service: service.to_owned(),
            signal: v1::Signal::Traces as i32,
            name: String::new(),
            step_ns: 120_000_000_000,
        };
        let answer = query(channel).get_time_series(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().series)
    })?;
    let mut counts: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for point in series.iter().flat_map(|series| &series.points) {
        let second = point.start.as_ref().and_then(|at| u64::try_from(at.seconds).ok()).unwrap_or(0);
        let sum = counts.entry(second).or_default();
        let good = point.count.saturating_sub(point.errors);
        *sum = (sum.0.saturating_add(good), sum.1.saturating_add(point.count));
    }
    let counts: Vec<(u64, u64, u64)> =
        counts.into_iter().map(|(second, (good, total))| (second, good, total)).collect();
    let config = crate::slo::Config::default();
    Ok(rehearse(&counts, target, config.bad_requests, config.improbable))
}

/// What an objective would have told, in one line.
fn told_in_words(told: &[Alerted]) -> String {
    let pages = told.iter().filter(|alerted| alerted.page).count();
    let mut text = format!(
        "would have paged {} and opened {}",
        so_many(pages as u64, "time"),
        so_many((told.len() - pages) as u64, "ticket")
    );
    let times = told.iter().filter(|alerted| alerted.page).take(5);
    let times: Vec<String> =
        times.map(|alerted| Timestamp::from_secs(alerted.from_second).to_string()).collect();
    if !times.is_empty() {
        let _ = write!(text, ": {}", times.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_says_what_it_would_have_told_in_both_forms() {
        let suggestion = Suggestion {
            name: "shop-availability".into(),
            target: 0.999,
            threshold_ns: None,
            reason: "400 of 1500000 requests failed (0.027 %)".into(),
        };
        let told = vec![
            Alerted { from_second: 1_700_000_000, until_second: 1_700_000_600, page: true },
            Alerted { from_second: 1_700_100_000, until_second: 1_700_100_600, page: false },
        ];
        let service = ServiceKey::new("prod", "", "shop");
        let proposed = [
            Proposed { service: service.clone(), suggestion: suggestion.clone(), told: Some(told) },
            Proposed { service, suggestion: Suggestion { threshold_ns: Some(1), ..suggestion }, told: None },
        ];
        let text = suggest_text(&proposed);
        assert!(
            text.contains("\n# would have paged 1 time and opened 1 ticket: 2023-11-14T22:13:20Z\n"),
            "{text}"
        );
        assert!(text.contains("---\n") && text.contains("is not known of latencies"), "{text}");
        assert_eq!(crate::slo::read("a.yaml".as_ref(), &text).expect_err("two of one name").0.len(), 1);
        let json = suggest_json(&proposed[0]);
        assert_eq!(
            json["would_have_told"][0],
            json!({ "severity": "page", "from": "2023-11-14T22:13:20Z", "until": "2023-11-14T22:23:20Z" })
        );
        assert_eq!(
            (&json["service"], &json["environment"], &json["target"]),
            (&"shop".into(), &"prod".into(), &0.999.into())
        );
        let yaml = json["openslo"].as_str().expect("a text");
        assert_eq!(crate::slo::read("a.yaml".as_ref(), yaml).expect("its own words").len(), 1);
        assert_eq!(suggest_json(&proposed[1])["would_have_told"], Value::Null);
    }
}
