//! All objectives, stepped once a cut.

use super::budget::{Budget, DataState};
use super::burn::{Burn, RULES, WINDOWS, burn_rate};
use super::config::Config;
use super::counts::Counts;
use super::openslo::{Definition, OpenSloError, read_file};
use crate::aggregate::{Cell, Indicator, IndicatorId};
use crate::model::{SeriesId, SeriesKey, ServiceKey, Timestamp};
use crate::sketch::Accumulator;
use crate::window::{Registry, Tick};
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Budgets are published, and idle burns judged anew, every so many seconds.
const PUBLISH_EVERY_S: u64 = 10;
/// A burn that goes on is said again so often.
const REMIND: Duration = Duration::from_secs(60);
const DEFAULT_PERIOD: Duration = Duration::from_secs(30 * 86_400);
/// Without anything for so long an objective is not judged until something comes.
const IDLE: Duration = Duration::from_secs(4 * 86_400);
/// Requests the default latency objective is learned from at least.
const LEARN_REQUESTS: u64 = 200;
/// How much slower than the slowest hundredth was while learning a request must be to count as slow: a
/// quarter of an hour sees neither the daily peak nor the nightly batch.
const SLOW: f64 = 2.0;

/// State that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the state of the budgets cannot be read: {0}")]
pub struct RestoreError(#[from] postcard::Error);

/// All objectives and their counts.
#[derive(Debug)]
pub struct Budgets {
    config: Config,
    definitions: Vec<Definition>,
    state: State,
    /// Which service a series belongs to, and whether its spans are requests.
    series: HashMap<SeriesId, (u32, bool), foldhash::fast::FixedState>,
    indicators: Arc<Vec<Indicator>>,
    published: Arc<ArcSwap<Vec<Budget>>>,
    /// When anything was counted last.
    latest: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    services: Vec<Service>,
    numbers: BTreeMap<ServiceKey, u32>,
    objectives: Vec<Objective>,
    by_indicator: BTreeMap<IndicatorId, u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Service {
    key: ServiceKey,
    first: Timestamp,
    last: Timestamp,
    last_request: Timestamp,
    /// Longest pause between two cuts that brought something, slowly forgotten, in seconds.
    pause_s: f64,
    has_requests: bool,
    /// Latencies while the default latency objective is being learned.
    learning: Option<Box<Accumulator>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Objective {
    name: String,
    service: u32,
    target: f64,
    period: Duration,
    indicator: Indicator,
    default: bool,
    counts: Counts,
    first: Timestamp,
    last: Timestamp,
    /// Per rule: when its burning was last said; zero while it does not burn.
    said: [Timestamp; 4],
    exhausted_at: Option<Timestamp>,
    #[serde(skip)]
    touched: bool,
}

impl Budgets {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// A file cannot be taken: with file, line and key.
    pub fn open(config: Config) -> Result<Self, OpenSloError> {
        let mut definitions = Vec::new();
        for path in &config.files {
            definitions.extend(read_file(path)?);
        }
        Ok(Self::new(config, definitions))
    }

    #[must_use]
    pub fn new(config: Config, definitions: Vec<Definition>) -> Self {
        Self {
            config,
            definitions,
            state: State::default(),
            series: HashMap::default(),
            indicators: Arc::default(),
            published: Arc::default(),
            latest: Timestamp::ZERO,
        }
    }

    /// What shards need to count, ever anew after it changed.
    #[must_use]
    pub fn indicators(&self) -> Arc<Vec<Indicator>> {
        self.indicators.clone()
    }

    /// All budgets, for queries; replaced every ten seconds.
    #[must_use]
    pub fn published(&self) -> Arc<ArcSwap<Vec<Budget>>> {
        self.published.clone()
    }

    /// The whole state, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.state).unwrap_or_default()
    }

    /// Takes back what [`Self::state`] gave. Objectives that no file defines any more are let go, new
    /// ones are added.
    ///
    /// # Errors
    /// The bytes are not such a state; nothing is changed then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let mut state: State = postcard::from_bytes(bytes)?;
        let default = self.config.default;
        let known = |objective: &Objective| {
            let defined = self.definitions.iter().any(|definition| {
                definition.name == objective.name
                    && definition.service_is(&objective.indicator.service)
                    && definition.counts_like(&objective.indicator)
            });
            defined || (objective.default && default)
        };
        state.objectives.retain(known);
        for objective in &mut state.objectives {
            let own = self.definitions.iter().find(|definition| definition.name == objective.name);
            if let Some(definition) = own.filter(|_| !objective.default) {
                (objective.target, objective.period) = (definition.target, definition.period);
            }
        }
        self.latest = state.objectives.iter().map(|objective| objective.last).max().unwrap_or_default();
        self.state = state;
        let services: Vec<ServiceKey> =
            self.state.services.iter().map(|service| service.key.clone()).collect();
        for (number, service) in (0u32..).zip(services) {
            self.define(number, &service);
        }
        self.renumber();
        Ok(())
    }

    /// Counts what arrived, and says what begins or ceases to burn too fast.
    pub fn step(&mut self, tick: &Tick, registry: &Registry) -> Vec<Burn> {
        let now = tick.cut.arrived;
        for (id, _, cell) in &tick.changed {
            self.cell(now, *id, cell, registry);
        }
        for (id, count) in &tick.indicators {
            let Some(&at) = self.state.by_indicator.get(id) else { continue };
            let Some(objective) = self.state.objectives.get_mut(at as usize) else { continue };
            if objective.first == Timestamp::ZERO {
                objective.first = now;
            }
            objective.counts.add(now.secs(), count.second, count.good, count.total);
            (objective.last, objective.touched) = (now, true);
            self.latest = now;
        }
        // While nothing comes, rates change only as windows move on.
        let every = match now.since(self.latest).as_secs() {
            0..60 => PUBLISH_EVERY_S,
            60..7_200 => 6 * PUBLISH_EVERY_S,
            _ => 60 * PUBLISH_EVERY_S,
        };
        let publish = tick.cut.number.is_multiple_of(every) && now.since(self.latest) < IDLE;
        let mut burns = Vec::new();
        if publish || !tick.indicators.is_empty() {
            for at in 0..self.state.objectives.len() {
                self.judge(now, at, publish, &mut burns);
            }
        }
        if publish {
            self.publish(now);
        }
        burns
    }

    fn cell(&mut self, now: Timestamp, id: SeriesId, cell: &Cell, registry: &Registry) {
        let (number, entry) = match self.series.get(&id) {
            Some(&known) => known,
            None => {
                let Some(key) = registry.get(id) else { return };
                let Some(number) = self.service(now, &key) else { return };
                self.series.insert(id, (number, key.entry));
                (number, key.entry)
            }
        };
        let Some(service) = self.state.services.get_mut(number as usize) else { return };
        if service.last < now {
            service.pause_s =
                (service.pause_s * 0.98).max(now.since(service.last).as_secs_f64().min(3_600.0));
            service.last = now;
        }
        let Cell::Requests(requests) = cell else { return };
        if !entry {
            return;
        }
        service.last_request = now;
        if !std::mem::replace(&mut service.has_requests, true) {
            let key = service.key.clone();
            service.learning = self.config.default.then(Box::default);
            self.define(number, &key);
            self.renumber();
            return;
        }
        if let Some(learned) = &mut service.learning {
            learned.add(&requests.latency);
            let is_enough =
                now.since(service.first) >= self.config.learn_latency.0 && learned.count() >= LEARN_REQUESTS;
            if is_enough && let Some(p99) = learned.histogram().quantile(0.99) {
                let key = service.key.clone();
                service.learning = None;
                self.define_latency(number, &key, rounded_up(p99 * SLOW));
                self.renumber();
            }
        }
    }

    fn service(&mut self, now: Timestamp, key: &SeriesKey) -> Option<u32> {
        if let Some(&number) = self.state.numbers.get(&key.service) {
            return Some(number);
        }
        let number = u32::try_from(self.state.services.len()).ok()?;
        self.state.numbers.insert(key.service.clone(), number);
        self.state.services.push(Service {
            key: key.service.clone(),
            first: now,
            last: now,
            last_request: Timestamp::ZERO,
            pause_s: 1.0,
            has_requests: false,
            learning: None,
        });
        Some(number)
    }

    /// Objectives of a service that serves requests: those that mean it, and the default one.
    fn define(&mut self, number: u32, service: &ServiceKey) {
        let has_requests = self.state.services.get(number as usize).is_some_and(|known| known.has_requests);
        let meant: Vec<Definition> = self
            .definitions
            .iter()
            .filter(|definition| has_requests && definition.service_is(service))
            .cloned()
            .collect();
        for definition in meant {
            let indicator = Indicator {
                id: IndicatorId(0),
                service: service.clone(),
                operation: definition.operation.as_deref().map(Arc::from),
                threshold_ns: definition.threshold_ns,
                errors_are_bad: definition.errors_are_bad,
            };
            self.add(number, definition.name, definition.target, definition.period, indicator, false);
        }
        if self.config.default && has_requests && u64::from(number) < self.config.default_services {
            let indicator = Indicator {
                id: IndicatorId(0),
                service: service.clone(),
                operation: None,
                threshold_ns: None,
                errors_are_bad: true,
            };
            let name = format!("{}-availability", service.name);
            self.add(number, name, self.config.default_target, DEFAULT_PERIOD, indicator, true);
        }
    }

    fn define_latency(&mut self, number: u32, service: &ServiceKey, threshold_ns: u64) {
        if u64::from(number) >= self.config.default_services {
            return;
        }
        let indicator = Indicator {
            id: IndicatorId(0),
            service: service.clone(),
            operation: None,
            threshold_ns: Some(threshold_ns),
            errors_are_bad: false,
        };
        let name = format!("{}-latency", service.name);
        self.add(number, name, self.config.default_target, DEFAULT_PERIOD, indicator, true);
    }

    fn add(
        &mut self,
        service: u32,
        name: String,
        target: f64,
        period: Duration,
        indicator: Indicator,
        default: bool,
    ) {
        let known = self.state.objectives.iter().any(|known| known.name == name && known.service == service);
        if known {
            return;
        }
        // Numbers are never given twice: shards may still count by an old one.
        let next = self.state.by_indicator.last_key_value().map_or(1, |(id, _)| id.0.saturating_add(1));
        let indicator = Indicator { id: IndicatorId(next), ..indicator };
        let at = u32::try_from(self.state.objectives.len()).unwrap_or(u32::MAX);
        self.state.by_indicator.insert(indicator.id, at);
        self.state.objectives.push(Objective {
            name,
            service,
            target,
            period,
            indicator,
            default,
            counts: Counts::new(period.as_secs()),
            first: Timestamp::ZERO,
            last: Timestamp::ZERO,
            said: [Timestamp::ZERO; 4],
            exhausted_at: None,
            touched: false,
        });
    }

    fn renumber(&mut self) {
        let numbered = (0u32..).zip(&self.state.objectives);
        self.state.by_indicator = numbered.map(|(at, objective)| (objective.indicator.id, at)).collect();
        self.indicators =
            Arc::new(self.state.objectives.iter().map(|objective| objective.indicator.clone()).collect());
    }

    fn judge(&mut self, now: Timestamp, at: usize, all: bool, burns: &mut Vec<Burn>) {
        let Some(objective) = self.state.objectives.get_mut(at) else { return };
        let burning = objective.said.iter().any(|said| *said != Timestamp::ZERO);
        let touched = std::mem::take(&mut objective.touched);
        if !(touched || all && burning) {
            return;
        }
        let young = objective.default && now.since(objective.first) < self.config.default_silent.0;
        for (rule, said) in RULES.iter().zip(&mut objective.said) {
            let rate = |window: Duration| {
                let (good, total) = objective.counts.over(now.secs(), window.as_secs());
                (burn_rate(good, total, objective.target), total.saturating_sub(good), total)
            };
            let (short_rate, short_bad, short_total) = rate(rule.short);
            let (long_rate, ..) = rate(rule.long);
            let burns_now = short_rate >= rule.factor && long_rate >= rule.factor;
            // The floor keeps single failures of little traffic from firing; it does not end a burn.
            let burns_now = burns_now && (*said != Timestamp::ZERO || short_bad >= self.config.bad_requests);
            let was = *said != Timestamp::ZERO;
            if burns_now == was && (!burns_now || now.since(*said) < REMIND) {
                continue;
            }
            *said = if burns_now { now } else { Timestamp::ZERO };
            burns.push(Burn {
                at: now,
                slo: objective.name.clone(),
                service: objective.indicator.service.clone(),
                burning: burns_now,
                page: rule.page,
                supporting: young,
                long: rule.long,
                short: rule.short,
                factor: rule.factor,
                long_rate,
                short_rate,
                target: objective.target,
                bad_share: short_bad as f64 / short_total.max(1) as f64,
                since: now.saturating_sub(rule.short),
            });
        }
    }

    fn publish(&mut self, now: Timestamp) {
        let second = now.secs();
        let mut budgets = Vec::with_capacity(self.state.objectives.len());
        for objective in &mut self.state.objectives {
            let Some(service) = self.state.services.get(objective.service as usize) else { continue };
            let idle = now.since(objective.last) > IDLE;
            let (good, total) = objective.counts.over(second, objective.period.as_secs());
            let remaining = 1.0 - burn_rate(good, total, objective.target) * objective.part_seen(now);
            objective.exhausted_at =
                if remaining <= 0.0 { objective.exhausted_at.or(Some(now)) } else { None };
            let burn = WINDOWS.map(|(name, seconds)| {
                let (good, total) = if idle { (0, 0) } else { objective.counts.over(second, seconds) };
                (name, burn_rate(good, total, objective.target))
            });
            budgets.push(Budget {
                slo: objective.name.clone(),
                service: service.key.clone(),
                target: objective.target,
                window: objective.period,
                state: service.data_state(now),
                good,
                total,
                budget_remaining_ratio: remaining,
                burn: burn.to_vec(),
                exhausted_at: objective.exhausted_at,
                default: objective.default,
                threshold_ns: objective.indicator.threshold_ns,
                operation: objective.indicator.operation.as_deref().map(str::to_owned),
            });
        }
        budgets.sort_by(|a, b| (&a.service, &a.slo).cmp(&(&b.service, &b.slo)));
        self.published.store(Arc::new(budgets));
    }
}

impl Objective {
    /// Which part of its period what was counted stands for, 0..1. An objective from a file is taken at
    /// its word: what was counted is the period. A default one was made when its service was first
    /// seen; until a period has passed, its budget is that of a whole period at the traffic seen so far.
    /// Else one bad minute in the first hour would overdraw a month's budget several times.
    fn part_seen(&self, now: Timestamp) -> f64 {
        if !self.default || self.first == Timestamp::ZERO {
            return 1.0;
        }
        let seen = now.since(self.first).max(Duration::from_secs(1));
        (seen.as_secs_f64() / self.period.as_secs_f64().max(1.0)).min(1.0)
    }
}

impl Service {
    fn data_state(&self, now: Timestamp) -> DataState {
        let patience =
            Duration::try_from_secs_f64(3.0 * self.pause_s).unwrap_or(IDLE).max(Duration::from_secs(30));
        let silent = now.since(self.last);
        if silent > Duration::from_secs(3_600).max(patience) {
            DataState::Gone
        } else if silent > patience {
            DataState::Silent
        } else if now.since(self.last_request) > Duration::from_secs(30) {
            DataState::Quiet
        } else {
            DataState::Ok
        }
    }
}

impl Definition {
    fn service_is(&self, service: &ServiceKey) -> bool {
        service.is_meant_by(&self.service)
    }

    fn counts_like(&self, indicator: &Indicator) -> bool {
        self.operation.as_deref() == indicator.operation.as_deref()
            && self.threshold_ns == indicator.threshold_ns
            && self.errors_are_bad == indicator.errors_are_bad
    }
}

/// Two significant digits, upwards.
fn rounded_up(ns: f64) -> u64 {
    let digits = ns.max(1.0).log10().floor() - 1.0;
    let unit = 10f64.powf(digits.max(0.0));
    ((ns / unit).ceil() * unit) as u64
}
