//! All objectives, stepped once a cut.

use super::adjustment::{Adjustment, excluded};
use super::budget::Budget;
use super::burn::{Burn, Rule};
use super::config::Config;
use super::definition::Definition;
use super::objective::{Before, Caution, Objective, judge};
use super::publish::{IDLE, first, reading, spent};
use super::read::{Refused, read_all};
use super::service::Service;
use super::settle::rounded_up;
use crate::aggregate::{Cell, Indicator, IndicatorId};
use crate::model::{SeriesId, SeriesKey, ServiceKey, Timestamp};
use crate::store::PieceKey;
use crate::window::{Registry, Tick};
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Budgets are published, and idle burns judged anew, every so many seconds.
const PUBLISH_EVERY_S: u64 = 10;
/// Seconds between looks for series that are forgotten: what is heard again is looked up again.
const FORGET_EVERY_S: u64 = 3_600;
/// The beginning of burning is looked for so far back, or as far as the short window reaches.
const BEGAN_WITHIN: Duration = Duration::from_secs(6 * 3_600);
/// A burn that goes on is said again so often.
const REMIND: Duration = Duration::from_secs(60);
/// Requests the default latency objective is learned from at least.
const LEARN_REQUESTS: u64 = 200;
/// How much slower than the slowest hundredth was while learning a request must be to count as slow: a
/// quarter of an hour sees neither the daily peak nor the nightly batch.
const SLOW: f64 = 2.0;

/// Services that are known at most; of further ones nothing is budgeted.
const SERVICES: u32 = 20_000;
/// Adjustments that are kept at most; the oldest go first.
const ADJUSTMENTS: usize = 10_000;

/// All objectives and their counts.
#[derive(Debug)]
pub struct Budgets {
    pub(super) config: Config,
    pub(super) definitions: Vec<Definition>,
    pub(super) state: State,
    /// Which service a series belongs to, and whether its spans are requests.
    pub(super) series: HashMap<SeriesId, (u32, bool), foldhash::fast::FixedState>,
    pub(super) indicators: Arc<Vec<Indicator>>,
    /// Places of the objectives that indicators count for, and of those composed of others.
    pub(super) places: HashMap<IndicatorId, u32, foldhash::fast::FixedState>,
    pub(super) composites: Vec<u32>,
    /// Whether objectives were made since all that follows from them was found.
    pub(super) made: bool,
    /// What too slow is by default, by the numbers of services it was learned of.
    pub(super) learned: BTreeMap<u32, u64>,
    /// Counts of objectives that are no more, which a checkpoint still holds.
    pub(super) removed: Vec<PieceKey>,
    pub(super) published: Arc<ArcSwap<Vec<Budget>>>,
    pub(super) published_adjustments: Arc<ArcSwap<Vec<Adjustment>>>,
    /// When anything came last.
    pub(super) latest: Timestamp,
    /// When the last cut was.
    pub(super) at: Timestamp,
    /// Whether something is to be published that nothing that came has told.
    pub(super) news: bool,
    /// Number of the last cut.
    pub(super) number: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub services: Vec<Service>,
    pub numbers: BTreeMap<ServiceKey, u32>,
    pub objectives: Vec<Objective>,
    /// The highest number an indicator ever had.
    pub numbered: u32,
    pub adjustments: Vec<Adjustment>,
}

