//! Which key a series id stands for, as long as anything refers to it.

use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Without an item for so long no shard holds a series (it lets go of it after an hour, five minutes later at most),
/// and none of its cells waits in an open window: whoever hears it again tells of it as new.
const IDLE: Duration = Duration::from_secs(4_500);
/// How many names are kept for each series that the shards may hold: those in use, those that fell silent in the
/// last hour, and those of before that retained windows still refer to.
const NAMES_A_SERIES: usize = 2;
/// How many series are known by their service alone, for each that is known by name.
const FOLDED_A_NAME: usize = 2;
/// Operation and attribute of what stands for many series: as in OpenTelemetry's cardinality limits.
const OTHER: &str = "_other";
const OVERFLOW: &str = "otel.metric.overflow";

/// Every series that something refers to, by id. Written by the window stage and, when it forgets, by the store; read
/// by everything after them; no shard touches it.
///
/// Names are bounded. Beyond that, series that are idle are *folded*: what stored windows hold of them is shown in the
/// overflow series of their service, so that its totals stay exact.
#[derive(Debug)]
pub struct Registry {
    known: RwLock<Known>,
    /// Series whose hour or name changed since it was last written.
    changed: Mutex<Vec<SeriesId>>,
    names: usize,
}

#[derive(Debug, Default)]
struct Known {
    named: HashMap<SeriesId, Named>,
    folded: HashMap<SeriesId, Folded>,
}

#[derive(Debug)]
struct Named {
    key: Arc<SeriesKey>,
    /// Second of the last cut that sealed anything of it, or that told of it as new.
    heard_s: AtomicU64,
}

#[derive(Debug)]
struct Folded {
    key: Arc<SeriesKey>,
    heard_s: u64,
}

/// What a registry let go of, until it is certain that the store did, too.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// Nothing refers to these any more.
    pub gone: Vec<SeriesId>,
    /// These are known by what stands for them; with the second in which they were last heard.
    pub folded: Vec<(SeriesId, Arc<SeriesKey>, u64)>,
    undo: Vec<(SeriesId, Arc<SeriesKey>, u64)>,
}

impl Forgotten {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.folded.is_empty()
    }
}

impl Default for Registry {
    /// One without bound.
    fn default() -> Self {
        Self { known: RwLock::default(), changed: Mutex::default(), names: usize::MAX }
    }
}

const fn hour(second: u64) -> u64 {
    second / 3_600
}

/// What stands for a series whose name is forgotten.
fn stand_in(key: &SeriesKey) -> SeriesKey {
    let attributes = match key.signal {
        // A service has one series of its log records, whose name is no more than the service's.
        Signal::Logs => return key.clone(),
        Signal::Traces => Vec::new(),
        Signal::Metrics => vec![(OVERFLOW.into(), "true".into())],
    };
    SeriesKey { operation: OTHER.into(), unit: "".into(), attributes, ..key.clone() }
}

impl Registry {
    /// One for shards that hold so many series at most.
    #[must_use]
    pub fn bounded(series: u64) -> Self {
        let series = usize::try_from(series).unwrap_or(usize::MAX);
        Self { names: series.saturating_mul(NAMES_A_SERIES), ..Self::default() }
    }

    /// Adds a series that was told of as new at a second of journal time; `false` if its name was known.
    pub fn add(&self, id: SeriesId, key: Arc<SeriesKey>, second: u64) -> bool {
        let mut known = self.known.write();
        known.folded.remove(&id);
        if known.named.contains_key(&id) {
            Self::heard(&known, &self.changed, id, second);
            return false;
        }
        known.named.insert(id, Named { key, heard_s: AtomicU64::new(second) });
        true
    }

    /// Takes a series back as a checkpoint kept it, with the last hour in which it was heard.
    pub fn restore(&self, id: SeriesId, key: SeriesKey, heard_h: u64) {
        // The hour's last second, for nothing may be forgotten too early.
        let heard_s = heard_h.saturating_mul(3_600).saturating_add(3_599);
        let known = &mut *self.known.write();
        if key.id() == id {
            known.named.insert(id, Named { key: Arc::new(key), heard_s: AtomicU64::new(heard_s) });
        } else {
            known.folded.insert(id, Folded { key: Arc::new(key), heard_s });
        }
    }

