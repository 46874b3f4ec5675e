//! Budgets as queries show them, and what was lost of them.

use super::budget::{Budget, DataState, length_in_words};
use super::budgets::{Budgets, State};
use super::burn::{Rule, WINDOWS};
use super::definition::Counting;
use super::objective::{Objective, Reading};
use super::service::Service;
use crate::aggregate::Source;
use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Without anything for so long an objective is not judged until something comes.
pub(super) const IDLE: Duration = Duration::from_secs(4 * 86_400);
/// So long after the last request that an objective counts none comes.
const REQUESTED_WITHIN: Duration = Duration::from_secs(30);
/// So long after the last count an objective of metrics or logs has no data: they are sent a minute apart.
const SENT_WITHIN: Duration = Duration::from_secs(150);

/// What an objective lost in a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    pub slo: String,
    pub service: ServiceKey,
    /// Bad events; of slices of time, those.
    pub bad: u64,
    /// Of the budget of its whole period: 1 = all of it.
    pub share: f64,
}

/// What was counted for an objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    pub slo: String,
    /// `None` of one whose service nothing came of.
    pub service: Option<ServiceKey>,
    pub good: u64,
    pub total: u64,
    /// What is left of the budget, as of a [`Budget`].
    pub left: f64,
    /// Why nothing was told of it, where nothing was: in words, as far as that shows at the end.
    pub untold: Option<String>,
}

impl Budgets {
    /// What was counted for each objective that is written down, in all periods that are held, in the order of
    /// their names.
    #[must_use]
    pub fn counted(&self) -> Vec<Counted> {
        let State { services, objectives, .. } = &self.state;
        let now = self.latest.max(self.at).secs();
        let of = |objective: &Objective| {
            let unit = objective.unit();
            let (good, total) = objective.since(now, 0);
            (good / unit, total / unit)
        };
        let row = |objective: &Objective| {
            let members = objective.members.iter().filter_map(|&(place, _)| objectives.get(place as usize));
            let (good, total) = members.map(of).fold(of(objective), |sum, of| {
                (u64::saturating_add(sum.0, of.0), u64::saturating_add(sum.1, of.1))
            });
            let service = services.get(objective.service as usize).map(|service| service.key.clone());
            Counted {
                slo: objective.name.clone(),
                service,
                good,
                total,
                left: 1.0 - spent(objectives, objective, Timestamp::from_secs(now)).2,
                untold: self.untold(objective, Timestamp::from_secs(now)),
            }
        };
        let mut counted: Vec<Counted> = objectives.iter().filter(|of| !of.default).map(row).collect();
        for definition in &self.definitions {
            let is_meant = |of: &Counted| {
                let service = of.service.as_ref();
                of.slo == definition.name
                    && (!definition.composed_of.is_empty()
                        || service.is_some_and(|key| definition.means(key)))
            };
            if !counted.iter().any(is_meant) {
                counted.push(Counted {
                    slo: definition.name.clone(),
                    service: None,
                    good: 0,
                    total: 0,
                    left: 1.0,
                    untold: None,
                });
            }
        }
        counted.sort_by(|a, b| (&a.slo, &a.service).cmp(&(&b.slo, &b.service)));
        counted
    }

    /// What kept an objective from being told of, as it stands at the end. `None` if nothing bad was counted.
    fn untold(&self, objective: &Objective, now: Timestamp) -> Option<String> {
        let all = &self.state.objectives;
        let read = |seconds: u64| reading(all, objective, now.secs(), seconds);
        let seen = now.since(first(all, objective)).max(Duration::from_secs(1));
        let bad = read(seen.as_secs().saturating_add(1)).bad;
        if bad == 0 {
            return None;
        }
        if objective.rules.is_empty() {
            return Some("it has no alerts of its own".to_owned());
        }
        let floor = objective.floor.unwrap_or(self.config.bad_requests);
        if bad < floor && objective.unit() == 1 && objective.members.is_empty() {
            let set_by = if objective.floor.is_none() { " (slo.bad_requests)" } else { "" };
            return Some(format!("a rule begins with {floor} bad ones{set_by}"));
        }
        // What it burned at would have been enough, had it gone on.
        let cut_short = objective.rules.iter().filter_map(|rule| match rule {
            Rule::Burn(rule) if rule.long > seen && rule.factor > 0.0 => {
                let burn = read(rule.long.as_secs()).burn;
                let over_all = burn * seen.as_secs_f64() / rule.long.as_secs_f64().max(1.0);
                (burn >= rule.factor && over_all < rule.factor).then_some((over_all, rule))
            }
            _ => None,
        });
        let nearest =
            cut_short.max_by(|(a, a_rule), (b, b_rule)| (a / a_rule.factor).total_cmp(&(b / b_rule.factor)));
        Some(match nearest {
            Some((rate, rule)) => format!(
                "only {} were counted: over the whole {} of a rule its burn rate was {rate:.1}, and {} is asked for",
                length_in_words(seen.as_secs()),
                length_in_words(rule.long.as_secs()),
                rule.factor
            ),
            None => "too slowly or too briefly for any of its rules, or too few to be sure".to_owned(),
        })
    }

