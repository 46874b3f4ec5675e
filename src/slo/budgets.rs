//! All objectives, stepped once a cut.

use super::adjustment::{Adjustment, excluded};
use super::budget::{Budget, DataState};
use super::burn::{Burn, Rule, WINDOWS, preset};
use super::config::Config;
use super::definition::{Counting, Definition, Method, Period};
use super::objective::{Caution, Made, Objective, Reading, judge};
use super::read::{FileError, read_all};
use crate::aggregate::{Cell, GoodSpans, Indicator, IndicatorId, Source};
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

/// Adjustments that are kept at most; the oldest go first.
const ADJUSTMENTS: usize = 10_000;
/// So long after the last count an objective of metrics or logs has no data: they are sent a minute apart.
const SENT_WITHIN: Duration = Duration::from_secs(150);

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
    published_adjustments: Arc<ArcSwap<Vec<Adjustment>>>,
    /// When anything came last.
    latest: Timestamp,
    /// Whether something is to be published that nothing that came has told.
    news: bool,
    /// Number of the last cut.
    number: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    services: Vec<Service>,
    numbers: BTreeMap<ServiceKey, u32>,
    objectives: Vec<Objective>,
    by_indicator: BTreeMap<IndicatorId, u32>,
    /// The highest number an indicator ever had.
    numbered: u32,
    adjustments: Vec<Adjustment>,
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

impl Budgets {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// A file cannot be taken: with file, line and key.
    pub fn open(config: Config) -> Result<Self, FileError> {
        let definitions = read_all(&config.files)?;
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
            published_adjustments: Arc::default(),
            latest: Timestamp::ZERO,
            news: false,
            number: 0,
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
        self.state = postcard::from_bytes(bytes)?;
        self.latest = self.state.objectives.iter().map(|objective| objective.last).max().unwrap_or_default();
        self.settle();
        Ok(())
    }

    /// Goes by other definitions from now on, as after a file was changed: what counts as before keeps its
    /// counts.
    pub fn replace(&mut self, definitions: Vec<Definition>) {
        self.definitions = definitions;
        self.settle();
    }

    /// Brings the objectives in line with the definitions.
    fn settle(&mut self) {
        let Self { config, definitions, state, .. } = self;
        let services = &state.services;
        state.objectives.retain_mut(|objective| {
            let Some(service) = services.get(objective.service as usize) else { return false };
            if objective.default {
                return config.default;
            }
            let own = definitions.iter().find(|definition| {
                definition.name == objective.name
                    && definition.counts_like(&objective.parts, objective.method)
                    && definition.some_is_bad == objective.some_is_bad
                    && definition.composed_of == objective.composed_of
                    && (definition.means(&service.key) || !definition.composed_of.is_empty())
            });
            if let Some(own) = own {
                objective.redefine(own.target, own.period.clone(), config.rules_of(own));
            }
            own.is_some()
        });
        let services: Vec<ServiceKey> = services.iter().map(|service| service.key.clone()).collect();
        for (number, service) in (0u32..).zip(services) {
            self.define(number, &service);
        }
        self.renumber();
    }

    /// Takes a time out of the budgets that an adjustment concerns, or gives it back.
    pub fn adjust(&mut self, adjustment: Adjustment) {
        let all = &mut self.state.adjustments;
        match all.iter_mut().find(|known| known.adjustment == adjustment.adjustment) {
            Some(known) => *known = adjustment,
            None => {
                all.push(adjustment);
                let too_many = all.len().saturating_sub(ADJUSTMENTS);
                all.drain(..too_many);
            }
        }
        self.news = true;
        self.exclude();
    }

    /// The same as it changes, for queries.
    #[must_use]
    pub fn published_adjustments(&self) -> Arc<ArcSwap<Vec<Adjustment>>> {
        self.published_adjustments.clone()
    }

    /// All adjustments, in the order in which they were told.
    #[must_use]
    pub fn adjustments(&self) -> &[Adjustment] {
        &self.state.adjustments
    }

