//! All detectors, stepped once a cut.

use super::Config;
use super::absence::{Due, SEALED_AFTER};
use super::calls::Call;
use super::evidence::{Observed, Stand};
use super::finding::{Band, Finding, Gravity, Interval, Phase, Symptom};
use super::metrics::MetricSeries;
use super::requests::RequestSeries;
use super::sampling::counts_requests;
use super::score::Score;
use super::service::Service;
use super::table::Table;
use crate::aggregate::{Cell, Facet, FacetKey};
use crate::model::{SeriesId, SeriesKey, ServiceKey, Timestamp, WindowId};
use crate::slo::Burn;
use crate::window::{EdgeKey, Registry, SealedWindow, Tick};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What is late makes windows doubtful from so long ago until so much later.
const LATE_FROM: Duration = Duration::from_secs(60);
const LATE_UNTIL: Duration = Duration::from_secs(30);

/// State that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the state of the detectors cannot be read: {0}")]
pub struct RestoreError(#[from] postcard::Error);

/// What one step gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detected {
    pub findings: Vec<Finding>,
    /// A row a metric point, in the order of series; empty unless asked for.
    pub scores: Vec<Score>,
}

/// How many tests run side by side: the false-alarm budget is shared by all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub services: usize,
    /// Tests whose evidence is averaged, by service.
    pub tests: BTreeMap<ServiceKey, usize>,
}

/// All detectors and their state.
#[derive(Debug)]
pub struct Detectors {
    pub(super) config: Config,
    pub(super) with_scores: bool,
    pub(super) state: State,
    /// Services touched by the present cut.
    pub(super) touched: Vec<u32>,
    census: Census,
    /// Whether series were met that the census does not count yet.
    pub(super) met: bool,
    /// What comes now is the end of a recording.
    pub(super) ended: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub requests: Table<RequestSeries>,
    pub metrics: Table<MetricSeries>,
    pub services: Vec<Service>,
    pub numbers: BTreeMap<ServiceKey, u32>,
    pub due: BTreeSet<(Timestamp, Due)>,
    pub calls: BTreeMap<Arc<EdgeKey>, Call>,
    /// The latest cut, and since when cuts have come without a gap.
    pub at: Timestamp,
    pub absence_from: Timestamp,
    /// The window up to which absence has been judged.
    pub judged: WindowId,
    /// When was last looked for series that send no more.
    pub forgot_at: Timestamp,
}

impl Detectors {
    /// Detectors that know nothing yet. `with_scores`: whether each metric point is to be scored.
    #[must_use]
    pub fn new(config: Config, with_scores: bool) -> Self {
        Self {
            config,
            with_scores,
            state: State::default(),
            touched: Vec::new(),
            census: Census::default(),
            met: false,
            ended: false,
        }
    }

