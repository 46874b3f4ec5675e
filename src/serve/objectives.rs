//! Objectives by name, and files of them that are refused.

use super::json::data_state_name;
use super::near::near_in_words;
use super::text::{plain, span, three_digits, time};
use super::{Api, Error, from_proto};
use crate::api::v1;
use crate::model::{ServiceKey, Timestamp};
use crate::slo::WINDOWS;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

/// Files that are named where many are refused.
const FILES_NAMED: usize = 3;
/// Long windows of rules whose burn rates are shown.
const LONG_WINDOWS: [&str; 2] = ["1h", "6h"];
/// Services that are named where an objective is of many.
const SERVICES_NAMED: usize = 5;

impl Api {
    /// The budgets of all objectives, or of one, or of those of a service.
    ///
    /// # Errors
    /// `NotFound` if there is none of this name, with those that were meant.
    pub fn slos_of(&self, slo: &str, service: &str) -> Result<Vec<v1::Slo>, Error> {
        let only = self.queries.service(service)?.map(|key| super::convert::service(&key));
        let mut slos = self.slos();
        slos.retain(|of| only.is_none() || of.service == only);
        if slo.is_empty() {
            return Ok(slos);
        }
        let found: Vec<v1::Slo> = slos.iter().filter(|of| of.slo == slo).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let defined = self.sources.objectives.defined();
        if only.is_none()
            && let Some((_, service)) = defined.iter().find(|(name, _)| name == slo)
        {
            return Err(self.unknown(format!(
                "the objective {slo:?} is defined, but its service {service:?} has sent nothing yet: `barograph \
                 services` lists those that have"
            )));
        }
        let names = slos.iter().map(|of| of.slo.as_str());
        let of = if only.is_none() { String::new() } else { format!(" of {service:?}") };
        Err(self.unknown(format!("no objective {slo:?}{of}{}", near_in_words(slo, names))))
    }

    /// What is not known may stand in a file that is refused as it is now.
    fn unknown(&self, what: String) -> Error {
        let mut refused = self.refused_files();
        refused.retain(|file| !file.left_out);
        Error::NotFound(match refused_files_text(&refused) {
            none if none.is_empty() => what,
            refused => format!("{what}; {refused}"),
        })
    }

    /// Files with objectives that are refused as they are now.
    #[must_use]
    pub fn refused_files(&self) -> Vec<v1::RefusedFile> {
        self.sources.objectives.refused_files()
    }

    /// Whether there is an objective for an adjustment to take a time out of. Either name may be empty.
    ///
    /// # Errors
    /// `NotFound` if nothing is known by a name, with those that were meant.
    pub(super) fn check_adjusted(&self, slo: &str, service: &str) -> Result<(), Error> {
        let slos = self.slos();
        let defined = self.sources.objectives.defined();
        let key = |of: &v1::Slo| {
            of.service.as_ref().map(|of| ServiceKey::new(&of.environment, &of.namespace, &of.name))
        };
        let is_meant = |of: &v1::Slo| {
            service.is_empty() || key(of).is_some_and(|service_of| service_of.is_meant_by(service))
        };
        let mut names: BTreeSet<&str> =
            slos.iter().filter(|of| is_meant(of)).map(|of| of.slo.as_str()).collect();
        // What is defined for a service that sends nothing yet can be adjusted beforehand.
        let of_service = defined.iter().filter(|(_, of)| service.is_empty() || of == service);
        names.extend(of_service.map(|(name, _)| name.as_str()));
        if names.is_empty() && !service.is_empty() {
            let name =
                |of: ServiceKey| if service.contains('/') { of.to_string() } else { of.name.to_string() };
            let known: BTreeSet<String> = slos.iter().filter_map(key).map(name).collect();
            let mut near = near_in_words(service, known.iter().map(String::as_str));
            if near.is_empty() {
                let own = slos.iter().filter(|of| of.slo == slo).filter_map(key).map(|of| of.to_string());
                let mut own: BTreeSet<String> = own.collect();
                if own.is_empty() {
                    own.extend(defined.iter().filter(|(name, _)| name == slo).map(|(_, of)| of.clone()));
                }
                near = services_in_words(slo, own);
            }
            return Err(self.unknown(format!("no service {service:?} has an objective{near}")));
        }
        if slo.is_empty() || names.contains(slo) {
            return Ok(());
        }
        let of = if service.is_empty() { String::new() } else { format!(" of {service:?}") };
        Err(self.unknown(format!("no objective {slo:?}{of}{}", near_in_words(slo, names))))
    }
}

/// `; "charge-fast" is an objective of "payment"`, or nothing.
fn services_in_words(slo: &str, services: BTreeSet<String>) -> String {
    if services.is_empty() {
        return String::new();
    }
    let named: Vec<String> = services.iter().take(SERVICES_NAMED).map(|of| format!("{of:?}")).collect();
    let more = if services.len() > SERVICES_NAMED { " and others" } else { "" };
    format!("; {slo:?} is an objective of {}{more}", named.join(", "))
}

