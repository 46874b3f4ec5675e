//! Which series there are, and how the one of an item is found without allocating.

use super::config::{Bounds, OTHER, bounded, is_fair, is_fair_of_a_caller};
use super::names::{NameHash, Names};
use super::slots::Slots;
use super::{Indicator, Weight};
use crate::limits::UntimelyReason;
use crate::model::{Interner, SeriesId, SeriesKey, ServiceKey, Signal, SpanKind};
use crate::receive::CallerTag;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const NONE: u32 = u32::MAX;

/// What a series is about, beside its service and the raw bytes that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub service: u32,
    pub signal: Signal,
    pub kind: SpanKind,
    pub entry: bool,
}

/// Items whose time was not followed as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Untimely {
    pub too_old: u64,
    pub future: u64,
    pub crowded: u64,
}

#[derive(Debug)]
pub(super) struct Service {
    pub key: Arc<ServiceKey>,
    /// Stands for it in what outlives its number.
    pub owner: u64,
    pub series: usize,
    /// Items that were counted in an overflow series since the last barrier.
    pub overflowed: u64,
    /// Items since the last barrier whose time was not followed.
    pub untimely: Untimely,
    pub peers: usize,
    /// Who brought it.
    caller: CallerTag,
}

/// What a caller brought.
#[derive(Clone, Copy, Debug, Default)]
struct Brought {
    services: usize,
    /// Apart from overflow series.
    series: usize,
    overflow_series: usize,
    /// Items since the last barrier for which there was no room, while it had more than others.
    overflowed: u64,
}

/// What counting an item of a series touches: one cache line, which with many series is mostly a cold one.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Series {
    pub id: SeriesId,
    /// Second of the last barrier before which it had an item.
    pub used: u64,
    pub slots: Slots,
    pub service: u32,
    /// The list of the indicators that count it; `NONE` when there are none.
    pub indicators: u32,
    /// How the peer of its last span was named (see `peers.rs`).
    pub last_peer_name: u32,
    /// Who brought it.
    caller: CallerTag,
    pub is_overflow: bool,
}

/// Series and services by number.
#[derive(Debug)]
pub(super) struct SeriesTable {
    names: Names,
    all: Vec<Series>,
    keys: Vec<Arc<SeriesKey>>,
    by_id: HashMap<SeriesId, u32>,
    services: Vec<Service>,
    service_numbers: HashMap<ServiceKey, u32>,
    /// Series that were not told of yet.
    new: Vec<u32>,
    indicators: Arc<Vec<Indicator>>,
    indicators_of_service: HashMap<ServiceKey, Vec<u32>>,
    /// Places of the indicators that count a series. Of equal lists there is one, for many series.
    indicator_lists: Vec<Arc<[u32]>>,
    indicator_list_numbers: HashMap<Arc<[u32]>, u32>,
    interner: Interner,
    /// Whose request is counted now.
    pub caller: CallerTag,
    /// Of all series, those that stand for others of their service.
    overflow_series: usize,
    /// Those of spans, by service, kind and entry: names without end are sent to them, and soon.
    overflow_of_spans: HashMap<(u32, SpanKind, bool), u32>,
    /// What was there before a restart is nobody's.
    brought: BTreeMap<CallerTag, Brought>,
    /// The sum of it.
    brought_in_all: Brought,
    bounds: Bounds,
}

impl SeriesTable {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            names: Names::default(),
            all: Vec::new(),
            keys: Vec::new(),
            by_id: HashMap::new(),
            services: Vec::new(),
            service_numbers: HashMap::new(),
            new: Vec::new(),
            indicators: Arc::default(),
            indicators_of_service: HashMap::new(),
            indicator_lists: Vec::new(),
            indicator_list_numbers: HashMap::new(),
            interner: Interner::default(),
            caller: CallerTag::NOBODY,
            overflow_series: 0,
            overflow_of_spans: HashMap::new(),
            brought: BTreeMap::new(),
            brought_in_all: Brought::default(),
            bounds,
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    #[inline]
    pub fn get(&self, series: u32) -> Option<&Series> {
        self.all.get(series as usize)
    }

    #[inline]
    pub fn get_mut(&mut self, series: u32) -> Option<&mut Series> {
        self.all.get_mut(series as usize)
    }

    pub fn service(&self, service: u32) -> Option<&Service> {
        self.services.get(service as usize)
    }

    pub fn service_mut(&mut self, service: u32) -> Option<&mut Service> {
        self.services.get_mut(service as usize)
    }

