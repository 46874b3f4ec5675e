//! Series that send no more are forgotten, so that others can be judged in their place.

use super::absence::Due;
use super::detectors::{Detectors, State};
use super::service::Service;
use crate::model::Timestamp;
use std::time::Duration;

/// How often is looked for series that send no more.
const EVERY: Duration = Duration::from_secs(600);
/// A series that sent nothing for so long is forgotten.
pub(super) const IDLE: Duration = Duration::from_secs(86_400);
/// One that may be a job is waited for: two weekly runs have to be seen until its pause is known.
pub(super) const IDLE_JOB: Duration = Duration::from_secs(16 * 86_400);
/// One that waits for something, such as that a fault ends, after so long.
pub(super) const IDLE_WAITING: Duration = Duration::from_secs(40 * 86_400);
/// Of more services than this those that are silent are not waited for longer than others.
const SERVICES_WAITED_FOR: usize = 1_000;
/// Where there is hardly room for another one, those that were silent longest go, but none before this.
const IDLE_IF_FULL: Duration = Duration::from_secs(3_600);

impl Detectors {
    pub(super) fn forget_idle(&mut self, now: Timestamp) {
        if now.since(self.state.forgot_at) < EVERY {
            return;
        }
        self.state.forgot_at = now;
        let room = self.heard_before_if_full(now);
        let State { requests, metrics, services, .. } = &mut self.state;
        let gone = requests.retain(|series| {
            let keep = !series.is_idle(now) && (series.heard_s >= room || series.is_waited_for());
            if !keep
                && series.key.entry
                && let Some(service) = services.get_mut(series.service as usize)
            {
                service.entries = service.entries.saturating_sub(1);
            }
            keep
        });
        metrics.retain(|series| {
            let keep = !series.is_idle(now) && series.heard_s >= room;
            if !keep && let Some(service) = services.get_mut(series.service as usize) {
                service.metrics = service.metrics.saturating_sub(1);
            }
            keep
        });
        self.met |= gone > 0;
        self.forget_services(now);
    }

    /// Lets go of services that have no series left, so that names of services that come and go are bounded.
    fn forget_services(&mut self, now: Timestamp) {
        let State { requests, metrics, services, numbers, due, .. } = &mut self.state;
        let mut has_series = vec![false; services.len()];
        let of_series = requests.iter().map(|(_, series)| series.service);
        for number in of_series.chain(metrics.iter().map(|(_, series)| series.service)) {
            if let Some(has) = has_series.get_mut(number as usize) {
                *has = true;
            }
        }
        let are_many = services.len() > SERVICES_WAITED_FOR;
        let stays = |(service, has_series): (&Service, &bool)| {
            let waits = if service.silence.silent && !are_many { IDLE_WAITING } else { IDLE };
            *has_series || now.since(service.silence.last) < waits
        };
        let stay: Vec<bool> = services.iter().zip(&has_series).map(stays).collect();
        if stay.iter().all(|stays| *stays) {
            return;
        }
        let mut next = 0u32;
        let moved: Vec<Option<u32>> = stay
            .iter()
            .map(|&stays| {
                let number = next;
                next = next.saturating_add(u32::from(stays));
                stays.then_some(number)
            })
            .collect();
        let to = |number: u32| moved.get(number as usize).copied().flatten();
        let mut stay = stay.into_iter();
        services.retain(|_| stay.next().unwrap_or(true));
        numbers.retain(|_, number| match to(*number) {
            Some(moved) => {
                *number = moved;
                true
            }
            None => false,
        });
        let of_services = |due: Due| match due {
            Due::Silence(number) => to(number).map(Due::Silence),
            Due::Job(_) => Some(due),
        };
        *due =
            std::mem::take(due).into_iter().filter_map(|(at, due)| Some((at, of_services(due)?))).collect();
        requests.iter_mut().for_each(|series| series.service = to(series.service).unwrap_or(series.service));
        metrics.iter_mut().for_each(|series| series.service = to(series.service).unwrap_or(series.service));
    }