/// `2 files refused: FILE:LINE: KEY: reason; …` and what that means, in a line each; empty if none is.
#[must_use]
pub(crate) fn refused_files_text(files: &[v1::RefusedFile]) -> String {
    let mut lines = Vec::new();
    for (left_out, meaning) in
        [(false, "until then the objectives stay as they were"), (true, "the other files are taken without")]
    {
        let some: Vec<&v1::RefusedFile> = files.iter().filter(|file| file.left_out == left_out).collect();
        if some.is_empty() {
            continue;
        }
        let named: Vec<String> = some.iter().take(FILES_NAMED).map(|file| refused_file_text(file)).collect();
        let plural = if some.len() == 1 { "file" } else { "files" };
        let mut line = format!("{} {plural} refused: {}", some.len(), named.join("; "));
        if let Some(more) = some.len().checked_sub(FILES_NAMED).filter(|more| *more > 0) {
            let _ = write!(line, "; and {more} more");
        }
        lines.push(format!("{line} ({meaning})"));
    }
    lines.join("\n")
}

/// How an objective stands: `spent` if what it counts comes, but nothing is left of its budget; else what is known of
/// its data. In JSON these are told apart: what is left stands beside the state there.
#[must_use]
pub(crate) fn slo_state_name(of: &v1::Slo) -> &'static str {
    match of.state() {
        v1::DataState::Ok if of.budget_remaining_ratio <= 0.0 => "spent",
        state => data_state_name(state),
    }
}

/// How much of a window was counted, if not all of it.
fn part_seen(of: &v1::Slo, window_s: u64, now: Timestamp) -> Option<Duration> {
    let seen = now.since(from_proto(of.counted_since.as_ref()?)).max(Duration::from_secs(1));
    (seen.as_secs() < window_s).then_some(seen)
}

/// A burn rate as tables tell it.
pub(crate) struct BurnCell {
    /// `14.4×`, or `1,000× in 28s` where no more of the window was counted; `None` if it is not known.
    pub text: Option<String>,
    /// The rate by which rules go: of their long windows that over the whole, of which what came before the first count
    /// is taken to be well.
    pub judged: f64,
    /// Whether it is too fast, of less than the window.
    is_fast_part: bool,
}

impl BurnCell {
    pub fn of(of: &v1::Slo, window: &str, now: Timestamp) -> Self {
        let Some(burn) = of.burn.iter().find(|burn| burn.window == window) else {
            return Self { text: None, judged: 0.0, is_fast_part: false };
        };
        let length_s = WINDOWS.iter().find(|(name, _)| *name == window).map_or(0, |(_, seconds)| *seconds);
        let rate = format!("{}×", three_digits(burn.rate));
        match part_seen(of, length_s, now) {
            Some(seen) if burn.rate > 0.0 => Self {
                text: Some(format!("{rate} in {}", span(in_ns(seen)))),
                judged: if LONG_WINDOWS.contains(&window) {
                    burn.rate * seen.as_secs_f64() / length_s as f64
                } else {
                    burn.rate
                },
                is_fast_part: burn.rate >= 1.0,
            },
            _ => Self { text: Some(rate), judged: burn.rate, is_fast_part: false },
        }
    }
}

fn in_ns(length: Duration) -> i64 {
    i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)
}

/// What rates of windows mean that were not counted whole, by the objective that burns fastest of those; empty if none
/// burns too fast.
#[must_use]
pub(crate) fn young_text(slos: &[v1::Slo], now: Timestamp) -> String {
    let cells = slos.iter().flat_map(|of| LONG_WINDOWS.map(move |window| (of, window)));
    let young = cells.filter_map(|(of, window)| {
        let cell = BurnCell::of(of, window, now);
        cell.text.filter(|_| cell.is_fast_part).map(|text| (of, window, text, cell.judged))
    });
    // Of windows that hold the same, the shortest is judged to burn fastest.
    let Some((of, window, text, judged)) = young.max_by(|a, b| a.3.total_cmp(&b.3)) else {
        return String::new();
    };
    format!(
        "A burn rate \"in\" a time is of no more than that was counted. Of their long windows rules \
         count the whole, and take what came before to be well: {text} of {} is {}× over {window} so far",
        of.slo,
        three_digits(judged),
    )
}

/// That some objectives do not alert on their own yet, and from when on they do; empty if all do.
#[must_use]
pub(crate) fn silent_text(slos: &[v1::Slo]) -> String {
    let silent = slos.iter().filter_map(|of| of.silent_until.as_ref());
    let last = silent.clone().max_by_key(|until| (until.seconds, until.nanos));
    let count = silent.count();
    let Some(last) = last else { return String::new() };
    let (what, support) = match count {
        1 => ("1 default objective is".to_owned(), "it only supports"),
        _ => (format!("{count} default objectives are"), "they only support"),
    };
    format!(
        "{what} young: until {} {support} what else is found and alert{} nobody alone (slo.default_silent). Objectives \
         from files alert from their first minute on",
        time(Some(last)),
        if count == 1 { "s" } else { "" },
    )
}