    /// Whether the caller may bring one more of what `all` are of, `taken` are there, and it brought `own`.
    fn may_bring(&self, own: impl Fn(&Brought) -> usize, taken: usize, all: usize) -> bool {
        self.caller == CallerTag::NOBODY
            || is_fair_of_a_caller(self.brought.get(&self.caller).map_or(0, own), taken, all)
    }

    fn may_bring_services(&self) -> bool {
        self.may_bring(|brought| brought.services, self.services.len(), self.bounds.services)
    }

    fn may_bring_series(&self) -> bool {
        self.may_bring(|brought| brought.series, self.apart(), self.bounds.series)
    }

    /// Overflow series have room of their own, so that a service that is known keeps its totals, however many series
    /// others have.
    fn may_bring_overflow_series(&self) -> bool {
        let most = self.bounds.overflow_series;
        self.overflow_series < most
            && self.may_bring(|brought| brought.overflow_series, self.overflow_series, most)
    }

    /// How many series there are that stand for themselves.
    fn apart(&self) -> usize {
        self.all.len().saturating_sub(self.overflow_series)
    }

    /// The number of a service; that of `_other` when there are too many, or too many of this caller.
    pub fn service_number(&mut self, key: &ServiceKey) -> u32 {
        if let Some(&known) = self.service_numbers.get(key) {
            return known;
        }
        let is_full = self.services.len() >= self.bounds.services;
        if is_full || !self.may_bring_services() {
            return self.known_service(&ServiceKey::named(OTHER), CallerTag::NOBODY);
        }
        self.known_service(key, self.caller)
    }

    /// The number of a service, however many there are.
    fn known_service(&mut self, key: &ServiceKey, caller: CallerTag) -> u32 {
        if let Some(&known) = self.service_numbers.get(key) {
            return known;
        }
        let number = u32::try_from(self.services.len()).unwrap_or(NONE);
        let owner = owner_of(key);
        let key_of = Arc::new(key.clone());
        self.services.push(Service {
            key: key_of,
            owner,
            series: 0,
            overflowed: 0,
            untimely: Untimely::default(),
            peers: 0,
            caller,
        });
        self.service_numbers.insert(key.clone(), number);
        if caller != CallerTag::NOBODY {
            self.brought.entry(caller).or_default().services += 1;
            self.brought_in_all.services += 1;
        }
        number
    }

    /// The places of the indicators that count a series.
    #[inline]
    pub fn indicators_of(&self, series: &Series) -> &[u32] {
        self.indicators_in(series.indicators)
    }

    /// The places in a list (see [`Series::indicators`]).
    #[inline]
    pub fn indicators_in(&self, list: u32) -> &[u32] {
        match list {
            NONE => &[],
            list => self.indicator_lists.get(list as usize).map_or(&[], |list| list),
        }
    }

    #[inline]
    pub fn hash(&self, head: Head, raw: &[u8]) -> NameHash {
        let head = u64::from(head.service) << 24
            | (head.signal as u64) << 16
            | (head.kind as u64) << 8
            | u64::from(head.entry);
        self.names.hash([head, 0], raw)
    }

    /// The hash of a name that has a part in common with others: that part's hash, and the rest.
    #[inline]
    pub fn hash_on(&self, common: NameHash, raw: &[u8]) -> NameHash {
        self.names.hash(common.0, raw)
    }

    #[inline]
    pub fn find(&self, name: NameHash) -> Option<u32> {
        self.names.find(name)
    }

    /// Adds the series of a name that was not found, or finds it under another name. Beyond the bounds
    /// it is the overflow series of its service.
    /// `shape` tells overflow series apart that would not add up.
    pub fn add(&mut self, name: NameHash, service: u32, key: SeriesKey, shape: &'static str) -> u32 {
        let series = self.of_key(service, key, shape);
        if self.names.len() >= self.bounds.series.saturating_mul(4) {
            // Names are found again from their keys: this costs time, not data.
            self.names.clear();
        }
        let is_overflow = self.get(series).is_some_and(|series| series.is_overflow);
        if !is_overflow {
            // Those of overflow series are without bound, and must not be kept.
            self.names.add(name, series);
        }
        series
    }

