//! Which objectives there are: those that definitions ask for, and the default ones.

use super::budgets::{Budgets, State};
use super::burn::{Rule, preset};
use super::config::Config;
use super::definition::{Counting, Definition, Method, Period};
use super::objective::{Made, Objective};
use crate::aggregate::{GoodSpans, IndicatorId};
use crate::model::ServiceKey;
use crate::probe::NAMESPACE;
use hashbrown::HashMap;
use std::sync::Arc;
use std::time::Duration;

const DEFAULT_PERIOD: Duration = Duration::from_secs(30 * 86_400);

impl Budgets {
    /// Brings the objectives in line with the definitions.
    pub(super) fn settle(&mut self) {
        let Self { config, definitions, state, removed, learned, .. } = self;
        let services = &state.services;
        let mut named: HashMap<&str, Vec<&Definition>> = HashMap::new();
        for definition in definitions.iter() {
            named.entry(&definition.name).or_default().push(definition);
        }
        let mut stays = |objective: &mut Objective| {
            let Some(service) = services.get(objective.service as usize) else { return false };
            let named = named.get(objective.name.as_str()).map(Vec::as_slice).unwrap_or_default();
            if let Some(threshold_ns) = objective.threshold_ns().filter(|_| objective.default) {
                learned.insert(objective.service, threshold_ns);
            }
            let own = named.iter().find(|definition| {
                definition.counts_like(&objective.parts, objective.method)
                    && definition.some_is_bad == objective.some_is_bad
                    && definition.composed_of == objective.composed_of
                    && (definition.means(&service.key) || !definition.composed_of.is_empty())
            });
            if let Some(own) = own {
                // Also of a default one: who writes one of its name down means that one.
                objective.default = false;
                objective.redefine(own.target, own.period.clone(), config.rules_of(own));
                objective.floor = own.floor;
                objective.user_attribute.clone_from(&own.users);
            }
            let is_meant = || named.iter().any(|definition| definition.means(&service.key));
            own.is_some() || objective.default && config.gives_default(&service.key) && !is_meant()
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
        let mut made = false;
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
            made |= self.make(number, definition);
            for composite in composites {
                let known = |known: &Objective| known.name == composite.name && !known.composed_of.is_empty();
                if !self.state.objectives.iter().any(known) {
                    let own = self.state.services.iter().position(|known| composite.means(&known.key));
                    let number = own.and_then(|own| u32::try_from(own).ok()).unwrap_or(number);
                    made |= self.make(number, composite);
                }
            }
        }
        let is_one_of_few = u64::from(number) < self.config.default_services;
        if self.config.gives_default(service) && has_requests && is_one_of_few {
            let good = GoodSpans { errors_are_bad: true, ..GoodSpans::default() };
            made |= self.make_default(number, service, "availability", good);
            if let Some(&threshold_ns) = self.learned.get(&number) {
                let good = GoodSpans { threshold_ns: Some(threshold_ns), ..GoodSpans::default() };
                made |= self.make_default(number, service, "latency", good);
            }
        }
        made
    }

