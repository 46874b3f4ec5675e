//! What need not be told although it is broken: known issues, silences, recurring maintenance.
//!
//! One line of `KEY=VALUE` words, such as
//!
//! ```text
//! service=billing daily=02:00-04:00 days=sat,sun because=nightly backup
//! service=search symptom=latency until=2026-12-01T00:00:00Z because=index is being rebuilt
//! fingerprint=9f86d081884c7d65 at_most=errors:0.2 at_most=latency:5e8 because=TICKET-17, known since March
//! ```
//!
//! `service`, `environment`, `namespace`, `symptom`, `signal`, `fingerprint`, any attribute of a series and any
//! attribute of its resource that is known (`k8s.cluster.name`, see `limits.resource_attributes`) say what is meant. A
//! service of which some runs elsewhere is not meant by an attribute of its resource. `at_most` how bad it may be (in the unit of what is observed) and still be the same, for every
//! symptom or, as `SYMPTOM:VALUE`, for one of them;
//! `from`, `until` (a time, or `recovery`), `daily` (UTC) and `days` (the days on which `daily` begins) when; `because`, the last
//! word, why.

use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};

const DAY_S: u64 = 86_400;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exemption {
    scope: Vec<(String, String)>,
    /// For one symptom, or for all.
    at_most: Vec<(Option<String>, f64)>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    /// It ends when what it covers recovers.
    until_recovery: bool,
    /// First second of the day, and the one after the last; before the first if it crosses midnight.
    daily: Option<(u64, u64)>,
    days: Option<[bool; 7]>,
    because: String,
    line: String,
}

/// Most bytes of a line.
pub const LINE_BYTES: usize = 1_024;

/// Who ended an exemption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub author: String,
    pub at: Timestamp,
}

/// An exemption that somebody told while the daemon ran, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldExemption {
    /// Its id, 16 hexadecimal digits.
    pub exemption: String,
    pub line: String,
    pub author: String,
    pub told_at: Timestamp,
    pub ended: Option<Ended>,
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub service: &'a ServiceKey,
    pub symptom: &'a str,
    pub signal: &'a str,
    pub fingerprint: &'a str,
    pub attributes: &'a [(String, String)],
    /// Those attributes of its resource in which all of the service agrees.
    pub resource: &'a [(String, String)],
    pub observed: f64,
}

impl<'a> Subject<'a> {
    /// What it is, of what a scope may name.
    fn known(&self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let own = match key {
            "service" | "service.name" => Some(&*self.service.name),
            "environment" | "deployment.environment.name" | "deployment.environment" => {
                Some(&*self.service.environment)
            }
            "namespace" | "service.namespace" => Some(&*self.service.namespace),
            "symptom" => Some(self.symptom),
            "signal" => Some(self.signal),
            "fingerprint" => Some(self.fingerprint),
            _ => None,
        };
        let (attributes, resource): (&[_], &[_]) =
            if own.is_some() { (&[], &[]) } else { (self.attributes, self.resource) };
        let named = attributes.iter().chain(resource).filter(move |(name, _)| name == key);
        own.into_iter().chain(named.map(|(_, known)| known.as_str()))
    }
}

