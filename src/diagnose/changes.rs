//! Causes that are told as a deploy: by when it was, to what, and whether its version is worse.

use super::clue::Mechanism;
use super::evidence::{Cause, CauseKind};
use super::explain::Explanation;
use super::other_clues::is_worse;
use super::redact::Redaction;
use super::rows::Rows;
use crate::context::{Change, ChangeKind, SUSPECT_FOR};
use crate::detect::Interval;
use crate::model::ServiceKey;
use std::collections::BTreeSet;
use std::time::Duration;

/// Changes this long before the onset are shown.
const SHOWN_BEFORE: Duration = Duration::from_secs(1_800);
/// A new version may be noticed a little after what it caused.
const NOTICED_LATE: Duration = Duration::from_secs(30);
const SHOWN_AT_MOST: usize = 20;
/// So many new versions of a service are looked at: more are no versions.
const VERSIONS_AT_MOST: usize = 8;

/// Changes up to half an hour before the onset, or just after it, latest first.
#[must_use]
pub fn recent(changes: &[Change], onset: &Interval, redaction: &Redaction) -> Vec<Change> {
    let (from, to) = (onset.earliest.saturating_sub(SHOWN_BEFORE), onset.latest.saturating_add(NOTICED_LATE));
    let within = changes.iter().filter(|change| change.at >= from && change.at <= to);
    let mut found: Vec<Change> = within.map(|change| redaction.change(change)).collect();
    found.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.id.0.cmp(&b.id.0)));
    found.truncate(SHOWN_AT_MOST);
    found
}

/// A suspect that was deployed shortly before it broke is suspect for that, unless its new version is seen and is no
/// worse than what else ran.
pub fn suspect(found: &mut Explanation, changes: &[Change], onset: &Interval, [healthy, faulty]: [&Rows; 2]) {
    let from = onset.earliest.saturating_sub(SUSPECT_FOR);
    let with_worse_version: BTreeSet<&ServiceKey> = found
        .suspects
        .iter()
        .filter(|suspect| suspect.clues.iter().any(|clue| clue.mechanism == Mechanism::Version))
        .map(|suspect| &suspect.service)
        .collect();
    for cause in &mut found.causes {
        if !matches!(cause.kind, CauseKind::Code | CauseKind::Deploy) {
            continue;
        }
        let service = ServiceKey::new(&cause.environment, &cause.namespace, &cause.service);
        let is_worse_version = with_worse_version.contains(&service);
        let is_suspect = |change: &&Change| {
            let is_deploy = change.kind == ChangeKind::Deploy && change.at >= from && is_of(change, cause);
            // That a version is worse is seen; only where nothing of it is seen does the time speak alone.
            let noticed_late = change.inferred && is_worse_version;
            let is_before = change.at <= onset.latest || noticed_late;
            is_deploy && is_before && (is_worse_version || may_be_worse(change, &service, healthy, faulty))
        };
        if let Some(change) = changes.iter().find(is_suspect) {
            cause.kind = CauseKind::Deploy;
            cause.reasons.push(format!("deployed just before: {}", change.title));
        }
    }
}

/// Whether a change is of the cause's service; what it does not say of namespace and environment fits any.
fn is_of(change: &Change, cause: &Cause) -> bool {
    let fits = |told: &str, seen: &str| told.is_empty() || seen.is_empty() || told == seen;
    change.service.as_ref().is_some_and(|service| {
        *service.name == *cause.service
            && fits(&service.namespace, &cause.namespace)
            && fits(&service.environment, &cause.environment)
    })
}