    /// The overflow series to which a span goes whose name was not found, if it is known already and there is no room
    /// for one more of its service: no key is made for it.
    pub fn overflow_of_span(&self, head: Head, operation: &str) -> Option<u32> {
        let known = self.overflow_of_spans.get(&(head.service, head.kind, head.entry))?;
        if !self.is_full(head.service) {
            return None;
        }
        let service = &self.service(head.service)?.key;
        let of_what = (head.signal, head.kind, head.entry);
        let id = SeriesKey::id_of(service, of_what, bounded(operation), "", std::iter::empty());
        // It may have a series of its own, under another spelling.
        (!self.by_id.contains_key(&id)).then_some(*known)
    }

    /// Whether there is no room for one more series of a service.
    fn is_full(&self, service: u32) -> bool {
        let of_service = self.service(service).map_or(0, |service| service.series);
        !is_fair(of_service, self.apart(), self.bounds.series)
            || of_service >= self.bounds.series_of_a_service
            || !self.may_bring_series()
    }

    fn of_key(&mut self, service: u32, key: SeriesKey, shape: &'static str) -> u32 {
        let id = key.id();
        if let Some(&known) = self.by_id.get(&id) {
            return known;
        }
        if !self.is_full(service) || key.signal == Signal::Logs {
            return self.insert(id, service, key, false);
        }
        let of_what = (service, key.kind, key.entry);
        let is_of_spans = key.signal == Signal::Traces;
        let number = self.overflow_of_key(service, key, shape);
        // Its own is found each time; that of all services only for as long as it cannot have one.
        let is_own = self.get(number).is_some_and(|series| series.service == service);
        if is_of_spans && is_own {
            self.overflow_of_spans.insert(of_what, number);
        }
        number
    }

    fn overflow_of_key(&mut self, service: u32, key: SeriesKey, shape: &'static str) -> u32 {
        let attributes =
            if shape.is_empty() { vec![] } else { vec![("otel.metric.overflow".into(), shape.into())] };
        let overflow = SeriesKey { operation: OTHER.into(), unit: "".into(), attributes, ..key };
        let id = overflow.id();
        if let Some(&known) = self.by_id.get(&id) {
            return known;
        }
        if self.may_bring_overflow_series() {
            return self.insert(id, service, overflow, true);
        }
        // Of very many services even the overflow series would be too many.
        let of_all = SeriesKey { service: ServiceKey::named(OTHER), ..overflow };
        let id = of_all.id();
        if let Some(&known) = self.by_id.get(&id) {
            return known;
        }
        let service = self.known_service(&of_all.service, CallerTag::NOBODY);
        self.insert(id, service, of_all, true)
    }

    fn insert(&mut self, id: SeriesId, service: u32, key: SeriesKey, is_overflow: bool) -> u32 {
        let number = u32::try_from(self.all.len()).unwrap_or(NONE);
        let indicators = self.indicator_list(&key);
        if self.all.len() == self.all.capacity() {
            // Doubling would leave a quarter of it unused.
            let more = self.all.len() / 8 + 64;
            self.all.reserve_exact(more);
            self.keys.reserve_exact(more);
        }
        self.all.push(Series {
            id,
            used: 0,
            slots: Slots::default(),
            service,
            indicators,
            last_peer_name: NONE,
            caller: self.caller,
            is_overflow,
        });
        self.count(self.caller, is_overflow);
        let of_attributes = key.attributes.iter().flat_map(|(key, value)| [key, value]);
        for text in [&key.operation, &key.unit].into_iter().chain(of_attributes) {
            self.interner.remember(text);
        }
        self.keys.push(Arc::new(key));
        self.by_id.insert(id, number);
        self.new.push(number);
        if let Some(service) = self.services.get_mut(service as usize) {
            service.series += 1;
        }
        number
    }

    /// Counts one more series, and whose it is.
    fn count(&mut self, caller: CallerTag, is_overflow: bool) {
        self.overflow_series += usize::from(is_overflow);
        if caller != CallerTag::NOBODY {
            for brought in [self.brought.entry(caller).or_default(), &mut self.brought_in_all] {
                brought.overflow_series += usize::from(is_overflow);
                brought.series += usize::from(!is_overflow);
            }
        }
    }

    /// How many texts are remembered.
    #[cfg(test)]
    pub fn texts(&self) -> usize {
        self.interner.len()
    }

    /// A text of a key. Remembered once a series has it: those that find no room are without bound.
    pub fn text(&self, text: &str) -> Arc<str> {
        self.interner.find_or_make(bounded(text))
    }

