//! Which series there are, and how the one of an item is found without allocating.

use super::config::{Bounds, OTHER, bounded};
use super::equality::equal;
use super::slots::Slots;
use super::{Indicator, Weight};
use crate::model::{Interner, SeriesId, SeriesKey, ServiceKey, Signal, SpanKind};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

pub(super) const NONE: u32 = u32::MAX;

/// Longer names are not kept: their series is found by its key each time.
const NAME_BYTES: usize = 4_096;

/// What a series is about, beside its service and the raw bytes that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub service: u32,
    pub signal: Signal,
    pub kind: SpanKind,
    pub entry: bool,
}

/// A name under which a series is found: several may stand for one (attributes in another order).
#[derive(Debug)]
struct Name {
    head: Head,
    raw: Box<[u8]>,
    hash: u64,
    series: u32,
}

#[derive(Debug)]
pub(super) struct Service {
    pub key: Arc<ServiceKey>,
    pub series: usize,
    /// Items that were counted in an overflow series since the last barrier.
    pub overflowed: u64,
    pub peers: usize,
}

#[derive(Debug)]
pub(super) struct Series {
    pub id: SeriesId,
    pub key: Arc<SeriesKey>,
    pub service: u32,
    pub is_overflow: bool,
    /// Second of the last barrier before which it had an item.
    pub used: u64,
    pub slots: Slots,
    /// Places of the indicators that count it.
    pub indicators: SmallVec<[u32; 2]>,
}

/// Series and services by number.
#[derive(Debug)]
pub(super) struct SeriesTable {
    hasher: RandomState,
    names: Vec<Name>,
    lookup: HashTable<u32>,
    all: Vec<Series>,
    by_id: HashMap<SeriesId, u32>,
    services: Vec<Service>,
    service_numbers: HashMap<ServiceKey, u32>,
    /// Series that were not told of yet.
    new: Vec<u32>,
    indicators: Arc<Vec<Indicator>>,
    interner: Interner,
    bounds: Bounds,
}

impl SeriesTable {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            hasher: RandomState::default(),
            names: Vec::new(),
            lookup: HashTable::new(),
            all: Vec::new(),
            by_id: HashMap::new(),
            services: Vec::new(),
            service_numbers: HashMap::new(),
            new: Vec::new(),
            indicators: Arc::default(),
            interner: Interner::default(),
            bounds,
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

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

    /// The number of a service; that of `_other` when there are too many.
    pub fn service_number(&mut self, key: &ServiceKey) -> u32 {
        if let Some(&known) = self.service_numbers.get(key) {
            return known;
        }
        if self.services.len() >= self.bounds.services && &*key.name != OTHER {
            return self.service_number(&ServiceKey::named(OTHER));
        }
        let number = u32::try_from(self.services.len()).unwrap_or(NONE);
        self.services.push(Service { key: Arc::new(key.clone()), series: 0, overflowed: 0, peers: 0 });
        self.service_numbers.insert(key.clone(), number);
        number
    }

    #[inline]
    pub fn hash(&self, head: Head, raw: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(
            u64::from(head.service) << 24
                | (head.signal as u64) << 16
                | (head.kind as u64) << 8
                | u64::from(head.entry),
        );
        hasher.write(raw);
        hasher.finish()
    }

    #[inline]
    pub fn find(&self, hash: u64, head: Head, raw: &[u8]) -> Option<u32> {
        let names = &self.names;
        let found = self.lookup.find(hash, |&name| {
            names.get(name as usize).is_some_and(|name| name.head == head && equal(&name.raw, raw))
        })?;
        names.get(*found as usize).map(|name| name.series)
    }

