//! Which objectives there are: those that definitions ask for, and the default ones.

use super::budgets::{Budgets, State};
use super::burn::{Rule, preset};
use super::config::Config;
use super::definition::{Counting, Definition, Method, Period};
use super::objective::{Made, Objective};
use crate::aggregate::{GoodSpans, IndicatorId};
use crate::model::ServiceKey;
use hashbrown::HashMap;
use std::sync::Arc;
use std::time::Duration;

const DEFAULT_PERIOD: Duration = Duration::from_secs(30 * 86_400);

impl Budgets {
    /// Brings the objectives in line with the definitions.
    pub(super) fn settle(&mut self) {
        let Self { config, definitions, state, removed, .. } = self;
        let services = &state.services;
        let mut named: HashMap<&str, Vec<&Definition>> = HashMap::new();
        for definition in definitions.iter() {
            named.entry(&definition.name).or_default().push(definition);
        }
        let stays = |objective: &mut Objective| {
            let Some(service) = services.get(objective.service as usize) else { return false };
            if objective.default {
                return config.default;
            }
            let named = named.get(objective.name.as_str()).map(Vec::as_slice).unwrap_or_default();
            let own = named.iter().find(|definition| {
                definition.counts_like(&objective.parts, objective.method)
                    && definition.some_is_bad == objective.some_is_bad
                    && definition.composed_of == objective.composed_of
                    && (definition.means(&service.key) || !definition.composed_of.is_empty())
            });
            if let Some(own) = own {
                objective.redefine(own.target, own.period.clone(), config.rules_of(own));
                objective.floor = own.floor;
                objective.user_attribute.clone_from(&own.users);
            }
            own.is_some()
        };
        state.objectives.retain_mut(|objective| {
            let stays = stays(objective);
            if !stays {
                Self::pieces_of(objective, removed);
            }
            stays
        });
        drop(named);
        let services: Vec<ServiceKey> = services.iter().map(|service| service.key.clone()).collect();
        for (number, service) in (0u32..).zip(services) {
            self.define(number, &service);
        }
        self.renumber();
    }

    /// Makes the objectives of a service that are not there yet: those that mean it, and, once it serves
    /// requests, the default one. Whether there were any.
    pub(super) fn define(&mut self, number: u32, service: &ServiceKey) -> bool {
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
        let Definition {
            name, parts, some_is_bad, target, method, period, composed_of, floor, users, ..
        } = definition;
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
            floor,
            user_attribute: users,
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
            floor: None,
            user_attribute: None,
        });
    }

    pub(super) fn define_latency(&mut self, number: u32, service: &ServiceKey, threshold_ns: u64) {
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
    pub(super) fn renumber(&mut self) {
        let State { services, objectives, .. } = &mut self.state;
        self.places.clear();
        let mut all = Vec::new();
        for (at, objective) in (0u32..).zip(objectives.iter()) {
            let Some(service) = services.get(objective.service as usize) else { continue };
            for (part, &id) in objective.parts.iter().zip(&objective.indicators) {
                self.places.insert(id, at);
                all.push(part.of(id, &service.key, objective.user_attribute.as_ref()));
            }
        }
        let mut places: HashMap<String, Vec<u32>> = HashMap::new();
        let is_composite = |&(_, objective): &(u32, &Objective)| !objective.composed_of.is_empty();
        self.composites = (0u32..).zip(objectives.iter()).filter(is_composite).map(|(at, _)| at).collect();
        if !self.composites.is_empty() {
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
pub(super) fn rounded_up(ns: f64) -> u64 {
    let digits = ns.max(1.0).log10().floor() - 1.0;
    let unit = 10f64.powf(digits.max(0.0));
    ((ns / unit).ceil() * unit) as u64
}
