//! Keys of the section `alert`.

use super::Url;
use crate::confirm::Severity;
use crate::settings::Seconds;
use std::path::PathBuf;
use std::time::Duration;

crate::settings! {
    /// Who is told of alerts, how often, and where the links in them lead.
    pub struct Config in "alert" {
        /// Base URLs of Alertmanagers; alerts are posted to `URL/api/v2/alerts` of each.
        alertmanagers: Vec<String> = Vec::new(), "a list of http[s]://HOST[:PORT][/PATH] URLs",
            |urls| urls.iter().all(|url| Url::parse(url).is_ok());
        /// URLs that get each change of an alert as a CloudEvents 1.0 event, once, repeated until it
        /// is acknowledged with a 2xx status.
        webhooks: Vec<String> = Vec::new(), "a list of http[s]://HOST[:PORT][/PATH] URLs",
            |urls| urls.iter().all(|url| Url::parse(url).is_ok());
        /// TOML file of what targets are shown and trusted for: `[[target]]` with `url` as it stands in one of
        /// the lists, and if they are needed `token_file` (a bearer token), `ca_file` (authorities to trust
        /// instead of the system's), `cert_file` and `key_file` (a client certificate), `format` (cloudevents,
        /// slack, pagerduty or goalert) and `secret_file` (what CloudEvents are signed with, as Standard
        /// Webhooks says, or PagerDuty's routing key).
        targets_file: Option<PathBuf> = None, "a readable file";
        /// URLs that get a POST every 30 s as long as what arrives is judged and alerts are told: for a dead-man
        /// receiver that tells when it stays away.
        heartbeat_urls: Vec<String> = Vec::new(), "a list of http[s]://HOST[:PORT][/PATH] URLs",
            |urls| urls.iter().all(|url| Url::parse(url).is_ok());
        /// Keeps an alert `BarographHeartbeat` firing at every Alertmanager, for a route that tells when it
        /// ends. Set up the route of docs/alertmanager.md first, or it is told as an alert like any other.
        heartbeat_alert: bool = false, "true or false";
        /// The lowest severity that targets are told of.
        minimum_severity: String = "ticket".to_owned(), "info, ticket or page",
            |text| severity(text).is_some();
        /// How long a confirmed anomaly waits for its suspected cause before it is told without it.
        cause_wait: Seconds = Seconds(Duration::from_secs(3)), "0s to 60s",
            |wait| wait.0 <= Duration::from_secs(60);
        /// How often Alertmanagers are told again.
        resend: Seconds = Seconds(Duration::from_secs(60)), "100ms to 1h",
            |every| (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&every.0);
        /// After how long without news from here an Alertmanager ends an alert by itself; several
        /// times `resend`.
        ends_after: Seconds = Seconds(Duration::from_secs(240)), "1s to 1d",
            |after| (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&after.0);
        /// How long Alertmanagers are told again that an alert has ended.
        resolved_for: Seconds = Seconds(Duration::from_secs(900)), "0s to 1d",
            |length| length.0 <= Duration::from_secs(86_400);
        /// How long a target may take to answer. One that hangs hears of what waits at most so long after it is back.
        timeout: Seconds = Seconds(Duration::from_secs(4)), "100ms to 60s",
            |length| (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&length.0);
        /// The URL under which people reach this daemon's page, for the links in alerts. Empty: the
        /// address of `listen.http`.
        external_url: String = String::new(), "a URL";
        /// Where somebody who is told finds what to do; `{service}`, `{namespace}`, `{environment}` and
        /// `{symptom}` stand for those of the alert. Empty: alerts name no runbook.
        runbook_url: String = String::new(), "a URL";
    }
}

/// A severity by its name.
fn severity(text: &str) -> Option<Severity> {
    [Severity::Info, Severity::Ticket, Severity::Page].into_iter().find(|severity| severity.as_str() == text)
}

impl Config {
    /// The lowest severity that targets are told of.
    #[must_use]
    pub fn minimum(&self) -> Severity {
        severity(&self.minimum_severity).unwrap_or(Severity::Ticket)
    }
}