/// Whether nothing that is seen of the version that was deployed says that it is as good as others.
fn may_be_worse(change: &Change, service: &ServiceKey, healthy: &Rows, faulty: &Rows) -> bool {
    let seen = |version: &str| is_worse(service, version, &healthy.spans, &faulty.spans);
    match &change.version {
        Some(version) if !version.is_empty() => seen(version).unwrap_or(true),
        // Which one is new is seen by when it is seen first.
        _ => {
            let of_service = |rows: &Rows, is_old: bool| -> BTreeSet<std::sync::Arc<str>> {
                let spans = rows.spans.iter().filter(|span| span.service() == service);
                let wanted = spans.filter(|span| !is_old || span.end < change.at);
                wanted.map(|span| span.resource.version.clone()).collect()
            };
            let (now, mut before) = (of_service(faulty, false), of_service(healthy, true));
            before.extend(of_service(faulty, true));
            let new = now.difference(&before).filter(|version| !version.is_empty()).take(VERSIONS_AT_MOST);
            let mut is_any_seen = false;
            for version in new {
                match seen(version) {
                    Some(true) => return true,
                    Some(false) => is_any_seen = true,
                    None => {}
                }
            }
            !is_any_seen
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::ChangeId;
    use crate::diagnose::{Resource, SpanRow, Status};
    use crate::model::{SpanId, SpanKind, Timestamp, TraceId};
    use std::sync::Arc;

    const ONSET_S: u64 = 1_000_000;

    /// Spans of one service that end from `from` on, one each second: of this version, of which one in `one_in` fails.
    fn spans(from: u64, count: u64, version: &str, one_in: u64) -> Vec<SpanRow> {
        let resource = Arc::new(Resource {
            service: ServiceKey::new("production", "shop", "billing"),
            instance: "".into(),
            version: version.into(),
            host: "".into(),
            attributes: Vec::new(),
        });
        let span = |number: u64| SpanRow {
            trace: TraceId::NONE,
            span: SpanId::NONE,
            parent: SpanId::NONE,
            resource: resource.clone(),
            operation: "POST /bill".into(),
            kind: SpanKind::Server,
            start: Timestamp::from_secs(from + number),
            end: Timestamp::from_secs(from + number),
            status: if number % one_in == one_in - 1 { Status::Error } else { Status::Ok },
            message: "".into(),
            attributes: Vec::new(),
        };
        (0..count).map(span).collect()
    }

    fn deploy(environment: &str, at: u64, version: Option<&str>) -> Change {
        Change {
            id: ChangeId("1".into()),
            at: Timestamp::from_secs(at),
            service: Some(ServiceKey::new(environment, "", "billing")),
            kind: ChangeKind::Deploy,
            title: "billing 1.0 → 2.0".into(),
            inferred: false,
            version: version.map(str::to_owned),
        }
    }

    /// Whether a cause in the code is told as this deploy.
    fn is_told(change: &Change, healthy: Vec<SpanRow>, faulty: Vec<SpanRow>) -> bool {
        let service = ServiceKey::new("production", "shop", "billing");
        let mut cause = crate::diagnose::blame::inconclusive(&service, None, "fails".into(), Vec::new());
        cause.kind = CauseKind::Code;
        let mut found = Explanation { causes: vec![cause], ..Explanation::default() };
        let onset =
            Interval { earliest: Timestamp::from_secs(ONSET_S), latest: Timestamp::from_secs(ONSET_S + 2) };
        let [healthy, faulty] = [healthy, faulty].map(|spans| Rows { spans, ..Rows::default() });
        suspect(&mut found, std::slice::from_ref(change), &onset, [&healthy, &faulty]);
        assert_eq!(found.causes[0].kind == CauseKind::Deploy, !found.causes[0].reasons.is_empty());
        found.causes[0].kind == CauseKind::Deploy
    }

    #[test]
    fn a_deploy_is_told_where_its_version_is_worse_and_not_where_it_is_as_good() {
        let before = || spans(ONSET_S - 300, 300, "1.0", 100);
        let both =
            |old: u64, new: u64| [spans(ONSET_S, 60, "1.0", old), spans(ONSET_S, 60, "2.0", new)].concat();
        for version in [Some("2.0"), None] {
            let change = deploy("production", ONSET_S - 10, version);
            assert!(is_told(&change, before(), both(60, 2)), "{version:?}: the new one alone fails");
            assert!(!is_told(&change, before(), both(2, 2)), "{version:?}: both fail");
            assert!(!is_told(&change, before(), both(2, 60)), "{version:?}: the old one alone fails");
            assert!(
                is_told(&change, before(), spans(ONSET_S, 60, "2.0", 2)),
                "{version:?}: only the new one runs"
            );
            let without = [spans(ONSET_S - 300, 300, "", 100), spans(ONSET_S, 60, "", 2)];
            let [healthy, faulty] = without;
            assert!(is_told(&change, healthy, faulty), "{version:?}: no version is seen");
        }
    }

    #[test]
    fn a_deploy_elsewhere_or_after_the_onset_is_not_told() {
        let told = |environment, at| {
            let change = deploy(environment, at, None);
            is_told(&change, spans(ONSET_S - 300, 300, "", 100), spans(ONSET_S, 60, "", 2))
        };
        assert!(told("production", ONSET_S + 2) && told("", ONSET_S - 599));
        assert!(!told("staging", ONSET_S - 10), "of another environment");
        assert!(!told("production", ONSET_S + 3), "after it began");
        assert!(!told("production", ONSET_S - 601), "long before");
    }
}
