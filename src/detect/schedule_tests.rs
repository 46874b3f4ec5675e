//! Twelve schedules over thirty days: no run that came is called missed, each that did not is found within
//! its period and the grace that was learned; late, stuck and failing runs are told apart.

use super::*;
use crate::aggregate::{Cell, Requests};
use crate::journal::Cut;
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanKind, Timestamp, WindowId};
use crate::window::{Registry, SealedWindow, Tick};
use std::sync::Arc;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3_600.0;
const DAY: f64 = 86_400.0;
/// A Monday, 00:00 UTC.
const START: u64 = 1_704_067_200;
/// Time passes in steps that are no gap of our own.
const STEP: u64 = 10;
/// Absence is judged when a window is sealed.
const SEALED: f64 = 25.0;

/// When it runs, as offsets into a cycle, and how far a run may be off.
struct Cron {
    name: &'static str,
    cycle: f64,
    offsets: &'static [f64],
    jitter: f64,
}

const fn every(name: &'static str, cycle: f64, jitter: f64) -> Cron {
    Cron { name, cycle, offsets: &[30.0], jitter }
}

const SCHEDULES: [Cron; 12] = [
    every("each minute", MINUTE, 0.5),
    every("each 5 minutes", 5.0 * MINUTE, 1.0),
    every("each 10 minutes, of varying length", 10.0 * MINUTE, 90.0),
    every("each quarter of an hour, jittered", 15.0 * MINUTE, 120.0),
    every("hourly", HOUR, 2.0),
    every("each 90 minutes, jittered", 90.0 * MINUTE, 600.0),
    every("each 6 hours", 6.0 * HOUR, 1_200.0),
    every("daily", DAY, 5.0),
    every("daily, jittered", DAY, 1_800.0),
    Cron { name: "at 9 and at 17", cycle: DAY, offsets: &[9.0 * HOUR, 17.0 * HOUR], jitter: 60.0 },
    Cron {
        name: "on weekdays",
        cycle: 7.0 * DAY,
        offsets: &[
            2.0 * HOUR,
            DAY + 2.0 * HOUR,
            2.0 * DAY + 2.0 * HOUR,
            3.0 * DAY + 2.0 * HOUR,
            4.0 * DAY + 2.0 * HOUR,
        ],
        jitter: 120.0,
    },
    every("weekly", 7.0 * DAY, 300.0),
];

struct Days {
    detectors: Detectors,
    registry: Registry,
    id: SeriesId,
    now: u64,
}

impl Days {
    fn new(name: &str) -> Self {
        let key = SeriesKey {
            service: ServiceKey::named("batch"),
            signal: Signal::Traces,
            operation: name.into(),
            kind: SpanKind::Internal,
            entry: true,
            unit: "".into(),
            attributes: Vec::new(),
        };
        let registry = Registry::default();
        let id = key.id();
        registry.add(id, Arc::new(key), 0);
        Self { detectors: Detectors::new(Config::default(), false), registry, id, now: START }
    }

    /// Time passes until then, with runs that end at these moments, failed or not.
    fn pass(
        &mut self,
        until: u64,
        runs: &mut std::iter::Peekable<impl Iterator<Item = (f64, bool)>>,
    ) -> Vec<Finding> {
        let mut found = Vec::new();
        while self.now < until {
            self.now += STEP;
            let cut = Cut { number: self.now, arrived: Timestamp::from_secs(self.now), ..Cut::default() };
            let mut tick = Tick { cut, ..Tick::default() };
            while let Some((end, failed)) = runs.next_if(|(end, _)| *end < self.now as f64) {
                let end = Timestamp((end * 1e9) as u64);
                let mut cell = Requests {
                    seen: 1,
                    errors: u64::from(failed),
                    first: end,
                    last: end,
                    ..Requests::default()
                };
                cell.latency.record(2e9);
                tick.changed.push((self.id, WindowId::of(end), Cell::Requests(Box::new(cell))));
            }
            let id = WindowId((self.now - 15) / 10 - 1);
            let sealed = [Arc::new(SealedWindow { id, sealed: cut, ..SealedWindow::default() })];
            found.extend(self.detectors.step(&tick, &sealed, &self.registry, &[]).findings);
        }
        found
    }
}