    /// Adds the series of a name that was not found, or finds it under another name. Beyond the bounds
    /// it is the overflow series of its service.
    /// `shape` tells overflow series apart that would not add up.
    pub fn add(&mut self, hash: u64, head: Head, raw: &[u8], key: SeriesKey, shape: &'static str) -> u32 {
        let series = self.of_key(head.service, key, shape);
        if self.names.len() >= self.bounds.series.saturating_mul(4) {
            // Names are found again from their keys: this costs time, not data.
            self.names.clear();
            self.lookup.clear();
        }
        let is_overflow = self.get(series).is_some_and(|series| series.is_overflow);
        if is_overflow || raw.len() > NAME_BYTES {
            // Names without bound, in number or in length, must not be kept.
            return series;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(NONE);
        self.names.push(Name { head, raw: raw.into(), hash, series });
        let names = &self.names;
        self.lookup.insert_unique(hash, number, |&name| names.get(name as usize).map_or(0, |name| name.hash));
        series
    }

    fn of_key(&mut self, service: u32, key: SeriesKey, shape: &'static str) -> u32 {
        let id = key.id();
        if let Some(&known) = self.by_id.get(&id) {
            return known;
        }
        let of_service = self.service(service).map_or(0, |service| service.series);
        let is_full = self.all.len() >= self.bounds.series || of_service >= self.bounds.series_of_a_service;
        if is_full && key.signal != Signal::Logs {
            let attributes =
                if shape.is_empty() { vec![] } else { vec![("otel.metric.overflow".into(), shape.into())] };
            let overflow = SeriesKey { operation: OTHER.into(), unit: "".into(), attributes, ..key };
            let id = overflow.id();
            return match self.by_id.get(&id) {
                Some(&known) => known,
                None => self.insert(id, service, overflow, true),
            };
        }
        self.insert(id, service, key, false)
    }

    fn insert(&mut self, id: SeriesId, service: u32, key: SeriesKey, is_overflow: bool) -> u32 {
        let number = u32::try_from(self.all.len()).unwrap_or(NONE);
        let indicators = matching(&self.indicators, &key);
        self.all.push(Series {
            id,
            key: Arc::new(key),
            service,
            is_overflow,
            used: 0,
            slots: Slots::default(),
            indicators,
        });
        self.by_id.insert(id, number);
        self.new.push(number);
        if let Some(service) = self.services.get_mut(service as usize) {
            service.series += 1;
        }
        number
    }

    pub fn text(&mut self, text: &str) -> Arc<str> {
        self.interner.intern(bounded(text))
    }

    pub fn set_indicators(&mut self, indicators: Arc<Vec<Indicator>>) {
        for series in &mut self.all {
            series.indicators = matching(&indicators, &series.key);
        }
        self.indicators = indicators;
    }

    /// Series that were not told of yet, in the order in which they came.
    pub fn take_new(&mut self) -> Vec<(SeriesId, Arc<SeriesKey>)> {
        let new = std::mem::take(&mut self.new);
        new.iter()
            .filter_map(|&number| self.get(number).map(|series| (series.id, series.key.clone())))
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

    pub fn forget_peers(&mut self) {
        self.services.iter_mut().for_each(|service| service.peers = 0);
    }

    /// Forgets series without an item since `second`. Numbers change, so no cell may be open.
    pub fn forget_unused(&mut self, second: u64) -> bool {
        if self.all.iter().all(|series| series.used >= second) {
            return false;
        }
        let old = std::mem::take(&mut self.all);
        self.names.clear();
        self.lookup.clear();
        self.by_id.clear();
        self.new.clear();
        self.interner = Interner::default();
        for service in &mut self.services {
            service.series = 0;
        }
        for series in old.into_iter().filter(|series| series.used >= second) {
            let number = u32::try_from(self.all.len()).unwrap_or(NONE);
            self.by_id.insert(series.id, number);
            if let Some(service) = self.services.get_mut(series.service as usize) {
                service.series += 1;
            }
            self.all.push(series);
        }
        true
    }

    /// All keys that are told of already, for a checkpoint: with their last use, in order.
    pub fn keys(&self) -> impl Iterator<Item = (&SeriesKey, u64, bool)> {
        self.all.iter().map(|series| (&*series.key, series.used, series.is_overflow))
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

fn matching(indicators: &[Indicator], key: &SeriesKey) -> SmallVec<[u32; 2]> {
    if key.signal != Signal::Traces {
        return SmallVec::new();
    }
    (0u32..).zip(indicators).filter(|(_, indicator)| indicator.counts(key)).map(|(place, _)| place).collect()
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
    use super::super::Config;
    use super::*;

    #[test]
    fn names_without_bound_are_not_kept_and_still_find_their_series() {
        let mut table = SeriesTable::new(Config::default().bounds(1));
        let service = table.service_number(&ServiceKey::named("cart"));
        let head = Head { service, signal: Signal::Traces, kind: SpanKind::Server, entry: true };
        let mut series_of = |name: &str| {
            let key = SeriesKey {
                service: ServiceKey::named("cart"),
                signal: Signal::Traces,
                operation: name.into(),
                kind: SpanKind::Server,
                entry: true,
                unit: "".into(),
                attributes: Vec::new(),
            };
            let hash = table.hash(head, name.as_bytes());
            let found = table.find(hash, head, name.as_bytes());
            let number = table.add(hash, head, name.as_bytes(), key, "");
            (found.is_some(), number, table.names.len())
        };
        let long = "x".repeat(NAME_BYTES + 1);
        assert_eq!(series_of("GET /"), (false, 0, 1));
        assert_eq!(series_of(&long), (false, 1, 1));
        assert_eq!(series_of(&long), (false, 1, 1), "the same series, and nothing kept");
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