    /// The list of the indicators that count a series, if there are any; added unless there is one like it.
    fn indicator_list(&mut self, key: &SeriesKey) -> u32 {
        let of_service = self.indicators_of_service.get(&key.service).map(Vec::as_slice).unwrap_or_default();
        let counts = |place: &u32| self.indicators.get(*place as usize).is_some_and(|of| of.counts(key));
        let list: Arc<[u32]> = of_service.iter().copied().filter(counts).collect();
        if list.is_empty() {
            return NONE;
        }
        let next = u32::try_from(self.indicator_lists.len()).unwrap_or(NONE);
        let number = *self.indicator_list_numbers.entry(list.clone()).or_insert(next);
        if number == next {
            self.indicator_lists.push(list);
        }
        number
    }

    pub fn set_indicators(&mut self, indicators: Arc<Vec<Indicator>>) {
        self.indicators_of_service.clear();
        for (place, indicator) in (0u32..).zip(&*indicators) {
            self.indicators_of_service.entry(indicator.service.clone()).or_default().push(place);
        }
        self.indicators = indicators;
        self.list_indicators();
    }

    fn list_indicators(&mut self) {
        self.indicator_lists.clear();
        self.indicator_list_numbers.clear();
        for number in 0..self.all.len() {
            let Some(key) = self.keys.get(number).cloned() else { continue };
            let list = self.indicator_list(&key);
            if let Some(series) = self.all.get_mut(number) {
                series.indicators = list;
            }
        }
    }

    /// Series that were not told of yet, in the order in which they came.
    pub fn take_new(&mut self) -> Vec<(SeriesId, Arc<SeriesKey>)> {
        let new = std::mem::take(&mut self.new);
        new.iter()
            .filter_map(|&number| Some((self.get(number)?.id, self.keys.get(number as usize)?.clone())))
            .collect()
    }

    /// Services whose items were counted in overflow series, sorted, and how many.
    pub fn take_overflowed(&mut self) -> Vec<(Arc<ServiceKey>, u64)> {
        let mut taken: Vec<_> = self
            .services
            .iter_mut()
            .filter(|service| service.overflowed > 0)
            .map(|service| (service.key.clone(), std::mem::take(&mut service.overflowed)))
            .collect();
        taken.sort();
        taken
    }

    /// Services with items whose time was not followed, by reason, sorted, and how many.
    pub fn take_untimely(&mut self) -> Vec<((Arc<ServiceKey>, UntimelyReason), u64)> {
        let mut taken = Vec::new();
        for service in &mut self.services {
            let Untimely { too_old, future, crowded } = std::mem::take(&mut service.untimely);
            let reasons = [
                (UntimelyReason::TooOld, too_old),
                (UntimelyReason::Future, future),
                (UntimelyReason::Crowded, crowded),
            ];
            let some = reasons.into_iter().filter(|(_, items)| *items > 0);
            taken.extend(some.map(|(reason, items)| ((service.key.clone(), reason), items)));
        }
        taken.sort();
        taken
    }

    /// Notes items of the caller for which there was no room, if that is its doing: others may have filled it.
    pub fn note_turned_away(&mut self, items: u64) {
        let has_too_much = !self.may_bring_series()
            && self.has_more_than_others(|of| of.series, self.apart())
            || !self.may_bring_services() && self.has_more_than_others(|of| of.services, self.services.len());
        if has_too_much && let Some(brought) = self.brought.get_mut(&self.caller) {
            brought.overflowed = brought.overflowed.saturating_add(items);
        }
    }

    /// Whether the caller brought no less of the `taken` than callers did on average. What is nobody's is that of one.
    fn has_more_than_others(&self, own: impl Fn(&Brought) -> usize, taken: usize) -> bool {
        let callers = self.brought.len() + usize::from(taken > own(&self.brought_in_all));
        self.brought.get(&self.caller).is_some_and(|of| own(of).saturating_mul(callers) >= taken)
    }

    /// Whether a service stands for those for which there was no room.
    pub fn is_others(&self, service: u32) -> bool {
        self.service(service).is_some_and(|service| {
            &*service.key.name == OTHER
                && service.key.namespace.is_empty()
                && service.key.environment.is_empty()
        })
    }

    /// Callers that brought more than others leave them, and how many of their items there was no room for.
    pub fn take_turned_away(&mut self) -> Vec<(CallerTag, u64)> {
        let of = self.brought.iter_mut().filter(|(_, brought)| brought.overflowed > 0);
        of.map(|(caller, brought)| (*caller, std::mem::take(&mut brought.overflowed))).collect()
    }