    /// Gives equal keys of folded series one allocation; for after the last [`Self::restore`].
    pub fn settle(&self) {
        let mut known = self.known.write();
        let mut keys: HashSet<Arc<SeriesKey>> = HashSet::new();
        for folded in known.folded.values_mut() {
            match keys.get(&folded.key) {
                Some(equal) => folded.key = equal.clone(),
                None => {
                    keys.insert(folded.key.clone());
                }
            }
        }
    }

    /// A cut sealed cells of these series.
    pub fn note_heard(&self, series: impl Iterator<Item = SeriesId>, second: u64) {
        let known = self.known.read();
        series.for_each(|id| Self::heard(&known, &self.changed, id, second));
    }

    fn heard(known: &Known, changed: &Mutex<Vec<SeriesId>>, id: SeriesId, second: u64) {
        let Some(named) = known.named.get(&id) else { return };
        let before = named.heard_s.fetch_max(second, Ordering::Relaxed);
        if hour(before) < hour(second) {
            changed.lock().push(id);
        }
    }

    /// Series whose last hour changed since this was asked, each with its key and that hour.
    #[must_use]
    pub fn take_changed(&self) -> Vec<(SeriesId, Arc<SeriesKey>, u64)> {
        let mut changed = std::mem::take(&mut *self.changed.lock());
        changed.sort_unstable();
        changed.dedup();
        let known = self.known.read();
        let row = |id: SeriesId| {
            let named = known.named.get(&id)?;
            Some((id, named.key.clone(), hour(named.heard_s.load(Ordering::Relaxed))))
        };
        changed.into_iter().filter_map(row).collect()
    }

    /// What [`Self::take_changed`] gave could not be written.
    pub fn put_back_changed(&self, changed: &[(SeriesId, Arc<SeriesKey>, u64)]) {
        self.changed.lock().extend(changed.iter().map(|(id, ..)| *id));
    }

    /// Lets go of series that nothing live refers to: those last heard before `oldest_s`, with which the oldest
    /// window that is still stored begins; and, where names are too many, those that were silent longest of the
    /// services that have most. At `now`, a second of journal time.
    #[must_use]
    pub fn forget(&self, now: u64, oldest_s: u64) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let idle_s = now.saturating_sub(IDLE.as_secs());
        let known = &mut *self.known.write();
        let Known { named, folded } = known;
        named.retain(|id, series| {
            let heard_s = series.heard_s.load(Ordering::Relaxed);
            let keep = heard_s >= idle_s || heard_s >= oldest_s;
            if !keep {
                forgotten.gone.push(*id);
                forgotten.undo.push((*id, series.key.clone(), heard_s));
            }
            keep
        });
        if named.len() > self.names {
            let mut keys: HashMap<SeriesKey, Arc<SeriesKey>> =
                folded.values().map(|folded| ((*folded.key).clone(), folded.key.clone())).collect();
            for id in too_many(named, self.names, idle_s) {
                let Some(Named { key: name, heard_s }) = named.remove(&id) else { continue };
                let heard_s = heard_s.into_inner();
                let key = keys.entry(stand_in(&name)).or_insert_with_key(|key| Arc::new(key.clone())).clone();
                forgotten.undo.push((id, name, heard_s));
                forgotten.folded.push((id, key.clone(), heard_s));
                folded.insert(id, Folded { key, heard_s });
            }
        }
        let may = self.names.saturating_mul(FOLDED_A_NAME);
        let before_s = if folded.len() > may {
            let mut heard: Vec<u64> = folded.values().map(|folded| folded.heard_s).collect();
            let last = folded.len().saturating_sub(may - may / 8);
            heard.sort_unstable();
            heard.get(last).copied().unwrap_or_default()
        } else {
            0
        };
        folded.retain(|id, series| {
            let keep = series.heard_s >= oldest_s.max(before_s);
            if !keep {
                forgotten.gone.push(*id);
                forgotten.undo.push((*id, series.key.clone(), series.heard_s));
            }
            keep
        });
        forgotten
    }

    /// The store could not let go of what was forgotten.
    pub fn put_back(&self, forgotten: Forgotten) {
        let mut known = self.known.write();
        for (id, key, heard_s) in forgotten.undo {
            let is_name = !known.named.contains_key(&id) && key.id() == id;
            if is_name {
                known.folded.remove(&id);
                known.named.insert(id, Named { key, heard_s: AtomicU64::new(heard_s) });
            } else if !known.named.contains_key(&id) {
                known.folded.entry(id).or_insert(Folded { key, heard_s });
            }
        }
    }

    /// The key of a series, or what stands for it.
    #[must_use]
    pub fn get(&self, id: SeriesId) -> Option<Arc<SeriesKey>> {
        let known = self.known.read();
        let named = known.named.get(&id).map(|series| &series.key);
        named.or_else(|| known.folded.get(&id).map(|series| &series.key)).cloned()
    }

    /// Whether a series is known by its name.
    #[must_use]
    pub fn names(&self, id: SeriesId) -> bool {
        self.known.read().named.contains_key(&id)
    }

    /// The last hour in which a series was heard, as far as is known.
    #[must_use]
    pub fn heard_h(&self, id: SeriesId) -> Option<u64> {
        let known = self.known.read();
        known.named.get(&id).map(|series| hour(series.heard_s.load(Ordering::Relaxed)))
    }

    /// Whether more names are known than there is room for.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() > self.names
    }

    /// Series that are known by name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.read().named.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Series of which only the service is known.
    #[must_use]
    pub fn folded(&self) -> usize {
        self.known.read().folded.len()
    }

    /// The series of a service, in no order.
    #[must_use]
    pub fn of_service(&self, service: &ServiceKey) -> Vec<Arc<SeriesKey>> {
        let known = self.known.read();
        let keys = known.named.values().map(|series| &series.key);
        keys.filter(|key| key.service == *service).cloned().collect()
    }

    /// All services of which anything is known.
    #[must_use]
    pub fn services(&self) -> BTreeSet<ServiceKey> {
        let known = self.known.read();
        let mut services: HashSet<&ServiceKey> =
            known.named.values().map(|series| &series.key.service).collect();
        services.extend(known.folded.values().map(|series| &series.key.service));
        services.into_iter().cloned().collect()
    }

    /// All series that are known by name, in the order of their keys.
    #[must_use]
    pub fn all(&self) -> Vec<(SeriesId, Arc<SeriesKey>)> {
        let known = self.known.read();
        let mut all: Vec<_> = known.named.iter().map(|(id, series)| (*id, series.key.clone())).collect();
        drop(known);
        all.sort_by(|a, b| a.1.cmp(&b.1));
        all
    }
}