    /// The second before which series must have been heard last to be forgotten for want of room, so that an eighth
    /// of it is free again; zero while there is enough.
    fn heard_before_if_full(&self, now: Timestamp) -> u32 {
        let State { requests, metrics, .. } = &self.state;
        let allowed = usize::try_from(self.config.series).unwrap_or(usize::MAX);
        let all = requests.len() + metrics.len();
        if all < allowed - allowed / 16 {
            return 0;
        }
        let idle_since = u32::try_from(now.saturating_sub(IDLE_IF_FULL).secs()).unwrap_or(u32::MAX);
        let idle = requests.iter().filter(|(_, series)| series.heard_s < idle_since);
        let heard = idle.filter(|(_, series)| !series.is_waited_for()).map(|(_, series)| series.heard_s);
        let heard = heard.chain(metrics.iter().map(|(_, series)| series.heard_s));
        let mut idle: Vec<u32> = heard.filter(|heard| *heard < idle_since).collect();
        idle.sort_unstable();
        let wanted = all.saturating_sub(allowed - allowed.div_ceil(8));
        // What was heard in the second of the last one that has to go goes with it.
        let last = idle.get(wanted.saturating_sub(1)).or(idle.last());
        last.map_or(0, |last| last.saturating_add(1).min(idle_since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Cell, Level, Requests};
    use crate::detect::Config;
    use crate::journal::Cut;
    use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanKind, WindowId};
    use crate::window::{Registry, Tick};
    use std::sync::Arc;

    fn key(signal: Signal, kind: SpanKind, operation: &str) -> (SeriesId, Arc<SeriesKey>) {
        let key = SeriesKey {
            service: ServiceKey::named("shop"),
            signal,
            operation: operation.into(),
            kind,
            entry: signal == Signal::Traces,
            unit: "".into(),
            attributes: vec![],
        };
        (key.id(), Arc::new(key))
    }

    fn ran(at: Timestamp) -> Cell {
        Cell::Requests(Box::new(Requests { seen: 1, first: at, last: at, ..Requests::default() }))
    }

    fn step(detectors: &mut Detectors, registry: &Registry, second: u64, cells: Vec<(SeriesId, Cell)>) {
        let now = Timestamp::from_secs(second);
        let changed = cells.into_iter().map(|(id, cell)| (id, WindowId::of(now), cell)).collect();
        let cut = Cut { number: second, arrived: now, ..Cut::default() };
        detectors.step(&Tick { cut, changed, ..Tick::default() }, &[], registry, &[]);
    }

    #[test]
    fn what_sends_no_more_makes_room_and_a_weekly_job_is_waited_for() {
        const DAY: u64 = 86_400;
        let registry = Registry::default();
        let [old, new, gauge, job] = [
            key(Signal::Traces, SpanKind::Server, "GET /old"),
            key(Signal::Traces, SpanKind::Server, "GET /new"),
            key(Signal::Metrics, SpanKind::Unspecified, "queue.length"),
            key(Signal::Traces, SpanKind::Internal, "weekly"),
        ];
        for (id, key) in [&old, &new, &gauge, &job] {
            registry.add(*id, key.clone(), 0);
        }
        let mut detectors = Detectors::new(Config { series: 3, ..Config::default() }, false);
        let begin = 1_700_000_000;
        for week in 0..5 {
            let second = begin + week * 7 * DAY;
            step(&mut detectors, &registry, second, vec![(job.0, ran(Timestamp::from_secs(second)))]);
        }
        let second = begin + 28 * DAY + 60;
        let now = Timestamp::from_secs(second);
        let level = Cell::Level(Level { points: 1, last: 5.0, last_at: now, sum: 5.0, min: 5.0, max: 5.0 });
        step(&mut detectors, &registry, second, vec![(old.0, ran(now)), (gauge.0, level)]);
        step(&mut detectors, &registry, second + 1, vec![(new.0, ran(now))]);
        assert!(detectors.state.requests.get(new.0).is_none(), "a fourth series is one too many");
        assert_eq!(detectors.census().tests.get(&old.1.service), Some(&5));

        let later = second + DAY + 600;
        step(&mut detectors, &registry, later, vec![]);
        assert!(detectors.state.requests.get(old.0).is_none());
        assert!(detectors.state.metrics.get(gauge.0).is_none());
        assert!(detectors.state.requests.get(job.0).is_some(), "a week is its pause");
        assert_eq!(detectors.state.services[0].metrics, 0);
        assert_eq!(detectors.census().tests.get(&old.1.service), Some(&3));
        step(&mut detectors, &registry, later + 1, vec![(new.0, ran(Timestamp::from_secs(later + 1)))]);
        assert!(detectors.state.requests.get(new.0).is_some());
    }

    #[test]
    fn a_service_that_is_gone_makes_room_and_others_keep_what_is_known_of_them() {
        let registry = Registry::default();
        let of = |service: &str| {
            let key = SeriesKey {
                service: ServiceKey::named(service),
                ..(*key(Signal::Traces, SpanKind::Server, "GET /").1).clone()
            };
            registry.add(key.id(), Arc::new(key.clone()), 0);
            key.id()
        };
        let (gone, stays) = (of("gone"), of("stays"));
        let mut detectors = Detectors::new(Config::default(), false);
        let begin = 1_700_000_000;
        let say = |detectors: &mut Detectors, second, ids: &[SeriesId]| {
            let cells = ids.iter().map(|id| (*id, ran(Timestamp::from_secs(second)))).collect();
            step(detectors, &registry, second, cells);
        };
        (0..20).for_each(|second| say(&mut detectors, begin + second, &[gone, stays]));
        for minute in 1..26 * 60 {
            say(&mut detectors, begin + 60 * minute, &[stays]);
        }
        let State { services, numbers, requests, due, .. } = &detectors.state;
        let names: Vec<_> = services.iter().map(|service| (&*service.key.name, service.requests)).collect();
        assert_eq!(names, [("stays", 20 + 26 * 60 - 1)]);
        assert_eq!(numbers.get(&ServiceKey::named("stays")), Some(&0));
        assert_eq!((numbers.len(), requests.get(stays).unwrap().service), (1, 0));
        assert!(due.iter().all(|(_, due)| *due == Due::Silence(0)), "{due:?}");
        say(&mut detectors, begin + 26 * 3_600, &[gone, stays]);
        assert_eq!(detectors.state.services[1].key, ServiceKey::named("gone"));
    }

    #[test]
    fn of_too_many_those_that_were_silent_longest_go() {
        let registry = Registry::default();
        let all: Vec<_> =
            (0..40).map(|n| key(Signal::Traces, SpanKind::Server, &format!("GET /{n}"))).collect();
        all.iter().for_each(|(id, key)| assert!(registry.add(*id, key.clone(), 0)));
        let mut detectors = Detectors::new(Config { series: 32, ..Config::default() }, false);
        let begin = 1_700_000_000;
        for (minute, (id, _)) in (0..).zip(&all) {
            let second = begin + 60 * minute;
            step(&mut detectors, &registry, second, vec![(*id, ran(Timestamp::from_secs(second)))]);
        }
        assert_eq!(detectors.state.requests.len(), 32);
        step(&mut detectors, &registry, begin + 90 * 60, vec![]);
        // An eighth is free, and of those that are left none is older than one that went.
        let left: Vec<bool> = all.iter().map(|(id, _)| detectors.state.requests.get(*id).is_some()).collect();
        let expected: Vec<bool> = (0..40).map(|n| (4..32).contains(&n)).collect();
        assert_eq!(left, expected);
    }
}