fn refused_file_text(of: &v1::RefusedFile) -> String {
    // Names and reasons hold what stands in files; a line of it stays one.
    plain(&match of.line {
        Some(line) => format!("{}:{line}: {}: {}", of.file, of.key, of.reason),
        None => format!("{}: {}", of.file, of.reason),
    })
}

#[cfg(test)]
mod tests {
    use super::super::to_proto;
    use super::*;

    #[test]
    fn young_objectives_are_told_with_the_time_from_which_on_they_alert() {
        let of = |until: Option<i64>| v1::Slo {
            silent_until: until.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
            ..v1::Slo::default()
        };
        assert_eq!(silent_text(&[of(None)]), "");
        let one = silent_text(&[of(None), of(Some(1_700_000_000))]);
        assert!(one.starts_with("1 default objective is young: until 2023-11-14 22:13:20"), "{one}");
        assert!(one.contains("it only supports what else is found and alerts nobody alone"), "{one}");
        let two = silent_text(&[of(Some(1_700_000_600)), of(Some(1_700_000_000))]);
        assert!(two.starts_with("2 default objectives are young: until 2023-11-14 22:23:20"), "{two}");
    }

    #[test]
    fn a_young_objective_is_told_with_the_time_that_was_seen_and_what_rules_make_of_it() {
        let now = Timestamp::from_secs(1_700_000_000);
        let of = |age_s: u64, rate: f64| v1::Slo {
            slo: "shop-ok".into(),
            burn: ["5m", "1h"].map(|window| v1::Burn { window: window.into(), rate }).to_vec(),
            counted_since: Some(to_proto(now.saturating_sub(Duration::from_secs(age_s)))),
            ..v1::Slo::default()
        };
        let cell = |of: &v1::Slo, window: &str| {
            let cell = BurnCell::of(of, window, now);
            (cell.text.unwrap_or_default(), cell.judged)
        };
        let young = of(36, 1_000.0);
        assert_eq!(cell(&young, "1h"), ("1,000× in 36s".to_owned(), 10.0));
        assert_eq!(cell(&young, "6h"), (String::new(), 0.0));
        let text = young_text(&[of(36, 1.0), young], now);
        assert!(text.ends_with("1,000× in 36s of shop-ok is 10.0× over 1h so far"), "{text}");
        // Older than the one window, and than both; and nothing burns.
        assert_eq!(cell(&of(900, 3.0), "5m"), ("3.00×".to_owned(), 3.0));
        assert_eq!(cell(&of(900, 3.0), "1h"), ("3.00× in 15m 0s".to_owned(), 0.75));
        assert_eq!(young_text(&[of(3_600, 3.0), of(36, 0.0), of(36, 0.9)], now), "");
    }

    #[test]
    fn a_budget_that_is_used_up_is_spent_for_as_long_as_something_is_counted() {
        let of = |state: v1::DataState, left: f64| {
            slo_state_name(&v1::Slo {
                state: state as i32,
                budget_remaining_ratio: left,
                ..v1::Slo::default()
            })
        };
        assert_eq!(of(v1::DataState::Ok, 0.01), "ok");
        assert_eq!((of(v1::DataState::Ok, 0.0), of(v1::DataState::Ok, -535.18)), ("spent", "spent"));
        assert_eq!(of(v1::DataState::Silent, -1.0), "silent");
    }

    #[test]
    fn refused_files_are_counted_and_named() {
        let file = |number: u64, left_out| v1::RefusedFile {
            file: format!("{number}.yaml"),
            line: Some(number),
            key: "target".into(),
            reason: "is out of range".into(),
            left_out,
        };
        assert_eq!(refused_files_text(&[]), "");
        assert_eq!(
            refused_files_text(&[file(7, false)]),
            "1 file refused: 7.yaml:7: target: is out of range (until then the objectives stay as they were)"
        );
        let unread = v1::RefusedFile {
            line: None,
            key: String::new(),
            reason: "cannot be read: no such file".into(),
            ..file(8, false)
        };
        let many: Vec<_> = (1..5).map(|number| file(number, false)).chain([unread.clone()]).collect();
        let text = refused_files_text(&many);
        assert!(text.starts_with("5 files refused: 1.yaml:1: target: ") && text.contains("; and 2 more ("));
        let text = refused_files_text(&[file(1, true), unread]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("1 file refused: 8.yaml: cannot be read"), "{text}");
        assert!(lines[1].ends_with("(the other files are taken without)"), "{text}");
    }
}