impl Exemption {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut exemption = Self { line: line.trim().to_owned(), ..Self::default() };
        let (words, because) = line.split_once("because=").ok_or("`because=` is missing, at the end")?;
        exemption.because = because.trim().to_owned();
        for word in words.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is no KEY=VALUE"))?;
            match key {
                "at_most" => exemption.at_most.push(at_most(value)?),
                "from" => exemption.from = Some(Timestamp::parse_rfc3339(value)?),
                "until" if value == "recovery" => exemption.until_recovery = true,
                "until" => exemption.until = Some(Timestamp::parse_rfc3339(value)?),
                "daily" => exemption.daily = Some(daily(value)?),
                "days" => exemption.days = Some(days(value)?),
                _ => exemption.scope.push((key.to_owned(), value.to_owned())),
            }
        }
        if exemption.scope.is_empty() {
            return Err("what is meant is missing: a service, symptom, fingerprint or attribute".to_owned());
        }
        if exemption.days.is_some() && exemption.daily.is_none() {
            exemption.daily = Some((0, DAY_S));
        }
        Ok(exemption)
    }

    /// Whether it holds at a moment.
    #[must_use]
    pub fn holds(&self, at: Timestamp) -> bool {
        if self.from.is_some_and(|from| at < from) || self.until.is_some_and(|until| at >= until) {
            return false;
        }
        let Some((first, end)) = self.daily else { return true };
        let (day, second) = (at.secs() / DAY_S, at.secs() % DAY_S);
        let begins_on = |day: u64| {
            // 1 January 1970 was a Thursday.
            self.days.is_none_or(|days| days.get(((day + 3) % 7) as usize).copied().unwrap_or(false))
        };
        if first < end {
            (first..end).contains(&second) && begins_on(day)
        } else {
            (second >= first && begins_on(day)) || (second < end && begins_on(day.saturating_sub(1)))
        }
    }

    /// Whether it is about this, and this is no worse than what is known.
    #[must_use]
    pub fn covers(&self, subject: &Subject<'_>) -> bool {
        self.elsewhere(subject).is_none() && self.exceeded(subject).is_none()
    }

    /// What of its scope this is not.
    fn elsewhere(&self, subject: &Subject<'_>) -> Option<&(String, String)> {
        self.scope.iter().find(|(key, value)| !subject.known(key).any(|known| known == value))
    }

    /// The limit that this is above.
    fn exceeded(&self, subject: &Subject<'_>) -> Option<f64> {
        let limits = self
            .at_most
            .iter()
            .filter(|(symptom, _)| symptom.as_ref().is_none_or(|symptom| symptom == subject.symptom));
        // What is no number is no better than what is known.
        limits
            .map(|(_, most)| *most)
            .find(|most| subject.observed.partial_cmp(most).is_none_or(std::cmp::Ordering::is_gt))
    }

    /// Why it does not cover this, in words, whatever the time; `None` if it does.
    #[must_use]
    pub fn why_not(&self, subject: &Subject<'_>) -> Option<String> {
        if let Some((key, value)) = self.elsewhere(subject) {
            return Some(match subject.known(key).next() {
                Some("") | None => format!("it has no {key}, or not all of it the same"),
                Some(known) => format!("{key} is {known}, not {value}"),
            });
        }
        let most = self.exceeded(subject)?;
        Some(format!("{} is more than {most}, which it may be at most", subject.observed))
    }

    /// Why it does not hold at a moment, in words; `None` if it does.
    #[must_use]
    pub fn why_not_at(&self, at: Timestamp) -> Option<String> {
        if self.holds(at) {
            return None;
        }
        Some(match (self.from, self.until) {
            (Some(from), _) if at < from => format!("it begins at {from}"),
            (_, Some(until)) if at >= until => format!("it ended at {until}"),
            _ => format!("{at} is outside of its times of the day or days of the week"),
        })
    }

    /// Names of attributes that its scope speaks of.
    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        let own = ["service", "environment", "namespace", "symptom", "signal", "fingerprint"];
        self.scope.iter().map(|(key, _)| key.as_str()).filter(move |key| !own.contains(key))
    }

    /// As it was written.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Whether it is over when what it covers recovers.
    #[must_use]
    pub const fn ends_with_recovery(&self) -> bool {
        self.until_recovery
    }

    /// Whether its time is over for good.
    #[must_use]
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.until.is_some_and(|until| at >= until)
    }

    /// Whether it speaks of one known issue, which another version of the service is not.
    #[must_use]
    pub fn is_known_issue(&self) -> bool {
        self.scope.iter().any(|(key, _)| key == "fingerprint")
    }

    /// Why.
    #[must_use]
    pub fn because(&self) -> &str {
        &self.because
    }
}

fn at_most(value: &str) -> Result<(Option<String>, f64), String> {
    let (symptom, number) = value.split_once(':').map_or((None, value), |(of, number)| (Some(of), number));
    let most = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Ok((symptom.map(str::to_owned), most))
}

fn daily(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("daily={text} is not HH:MM-HH:MM");
    let second = |time: &str| {
        let (hour, minute) = time.split_once(':')?;
        let (hour, minute): (u64, u64) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 3_600 + minute * 60)
    };
    let (first, end) = text.split_once('-').ok_or_else(wrong)?;
    let (first, end) = second(first).zip(second(end)).ok_or_else(wrong)?;
    if first == end { Err(wrong()) } else { Ok((first, end)) }
}