/// Ends of runs for so many days, as seconds since the epoch.
fn runs(cron: &Cron, days: f64, random: &mut fastrand::Rng) -> Vec<f64> {
    let mut ends = Vec::new();
    let mut cycle = 0.0;
    while cycle < days * DAY {
        for offset in cron.offsets {
            let end = cycle + offset + cron.jitter * (2.0 * random.f64() - 1.0);
            if end > 0.0 && end < days * DAY {
                ends.push(START as f64 + end);
            }
        }
        cycle += cron.cycle;
    }
    ends
}

#[test]
fn every_miss_of_twelve_schedules_is_found_in_time_and_nothing_else_in_thirty_days() {
    let mut random = fastrand::Rng::with_seed(3);
    // Ticks are what costs: the frequent ones repeat themselves in a day, and all are held to 30 in release.
    let full = std::env::var_os("BAROGRAPH_SCHEDULE_DAYS").is_some();
    for cron in SCHEDULES.iter().take(if full { SCHEDULES.len() } else { 6 }) {
        let period = cron.cycle / cron.offsets.len() as f64;
        let days = if full { 30.0 } else { (14.0 * period / DAY).clamp(2.0, 30.0) };
        let ends = runs(cron, days, &mut random);
        let mut days_pass = Days::new(cron.name);
        let last = *ends.last().expect("runs");
        let mut iter = ends.iter().map(|end| (*end, false)).peekable();
        let found = days_pass.pass(last as u64 + 2 * STEP, &mut iter);
        let false_ones: Vec<_> = found.iter().filter(|of| of.symptom == Symptom::MissedJob).collect();
        assert!(false_ones.is_empty(), "{}: {false_ones:#?}", cron.name);
        // The next run is missing.
        let series = days_pass.detectors.state.requests.get(days_pass.id).expect("a series");
        let schedule = series.job.as_ref().and_then(|job| job.schedule());
        let schedule = schedule.unwrap_or_else(|| panic!("{} is learned: {:?}", cron.name, series.job));
        let (expected, grace) = (schedule.period.as_secs_f64(), schedule.grace.as_secs_f64());
        assert!(grace <= 0.5 * period + 4.0 * cron.jitter + 5.0, "{}: grace {grace} s", cron.name);
        let due = last + expected + grace;
        let nothing = std::iter::empty().peekable();
        let found = days_pass.pass(due as u64 + 60, &mut { nothing });
        let missed: Vec<_> = found.iter().filter(|of| of.symptom == Symptom::MissedJob).collect();
        let [finding] = missed.as_slice() else { panic!("{}: {found:#?}", cron.name) };
        let after = finding.at.secs() as f64 - last;
        assert!(after <= expected + grace + SEALED + STEP as f64, "{}: after {after} s", cron.name);
        println!("{}: period {expected:.0} s, grace {grace:.0} s, missed after {after:.0} s", cron.name);
        // It was late, or had been stuck: the run that comes after all ends it.
        let late = days_pass.now as f64 + 5.0;
        let found = days_pass.pass(late as u64 + 30, &mut [(late, false)].into_iter().peekable());
        assert!(
            found.iter().any(|of| of.symptom == Symptom::MissedJob && of.phase == Phase::Cleared),
            "{}",
            cron.name
        );
    }
}

#[test]
fn a_job_that_begins_to_fail_is_told_and_so_is_that_it_succeeds_again() {
    let mut days = Days::new("export");
    let ends: Vec<(f64, bool)> =
        (0..40).map(|n| (START as f64 + 60.0 * f64::from(n), (30..35).contains(&n))).collect();
    let mut iter = ends.into_iter().peekable();
    let healthy = days.pass(START + 30 * 60 - 10, &mut iter);
    assert!(healthy.is_empty(), "{healthy:?}");
    let failing = days.pass(START + 35 * 60 - 10, &mut iter);
    let told = |of: &&Finding| of.symptom == Symptom::Errors && of.decided;
    let first = failing.iter().find(told).expect("it fails");
    assert_eq!(first.phase, Phase::Active);
    assert!(first.at.secs() <= START + 31 * 60 + 20, "with its second failure");
    assert!(
        failing.iter().filter(told).any(|of| of.gravity == Gravity::Page),
        "twice in a row was never seen"
    );
    let after = days.pass(START + 40 * 60, &mut iter);
    assert!(after.iter().filter(told).any(|of| of.phase == Phase::Cleared));
}
