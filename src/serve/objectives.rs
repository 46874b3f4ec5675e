//! Objectives by name, and files of them that are refused.

use super::near::near_in_words;
use super::text::{plain, time};
use super::{Api, Error};
use crate::api::v1;
use crate::model::ServiceKey;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Files that are named where many are refused.
const FILES_NAMED: usize = 3;
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
                let own = own.chain(defined.iter().filter(|(name, _)| name == slo).map(|(_, of)| of.clone()));
                near = services_in_words(slo, own.collect());
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