fn days(text: &str) -> Result<[bool; 7], String> {
    let mut days = [false; 7];
    for name in text.split(',') {
        let known = days.iter_mut().zip(DAYS).find(|(_, day)| *day == name);
        *known.ok_or_else(|| format!("{name:?} is none of {}", DAYS.join(", ")))?.0 = true;
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn maintenance_recurs_on_its_days_also_past_midnight() {
        let weekend = Exemption::parse("service=a daily=22:00-04:00 days=sat because=backup").unwrap();
        // 2024-01-06 is a Saturday.
        assert!(!weekend.holds(at("2024-01-06T21:59:59Z")));
        assert!(weekend.holds(at("2024-01-06T22:00:00Z")));
        assert!(weekend.holds(at("2024-01-07T03:59:59Z")));
        assert!(!weekend.holds(at("2024-01-07T04:00:00Z")));
        assert!(!weekend.holds(at("2024-01-07T22:30:00Z")));
        assert!(!weekend.holds(at("2024-01-06T03:00:00Z")));
        assert!(weekend.holds(at("2024-01-13T23:00:00Z")));
    }

    #[test]
    fn a_silence_ends_and_covers_what_it_says_and_no_worse() {
        let silence = "service=search tier=gold at_most=0.2 until=2024-01-02T00:00:00Z because=index work";
        let silence = Exemption::parse(silence).unwrap();
        assert!(silence.holds(at("2024-01-01T23:59:59Z")) && !silence.holds(at("2024-01-02T00:00:00Z")));
        let (search, other) = (ServiceKey::named("search"), ServiceKey::named("other"));
        let attributes = [("tier".to_owned(), "gold".to_owned())];
        let subject = |service, attributes, observed| Subject {
            service,
            symptom: "errors",
            signal: "GET /",
            fingerprint: "00",
            attributes,
            resource: &[],
            observed,
        };
        assert!(silence.covers(&subject(&search, &attributes, 0.2)));
        assert!(!silence.covers(&subject(&search, &attributes, 0.3)), "it got worse");
        assert!(!silence.covers(&subject(&other, &attributes, 0.1)));
        assert!(!silence.covers(&subject(&search, &[], 0.1)));
    }

    #[test]
    fn how_bad_it_may_be_is_said_of_each_symptom_in_its_own_unit() {
        let known = "fingerprint=00 at_most=errors:0.2 at_most=latency:3e8 because=known";
        let known = Exemption::parse(known).unwrap();
        let service = ServiceKey::named("search");
        let covers = |symptom, observed| {
            let (service, signal, fingerprint) = (&service, "GET /", "00");
            known.covers(&Subject {
                service,
                symptom,
                signal,
                fingerprint,
                attributes: &[],
                resource: &[],
                observed,
            })
        };
        assert!(covers("errors", 0.2) && !covers("errors", 0.3), "nanoseconds are no share");
        assert!(covers("latency", 3e8) && !covers("latency", 4e8));
        assert!(covers("traffic_drop", 1e12));
    }

    #[test]
    fn it_says_why_it_covers_something_not() {
        let line = "service=search tier=gold at_most=0.2 daily=02:00-04:00 because=index work";
        let exemption = Exemption::parse(line).unwrap();
        assert_eq!(exemption.line(), line);
        let (search, other) = (ServiceKey::named("search"), ServiceKey::named("other"));
        let (gold, silver) =
            ([("tier".to_owned(), "gold".to_owned())], [("tier".to_owned(), "silver".to_owned())]);
        let why_not = |service, attributes, observed| {
            let (symptom, signal, fingerprint) = ("errors", "GET /", "00");
            let subject =
                Subject { service, symptom, signal, fingerprint, attributes, resource: &[], observed };
            let why_not = exemption.why_not(&subject);
            assert_eq!(why_not.is_none(), exemption.covers(&subject));
            why_not.unwrap_or_default()
        };
        assert_eq!(why_not(&other, &gold, 0.1), "service is other, not search");
        assert_eq!(why_not(&search, &silver, 0.1), "tier is silver, not gold");
        assert_eq!(why_not(&search, &[], 0.1), "it has no tier, or not all of it the same");
        assert_eq!(why_not(&search, &gold, 0.3), "0.3 is more than 0.2, which it may be at most");
        assert_eq!(why_not(&search, &gold, 0.1), "");
        assert!(exemption.why_not_at(at("2024-01-01T04:00:00Z")).unwrap().contains("times of the day"));
        assert_eq!(exemption.why_not_at(at("2024-01-01T03:00:00Z")), None);
        let over = Exemption::parse("service=a until=2024-01-01T00:00:00Z because=x").unwrap();
        let told = over.why_not_at(at("2024-01-02T00:00:00Z")).unwrap();
        assert!(told.starts_with("it ended at 2024-01-01"), "{told}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("service=a", "because"),
            ("because=all", "what is meant"),
            ("service=a daily=2-4 because=x", "HH:MM"),
            ("service=a daily=25:00-26:00 because=x", "HH:MM"),
            ("service=a days=sunday because=x", "none of"),
            ("service=a at_most=lots because=x", "number"),
            ("service=a at_most=errors:lots because=x", "number"),
            ("service=a soon because=x", "KEY=VALUE"),
        ] {
            let error = Exemption::parse(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