    /// What the objectives of services lost between two moments, without what is excluded, most of their
    /// budget first; those that lost nothing are left out.
    #[must_use]
    pub fn lost(&self, services: &BTreeSet<&ServiceKey>, from: Timestamp, until: Timestamp) -> Vec<Lost> {
        let now = self.latest.max(self.at).max(until);
        let numbers: BTreeSet<u32> =
            services.iter().filter_map(|service| self.state.numbers.get(*service).copied()).collect();
        let own = self.state.objectives.iter().filter(|objective| numbers.contains(&objective.service));
        let mut lost: Vec<Lost> = own
            .filter(|objective| objective.composed_of.is_empty())
            .filter_map(|objective| self.lost_of(objective, now, from, until))
            .filter(|lost| lost.bad > 0)
            .collect();
        lost.sort_by(|a, b| {
            b.share.total_cmp(&a.share).then_with(|| (&a.service, &a.slo).cmp(&(&b.service, &b.slo)))
        });
        lost
    }

    /// Distinct users of services that something bad happened to between two moments, and all that were there,
    /// of the objective that most were affected of; `None` where nobody counts them.
    #[must_use]
    pub fn users(
        &self,
        services: &BTreeSet<&ServiceKey>,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<(u64, u64)> {
        let now = self.latest.max(until).secs();
        let numbers: BTreeSet<u32> =
            services.iter().filter_map(|service| self.state.numbers.get(*service).copied()).collect();
        let own = self.state.objectives.iter().filter(|objective| numbers.contains(&objective.service));
        own.filter_map(|objective| objective.users.between(now, from.secs(), until.secs())).max()
    }

    fn lost_of(
        &self,
        objective: &Objective,
        now: Timestamp,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Lost> {
        let service = self.state.services.get(objective.service as usize)?.key.clone();
        let (bad, share) = objective.lost(now, from, until);
        let unit = objective.unit();
        Some(Lost { slo: objective.name.clone(), service, bad: bad.div_ceil(unit), share })
    }

    /// How the budgets of a service stand at a moment, by all that was counted until then.
    #[must_use]
    pub fn of(&self, service: &ServiceKey, now: Timestamp) -> Vec<Budget> {
        let number = self.state.numbers.get(service);
        let own = self.state.objectives.iter().filter(|objective| Some(&objective.service) == number);
        own.filter_map(|objective| self.budget(objective, now)).collect()
    }

    pub(super) fn publish(&mut self, now: Timestamp) {
        for objective in &mut self.state.objectives {
            objective.period_at(now);
        }
        let all =
            self.state.objectives.iter().map(|objective| self.budget(objective, now)).collect::<Vec<_>>();
        let mut budgets = Vec::with_capacity(all.len());
        for (objective, budget) in self.state.objectives.iter_mut().zip(all) {
            let Some(budget) = budget else { continue };
            objective.exhausted_at = budget.exhausted_at;
            budgets.push(budget);
        }
        budgets.sort_by(|a, b| (&a.service, &a.slo).cmp(&(&b.service, &b.slo)));
        self.published.store(Arc::new(budgets));
    }

    fn budget(&self, objective: &Objective, now: Timestamp) -> Option<Budget> {
        let State { services, objectives, .. } = &self.state;
        let service = services.get(objective.service as usize)?;
        let second = now.secs();
        let length = objective.period_around(now).1;
        let idle = now.since(objective.last) > IDLE && objective.members.is_empty();
        let (good, total, spent) = spent(objectives, objective, now);
        let remaining = 1.0 - spent;
        let exhausted_at = if remaining <= 0.0 { objective.exhausted_at.or(Some(now)) } else { None };
        let readings = WINDOWS.map(|(_, seconds)| {
            if idle { Reading::default() } else { reading(objectives, objective, second, seconds) }
        });
        let burn = WINDOWS.iter().zip(&readings).map(|(&(name, _), reading)| (name, reading.burn)).collect();
        let seen = readings.iter().map(|reading| (reading.bad, reading.total)).collect();
        let state = state(services, objectives, objective, now);
        let hour = WINDOWS.iter().zip(&readings).find(|((name, _), _)| *name == "1h").map(|(_, hour)| *hour);
        let ends_at = hour
            .filter(|hour| hour.burn > 1.0 && remaining > 0.0 && state == DataState::Ok)
            .and_then(|hour| {
                let left = Duration::try_from_secs_f64(remaining * length.as_secs_f64() / hour.burn).ok()?;
                Some(now.saturating_add(left))
            });
        let spans = objective.parts.iter().find_map(|part| match &part.source {
            Source::Spans { operation, good } => Some((operation.clone(), good.threshold_ns)),
            _ => None,
        });
        let first = first(objectives, objective);
        let silent_until = objective.silent_until(self.config.default_silent.0);
        Some(Budget {
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
            users: objective.users.between(second, second.saturating_sub(3_600), second),
            excluded: excluded(objectives, objective, now),
            exhausted_at,
            ends_at,
            counted_since: (first != Timestamp::ZERO).then_some(first),
            silent_until: silent_until.filter(|until| now < *until),
            published_at: now,
            time_zone: self.config.time_zone.clone(),
            default: objective.default,
            threshold_ns: spans.as_ref().and_then(|(_, threshold)| *threshold),
            operation: spans.and_then(|(operation, _)| operation.as_deref().map(str::to_owned)),
        })
    }
}

/// Whether what an objective counts comes; of a composite, the best of its parts.
fn state(services: &[Service], all: &[Objective], of: &Objective, now: Timestamp) -> DataState {
    let own = |of: &Objective| {
        let Some(service) = services.get(of.service as usize) else { return DataState::Gone };
        let (last, within) = match of.parts.first() {
            // Of one that counts them all, those are known, too, that came before it was made.
            Some(Counting { source: Source::Spans { operation: None, .. }, only }) if only.is_empty() => {
                (of.last.max(service.last_request), REQUESTED_WITHIN)
            }
            Some(Counting { source: Source::Spans { .. }, .. }) => (of.last, REQUESTED_WITHIN),
            _ => (of.last, SENT_WITHIN),
        };
        service.state(now, now.since(last) <= within)
    };
    let members = of.members.iter().filter_map(|&(place, _)| all.get(place as usize));
    members.map(own).min().unwrap_or_else(|| own(of))
}

/// What a window of an objective held; of a composite, the mean of the burn rates of those with traffic.
pub(super) fn reading(all: &[Objective], of: &Objective, now: u64, seconds: u64) -> Reading {
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

/// When the first of it was counted; of a composite, of any that it is composed of.
pub(super) fn first(all: &[Objective], of: &Objective) -> Timestamp {
    let members = of.members.iter().filter_map(|&(place, _)| all.get(place as usize));
    let firsts = members.map(|member| member.first).filter(|first| *first != Timestamp::ZERO);
    firsts.min().unwrap_or(of.first)
}

/// How much of its period so far adjustments take out; of a composite, of the part with most of it.
fn excluded(all: &[Objective], of: &Objective, now: Timestamp) -> Duration {
    let members = of.members.iter().filter_map(|&(place, _)| all.get(place as usize));
    members.map(|member| member.excluded(now)).fold(of.excluded(now), Duration::max)
}

/// Good, total and the spent share of the budget of the period so far.
pub(super) fn spent(all: &[Objective], of: &Objective, now: Timestamp) -> (u64, u64, f64) {
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