    fn exclude(&mut self) {
        if **self.published_adjustments.load() != self.state.adjustments {
            self.published_adjustments.store(Arc::new(self.state.adjustments.clone()));
        }
        let State { services, objectives, adjustments, .. } = &mut self.state;
        for objective in objectives {
            let Some(service) = services.get(objective.service as usize) else { continue };
            objective.excluded =
                excluded(adjustments.iter(), &objective.name, &service.key, objective.grain_s());
            // Whether its rules still hold is asked anew.
            objective.touched = true;
        }
    }

    /// What each objective of a service lost between two moments, without what is excluded: its name, bad
    /// events, and the share of its whole budget (1 = all of it).
    #[must_use]
    pub fn lost(&self, service: &ServiceKey, from: Timestamp, until: Timestamp) -> Vec<(String, u64, f64)> {
        let now = self.latest.max(until).secs();
        let mut lost = Vec::new();
        for objective in &self.state.objectives {
            let is_own =
                self.state.services.get(objective.service as usize).is_some_and(|s| s.key == *service);
            if !is_own || !objective.composed_of.is_empty() {
                continue;
            }
            let mut whole = objective.clone();
            let (begin, length) = whole.period_at(self.latest);
            let ((good, total), (later_good, later)) =
                (objective.since(now, from.secs()), objective.since(now, until.secs()));
            let bad = (total - good.min(total)).saturating_sub(later - later_good.min(later));
            let (_, all) = objective.since(now, begin);
            // Of a period that goes on, at the traffic seen so far.
            let seen = self.latest.since(objective.first.max(Timestamp::from_secs(begin))).as_secs_f64();
            let allowed =
                all as f64 * (1.0 - objective.target) * (length.as_secs_f64() / seen.max(1.0)).max(1.0);
            let unit = if objective.is_sliced() { crate::aggregate::RATIO_UNIT } else { 1 };
            lost.push((
                objective.name.clone(),
                bad / unit,
                if allowed > 0.0 { bad as f64 / allowed } else { 0.0 },
            ));
        }
        lost
    }

