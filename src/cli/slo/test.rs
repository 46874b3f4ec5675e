//! `barograph slo test`.

use super::read;
use crate::app::{Backtest, Config};
use crate::cli::failure::Failure;
use crate::cli::output::{Answer, Output};
use crate::serve::text::plain;
use crate::slo::{Counted, share_in_words};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Shows what the objectives of a file would have told about past data.
#[derive(Debug, Args)]
pub(super) struct Test {
    /// A file or directory with objectives.
    file: PathBuf,
    /// A recording, or the directory of a daemon that has stopped; may be repeated.
    #[arg(long = "backtest", required = true, value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
}

pub(super) fn run(arguments: Test, output: &Output) -> Result<(), Failure> {
    let Test { file, recordings } = arguments;
    let taken = read(std::slice::from_ref(&file))?;
    if taken.definitions.is_empty() {
        let why = taken.empty.first().map_or_else(
            || format!("{}: holds no .yaml and no .yml file", file.display()),
            ToString::to_string,
        );
        return Err(Failure::usage(plain(&why)));
    }
    let set = [format!("slo.files=[{:?}]", file.display().to_string()), "slo.default=false".to_owned()];
    let config = Config::load(None, &set).map_err(|error| Failure::usage(error.to_string()))?;
    let out = std::env::temp_dir().join(format!("barograph-slo-test-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let backtest = Backtest { inputs: recordings, out: out.clone(), scores: false, templates: false };
    let done = backtest.run(&config).map_err(|error| Failure::failed(error.to_string()));
    let tested = done.and_then(|outcome| {
        Ok((burns(&std::fs::read_to_string(out.join("anomalies.jsonl"))?)?, outcome.counted))
    });
    let _ = std::fs::remove_dir_all(&out);
    let (burns, counted) = tested?;
    let told = burns.iter().flat_map(|burned| burned.slos.iter().map(String::as_str)).collect();
    let counted = counted_text(&counted, &told);
    output.print(Answer {
        table: Box::new(|| burns_text(&burns) + &counted),
        json: Box::new(|| {
            // Its rows are what was told alone.
            let _ = std::io::stderr().write_all(counted.as_bytes());
            burns.iter().map(burn_json).collect()
        }),
    })
}

/// What was counted, a line for each objective; of those that were not `told`, why not.
fn counted_text(counted: &[Counted], told: &BTreeSet<&str>) -> String {
    let mut text = String::new();
    for Counted { slo, service, good, total, left, untold } in counted {
        let name = match service {
            Some(service) => format!("{slo} of {service}"),
            None => slo.clone(),
        };
        let what = match (service, total) {
            (None, _) => "nothing was counted, for its service sent nothing".to_owned(),
            (Some(_), 0) => "nothing was counted, though its service sent something".to_owned(),
            (Some(_), total) => {
                let why = untold.as_ref().filter(|_| !told.contains(slo.as_str()));
                format!(
                    "{good} of {total} were good, {}{}",
                    left_in_words(*left),
                    why.map(|why| format!("; no alert: {why}")).unwrap_or_default()
                )
            }
        };
        let _ = writeln!(text, "{}", plain(&format!("{name}: {what}")));
    }
    text
}

/// `7.3 % of the budget left at the end`, or by how much of it more than all was spent.
fn left_in_words(left: f64) -> String {
    if left < 0.0 {
        format!("the budget overspent by {} of it", share_in_words(-left))
    } else {
        format!("{} of the budget left at the end", share_in_words(left))
    }
}

/// An anomaly in which budgets burned.
struct Burned {
    anomaly: Value,
    slos: BTreeSet<String>,
}

/// The burning budgets among anomalies.
fn burns(anomalies: &str) -> Result<Vec<Burned>, Failure> {
    let mut burns = Vec::new();
    for line in anomalies.lines() {
        let anomaly: Value =
            serde_json::from_str(line).map_err(|error| Failure::failed(error.to_string()))?;
        let members = anomaly.get("signals").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_burn = |of: &Value| of.get("symptom").is_some_and(|symptom| symptom == "budget_burn");
        let burning = members.iter().filter(|member| is_burn(member));
        let slos: BTreeSet<String> =
            burning.filter_map(|member| Some(member.get("metric")?.as_str()?.to_owned())).collect();
        if !slos.is_empty() || is_burn(&anomaly) {
            burns.push(Burned { anomaly, slos });
        }
    }
    Ok(burns)
}

fn burns_text(burns: &[Burned]) -> String {
    let mut text = String::new();
    for Burned { anomaly, slos } in burns {
        let of = |key: &str| plain(anomaly.get(key).and_then(Value::as_str).unwrap_or("-"));
        let names = slos.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "{}  {}  {}  {names}", of("fired_at"), of("severity"), of("service"));
    }
    if text.is_empty() {
        text.push_str("no alert on a budget would have fired\n");
    }
    text
}

fn burn_json(of: &Burned) -> Value {
    let mut row = serde_json::Map::new();
    for key in ["fired_at", "resolved_at", "severity", "service", "environment", "namespace", "title"] {
        row.insert(key.to_owned(), of.anomaly.get(key).cloned().unwrap_or(Value::Null));
    }
    row.insert("slos".to_owned(), json!(of.slos));
    Value::Object(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceKey;

    #[test]
    fn a_test_says_what_was_counted() {
        let of = |service: Option<&str>, good, total| Counted {
            slo: "a\nb".into(),
            service: service.map(ServiceKey::named),
            good,
            total,
            left: if good < total { -4.0 } else { 1.0 },
            untold: (good < total).then(|| "too\nbriefly".to_owned()),
        };
        let counted = [of(Some("shop"), 9, 10), of(Some("shop"), 10, 10)];
        assert_eq!(
            counted_text(&counted, &BTreeSet::new()),
            "a\\u{a}b of shop: 9 of 10 were good, the budget overspent by 400 % of it; no alert: too\\u{a}briefly\n\
             a\\u{a}b of shop: 10 of 10 were good, 100 % of the budget left at the end\n"
        );
        assert!(!counted_text(&counted, &["a\nb"].into()).contains("no alert"), "it was told");
        assert_eq!(
            counted_text(&[of(Some("shop"), 0, 0), of(None, 0, 0)], &BTreeSet::new()),
            "\
             a\\u{a}b of shop: nothing was counted, though its service sent something\n\
             a\\u{a}b: nothing was counted, for its service sent nothing\n"
        );
    }

    #[test]
    fn only_anomalies_in_which_budgets_burned_are_shown() {
        let line = |symptom: &str, member: &str| {
            json!({
                "fired_at": "2026-12-01T00:00:00Z", "resolved_at": null, "severity": "page", "service": "shop",
                "environment": "", "namespace": "", "title": "shop: fails", "symptom": symptom,
                "signals": [{ "symptom": member, "metric": "shop-ok" }],
            })
        };
        let lines = format!("{}\n{}\n", line("errors", "budget_burn"), line("errors", "errors"));
        let found = burns(&lines).expect("JSON");
        assert_eq!(burns_text(&found), "2026-12-01T00:00:00Z  page  shop  shop-ok\n");
        let [one] = found.as_slice() else { panic!("one of them") };
        let json = burn_json(one);
        assert_eq!(
            (&json["slos"], &json["title"], &json["resolved_at"]),
            (&json!(["shop-ok"]), &"shop: fails".into(), &Value::Null)
        );
        assert_eq!(burns_text(&burns("").expect("nothing")), "no alert on a budget would have fired\n");
        assert_eq!(burns("{").err().map(|failure| failure.code), Some(1));
    }
}