    pub fn forget_peers(&mut self) {
        self.services.iter_mut().for_each(|service| service.peers = 0);
        self.all.iter_mut().for_each(|series| series.last_peer_name = NONE);
    }

    /// Forgets series without an item since `second`, and services that have none left. Numbers change, so no cell may
    /// be open, and nobody else may hold the number of a service.
    pub fn forget_unused(&mut self, second: u64) {
        let is_used = |series: &Series| series.used >= second;
        let is_empty = |service: &Service| service.series == 0;
        if self.all.iter().all(is_used) && !self.services.iter().any(is_empty) {
            return;
        }
        let old = std::mem::take(&mut self.all).into_iter().zip(std::mem::take(&mut self.keys));
        let callers: HashMap<Arc<ServiceKey>, CallerTag> =
            self.services.iter().map(|service| (service.key.clone(), service.caller)).collect();
        self.brought.clear();
        self.brought_in_all = Brought::default();
        self.overflow_series = 0;
        self.names.clear();
        self.by_id.clear();
        self.new.clear();
        self.services.clear();
        self.service_numbers.clear();
        self.overflow_of_spans.clear();
        self.interner = Interner::default();
        for (mut series, key) in old.filter(|(series, _)| is_used(series)) {
            let number = u32::try_from(self.all.len()).unwrap_or(NONE);
            let caller = callers.get(&key.service).copied().unwrap_or_default();
            series.service = self.known_service(&key.service, caller);
            self.count(series.caller, series.is_overflow);
            self.by_id.insert(series.id, number);
            if let Some(service) = self.services.get_mut(series.service as usize) {
                service.series += 1;
            }
            self.all.push(series);
            self.keys.push(key);
        }
        self.list_indicators();
    }

    /// All keys that are told of already, for a checkpoint: with their last use, in order.
    pub fn keys(&self) -> impl Iterator<Item = (&SeriesKey, u64, bool)> {
        self.all.iter().zip(&self.keys).map(|(series, key)| (&**key, series.used, series.is_overflow))
    }

    /// Takes a series back from a checkpoint.
    pub fn restore(&mut self, key: SeriesKey, used: u64, is_overflow: bool) {
        let service = self.service_number(&key.service);
        let id = key.id();
        if !self.by_id.contains_key(&id) {
            let number = self.insert(id, service, key, is_overflow);
            self.new.retain(|&new| new != number);
            if let Some(series) = self.get_mut(number) {
                series.used = used;
            }
        }
    }
}

/// The same for equal keys, also after a restart.
fn owner_of(key: &ServiceKey) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [&key.environment, &key.namespace, &key.name] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut owner = [0u8; 8];
    hasher.finalize_xof().fill(&mut owner);
    u64::from_le_bytes(owner)
}

/// What a span stands for by the threshold in its `tracestate` (`ot=th:…`, OpenTelemetry "TraceState
/// probability sampling"): 2^56 / (2^56 − threshold). 1 when there is none.
pub(super) fn weight_of(trace_state: &str) -> Weight {
    if trace_state.is_empty() {
        return Weight::ONE;
    }
    let threshold = trace_state
        .split(',')
        .find_map(|member| member.trim().strip_prefix("ot="))
        .and_then(|value| value.split(';').find_map(|pair| pair.strip_prefix("th:")))
        .filter(|digits| (1..=14).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|digits| Some(u64::from_str_radix(digits, 16).ok()? << (4 * (14 - digits.len()))));
    match threshold {
        None => Weight::ONE,
        Some(threshold) => {
            let share = u128::from((1u64 << 56).saturating_sub(threshold).max(1));
            Weight(u64::try_from((1u128 << 72) / share).unwrap_or(u64::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counting_touches_is_one_cache_line() {
        assert_eq!(size_of::<Series>(), 64);
    }

    #[test]
    fn the_threshold_of_a_sampled_span_is_its_weight() {
        for (state, items) in [
            ("", 1.0),
            ("ot=th:0", 1.0),
            ("ot=th:8", 2.0),
            ("vendor=x,ot=rv:1234;th:c", 4.0),
            ("ot=th:fd70a3d70a3d70", 100.0),
            ("ot=th:xyz", 1.0),
            ("ot=th:123456789abcdef0", 1.0),
        ] {
            assert!((weight_of(state).items() - items).abs() < 1e-3, "{state}: {}", weight_of(state).items());
        }
    }
}
