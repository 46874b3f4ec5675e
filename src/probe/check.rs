//! A check as its author wrote it.

use super::span::NAMESPACE;
use super::target::Target;
use crate::model::ServiceKey;
use crate::settings::{Seconds, Setting};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use toml::Value;

/// A check as its author wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    pub name: String,
    pub target: Target,
    /// `[ENVIRONMENT/][NAMESPACE/]NAME` of the service whose work it is; `""` if nobody said.
    pub service: String,
    /// Deployment environment that its spans are of.
    pub environment: String,
    pub every: Duration,
    /// After so long without an answer it has failed.
    pub timeout: Duration,
    /// Of so many runs and one more, so many that failed page.
    pub failures: u64,
    /// Share of runs that have to be good, from 0 and below 1.
    pub objective: f64,
    /// HTTP statuses that are good.
    pub statuses: RangeInclusive<u16>,
    /// What the beginning of an HTTP answer has to hold.
    pub contains: Option<String>,
    /// Authorities to trust instead of the system's, in a PEM file.
    pub ca_file: Option<PathBuf>,
}

impl Check {
    /// The service that its runs are counted for.
    #[must_use]
    pub fn runs_as(&self) -> ServiceKey {
        ServiceKey::new(&self.environment, NAMESPACE, &self.name)
    }
}

const KEYS: [&str; 11] = [
    "name",
    "url",
    "service",
    "environment",
    "every",
    "timeout",
    "failures",
    "target",
    "statuses",
    "contains",
    "ca_file",
];

impl Setting for Check {
    fn read(value: &Value) -> Result<Self, String> {
        let table = value.as_table().ok_or_else(|| format!("{value} is no table of a check"))?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!("{key}: unknown key of a check, known are {}", KEYS.join(", ")));
        }
        let text = |key: &str| match table.get(key) {
            None => Ok(None),
            Some(value) => String::read(value).map(Some).map_err(|wrong| format!("{key}: {wrong}")),
        };
        let seconds = |key: &str, default: u64, range: RangeInclusive<u64>| match table.get(key) {
            None => Ok(Duration::from_secs(default)),
            Some(value) => match Seconds::read(value) {
                Ok(length) if range.contains(&length.0.as_secs()) => Ok(length.0),
                Ok(_) => Err(format!("{key}: is out of range, {} s to {} s", range.start(), range.end())),
                Err(wrong) => Err(format!("{key}: {wrong}")),
            },
        };
        let name = text("name")?.ok_or("name: is missing")?;
        if name.is_empty() || name.len() > 100 || name.contains('/') {
            return Err(format!("name: {name:?} has no 1 to 100 bytes without a slash"));
        }
        let url = text("url")?.ok_or_else(|| format!("url: is missing of {name:?}"))?;
        let target = Target::parse(&url).map_err(|wrong| format!("url: {url:?} {wrong}"))?;
        let every = seconds("every", 30, 1..=86_400)?;
        let timeout = seconds("timeout", every.as_secs().min(10), 1..=60)?;
        if timeout > every {
            return Err(format!("timeout: of {name:?} is longer than every"));
        }
        let failures = table.get("failures").map_or(Ok(3), u64::read).ok().filter(|n| (1..=100).contains(n));
        let objective = table.get("target").map_or(Ok(0.99), f64::read).ok();
        let statuses = match table.get("statuses").map(Value::as_array) {
            None => Some(200..=399),
            Some(bounds) => bounds.and_then(|bounds| match bounds.as_slice() {
                [one] => one.as_integer().and_then(|one| u16::try_from(one).ok()).map(|one| one..=one),
                [low, high] => {
                    let bound =
                        |value: &Value| value.as_integer().and_then(|bound| u16::try_from(bound).ok());
                    Some(bound(low)?..=bound(high)?)
                }
                _ => None,
            }),
        };
        Ok(Self {
            target,
            service: text("service")?.unwrap_or_default(),
            environment: text("environment")?.unwrap_or_default(),
            every,
            timeout,
            failures: failures.ok_or_else(|| format!("failures: of {name:?} is none of 1 to 100"))?,
            objective: objective
                .filter(|target| (0.0..=0.99999).contains(target))
                .ok_or_else(|| format!("target: of {name:?} is not within 0 to 0.99999"))?,
            statuses: statuses
                .filter(|range| !range.is_empty())
                .ok_or_else(|| format!("statuses: of {name:?} is neither [STATUS] nor [LOWEST, HIGHEST]"))?,
            contains: text("contains")?,
            ca_file: text("ca_file")?.map(PathBuf::from),
            name,
        })
    }

    fn show(&self) -> String {
        format!("{{ name = {:?}, url = {:?} }}", self.name, self.target.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Config;

    fn read(text: &str) -> Result<Check, String> {
        Check::read(&text.parse().unwrap())
    }

    #[test]
    fn a_table_is_read_with_its_defaults() {
        let check = read(r#"{ name = "shop", url = "http://shop/", every = "5s", statuses = [200, 204] }"#);
        let check = check.unwrap();
        assert_eq!((check.every.as_secs(), check.timeout.as_secs(), check.failures), (5, 5, 3));
        assert_eq!((check.statuses, check.objective), (200..=204, 0.99));
    }

    #[test]
    fn mistakes_name_their_key() {
        for (text, wrong) in [
            (r#"{ url = "http://shop/" }"#, "name: is missing"),
            (r#"{ name = "a" }"#, "url: is missing"),
            (r#"{ name = "a", url = "x://" }"#, "url: "),
            (r#"{ name = "a", url = "http://a/", evry = "5s" }"#, "evry: unknown"),
            (r#"{ name = "a", url = "http://a/", every = "5s", timeout = "6s" }"#, "timeout: "),
            (r#"{ name = "a", url = "http://a/", target = 1.0 }"#, "target: "),
            (r#"{ name = "a", url = "http://a/", statuses = [] }"#, "statuses: "),
            (r#"{ name = "a", url = "http://a/", failures = 0 }"#, "failures: "),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(wrong), "{text}: {error}");
        }
        let twice = r#"[{ name = "a", url = "dns:a" }, { name = "a", url = "dns:b" }]"#.parse().unwrap();
        assert!(Config::default().set("checks", &twice).unwrap_err().contains("names of their own"));
    }
}
