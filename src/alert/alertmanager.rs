//! Alertmanager, API v2.

use super::client::{Client, Posted};
use super::target::{Outcome, Target};
use super::{Alert, AlertState, Config, Error, Url};
use crate::model::Timestamp;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{StatusCode, Uri};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// An alert as `POST /api/v2/alerts` takes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Posting {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    #[serde(rename = "generatorURL", skip_serializing_if = "String::is_empty")]
    generator_url: String,
}

/// One Alertmanager.
#[derive(Debug)]
pub(super) struct Alertmanager {
    name: String,
    uri: Uri,
    client: Client,
    ends_after: Duration,
    resolved_for: Duration,
}

impl Alertmanager {
    pub(super) fn new(url: &str, config: &Config) -> Result<Self, Error> {
        let error = |why| Error::Target { key: "alertmanagers", url: url.to_owned(), why };
        let uri =
            Url::parse(url).map_err(error)?.join("/api/v2/alerts").map_err(|_| error("is not a URL"))?;
        Ok(Self {
            name: format!("alertmanager {url}"),
            uri,
            client: Client::new(config, url)?,
            ends_after: config.ends_after.0,
            resolved_for: config.resolved_for.0,
        })
    }

    /// Keeps the alert that says that this daemon is alive firing for so long.
    pub(super) async fn beat(&self, now: Timestamp, lasts: Duration) -> Posted {
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let posting = Posting {
            labels: pairs(&[("alertname", "BarographHeartbeat"), ("severity", "info")]),
            annotations: pairs(&[("summary", "Barograph is alive. When this ends, it is not.")]),
            starts_at: now,
            ends_at: now.saturating_add(lasts),
            generator_url: String::new(),
        };
        self.post(&[&posting]).await
    }

    async fn post(&self, postings: &[&Posting]) -> Posted {
        match serde_json::to_vec(postings) {
            Ok(body) => self.client.post(&self.uri, "application/json", body.into()).await,
            Err(error) => Posted::Unreachable(error.to_string()),
        }
    }

    /// The current label sets first, then the ends of those that a rise of severity replaced: the
    /// group is never without a firing alert.
    async fn tell(&self, alerts: &[Alert], now: Timestamp) -> Vec<Outcome> {
        let current: Vec<Posting> = alerts.iter().map(|alert| posting(alert, now, self.ends_after)).collect();
        let ended: Vec<Posting> = alerts.iter().flat_map(|alert| self.ended(alert, now)).collect();
        let outcomes = match self.post(&current.iter().collect::<Vec<_>>()).await {
            Posted::Status(StatusCode::BAD_REQUEST, _) if alerts.len() > 1 => {
                let mut outcomes = Vec::with_capacity(alerts.len());
                for one in &current {
                    outcomes.push(outcome(self.post(&[one]).await));
                }
                outcomes
            }
            posted => vec![outcome(posted); alerts.len()],
        };
        if ended.is_empty() || !outcomes.contains(&Outcome::Delivered) {
            return outcomes;
        }
        match outcome(self.post(&ended.iter().collect::<Vec<_>>()).await) {
            failed @ Outcome::Failed(_) => vec![failed; alerts.len()],
            _ => outcomes,
        }
    }

    fn ended<'a>(&'a self, alert: &'a Alert, now: Timestamp) -> impl Iterator<Item = Posting> + 'a {
        alert.earlier_labels().filter(move |(_, at)| now.since(*at) <= self.resolved_for).map(
            move |(labels, at)| Posting {
                labels: accepted(labels),
                ends_at: at.min(now).max(alert.starts_at),
                ..posting(alert, now, self.ends_after)
            },
        )
    }
}

impl Target for Alertmanager {
    fn name(&self) -> &str {
        &self.name
    }

    fn forgets(&self) -> bool {
        true
    }

    fn deliver<'a>(&'a self, alerts: &'a [Alert], now: Timestamp) -> BoxFuture<'a, Vec<Outcome>> {
        self.tell(alerts, now).boxed()
    }
}

fn outcome(posted: Posted) -> Outcome {
    match posted {
        Posted::Accepted => Outcome::Delivered,
        Posted::Status(status @ StatusCode::BAD_REQUEST, said) => {
            Outcome::Refused(format!("{status}: {said}"))
        }
        Posted::Status(status, said) => Outcome::Failed(format!("{status}: {said}")),
        Posted::Unreachable(why) => Outcome::Failed(why),
    }
}

fn posting(alert: &Alert, now: Timestamp, ends_after: Duration) -> Posting {
    let ends_at = match alert.state {
        AlertState::Pending | AlertState::Firing => now.saturating_add(ends_after),
        _ => alert.resolved_at.unwrap_or(now).min(now).max(alert.starts_at),
    };
    Posting {
        labels: accepted(alert.labels.clone()),
        annotations: accepted(alert.annotations.clone()),
        starts_at: alert.starts_at,
        ends_at,
        generator_url: alert.annotations.get("evidence").cloned().unwrap_or_default(),
    }
}

/// Names as every version of Alertmanager takes them: letters, digits and `_`, where OpenTelemetry
/// has dots. Empty values mean the same as none.
fn accepted(pairs: BTreeMap<String, String>) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            let mut name: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                name.insert(0, '_');
            }
            (name, value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_alertmanager_takes() {
        let pairs = [("service.name", "a"), ("9p", "b"), ("empty", ""), ("anomaly_id", "c")];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let names: Vec<String> = accepted(pairs).into_keys().collect();
        assert_eq!(names, ["_9p", "anomaly_id", "service_name"]);
    }
}