    /// The whole state, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.state).unwrap_or_default()
    }

    /// Takes back what [`Self::state`] gave.
    ///
    /// # Errors
    /// The bytes are not such a state; nothing is changed then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.state = postcard::from_bytes(bytes)?;
        // The time between is our own absence, not theirs.
        self.state.absence_from = Timestamp::MAX;
        self.count();
        Ok(())
    }

    /// A recording is at its end: that nothing comes any more is no pause of a pipeline.
    pub fn end_of_recording(&mut self) {
        self.ended = true;
    }

    #[must_use]
    pub fn census(&self) -> &Census {
        &self.census
    }

    fn count(&mut self) {
        let services = self.state.services.iter().filter(|service| service.entries > 0);
        let tests: BTreeMap<_, _> =
            services.map(|service| (service.key.clone(), 2 * service.entries as usize + 1)).collect();
        self.census = Census { services: tests.len(), tests };
    }

    /// Judges what arrived with a cut and the windows sealed with it. Costs next to nothing when
    /// nothing arrived and no deadline passed.
    pub fn step(
        &mut self,
        tick: &Tick,
        sealed: &[Arc<SealedWindow>],
        registry: &Registry,
        burns: &[Burn],
    ) -> Detected {
        let now = tick.cut.arrived;
        let mut out = Detected::default();
        // Cuts follow each other by a second; where they do not, nobody was listening.
        let gap = self.state.at != Timestamp::ZERO && now.since(self.state.at) > Duration::from_secs(10);
        if gap || self.state.absence_from == Timestamp::MAX {
            self.state.absence_from = now;
        }
        self.state.at = now;
        self.forget_idle(now);
        for (id, window, cell) in &tick.changed {
            self.cell(now, *id, (*window, cell), registry, &mut out);
        }
        if std::mem::take(&mut self.met) {
            self.count();
        }
        for (key, facet) in &tick.facets {
            self.facet(now, key, facet);
        }
        self.judge_rounds(now, &mut out);
        self.settle_services(now, &mut out.findings);
        self.judge_pauses(now, &mut out.findings);
        self.judge_calls(now, &tick.calls, &mut out.findings);
        for window in sealed {
            self.window(now, window, &mut out.findings);
        }
        if self.state.due.first().is_some_and(|(at, _)| *at <= self.absence_through(now)) {
            self.deadlines(now, &mut out.findings);
        }
        for burn in burns {
            out.findings.push(burning(burn));
        }
        out
    }

    /// What came of a window.
    fn cell(
        &mut self,
        now: Timestamp,
        id: SeriesId,
        (window, cell): (WindowId, &Cell),
        registry: &Registry,
        out: &mut Detected,
    ) {
        let late = window.end().saturating_add(SEALED_AFTER) < now;
        match cell {
            Cell::Requests(requests) => {
                let series = match self.state.requests.get_mut(id) {
                    Some(series) => series,
                    None => {
                        let Some((key, service)) = self.meet(id, registry) else { return };
                        if let Some(service) = self.state.services.get_mut(service as usize) {
                            service.entries += u32::from(key.entry);
                        }
                        self.met = true;
                        self.state.requests.get_or_insert_with(id, || RequestSeries::new(key, service))
                    }
                };
                series.observe(now, id, requests, &self.config, &mut out.findings);
                let (number, entry, is_job) = (series.service, series.key.entry, series.job.is_some());
                self.touch(number, cell.items(), late);
                if entry {
                    if let Some(service) = self.state.services.get_mut(number as usize) {
                        let arriving = &mut service.arriving;
                        arriving.requests += requests.seen;
                        arriving.errors += requests.errors;
                        arriving.series += 1;
                        arriving.last = arriving.last.max(requests.last);
                    }
                    if is_job {
                        self.job(now, id, requests, &mut out.findings);
                    }
                }
            }
            Cell::Lines(_) => {
                if let Some(key) = registry.get(id)
                    && let Some(&number) = self.state.numbers.get(&key.service)
                {
                    self.touch(number, cell.items(), late);
                }
            }
            Cell::Level(_) | Cell::Total(_) | Cell::Distribution(_) => {
                let series = match self.state.metrics.get_mut(id) {
                    Some(series) => series,
                    None => {
                        let Some((key, service)) = self.meet(id, registry) else { return };
                        if let Some(service) = self.state.services.get_mut(service as usize) {
                            service.metrics += 1;
                        }
                        self.state.metrics.get_or_insert_with(id, || MetricSeries::new(key, service))
                    }
                };
                let number = series.service;
                if let Some(service) = self.state.services.get_mut(number as usize) {
                    if counts_requests(&series.key.operation)
                        && let Cell::Distribution(of) = cell
                    {
                        service.requests_metered.count(window, of.histogram.count(), of.points);
                    }
                    let score = series.observe(now, id, cell, service, &self.config, &mut out.findings);
                    if self.with_scores {
                        out.scores.extend(score);
                    }
                }
                self.touch(number, cell.items(), late);
            }
        }
    }

    /// Key and service number of a new series; `None` if it is unknown or one too many.
    fn meet(&mut self, id: SeriesId, registry: &Registry) -> Option<(Arc<SeriesKey>, u32)> {
        if (self.state.requests.len() + self.state.metrics.len()) as u64 >= self.config.series {
            return None;
        }
        let key = registry.get(id)?;
        let number = match self.state.numbers.get(&key.service) {
            Some(&number) => number,
            None => {
                let number = u32::try_from(self.state.services.len()).ok()?;
                self.state.services.push(Service::new(key.service.clone()));
                self.state.numbers.insert(key.service.clone(), number);
                number
            }
        };
        Some((key, number))
    }

    fn touch(&mut self, number: u32, items: u64, late: bool) {
        let Some(service) = self.state.services.get_mut(number as usize) else { return };
        let arriving = &mut service.arriving;
        arriving.items = arriving.items.saturating_add(items);
        arriving.late = arriving.late.saturating_add(if late { items } else { 0 });
        if !std::mem::replace(&mut arriving.touched, true) {
            self.touched.push(number);
        }
    }

    fn facet(&mut self, now: Timestamp, key: &FacetKey, facet: &Facet) {
        let is_instance = matches!(&*key.name, "service.instance.id" | "k8s.pod.name");
        if is_instance
            && facet.items > 0
            && let Some(&number) = self.state.numbers.get(&key.service)
            && let Some(service) = self.state.services.get_mut(number as usize)
        {
            service.instances.arrived(now, &key.value);
        }
    }

    /// What concerns whole services, once all their cells are in.
    fn settle_services(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        for number in std::mem::take(&mut self.touched) {
            let Some(service) = self.state.services.get_mut(number as usize) else { continue };
            let arriving = std::mem::take(&mut service.arriving);
            Self::resumed(now, service, findings);
            if let Some(is_late) = service.lateness.arrived(now, arriving.items, arriving.late) {
                let mut finding = Finding::of_data(now, &service.key, "lateness");
                finding.phase = if is_late { Phase::Active } else { Phase::Cleared };
                finding.observed = arriving.late as f64 / arriving.items.max(1) as f64;
                finding.expected.high = 0.1;
                finding.unit = "1".to_owned();
                findings.push(finding);
            }
            if service.lateness.active {
                service.mark_unsound(now.saturating_sub(LATE_FROM), now.saturating_add(LATE_UNTIL));
            }
            if service.silence.arrived(now) {
                let mut finding = Finding::about(now, &service.key, "telemetry", Symptom::Silence);
                finding.phase = Phase::Cleared;
                findings.push(finding);
            }
            if let (false, Some(at)) = (service.silence_scheduled, service.silence.deadline()) {
                service.silence_scheduled = true;
                self.state.due.insert((at, Due::Silence(number)));
            }
            if arriving.requests == 0 {
                continue;
            }
            if service.first_request == Timestamp::ZERO {
                service.first_request = now;
            }
            service.last_end = service.last_end.max(arriving.last);
            service.requests = service.requests.saturating_add(arriving.requests);
            if service.traffic.arrived(now, arriving.requests) {
                let mut finding = Finding::about(now, &service.key, "requests", Symptom::TrafficDrop);
                finding.phase = Phase::Cleared;
                findings.push(finding);
            }
            let learned = service.requests >= self.config.learn_requests
                && now.since(service.first_request) >= self.config.learn.0;
            if !learned {
                service.errors.learn(arriving.requests, arriving.errors as f64);
                continue;
            }
            let seen = Observed { now, interval: now.secs(), last: arriving.last };
            let verdict = service.errors.observe(
                seen,
                arriving.requests,
                arriving.errors,
                self.config.errors_floor,
                self.config.healthy.0,
            );
            // With one operation the service says nothing that its series does not.
            if verdict.stand == Stand::Quiet || service.entries < 2 {
                continue;
            }
            let test = &service.errors.test;
            let mut finding = Finding::about(now, &service.key, "all requests", Symptom::Errors);
            let (earliest, latest) = test.evidence.onset();
            finding.onset = Interval { earliest, latest };
            finding.log_evidence = if test.evidence.is_bad() { test.evidence.log() as f32 } else { 0.0 };
            finding.tail = (-test.evidence.log()).exp().clamp(0.0, 1.0);
            finding.phase = if verdict.stand == Stand::Cleared { Phase::Cleared } else { Phase::Active };
            let enough = test.bad() >= self.config.bad_requests;
            finding.gravity = if enough { Gravity::Page } else { Gravity::Support };
            finding.observed = test.share();
            finding.expected = Band { low: 0.0, high: verdict.null };
            finding.unit = "1".to_owned();
            findings.push(finding);
        }
    }
}

fn burning(burn: &Burn) -> Finding {
    let mut finding = Finding::about(burn.at, &burn.service, &burn.slo, Symptom::BudgetBurn);
    finding.phase = if burn.burning { Phase::Active } else { Phase::Cleared };
    finding.gravity = match (burn.supporting, burn.page) {
        (true, _) => Gravity::Support,
        (false, true) => Gravity::Page,
        (false, false) => Gravity::Ticket,
    };
    finding.decided = true;
    finding.tail = 1e-6;
    finding.log_evidence = 14.0;
    finding.observed = burn.bad_share;
    finding.expected = Band { low: 0.0, high: 1.0 - burn.target };
    finding.unit = "1".to_owned();
    finding.onset = Interval { earliest: burn.since, latest: burn.fresh };
    finding.attributes.push(("window_s".to_owned(), burn.long.as_secs().to_string()));
    finding.attributes.push(("tier".to_owned(), if burn.page { "page" } else { "ticket" }.to_owned()));
    finding
}