    /// Counts what arrived, and says what begins or ceases to burn too fast.
    pub fn step(&mut self, tick: &Tick, registry: &Registry) -> Vec<Burn> {
        let now = tick.cut.arrived;
        for (id, _, cell) in &tick.changed {
            self.cell(now, *id, cell, registry);
            self.latest = now;
        }
        for (id, count) in &tick.indicators {
            let Some(&at) = self.state.by_indicator.get(id) else { continue };
            let Some(objective) = self.state.objectives.get_mut(at as usize) else { continue };
            objective.add(now, count.second, count.good, count.total);
            self.latest = now;
        }
        // While nothing comes, rates change only as windows move on.
        let every = match now.since(self.latest).as_secs() {
            0..60 => PUBLISH_EVERY_S,
            60..7_200 => 6 * PUBLISH_EVERY_S,
            _ => 60 * PUBLISH_EVERY_S,
        };
        // A judge that was late got one larger tick: it may have passed over the second itself.
        let is_due = tick.cut.number / every != self.number / every;
        self.number = tick.cut.number;
        let publish = std::mem::take(&mut self.news) || is_due && now.since(self.latest) < IDLE;
        let mut burns = Vec::new();
        if publish || !tick.indicators.is_empty() {
            self.touch_composites();
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
        if self.define(number, &key.service) {
            self.renumber();
        }
        Some(number)
    }

    /// Makes the objectives of a service that are not there yet: those that mean it, and, once it serves
    /// requests, the default one. Whether there were any.
    fn define(&mut self, number: u32, service: &ServiceKey) -> bool {
        let has_requests = self.state.services.get(number as usize).is_some_and(|known| known.has_requests);
        let before = self.state.objectives.len();
        let meant: Vec<Definition> =
            self.definitions.iter().filter(|definition| definition.means(service)).cloned().collect();
        for definition in meant {
            // A composite also counts for a service that its parts do not name.
            let of = self.definitions.iter().filter(|of| {
                of.composed_of.iter().any(|(part, _)| *part == definition.name) && of.name != definition.name
            });
            let composites: Vec<Definition> = of.cloned().collect();
            if !definition.composed_of.is_empty() {
                continue;
            }
            self.make(number, definition);
            for composite in composites {
                let known = |known: &Objective| known.name == composite.name && !known.composed_of.is_empty();
                if !self.state.objectives.iter().any(known) {
                    let own = self.state.services.iter().position(|known| composite.means(&known.key));
                    let number = own.and_then(|own| u32::try_from(own).ok()).unwrap_or(number);
                    self.make(number, composite);
                }
            }
        }
        if self.config.default && has_requests && u64::from(number) < self.config.default_services {
            let good = GoodSpans { errors_are_bad: true, ..GoodSpans::default() };
            self.make_default(number, format!("{}-availability", service.name), good);
        }
        self.state.objectives.len() > before
    }

    fn make(&mut self, service: u32, definition: Definition) {
        let rules = self.config.rules_of(&definition);
        let Definition { name, parts, some_is_bad, target, method, period, composed_of, .. } = definition;
        let default = false;
        self.add(Made {
            name,
            service,
            target,
            period,
            method,
            parts,
            some_is_bad,
            default,
            rules,
            composed_of,
        });
    }

    fn make_default(&mut self, service: u32, name: String, good: GoodSpans) {
        self.add(Made {
            name,
            service,
            target: self.config.default_target,
            period: Period::Rolling(DEFAULT_PERIOD),
            method: Method::Occurrences,
            parts: vec![Counting::requests(None, good)],
            some_is_bad: false,
            default: true,
            rules: preset(&self.config.burn_windows, DEFAULT_PERIOD).unwrap_or_default(),
            composed_of: Vec::new(),
        });
    }

    fn define_latency(&mut self, number: u32, service: &ServiceKey, threshold_ns: u64) {
        if u64::from(number) >= self.config.default_services {
            return;
        }
        let good = GoodSpans { threshold_ns: Some(threshold_ns), ..GoodSpans::default() };
        self.make_default(number, format!("{}-latency", service.name), good);
    }

    fn add(&mut self, made: Made) {
        let is_known = |known: &Objective| known.name == made.name && known.service == made.service;
        if self.state.objectives.iter().any(is_known) {
            return;
        }
        // Numbers are never given twice: shards may still count by an old one.
        let mut indicators = Vec::with_capacity(made.parts.len());
        for _ in &made.parts {
            self.state.numbered = self.state.numbered.saturating_add(1);
            indicators.push(IndicatorId(self.state.numbered));
        }
        self.state.objectives.push(Objective::new(made, indicators));
    }

    /// Finds anew what follows from which objectives there are.
    fn renumber(&mut self) {
        let State { services, objectives, by_indicator, .. } = &mut self.state;
        by_indicator.clear();
        let mut all = Vec::new();
        for (at, objective) in (0u32..).zip(objectives.iter()) {
            let Some(service) = services.get(objective.service as usize) else { continue };
            for (part, &id) in objective.parts.iter().zip(&objective.indicators) {
                by_indicator.insert(id, at);
                all.push(part.of(id, &service.key));
            }
        }
        let mut places: HashMap<String, Vec<u32>> = HashMap::new();
        if objectives.iter().any(|objective| !objective.composed_of.is_empty()) {
            for (at, objective) in (0u32..).zip(objectives.iter()) {
                places.entry(objective.name.clone()).or_default().push(at);
            }
        }
        for objective in objectives.iter_mut().filter(|objective| !objective.composed_of.is_empty()) {
            objective.members.clear();
            for (name, weight) in &objective.composed_of {
                let places = places.get(name).map(Vec::as_slice).unwrap_or_default();
                let share = weight / places.len().max(1) as f64;
                objective.members.extend(places.iter().map(|&place| (place, share)));
            }
        }
        self.indicators = Arc::new(all);
        self.news = true;
        self.exclude();
    }

    /// A composite is judged when any of its parts is.
    fn touch_composites(&mut self) {
        for at in 0..self.state.objectives.len() {
            let touched = |&(place, _): &(u32, f64)| {
                self.state.objectives.get(place as usize).is_some_and(|member| member.touched)
            };
            let Some(objective) = self.state.objectives.get(at) else { continue };
            if objective.members.iter().any(touched)
                && let Some(objective) = self.state.objectives.get_mut(at)
            {
                objective.touched = true;
            }
        }
    }

    fn judge(&mut self, now: Timestamp, at: usize, all: bool, burns: &mut Vec<Burn>) {
        let Some(objective) = self.state.objectives.get_mut(at) else { return };
        let burning = objective.standing.iter().any(|standing| standing.since != Timestamp::ZERO);
        let touched = std::mem::take(&mut objective.touched);
        if objective.rules.is_empty() || !(touched || all && burning) {
            return;
        }
        let length = objective.period_at(now).1;
        let mut standings = std::mem::take(&mut objective.standing);
        let State { services, objectives, .. } = &self.state;
        let Some(objective) = objectives.get(at) else { return };
        let Some(service) = services.get(objective.service as usize) else { return };
        let young = objective.default && now.since(objective.first) < self.config.default_silent.0;
        // A slice is many events already.
        let floor = if objective.is_sliced() { 1 } else { self.config.bad_requests };
        let caution = Caution { floor, improbable: self.config.improbable };
        for (rule, standing) in objective.rules.iter().zip(&mut standings) {
            let was = standing.said != Timestamp::ZERO;
            let remaining = || 1.0 - spent(objectives, objective, now).2;
            let holding = standing.since != Timestamp::ZERO;
            let seen = judge(rule, objective.target, length, remaining, caution, holding, |seconds| {
                reading(objectives, objective, now.secs(), seconds)
            });
            if !seen.holds {
                standing.since = Timestamp::ZERO;
            } else if !holding {
                standing.since = now;
            }
            let after = if let Rule::Burn(rule) = rule { rule.after } else { Duration::ZERO };
            let burns_now = seen.holds && now.since(standing.since) >= after;
            if burns_now == was && (!burns_now || now.since(standing.said) < REMIND) {
                continue;
            }
            standing.said = if burns_now { now } else { Timestamp::ZERO };
            burns.push(Burn {
                at: now,
                slo: objective.name.clone(),
                service: service.key.clone(),
                burning: burns_now,
                page: rule.page(),
                supporting: young,
                long: rule.long(),
                short: if let Rule::Burn(rule) = rule { rule.short } else { rule.long() },
                factor: if let Rule::Burn(rule) = rule { rule.factor } else { 0.0 },
                bad: seen.long.bad,
                total: seen.long.total,
                long_rate: seen.long.burn,
                short_rate: seen.short.burn,
                target: objective.target,
                bad_share: seen.short.bad as f64 / seen.short.total.max(1) as f64,
                since: now.saturating_sub(seen.short_window),
            });
        }
        if let Some(objective) = self.state.objectives.get_mut(at) {
            objective.standing = standings;
        }
    }

    fn publish(&mut self, now: Timestamp) {
        let second = now.secs();
        let mut budgets = Vec::with_capacity(self.state.objectives.len());
        for at in 0..self.state.objectives.len() {
            let State { services, objectives, .. } = &mut self.state;
            let Some(objective) = objectives.get_mut(at) else { continue };
            let Some(service) = services.get(objective.service as usize) else { continue };
            let length = objective.period_at(now).1;
            let Some(objective) = objectives.get(at) else { continue };
            let idle = now.since(objective.last) > IDLE && objective.members.is_empty();
            let (good, total, spent) = spent(objectives, objective, now);
            let remaining = 1.0 - spent;
            let exhausted_at = if remaining <= 0.0 { objective.exhausted_at.or(Some(now)) } else { None };
            let readings = WINDOWS.map(|(_, seconds)| {
                if idle { Reading::default() } else { reading(objectives, objective, second, seconds) }
            });
            let burn =
                WINDOWS.iter().zip(&readings).map(|(&(name, _), reading)| (name, reading.burn)).collect();
            let seen = readings.iter().map(|reading| (reading.bad, reading.total)).collect();
            let state = match objective.parts.first().map(|part| &part.source) {
                Some(Source::Logs { .. } | Source::Metric { .. }) => {
                    service.sending_state(now, now.since(objective.last) <= SENT_WITHIN)
                }
                _ => service.data_state(now),
            };
            let hour =
                WINDOWS.iter().zip(&readings).find(|((name, _), _)| *name == "1h").map(|(_, hour)| *hour);
            let ends_at = hour
                .filter(|hour| hour.burn > 1.0 && remaining > 0.0 && state == DataState::Ok)
                .and_then(|hour| {
                    let left =
                        Duration::try_from_secs_f64(remaining * length.as_secs_f64() / hour.burn).ok()?;
                    Some(now.saturating_add(left))
                });
            let spans = objective.parts.iter().find_map(|part| match &part.source {
                Source::Spans { operation, good } => Some((operation.clone(), good.threshold_ns)),
                _ => None,
            });
            budgets.push(Budget {
                slo: objective.name.clone(),
                service: service.key.clone(),
                target: objective.target,
                window: length,
                state,
                good,
                total,
                budget_remaining_ratio: remaining,
                burn,
                seen,
                exhausted_at,
                ends_at,
                published_at: now,
                time_zone: self.config.time_zone.clone(),
                default: objective.default,
                threshold_ns: spans.as_ref().and_then(|(_, threshold)| *threshold),
                operation: spans.and_then(|(operation, _)| operation.as_deref().map(str::to_owned)),
            });
            if let Some(objective) = objectives.get_mut(at) {
                objective.exhausted_at = exhausted_at;
            }
        }
        budgets.sort_by(|a, b| (&a.service, &a.slo).cmp(&(&b.service, &b.slo)));
        self.published.store(Arc::new(budgets));
    }
}

/// What a window of an objective held; of a composite, the mean of the burn rates of those with traffic.
fn reading(all: &[Objective], of: &Objective, now: u64, seconds: u64) -> Reading {
    if of.members.is_empty() {
        return of.reading(now, seconds);
    }
    let (mut sum, mut weights, mut burn) = (Reading::default(), 0.0, 0.0);
    for &(place, weight) in &of.members {
        let Some(member) = all.get(place as usize) else { continue };
        let reading = member.reading(now, seconds);
        if reading.total > 0 {
            (sum.bad, sum.total) =
                (sum.bad.saturating_add(reading.bad), sum.total.saturating_add(reading.total));
            (burn, weights) = (burn + weight * reading.burn, weights + weight);
        }
    }
    sum.burn = if weights > 0.0 { burn / weights } else { 0.0 };
    sum
}

/// Good, total and the spent share of the budget of the period so far.
fn spent(all: &[Objective], of: &Objective, now: Timestamp) -> (u64, u64, f64) {
    if of.members.is_empty() {
        return of.spent(now);
    }
    let (mut good, mut total, mut sum, mut weights) = (0u64, 0u64, 0.0, 0.0);
    for &(place, weight) in &of.members {
        let Some(member) = all.get(place as usize) else { continue };
        let (member_good, member_total, spent) = member.spent(now);
        if member_total > 0 {
            (good, total) = (good.saturating_add(member_good), total.saturating_add(member_total));
            (sum, weights) = (sum + weight * spent, weights + weight);
        }
    }
    (good, total, if weights > 0.0 { sum / weights } else { 0.0 })
}

impl Service {
    fn data_state(&self, now: Timestamp) -> DataState {
        self.sending_state(now, now.since(self.last_request) <= Duration::from_secs(30))
    }

    /// `counted`: whether what an objective counts came lately.
    fn sending_state(&self, now: Timestamp, counted: bool) -> DataState {
        let patience =
            Duration::try_from_secs_f64(3.0 * self.pause_s).unwrap_or(IDLE).max(Duration::from_secs(30));
        let silent = now.since(self.last);
        if silent > Duration::from_secs(3_600).max(patience) {
            DataState::Gone
        } else if silent > patience {
            DataState::Silent
        } else if counted {
            DataState::Ok
        } else {
            DataState::Quiet
        }
    }
}

impl Config {
    /// When an objective alerts.
    fn rules_of(&self, definition: &Definition) -> Vec<Rule> {
        definition
            .rules
            .clone()
            .unwrap_or_else(|| preset(&self.burn_windows, definition.period.longest()).unwrap_or_default())
    }
}

/// Two significant digits, upwards.
fn rounded_up(ns: f64) -> u64 {
    let digits = ns.max(1.0).log10().floor() - 1.0;
    let unit = 10f64.powf(digits.max(0.0));
    ((ns / unit).ceil() * unit) as u64
}
