//! What windows counted of what an anomaly is about, for the charts of its evidence.

use crate::aggregate::{Cell, operation_name};
use crate::confirm::Anomaly;
use crate::diagnose::Counted;
use crate::model::{SeriesId, SeriesKey, Signal, Timestamp};
use crate::serve::{Piece, Windows};
use crate::sketch::Histogram;
use crate::window::Registry;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

/// Further back than this nothing is drawn from windows.
const FURTHEST: Duration = Duration::from_secs(3_600);
/// Series that are added up at most.
const SERIES: usize = 500;

/// Whole windows since the onset, as far as they are over: of the operations that the anomaly names, or of all
/// requests of its service where it names none that is counted.
///
/// # Errors
/// What could not be read, in words.
pub(super) fn counted(
    windows: &dyn Windows,
    registry: &Registry,
    anomaly: &Anomaly,
    now: Timestamp,
) -> Result<Vec<Counted>, String> {
    let since = anomaly.onset.earliest.max(now.saturating_sub(FURTHEST));
    let series = series(registry, anomaly);
    let mut found: BTreeMap<Timestamp, (Timestamp, BTreeMap<SeriesId, Sum>)> = BTreeMap::new();
    windows.visit(since, now, &mut |piece: Piece<'_>| {
        // One that goes on would look like a drop.
        if piece.start >= since && piece.end <= now {
            let (_, sums) = found.entry(piece.start).or_insert((piece.end, BTreeMap::new()));
            for id in &series {
                if let Some(Cell::Requests(of)) = piece.cells.get(*id) {
                    let sum = sums.entry(*id).or_default();
                    sum.requests = sum.requests.saturating_add(of.seen);
                    sum.errors = sum.errors.saturating_add(of.errors);
                    sum.latency.merge(&of.latency);
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    let counted = found.into_iter().map(|(start, (end, sums))| {
        let most = |q: f64| sums.values().filter_map(|sum| sum.latency.quantile(q)).fold(0.0f64, f64::max);
        let total = |of: fn(&Sum) -> u64| sums.values().map(of).fold(0u64, u64::saturating_add);
        Counted {
            start,
            end,
            requests: total(|sum| sum.requests),
            errors: total(|sum| sum.errors),
            p50_ns: most(0.5),
            p99_ns: most(0.99),
        }
    });
    Ok(counted.collect())
}

#[derive(Default)]
struct Sum {
    requests: u64,
    errors: u64,
    latency: Histogram,
}

fn series(registry: &Registry, anomaly: &Anomaly) -> Vec<SeriesId> {
    let is_named = |key: &SeriesKey| {
        anomaly.members.iter().any(|member| {
            member.service == key.service && operation_name(&member.signal) == operation_name(&key.operation)
        })
    };
    let mut services: Vec<_> = anomaly.members.iter().map(|member| &member.service).collect();
    services.push(&anomaly.service);
    services.sort_unstable();
    services.dedup();
    let of_services: Vec<_> = services.iter().flat_map(|service| registry.of_service(service)).collect();
    let spans = || of_services.iter().filter(|key| key.signal == Signal::Traces);
    let mut ids: Vec<SeriesId> = spans().filter(|key| is_named(key)).map(|key| key.id()).collect();
    if ids.is_empty() {
        let entries = spans().filter(|key| key.entry && key.service == anomaly.service);
        ids = entries.map(|key| key.id()).collect();
    }
    ids.sort_unstable();
    ids.truncate(SERIES);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Requests;
    use crate::confirm::{AnomalyId, AnomalyState, Examined, Fingerprint, Member, Severity};
    use crate::detect::{Band, Interval, Symptom};
    use crate::model::{ServiceKey, SpanKind, WindowId};
    use crate::window::SealedWindow;
    use std::sync::Arc;

    const ONSET: Timestamp = Timestamp::from_secs(1_700_000_000);

    struct Sealed(Vec<SealedWindow>);

    impl Windows for Sealed {
        fn now(&self) -> Timestamp {
            ONSET
        }

        fn visit(
            &self,
            _: Timestamp,
            _: Timestamp,
            visit: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
        ) -> Result<(), String> {
            let _ = self.0.iter().try_for_each(|window| visit(Piece::sealed(window, window.id.end())));
            Ok(())
        }
    }

    fn anomaly(signal: &str) -> Anomaly {
        let (service, onset) = (ServiceKey::named("cart"), Interval { earliest: ONSET, latest: ONSET });
        let member = Member {
            service: service.clone(),
            signal: signal.to_owned(),
            attributes: Vec::new(),
            symptom: Symptom::Errors,
            series: None,
            observed: 0.4,
            expected: Band { low: 0.0, high: 0.01 },
            unit: "1".to_owned(),
            tail: 1e-9,
            log_evidence: 20.0,
            onset,
            last_seen: ONSET,
            recovered: false,
        };
        Anomaly {
            id: AnomalyId("a".to_owned()),
            fingerprint: Fingerprint("f".to_owned()),
            service,
            symptom: Symptom::Errors,
            severity: Severity::Page,
            state: AnomalyState::Confirmed,
            opened_at: ONSET,
            fired_at: Some(ONSET),
            ended_at: None,
            onset,
            members: vec![member],
            p_value: 1e-9,
            suspects: Vec::new(),
            merged_into: None,
            suppressed_by: None,
            budget_draw: None,
            examined: Examined::default(),
            title: String::new(),
            revision: 1,
        }
    }

    #[test]
    fn whole_windows_since_the_onset_are_counted_of_what_the_anomaly_is_about() {
        let registry = Registry::default();
        let add = |operation: &str, entry: bool| {
            let key = SeriesKey {
                service: ServiceKey::named("cart"),
                signal: Signal::Traces,
                operation: operation.into(),
                kind: if entry { SpanKind::Server } else { SpanKind::Client },
                entry,
                unit: "".into(),
                attributes: Vec::new(),
            };
            let id = key.id();
            registry.add(id, Arc::new(key), 0);
            id
        };
        let (get, put, select) = (add("GET /cart", true), add("PUT /cart", true), add("SELECT", false));
        let cell = |seen: u64, errors: u64, ms: u64| {
            let mut cell = Requests { seen, errors, ..Requests::default() };
            cell.latency.record((ms * 1_000_000) as f64);
            Cell::Requests(Box::new(cell))
        };
        let window = |number: u64| {
            let mut cells =
                vec![(get, cell(10 + number, 1, 5)), (put, cell(100, 2, 50)), (select, cell(1_000, 3, 1))];
            cells.sort_by_key(|(id, _)| *id);
            let id = WindowId::of(ONSET.saturating_add(Duration::from_secs(number * 10)));
            SealedWindow { id, cells: cells.into_iter().collect(), ..SealedWindow::default() }
        };
        // Of the first one nothing is from before the onset; of the last one not all is over.
        let windows = Sealed((0..4).map(window).chain([window(1)]).collect());
        let now = ONSET.saturating_add(Duration::from_secs(35));
        let of = |signal: &str| {
            let found = counted(&windows, &registry, &anomaly(signal), now).unwrap();
            assert!(found.is_sorted_by_key(|one| one.start));
            found.iter().map(|one| (one.requests, one.errors, (one.p99_ns / 1e6).round())).collect::<Vec<_>>()
        };
        assert_eq!(of("GET /cart"), [(10, 1, 5.0), (22, 2, 5.0), (12, 1, 5.0)], "the second was amended");
        assert_eq!(of("cpu.utilization"), [(110, 3, 50.0), (222, 6, 50.0), (112, 3, 50.0)], "all entries");
    }
}