    fn make(&mut self, service: u32, definition: Definition) -> bool {
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
        })
    }

    /// Makes the default objective `SERVICE-KIND`, unless somebody wrote one of that name down.
    fn make_default(&mut self, number: u32, service: &ServiceKey, kind: &str, good: GoodSpans) -> bool {
        let name = format!("{}-{kind}", service.name);
        if self.definitions.iter().any(|definition| definition.name == name && definition.means(service)) {
            return false;
        }
        self.add(Made {
            name,
            service: number,
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
        })
    }

    /// Adds an objective; whether there was none of its name. One that somebody wrote down takes the place of a
    /// default one.
    fn add(&mut self, made: Made) -> bool {
        let Self { state: State { objectives, .. }, removed, .. } = self;
        let is_known = |known: &Objective| known.name == made.name && known.service == made.service;
        if let Some(at) = objectives.iter().position(is_known) {
            let Some(known) = objectives.get(at).filter(|known| known.default && !made.default) else {
                return false;
            };
            Self::pieces_of(known, removed);
            objectives.remove(at);
        }
        // Numbers are never given twice: shards may still count by an old one.
        let mut indicators = Vec::with_capacity(made.parts.len());
        for _ in &made.parts {
            self.state.numbered = self.state.numbered.saturating_add(1);
            indicators.push(IndicatorId(self.state.numbered));
        }
        self.state.objectives.push(Objective::new(made, indicators));
        true
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
    /// Whether a service gets default objectives. A check has one of its own.
    pub(super) fn gives_default(&self, service: &ServiceKey) -> bool {
        self.default && *service.namespace != *NAMESPACE
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Cell;
    use crate::model::{SeriesId, SeriesKey, Signal, SpanKind, WindowId};
    use crate::probe::Check;
    use crate::settings::{Seconds, Setting};
    use crate::slo::oracle::{MONTH, begun, counted, definition, shop, tick};
    use crate::slo::{DataState, of_checks};
    use crate::window::{Registry, Tick};

    const START: u64 = 1_700_000_000;

    fn availability(target: f64) -> Definition {
        definition("shop-availability", target, Method::Occurrences, MONTH)
    }

    /// Name, target and whether it is a default one, of each objective.
    fn rows(budgets: &Budgets) -> Vec<(&str, f64, bool)> {
        budgets.state.objectives.iter().map(|of| (of.name.as_str(), of.target, of.default)).collect()
    }

    fn restarted(budgets: &Budgets, definitions: Vec<Definition>) -> Budgets {
        let mut again = Budgets::new(budgets.config.clone(), definitions);
        again.restore_state(&budgets.state()).expect("its own state");
        again
    }

    #[test]
    fn what_somebody_wrote_down_takes_the_place_of_the_default_of_its_name_for_as_long_as_it_is_there() {
        let (mut budgets, registry) = begun(&Config::default(), &[], START);
        budgets.step(&counted(&budgets, START + 1, START + 1, 9, 10), &registry);
        assert_eq!(rows(&budgets), [("shop-availability", 0.99, true)]);
        // It counts the same, and goes on from there.
        budgets.replace(vec![availability(0.5)]);
        assert_eq!(rows(&budgets), [("shop-availability", 0.5, false)]);
        budgets.step(&tick(START + 10), &registry);
        assert_eq!(budgets.published().load()[0].total, 10);
        // Another name, and back.
        budgets.replace(vec![Definition { name: "other".into(), ..availability(0.5) }]);
        assert_eq!(rows(&budgets), [("other", 0.5, false), ("shop-availability", 0.99, true)]);
        budgets.replace(vec![availability(0.5)]);
        assert_eq!(rows(&budgets), [("shop-availability", 0.5, false)]);
        budgets.replace(Vec::new());
        assert_eq!(rows(&budgets), [("shop-availability", 0.99, true)]);
        // Written while the daemon was away.
        let again = restarted(&budgets, vec![availability(0.75)]);
        assert_eq!(rows(&again), [("shop-availability", 0.75, false)]);
        // One that counts something else.
        let slow = GoodSpans { threshold_ns: Some(1), ..GoodSpans::default() };
        let other = Definition { parts: vec![Counting::requests(None, slow)], ..availability(0.5) };
        budgets.replace(vec![other]);
        assert_eq!(rows(&budgets), [("shop-availability", 0.5, false)]);
        budgets.step(&tick(START + 20), &registry);
        assert_eq!(budgets.published().load()[0].total, 0, "it begins anew");
        // One that is composed of others, and does not mean the service itself.
        let part = Definition { name: "part".into(), ..availability(0.9) };
        let composed_of = vec![("part".to_owned(), 1.0)];
        let (service, parts) = ("elsewhere".to_owned(), Vec::new());
        let whole = Definition { service, parts, composed_of, ..availability(0.9) };
        budgets.replace(Vec::new());
        budgets.replace(vec![part, whole]);
        assert_eq!(rows(&budgets), [("part", 0.9, false), ("shop-availability", 0.9, false)]);
    }

    #[test]
    fn a_learned_threshold_is_remembered_while_somebodys_own_objective_has_its_name() {
        let own = || Definition { name: "shop-latency".into(), ..availability(0.5) };
        let config = Config { learn_latency: Seconds(Duration::from_secs(10)), ..Config::default() };
        for defined_first in [false, true] {
            let definitions = if defined_first { vec![own()] } else { Vec::new() };
            let (mut budgets, registry) = begun(&config, &definitions, START);
            for second in START..START + 30 {
                let mut requests = crate::aggregate::Requests::default();
                (0..20).for_each(|_| requests.latency.record(5_000_000.0));
                let cell = Cell::Requests(Box::new(requests));
                let changed = vec![(shop().0, WindowId(second / 10), cell)];
                budgets.step(&Tick { changed, ..tick(second) }, &registry);
            }
            let latency = |budgets: &Budgets| {
                let mut all = budgets.state.objectives.iter().filter(|of| of.name == "shop-latency");
                let found = all.next().map(|of| (of.default, of.threshold_ns()));
                (found, all.count())
            };
            budgets.replace(vec![own()]);
            assert_eq!(latency(&budgets), (Some((false, None)), 0));
            let mut again = restarted(&budgets, vec![own()]);
            again.replace(Vec::new());
            let (Some((true, Some(threshold_ns))), 0) = latency(&again) else { panic!("{again:?}") };
            assert!((10_000_000..=11_000_000).contains(&threshold_ns), "{threshold_ns}");
        }
    }

    #[test]
    fn a_state_of_before_thresholds_were_remembered_is_read() {
        let (budgets, _) = begun(&Config::default(), &[], START);
        let head = postcard::to_stdvec(&budgets.state).expect("it can be written");
        let mut again = Budgets::new(Config::default(), Vec::new());
        again.restore(&head, []).expect("it can be read");
        assert_eq!(rows(&again), [("shop-availability", 0.99, true)]);
    }

    /// Spans of an operation of a service, in the registry.
    fn series(registry: &Registry, service: ServiceKey, operation: &str) -> SeriesId {
        let key = SeriesKey {
            service,
            signal: Signal::Traces,
            operation: operation.into(),
            kind: SpanKind::Server,
            entry: true,
            unit: "".into(),
            attributes: Vec::new(),
        };
        let id = key.id();
        registry.add(id, Arc::new(key), 0);
        id
    }

    fn seen(id: SeriesId, second: u64) -> Tick {
        Tick { changed: vec![(id, WindowId(second / 10), Cell::Requests(Box::default()))], ..tick(second) }
    }

    #[test]
    fn a_checks_service_has_no_other_objective_than_its_own() {
        let table = r#"{ name = "front", url = "http://127.0.0.1:1/" }"#.parse().expect("a table");
        let check = Check::read(&table).expect("a check");
        let registry = Registry::default();
        let id = series(&registry, check.runs_as(), "GET");
        let mut budgets = Budgets::new(Config::default(), of_checks(&[check]));
        budgets.step(&seen(id, START), &registry);
        assert_eq!(rows(&budgets), [("front-check", 0.99, false)]);
        // A default one of before goes.
        let good = GoodSpans { errors_are_bad: true, ..GoodSpans::default() };
        let front = ServiceKey::named("front");
        assert!(budgets.make_default(0, &front, "availability", good));
        budgets.settle();
        assert_eq!(rows(&budgets), [("front-check", 0.99, false)]);
    }

    #[test]
    fn what_counts_nothing_of_a_service_that_sends_is_quiet_and_a_composite_is_as_its_best_part() {
        let of = |name: &str, operation: &str| {
            let good = GoodSpans { errors_are_bad: true, ..GoodSpans::default() };
            let parts = vec![Counting::requests(Some(operation.into()), good)];
            Definition { name: name.into(), parts, ..availability(0.9) }
        };
        let whole = |name: &str, parts: [&str; 2]| Definition {
            name: name.into(),
            parts: Vec::new(),
            composed_of: parts.map(|part| (part.to_owned(), 0.5)).to_vec(),
            ..availability(0.9)
        };
        let definitions = [
            of("a", "GET /"),
            of("b", "never"),
            of("c", "never"),
            whole("some", ["a", "b"]),
            whole("none", ["b", "c"]),
        ];
        let (mut budgets, registry) =
            begun(&Config { default: false, ..Config::default() }, &definitions, START);
        for second in START + 1..START + 60 {
            let mut tick = counted(&budgets, second, second, 1, 1);
            tick.indicators.truncate(1);
            budgets.step(&tick, &registry);
        }
        let all = budgets.published().load_full();
        let states: Vec<_> = all.iter().map(|of| (of.slo.as_str(), of.total > 0, of.state)).collect();
        use DataState::{Ok, Quiet};
        let wanted = [
            ("a", true, Ok),
            ("b", false, Quiet),
            ("c", false, Quiet),
            ("none", false, Quiet),
            ("some", true, Ok),
        ];
        assert_eq!(states, wanted);
        budgets.definitions.push(Definition { service: "gone".into(), ..of("z", "GET /") });
        let counted = budgets.counted();
        let counted: Vec<_> =
            counted.iter().map(|of| (of.slo.as_str(), of.service.is_some(), of.good, of.total)).collect();
        let wanted = [
            ("a", true, 59, 59),
            ("b", true, 0, 0),
            ("c", true, 0, 0),
            ("none", true, 0, 0),
            ("some", true, 59, 59),
            ("z", false, 0, 0),
        ];
        assert_eq!(counted, wanted);
    }
}
