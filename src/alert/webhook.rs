//! Webhooks: a message a request. CloudEvents 1.0, structured JSON and signed if there is a secret, or the
//! form that a target's entry names.

use super::client::{Client, Posted};
use super::signature::signature;
use super::target::{Outcome, Target};
use super::template::{self, Format};
use super::{Alert, Config, Error, Url};
use crate::model::Timestamp;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::StatusCode;
use serde::Serialize;

/// An event as the specification's JSON format has it.
#[derive(Debug, Serialize)]
struct Event<'a> {
    specversion: &'static str,
    /// (anomaly, revision): the same however often it is delivered.
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    subject: &'a str,
    time: Timestamp,
    datacontenttype: &'static str,
    data: &'a Alert,
}

/// One webhook.
#[derive(Debug)]
pub(super) struct Webhook {
    name: String,
    url: Url,
    client: Client,
    source: String,
}

impl Webhook {
    pub(super) fn new(url: &str, config: &Config) -> Result<Self, Error> {
        let parsed =
            Url::parse(url).map_err(|why| Error::Target { key: "webhooks", url: url.to_owned(), why })?;
        let source = if config.external_url.is_empty() {
            "/barograph".to_owned()
        } else {
            config.external_url.clone()
        };
        let client = Client::new(config, url)?;
        Ok(Self { name: format!("webhook {url}"), url: parsed, client, source })
    }

    /// One after the other; when the peer is not there at all, the rest waits for the next attempt.
    async fn tell(&self, alerts: &[Alert], now: Timestamp) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(alerts.len());
        for alert in alerts {
            let posted = match self.message(alert, now) {
                Ok((content_type, body, headers)) => {
                    self.client.post_with(self.url.uri(), content_type, body.into(), &headers).await
                }
                Err(why) => Posted::Unreachable(why),
            };
            match posted {
                Posted::Accepted => outcomes.push(Outcome::Delivered),
                Posted::Status(status, said) if refuses(status) => {
                    outcomes.push(Outcome::Refused(format!("{status}: {said}")));
                }
                Posted::Status(status, said) => outcomes.push(Outcome::Failed(format!("{status}: {said}"))),
                Posted::Unreachable(why) => {
                    outcomes.resize(alerts.len(), Outcome::Failed(why));
                    return outcomes;
                }
            }
        }
        outcomes
    }

    /// Content type, body and headers of what is sent of an alert.
    fn message(
        &self,
        alert: &Alert,
        now: Timestamp,
    ) -> Result<(&'static str, Vec<u8>, Vec<(&'static str, String)>), String> {
        let credentials = self.client.credentials();
        let secret = credentials.secret()?;
        if credentials.format != Format::CloudEvents {
            let message = template::message(credentials.format, alert, secret.as_deref().unwrap_or_default());
            let body = serde_json::to_vec(&message).map_err(|error| error.to_string())?;
            return Ok(("application/json", body, Vec::new()));
        }
        let body = serde_json::to_vec(&self.event(alert)).map_err(|error| error.to_string())?;
        let headers = secret.map_or_else(Vec::new, |secret| {
            let id = alert.key();
            let signed = signature(&secret, &id, now, &body);
            vec![
                ("webhook-timestamp", now.secs().to_string()),
                ("webhook-signature", signed),
                ("webhook-id", id),
            ]
        });
        Ok(("application/cloudevents+json; charset=UTF-8", body, headers))
    }

    fn event<'a>(&'a self, alert: &'a Alert) -> Event<'a> {
        Event {
            specversion: "1.0",
            id: alert.key(),
            source: &self.source,
            kind: format!("barograph.alert.{}", alert.state.as_str()),
            subject: &alert.anomaly.0,
            time: alert.resolved_at.or(alert.fired_at).unwrap_or(alert.starts_at),
            datacontenttype: "application/json",
            data: alert,
        }
    }
}

/// Statuses that say something about the event, not about the moment or the address.
fn refuses(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

impl Target for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    /// An event is told once; who asks for a webhook keeps what it is told.
    fn forgets(&self) -> bool {
        false
    }

    fn deliver<'a>(&'a self, alerts: &'a [Alert], now: Timestamp) -> BoxFuture<'a, Vec<Outcome>> {
        self.tell(alerts, now).boxed()
    }
}