impl Budgets {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// Files cannot be taken: with file, line and key.
    pub fn open(config: Config) -> Result<Self, Refused> {
        let definitions = read_all(&config.files)?.definitions;
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
            places: HashMap::default(),
            composites: Vec::new(),
            made: false,
            learned: BTreeMap::new(),
            removed: Vec::new(),
            published: Arc::default(),
            published_adjustments: Arc::default(),
            latest: Timestamp::ZERO,
            at: Timestamp::ZERO,
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

    /// Goes by other definitions from now on, as after a file was changed: what counts as before keeps its
    /// counts.
    pub fn replace(&mut self, definitions: Vec<Definition>) {
        self.definitions = definitions;
        self.settle();
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

    pub(super) fn exclude(&mut self) {
        if **self.published_adjustments.load() != self.state.adjustments {
            self.published_adjustments.store(Arc::new(self.state.adjustments.clone()));
        }
        let State { services, objectives, adjustments, .. } = &mut self.state;
        // What is taken out of a composite is taken out of its parts.
        let mut of_composites: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for &at in &self.composites {
            let Some(composite) = objectives.get(at as usize) else { continue };
            let Some(service) = services.get(composite.service as usize) else { continue };
            // What is told of a service concerns its own parts alone, wherever the composite stands.
            let concerns =
                |told: &&Adjustment| !told.slo.is_empty() && told.concerns(&composite.name, &service.key);
            let told: Vec<usize> = (0..)
                .zip(adjustments.iter())
                .filter(|(_, told)| concerns(told))
                .map(|(place, _)| place)
                .collect();
            for &(member, _) in &composite.members {
                of_composites.entry(member).or_default().extend(&told);
            }
        }
        for (at, objective) in (0..).zip(objectives) {
            let Some(service) = services.get(objective.service as usize) else { continue };
            let of_composites = of_composites.get(&at);
            let concern = |(place, told): &(usize, &Adjustment)| {
                told.concerns(&objective.name, &service.key)
                    || of_composites.is_some_and(|places| places.contains(place))
            };
            let all = (0..).zip(adjustments.iter()).filter(concern).map(|(_, told)| told);
            let times = excluded(all, objective.grain_s());
            objective.adjusted |= objective.excluded != times;
            objective.excluded = times;
            // Whether its rules still hold is asked anew.
            objective.touched = true;
        }
    }

    /// Counts what arrived, and says what begins or ceases to burn too fast.
    pub fn step(&mut self, tick: &Tick, registry: &Registry) -> Vec<Burn> {
        let now = tick.cut.arrived;
        self.at = now;
        for (id, _, cell) in &tick.changed {
            self.cell(now, *id, cell, registry);
            self.latest = now;
        }
        // Once for all that a cut brought, however many services are new.
        if std::mem::take(&mut self.made) {
            self.renumber();
        }
        for (id, count) in &tick.indicators {
            let Some(&at) = self.places.get(id) else { continue };
            let Some(objective) = self.state.objectives.get_mut(at as usize) else { continue };
            objective.add(now, count.second, count.good, count.total);
            self.latest = now;
        }
        for (id, users) in &tick.users {
            let objective = self.places.get(id).and_then(|&at| self.state.objectives.get_mut(at as usize));
            if let Some(objective) = objective {
                objective.users.add(now.secs(), users);
            }
        }
        // While nothing comes, rates change only as windows move on.
        let every = match now.since(self.latest).as_secs() {
            0..60 => PUBLISH_EVERY_S,
            60..7_200 => 6 * PUBLISH_EVERY_S,
            _ => 60 * PUBLISH_EVERY_S,
        };
        // A judge that was late got one larger tick: it may have passed over the second itself.
        let is_due = tick.cut.number / every != self.number / every;
        if tick.cut.number / FORGET_EVERY_S != self.number / FORGET_EVERY_S {
            self.series.retain(|id, _| registry.names(*id));
        }
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
            service.learning = self.config.gives_default(&service.key).then(Box::default);
            self.made |= self.define(number, &key);
            return;
        }
        if let Some(learned) = &mut service.learning {
            learned.add(&requests.latency);
            let is_enough =
                now.since(service.first) >= self.config.learn_latency.0 && learned.count() >= LEARN_REQUESTS;
            if is_enough && let Some(p99) = learned.histogram().quantile(0.99) {
                let key = service.key.clone();
                service.learning = None;
                self.learned.insert(number, rounded_up(p99 * SLOW));
                self.made |= self.define(number, &key);
            }
        }
    }

    fn service(&mut self, now: Timestamp, key: &SeriesKey) -> Option<u32> {
        if let Some(&number) = self.state.numbers.get(&key.service) {
            return Some(number);
        }
        let number = u32::try_from(self.state.services.len()).ok().filter(|number| *number < SERVICES)?;
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
        self.made |= self.define(number, &key.service);
        Some(number)
    }

    /// A composite is judged when any of its parts is.
    fn touch_composites(&mut self) {
        let objectives = &mut self.state.objectives;
        for &at in &self.composites {
            let is_touched = |&(place, _): &(u32, f64)| {
                objectives.get(place as usize).is_some_and(|member| member.touched)
            };
            let touched = objectives.get(at as usize).is_some_and(|of| of.members.iter().any(is_touched));
            if touched && let Some(objective) = objectives.get_mut(at as usize) {
                objective.touched = true;
            }
        }
    }

    fn judge(&mut self, now: Timestamp, at: usize, all: bool, burns: &mut Vec<Burn>) {
        let Some(objective) = self.state.objectives.get_mut(at) else { return };
        let burning = objective.standing.iter().any(|standing| !standing.is_idle());
        let touched = std::mem::take(&mut objective.touched);
        let adjusted = std::mem::take(&mut objective.adjusted);
        if objective.rules.is_empty() || !(touched || all && burning) {
            return;
        }
        let length = objective.period_at(now).1;
        let mut standings = std::mem::take(&mut objective.standing);
        let State { services, objectives, .. } = &self.state;
        let Some(objective) = objectives.get(at) else { return };
        let Some(service) = services.get(objective.service as usize) else { return };
        let silent_until = objective.silent_until(self.config.default_silent.0);
        let young = silent_until.is_some_and(|until| now < until);
        // A slice, or a share, is many events already.
        let mut members = objective.members.iter().filter_map(|&(place, _)| objectives.get(place as usize));
        let is_of_parts = objective.unit() != 1 || members.any(|member| member.unit() != 1);
        let usual = if is_of_parts { 1 } else { self.config.bad_requests };
        let floor = objective.floor.unwrap_or(usual);
        let caution = Caution { floor, improbable: self.config.improbable };
        let first = first(objectives, objective);
        // A check asks for a number of runs, however young it is.
        let seen_s = if objective.floor.is_some() { u64::MAX } else { now.since(first).as_secs() };
        for (rule, standing) in objective.rules.iter().zip(&mut standings) {
            if standing.is_idle() && objective.is_at_peace(now.secs(), rule) {
                continue;
            }
            if adjusted {
                // It ceased for what was excluded, and begins again with what is not any more.
                standing.ceased = Timestamp::ZERO;
            }
            let was = standing.said != Timestamp::ZERO;
            let remaining = || 1.0 - spent(objectives, objective, now).2;
            let holding = standing.since != Timestamp::ZERO;
            let before = match standing.ceased {
                _ if holding => Before::Held,
                Timestamp::ZERO => Before::Never,
                ceased => Before::Ceased(now.since(ceased).as_secs()),
            };
            let seen = judge(rule, objective.target, length, remaining, caution, before, seen_s, |seconds| {
                reading(objectives, objective, now.secs(), seconds)
            });
            if holding && !seen.holds {
                (standing.since, standing.ceased) = (Timestamp::ZERO, now);
            } else if seen.holds && !holding {
                standing.since = now;
                standing.began = objective.began(now, rule.long().min(BEGAN_WITHIN).max(seen.short_window));
                standing.fresh = if adjusted { now } else { objective.last_bad(now) };
            }
            let (after, keep_firing_for) = match rule {
                Rule::Burn(rule) => (rule.after, rule.keep_firing_for),
                _ => (Duration::ZERO, Duration::ZERO),
            };
            let burns_now = if seen.holds {
                now.since(standing.since) >= after
            } else {
                // What was taken out of the budget does not burn, and ends at once.
                was && !adjusted
                    && standing.ceased != Timestamp::ZERO
                    && now.since(standing.ceased) < keep_firing_for
            };
            if burns_now == was && (!burns_now || now.since(standing.said) < REMIND) {
                continue;
            }
            standing.said = if burns_now { now } else { Timestamp::ZERO };
            let since = standing.began.max(first);
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
                since,
                fresh: standing.fresh.max(since),
            });
        }
        if let Some(objective) = self.state.objectives.get_mut(at) {
            objective.standing = standings;
        }
    }
}