/// Idle series to be folded so that an eighth of the room for names is free: of the services with most names, down to
/// a number that all may have, those that were silent longest.
fn too_many(named: &HashMap<SeriesId, Named>, names: usize, idle_s: u64) -> Vec<SeriesId> {
    let wanted = names - names / 8;
    let mut of_services: BTreeMap<&ServiceKey, usize> = BTreeMap::new();
    for series in named.values() {
        *of_services.entry(&series.key.service).or_default() += 1;
    }
    let mut counts: Vec<usize> = of_services.values().copied().collect();
    counts.sort_unstable();
    // Each service may have as many as the next smaller ones leave for each of the rest.
    let (mut left, mut share) = (wanted, usize::MAX);
    for (place, &count) in counts.iter().enumerate() {
        share = left / (counts.len() - place);
        if count > share {
            break;
        }
        left -= count;
    }
    let mut idle: Vec<(u64, SeriesId, &ServiceKey)> = named
        .iter()
        .map(|(id, series)| (series.heard_s.load(Ordering::Relaxed), *id, &series.key.service))
        .filter(|(heard_s, ..)| *heard_s < idle_s)
        .collect();
    idle.sort_unstable();
    let needed = named.len().saturating_sub(wanted);
    let mut chosen = Vec::new();
    for (_, id, service) in idle {
        if chosen.len() == needed {
            break;
        }
        if let Some(count) = of_services.get_mut(service).filter(|count| **count > share) {
            *count -= 1;
            chosen.push(id);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpanKind;

    const HOUR: u64 = 3_600;

    fn key(service: &str, operation: &str) -> (SeriesId, Arc<SeriesKey>) {
        let key = SeriesKey {
            service: ServiceKey::named(service),
            signal: Signal::Traces,
            operation: operation.into(),
            kind: SpanKind::Server,
            entry: true,
            unit: "".into(),
            attributes: Vec::new(),
        };
        (key.id(), Arc::new(key))
    }

    #[test]
    fn what_no_stored_window_holds_is_gone_and_is_new_when_it_is_heard_again() {
        let registry = Registry::default();
        let (old, used) = (key("shop", "old"), key("shop", "used"));
        assert!(registry.add(old.0, old.1.clone(), 10 * HOUR));
        assert!(registry.add(used.0, used.1.clone(), 10 * HOUR));
        registry.note_heard([used.0].into_iter(), 13 * HOUR);
        assert_eq!(
            registry.take_changed(),
            [(used.0, used.1.clone(), 13)],
            "an hour later it is written anew"
        );
        assert!(registry.forget(13 * HOUR, 9 * HOUR).is_empty(), "stored windows hold both");
        assert!(registry.forget(10 * HOUR + 4_500, 13 * HOUR).is_empty(), "a shard may hold either");
        let forgotten = registry.forget(13 * HOUR, 12 * HOUR);
        assert_eq!(forgotten.gone, [old.0]);
        assert_eq!(registry.get(old.0), None);
        registry.put_back(forgotten);
        assert_eq!(registry.get(old.0), Some(old.1.clone()), "the disk was full");
        assert_eq!(registry.forget(13 * HOUR, 12 * HOUR).gone, [old.0]);
        assert!(registry.add(old.0, old.1.clone(), 13 * HOUR), "as new");
        assert!(!registry.add(old.0, old.1, 14 * HOUR));
    }

    #[test]
    fn of_too_many_names_those_of_the_greediest_service_are_folded_into_one() {
        let registry = Registry::bounded(100);
        let of = |service: &str, n: u64| key(service, &format!("GET /{n}"));
        let add =
            |service: &str, n: u64, second| assert!(registry.add(of(service, n).0, of(service, n).1, second));
        (0..50).for_each(|n| add("modest", n, 1_000));
        (0..300).for_each(|n| add("greedy", n, 10_000 + n));
        // 350 names where 200 may be: 175 stay, of which 50 are the modest one's.
        let forgotten = registry.forget(100_000, 0);
        assert_eq!((forgotten.gone.len(), forgotten.folded.len()), (0, 175));
        assert_eq!((registry.len(), registry.of_service(&ServiceKey::named("modest")).len()), (175, 50));
        assert!(!registry.names(of("greedy", 174).0) && registry.names(of("greedy", 175).0), "oldest first");
        let other = registry.get(of("greedy", 0).0).unwrap();
        assert_eq!((&*other.operation, &*other.service.name), ("_other", "greedy"));
        assert!(forgotten.folded.iter().all(|(_, key, _)| Arc::ptr_eq(key, &other)), "one for all of them");
        assert!(registry.add(of("greedy", 0).0, of("greedy", 0).1, 100_000), "heard again it has its name");
        assert_eq!(registry.get(of("greedy", 0).0), Some(of("greedy", 0).1));
        // Those that are folded are bounded, too.
        (1_000..3_000).for_each(|n| add("greedy", n, 100_000 + n));
        let forgotten = registry.forget(200_000, 0);
        assert_eq!((registry.len(), registry.folded()), (175, 350));
        assert!(forgotten.gone.contains(&of("greedy", 1).0));
        let last = registry.forget(300_000, 250_000);
        assert_eq!((last.gone.len(), registry.len(), registry.folded()), (525, 0, 0));
    }

    #[test]
    fn many_services_of_one_series_each_are_bounded_as_well() {
        let registry = Registry::bounded(100);
        for n in 0..1_000 {
            let (id, key) = key(&format!("service-{n}"), "GET /");
            registry.add(id, key, 1_000 + n);
        }
        let _ = registry.forget(100_000, 0);
        assert_eq!((registry.len(), registry.folded()), (175, 350));
    }

    #[test]
    fn a_restart_forgets_nothing_too_early() {
        let (of_name, of_service) = (key("shop", "GET /"), key("shop", "GET /gone"));
        let registry = Registry::bounded(100);
        registry.restore(of_name.0, (*of_name.1).clone(), 10);
        registry.restore(of_service.0, stand_in(&of_service.1), 10);
        registry.settle();
        assert_eq!((registry.len(), registry.folded()), (1, 1));
        assert!(registry.forget(20 * HOUR, 11 * HOUR - 10).is_empty(), "it may be in the hour's last window");
        registry.note_heard([of_name.0].into_iter(), 11 * HOUR);
        assert_eq!(registry.take_changed().len(), 1, "that is another hour");
        assert_eq!(registry.forget(20 * HOUR, 11 * HOUR).gone, [of_service.0]);
        assert_eq!(registry.forget(20 * HOUR, 12 * HOUR).gone, [of_name.0]);
    }
}
