//! A collector as its author wrote it.

use crate::diagnose::{Cause, CauseKind};
use crate::settings::{ByteSize, Seconds, Setting};
use http::Uri;
use serde::Serialize;
use std::time::Duration;
use toml::Value;

/// Whom a collector asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An HTTP hook: is posted what broke, as JSON.
    Url(Uri),
    /// A program and its arguments: finds what broke in its environment.
    Command(Vec<String>),
}

/// A collector as its author wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    pub name: String,
    pub asked: Asked,
    /// Runs where this service is the most likely cause, or the one that alarmed; else for every service.
    pub service: Option<String>,
    /// Runs for this class of the most likely cause; else for every class.
    pub kind: Option<CauseKind>,
    /// After so long it is broken off.
    pub timeout: Duration,
    /// Of what it says, so much is kept.
    pub max_bytes: usize,
    /// What it writes to standard output, or answers, may be no text, and is then kept as it comes, not redacted.
    pub binary: bool,
}

/// What broke, as a collector is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    pub anomaly: String,
    pub service: String,
    pub environment: String,
    pub namespace: String,
    pub kind: &'static str,
    pub operation: String,
}

impl Told {
    #[must_use]
    pub fn of(anomaly: &str, cause: &Cause) -> Self {
        Self {
            anomaly: anomaly.to_owned(),
            service: cause.service.clone(),
            environment: cause.environment.clone(),
            namespace: cause.namespace.clone(),
            kind: cause.kind.as_str(),
            operation: cause.operation.clone().unwrap_or_default(),
        }
    }
}

impl Collector {
    /// Whether it is to run for this cause of an alarm of this service.
    #[must_use]
    pub fn is_for(&self, cause: &Cause, alarmed: &str) -> bool {
        let service = self.service.as_deref();
        service.is_none_or(|service| service == cause.service || service == alarmed)
            && self.kind.is_none_or(|kind| kind == cause.kind)
    }

    /// The file in the bundle that holds what it said, as far as that is text or not.
    #[must_use]
    pub(super) fn file(&self, extension: &str) -> String {
        format!("collected-{}.{extension}", self.name)
    }
}

const KEYS: [&str; 8] = ["name", "url", "command", "service", "kind", "timeout", "max_bytes", "binary"];
/// What takes longer than half a minute is added to the complete evidence later; what takes longer than this tells of
/// something else.
const LONGEST: Duration = Duration::from_secs(300);

impl Setting for Collector {
    fn read(value: &Value) -> Result<Self, String> {
        let table = value.as_table().ok_or_else(|| format!("{value} is no table of a collector"))?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!("{key}: unknown key of a collector, known are {}", KEYS.join(", ")));
        }
        let wrong = |key: &'static str| move |wrong: String| format!("{key}: {wrong}");
        let text = |key: &'static str| table.get(key).map(String::read).transpose().map_err(wrong(key));
        let name = text("name")?.ok_or("name: is missing")?;
        let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 50 || !name.chars().all(is_good) {
            return Err(format!("name: {name:?} has no 1 to 50 of a-z, A-Z, 0-9, - and _"));
        }
        let command = table.get("command").map(Vec::<String>::read).transpose().map_err(wrong("command"))?;
        let asked = match (text("url")?, command) {
            (Some(url), None) => {
                let uri: Uri = url.parse().map_err(|_| format!("url: {url:?} is no URL"))?;
                if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty)
                {
                    return Err(format!("url: {url:?} is no http:// or https:// URL of a host"));
                }
                Asked::Url(uri)
            }
            (None, Some(command)) if command.first().is_some_and(|program| !program.is_empty()) => {
                Asked::Command(command)
            }
            _ => return Err(format!("url, command: {name:?} has to have one of the two")),
        };
        let kind = text("kind")?.map(|text| CauseKind::parse(&text).ok_or(text)).transpose();
        let timeout = table.get("timeout").map(Seconds::read).transpose().map_err(wrong("timeout"))?;
        let timeout = timeout.map_or(Duration::from_secs(10), |timeout| timeout.0);
        if timeout.is_zero() || timeout > LONGEST {
            return Err(format!("timeout: of {name:?} is none of 1 s to {} s", LONGEST.as_secs()));
        }
        let bytes = table.get("max_bytes").map(ByteSize::read).transpose().map_err(wrong("max_bytes"))?;
        let max_bytes = bytes.map_or(1 << 20, |bytes| bytes.0);
        if !(1..=16 << 20).contains(&max_bytes) {
            return Err(format!("max_bytes: of {name:?} is none of 1 B to 16 MiB"));
        }
        Ok(Self {
            asked,
            service: text("service")?,
            kind: kind.map_err(|text| format!("kind: {text:?} is no class of causes"))?,
            timeout,
            max_bytes: usize::try_from(max_bytes).unwrap_or(1 << 20),
            binary: table
                .get("binary")
                .map(bool::read)
                .transpose()
                .map_err(wrong("binary"))?
                .unwrap_or(false),
            name,
        })
    }

    fn show(&self) -> String {
        match &self.asked {
            Asked::Url(url) => format!("{{ name = {:?}, url = {:?} }}", self.name, url.to_string()),
            Asked::Command(command) => format!("{{ name = {:?}, command = {command:?} }}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Collector, String> {
        Collector::read(&text.parse().unwrap())
    }

    #[test]
    fn a_table_is_read_with_its_defaults() {
        let dump = read(r#"{ name = "dump", url = "http://127.0.0.1:9/dump", kind = "database" }"#).unwrap();
        assert_eq!((dump.timeout.as_secs(), dump.max_bytes, dump.binary), (10, 1 << 20, false));
        assert_eq!(dump.kind, Some(CauseKind::Database));
        let explain = read(
            r#"{ name = "e", command = ["/bin/e", "-x"], timeout = "2s", max_bytes = "4 KiB", binary = true }"#,
        );
        let explain = explain.unwrap();
        assert_eq!(explain.asked, Asked::Command(vec!["/bin/e".into(), "-x".into()]));
        assert_eq!((explain.timeout.as_secs(), explain.max_bytes, explain.binary), (2, 4_096, true));
    }

    #[test]
    fn mistakes_name_their_key() {
        for (text, wrong) in [
            (r#"{ url = "http://a/" }"#, "name: is missing"),
            (r#"{ name = "../a", url = "http://a/" }"#, "name: "),
            (r#"{ name = "a" }"#, "url, command: "),
            (r#"{ name = "a", url = "http://a/", command = ["b"] }"#, "url, command: "),
            (r#"{ name = "a", command = [] }"#, "url, command: "),
            (r#"{ name = "a", url = "ftp://a/" }"#, "url: "),
            (r#"{ name = "a", url = "http://a/", kind = "weather" }"#, "kind: "),
            (r#"{ name = "a", url = "http://a/", timeout = "301s" }"#, "timeout: "),
            (r#"{ name = "a", url = "http://a/", max_bytes = "1 GiB" }"#, "max_bytes: "),
            (r#"{ name = "a", url = "http://a/", evry = "5s" }"#, "evry: unknown"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(wrong), "{text}: {error}");
        }
    }
}
