//! Which traces become keepsakes, and which keepsakes go when they are too many.

use super::keepsake::{Keepsake, Quality, Route};
use crate::model::{Timestamp, TraceId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Most traces that are copied at one time.
pub(super) const AT_ONCE: usize = 24;
/// With fewer requests of an operation seen, the slowest of them says nothing.
const ENOUGH: usize = 8;
/// Failed ones of an operation, and slowest ones.
const WORST: usize = 1;
/// Most keepsakes, each a file.
const MOST: usize = 4_096;

/// A request that was seen.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub route: Route,
    pub trace: TraceId,
    pub at: Timestamp,
    pub duration_ns: u64,
    /// Whether it names no parent.
    pub is_root: bool,
    /// Whether anything that was seen of its trace failed.
    pub is_failed: bool,
}

/// A trace that is to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub route: Route,
    pub trace: TraceId,
    pub quality: Quality,
    pub at: Timestamp,
    pub duration_ns: u64,
}

/// Which of these are to be copied, beside what is held: of each operation of which no healthy trace was kept for
/// `every` the one that took as long as half of them, one that failed likewise, and one much slower than any
/// before. A trace stands for all operations in it, so roots come first.
pub(super) fn wanted(candidates: &[Candidate], held: &[Held], every: Duration) -> Vec<Wanted> {
    let mut of_route: BTreeMap<&Route, Vec<&Candidate>> = BTreeMap::new();
    let mut of_trace: BTreeMap<TraceId, BTreeSet<&Route>> = BTreeMap::new();
    for candidate in candidates {
        of_route.entry(&candidate.route).or_default().push(candidate);
        of_trace.entry(candidate.trace).or_default().insert(&candidate.route);
    }
    let mut taken: BTreeSet<TraceId> = held.iter().map(|held| held.keepsake.trace).collect();
    // By the time of what is looked at, which is not now.
    let newest = candidates.iter().map(|candidate| candidate.at).max().unwrap_or_default();
    let is_new = |held: &&Held| newest.since(held.keepsake.at) < every;
    let mut covered: BTreeMap<Quality, BTreeSet<&Route>> = BTreeMap::new();
    for held in held.iter().filter(is_new) {
        covered.entry(held.keepsake.quality).or_default().extend(&held.keepsake.covers);
    }
    let mut longest: BTreeMap<&Route, u64> = BTreeMap::new();
    for held in held.iter().filter(|held| held.keepsake.quality == Quality::Slowest) {
        let known = longest.entry(&held.keepsake.route).or_default();
        *known = held.keepsake.duration_ns.max(*known);
    }
    let mut routes: Vec<_> = of_route.iter().collect();
    routes.sort_by_key(|(route, of)| (!of.iter().any(|one| one.is_root), **route));
    let mut wanted = Vec::new();
    for quality in [Quality::Healthy, Quality::Failed, Quality::Slowest] {
        for (route, of) in &routes {
            let is_covered =
                quality != Quality::Slowest && covered.get(&quality).is_some_and(|of| of.contains(*route));
            if is_covered || wanted.len() >= AT_ONCE {
                continue;
            }
            let Some(found) = pick(quality, of, longest.get(*route).copied()) else { continue };
            if !taken.insert(found.trace) {
                continue;
            }
            covered.entry(quality).or_default().extend(of_trace.get(&found.trace).into_iter().flatten());
            wanted.push(Wanted {
                route: found.route.clone(),
                trace: found.trace,
                quality,
                at: found.at,
                duration_ns: found.duration_ns,
            });
        }
    }
    wanted
}

/// The request of an operation that shows this best.
fn pick<'a>(quality: Quality, of: &[&'a Candidate], longest_ns: Option<u64>) -> Option<&'a Candidate> {
    let mut good: Vec<&Candidate> = of.iter().copied().filter(|one| !one.is_failed).collect();
    match quality {
        Quality::Healthy => {
            good.sort_by_key(|one| (one.duration_ns, one.trace));
            good.get(good.len() / 2).copied()
        }
        Quality::Failed => {
            of.iter().copied().filter(|one| one.is_failed).max_by_key(|one| (one.at, one.trace))
        }
        Quality::Slowest => {
            let slowest = good.iter().copied().max_by_key(|one| (one.duration_ns, one.trace))?;
            // A little slower is no news, and would be copied again and again.
            let is_news = longest_ns.is_none_or(|known| slowest.duration_ns / 5 > known / 4);
            (good.len() >= ENOUGH && is_news).then_some(slowest)
        }
    }
}

/// A keepsake and the bytes of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub keepsake: Arc<Keepsake>,
    pub bytes: u64,
}

/// What keepsakes may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub bytes: u64,
    pub age: Duration,
    /// Healthy ones of an operation, at least 4.
    pub healthy: usize,
}

/// Traces of the keepsakes that have to go, in the order in which they go: what is too old; of an operation what
/// is more than it may have; then, while they take too much, what is missed least.
pub(super) fn superfluous(held: &[Held], now: Timestamp, bounds: Bounds) -> Vec<TraceId> {
    let (mut kept, old): (Vec<&Held>, Vec<&Held>) =
        held.iter().partition(|held| now.since(held.keepsake.at) <= bounds.age);
    let mut gone: Vec<TraceId> = old.iter().map(|held| held.keepsake.trace).collect();
    // In the order of time, so that neighbours are those next in age.
    kept.sort_by_key(|held| (held.keepsake.at, held.keepsake.trace));
    let mut of_route: BTreeMap<(&Route, Quality), Vec<&Held>> = BTreeMap::new();
    for held in kept {
        of_route.entry((&held.keepsake.route, held.keepsake.quality)).or_default().push(held);
    }
    // How much each is missed, and it.
    let mut ranked: Vec<(u8, &Held)> = Vec::new();
    for ((_, quality), mut of) in of_route {
        match quality {
            Quality::Healthy => {
                while of.len() > bounds.healthy.max(4)
                    && let Some(place) = crowded(&of, now, bounds.age)
                {
                    gone.push(of.remove(place).keepsake.trace);
                }
                let last = of.len().saturating_sub(1);
                let rank = |place| if place == last { 0 } else { 1 + u8::from(place != 0) };
                ranked.extend(of.into_iter().enumerate().map(|(place, held)| (rank(place), held)));
            }
            Quality::Failed => {
                let old = of.len().saturating_sub(WORST);
                gone.extend(of.drain(..old).map(|held| held.keepsake.trace));
                ranked.extend(of.into_iter().map(|held| (3, held)));
            }
            Quality::Slowest => {
                of.sort_by_key(|held| (held.keepsake.duration_ns, held.keepsake.at, held.keepsake.trace));
                let fast = of.len().saturating_sub(WORST);
                gone.extend(of.drain(..fast).map(|held| held.keepsake.trace));
                ranked.extend(of.into_iter().map(|held| (4, held)));
            }
        }
    }
    ranked.sort_by_key(|(rank, held)| (*rank, Reverse((held.keepsake.at, held.keepsake.trace))));
    let mut bytes = ranked.iter().map(|(_, held)| held.bytes).fold(0, u64::saturating_add);
    while bytes > bounds.bytes || ranked.len() > MOST {
        let Some((_, least)) = ranked.pop() else { break };
        bytes = bytes.saturating_sub(least.bytes);
        gone.push(least.keepsake.trace);
    }
    gone
}

/// Which of these, in the order of time, is missed least: the one whose neighbours are nearest to each other for
/// their age, so that ages are spread out like powers. Never the newest, nor the two next to half of `age`: the
/// older of these lives until the younger one has passed half of it, so that an operation that has been seen for
/// long always has one of at least that age. A fault that lasts cannot push out everything from before it.
fn crowded(of: &[&Held], now: Timestamp, age: Duration) -> Option<usize> {
    let age_s = |held: &Held| now.since(held.keepsake.at).as_secs_f64().max(1.0);
    let half = of.partition_point(|held| now.since(held.keepsake.at) >= age / 2);
    let is_needed = |place: usize| place.saturating_add(1) == of.len() || place == half || place + 1 == half;
    let gap = |place: usize| {
        let older = place.checked_sub(1).and_then(|place| of.get(place));
        let older = older.map_or(age.as_secs_f64(), |held| age_s(held));
        of.get(place.saturating_add(1)).map(|newer| older / age_s(newer))
    };
    let some = (0..of.len()).filter(|&place| !is_needed(place));
    let gaps = some.filter_map(|place| Some((place, gap(place)?)));
    gaps.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceKey;
    use proptest::prelude::*;

    fn route(number: u8) -> Route {
        (ServiceKey::named("cart"), format!("GET /{number}"))
    }

    fn id_of(number: u32) -> TraceId {
        TraceId(u128::from(number).to_be_bytes())
    }

    fn held(number: u32, of: u8, quality: Quality, at_s: u64, duration_ns: u64, bytes: u64) -> Held {
        let trace = id_of(number);
        let (route, at) = (route(of), Timestamp::from_secs(at_s));
        let (tops, covers) = (vec![route.clone()], vec![route.clone()]);
        Held { keepsake: Arc::new(Keepsake { trace, quality, route, tops, covers, at, duration_ns }), bytes }
    }

    const QUALITIES: [Quality; 3] = [Quality::Healthy, Quality::Failed, Quality::Slowest];
    const NO_BOUND: Bounds = Bounds { bytes: u64::MAX, age: Duration::from_secs(10_000), healthy: 4 };

    proptest! {
        /// Keepsakes come one after the other; what is held is compared with the list of all that ever came.
        #[test]
        fn an_operation_keeps_its_newest_its_oldest_and_its_worst(
            steps in prop::collection::vec((0u8..3, 0usize..3, 1u64..600, 1u64..1_000), 1..120),
        ) {
            let (mut all, mut now_s): (Vec<Held>, u64) = (Vec::new(), 1_000_000);
            let mut kept: Vec<Held> = Vec::new();
            for (number, (of, quality, wait_s, duration)) in steps.into_iter().enumerate() {
                now_s += wait_s;
                let one = held(number as u32, of, QUALITIES[quality], now_s, duration, 1);
                all.push(one.clone());
                kept.push(one);
                let now = Timestamp::from_secs(now_s);
                let before = kept.clone();
                let gone: BTreeSet<TraceId> = superfluous(&kept, now, NO_BOUND).into_iter().collect();
                kept.retain(|held| !gone.contains(&held.keepsake.trace));
                let is_young = |held: &&Held| now_s - held.keepsake.at.secs() <= 10_000;
                for route in (0..3).map(route) {
                    for quality in QUALITIES {
                        let of = |from: &[Held]| -> Vec<Held> {
                            let of = from.iter().filter(|held| {
                                held.keepsake.route == route && held.keepsake.quality == quality
                            });
                            of.cloned().collect()
                        };
                        let (came, held, held_before) = (of(&all), of(&kept), of(&before));
                        let newest = came.iter().max_by_key(|held| held.keepsake.at).filter(is_young);
                        let most = if quality == Quality::Healthy { 4 } else { 1 };
                        prop_assert!(held.len() <= most);
                        match quality {
                            Quality::Healthy => {
                                prop_assert!(newest.is_none_or(|newest| held.contains(newest)));
                                // Beside half of the age, on both sides, nothing that was there goes.
                                let age_s = |held: &&Held| now_s - held.keepsake.at.secs();
                                let there = || held_before.iter().filter(is_young);
                                let older = there().filter(|held| age_s(held) >= 5_000).min_by_key(age_s);
                                let younger = there().filter(|held| age_s(held) < 5_000).max_by_key(age_s);
                                for needed in older.into_iter().chain(younger) {
                                    prop_assert!(held.contains(needed));
                                }
                            }
                            Quality::Failed => prop_assert_eq!(held.first(), newest),
                            Quality::Slowest => {
                                let key = |held: &&Held| (held.keepsake.duration_ns, held.keepsake.at);
                                let slowest = came.iter().max_by_key(key).filter(is_young);
                                prop_assert!(slowest.is_none_or(|slowest| held.contains(slowest)));
                            }
                        }
                    }
                }
            }
        }

        #[test]
        fn what_takes_too_much_goes_and_the_last_healthy_ones_go_last(
            some in prop::collection::vec((0u8..20, 0usize..3, 0u64..5_000, 1u64..100), 1..80),
            most in 0u64..4_000,
        ) {
            let all: Vec<Held> = some
                .into_iter()
                .enumerate()
                .map(|(number, (of, quality, at_s, bytes))| {
                    held(number as u32, of, QUALITIES[quality], 1_000_000 + at_s, 5, bytes)
                })
                .collect();
            let now = Timestamp::from_secs(1_005_000);
            let gone = |bounds| -> BTreeSet<TraceId> { superfluous(&all, now, bounds).into_iter().collect() };
            let (with, without) = (gone(Bounds { bytes: most, ..NO_BOUND }), gone(NO_BOUND));
            prop_assert!(without.is_subset(&with));
            let kept = || all.iter().filter(|held| !with.contains(&held.keepsake.trace));
            prop_assert!(kept().map(|held| held.bytes).sum::<u64>() <= most);
            let newest = |route: &Route| {
                let of = all.iter().filter(|held| held.keepsake.route == *route && held.keepsake.quality == Quality::Healthy);
                of.max_by_key(|held| (held.keepsake.at, held.keepsake.trace)).map(|held| held.keepsake.trace)
            };
            // If an operation lost its newest healthy trace for want of room, nothing less needed is there.
            let lost = all.iter().any(|held| newest(&held.keepsake.route).is_some_and(|trace| with.contains(&trace)));
            let spare = kept().any(|held| newest(&held.keepsake.route) != Some(held.keepsake.trace));
            prop_assert!(!(lost && spare));
        }
    }

    #[test]
    fn ages_stay_spread_out_over_a_week() {
        let mut kept: Vec<Held> = Vec::new();
        let bounds = Bounds { age: Duration::from_secs(7 * 86_400), healthy: 6, ..NO_BOUND };
        for hour in 0..24 * 30u64 {
            kept.push(held(hour as u32, 0, Quality::Healthy, hour * 3_600, 1, 1));
            let gone = superfluous(&kept, Timestamp::from_secs(hour * 3_600), bounds);
            kept.retain(|held| !gone.contains(&held.keepsake.trace));
            assert!(kept.len() <= 6);
            let youngest_from = |before: u64| {
                let ages = kept.iter().map(|held| hour - held.keepsake.at.secs() / 3_600);
                ages.filter(|&age| age >= before).min()
            };
            if hour > 100 {
                // For a fault that began so many hours ago, from how long ago is the last one before it?
                assert!(youngest_from(84).is_some(), "{hour}");
                assert!(youngest_from(1) == Some(1), "{hour}");
                assert!(youngest_from(3) <= Some(24), "{hour}: {:?}", youngest_from(3));
                assert!(youngest_from(6) <= Some(36), "{hour}: {:?}", youngest_from(6));
            }
        }
    }

    fn candidate(number: u32, of: u8, duration_ns: u64, is_failed: bool) -> Candidate {
        let trace = id_of(number);
        let at = Timestamp::from_secs(u64::from(number));
        Candidate { route: route(of), trace, at, duration_ns, is_root: true, is_failed }
    }

    #[test]
    fn a_typical_a_failed_and_the_slowest_request_are_chosen_and_not_again() {
        let mut candidates: Vec<Candidate> =
            (1..=9).map(|number| candidate(number, 0, u64::from(number) * 100, false)).collect();
        candidates.push(candidate(10, 0, 1, true));
        candidates.push(candidate(11, 0, 1, true));
        let every = Duration::from_secs(3_600);
        let chosen = wanted(&candidates, &[], every);
        let ids = |chosen: &[Wanted]| -> Vec<(u8, Quality)> {
            chosen.iter().map(|one| (one.trace.0[15], one.quality)).collect()
        };
        assert_eq!(ids(&chosen), [(5, Quality::Healthy), (11, Quality::Failed), (9, Quality::Slowest)]);
        let kept: Vec<Held> = chosen
            .iter()
            .map(|one| held(u32::from(one.trace.0[15]), 0, one.quality, one.at.secs(), one.duration_ns, 1))
            .collect();
        // The same again, a little slower, and much slower.
        for (number, duration, news) in [(20, 500, false), (21, 1_000, false), (22, 2_000, true)] {
            let more: Vec<Candidate> = (0..8)
                .map(|n| candidate(30 + n, 0, 100, false))
                .chain([candidate(number, 0, duration, false)])
                .collect();
            let found = wanted(&more, &kept, every);
            let expected: &[(u8, Quality)] = if news { &[(22, Quality::Slowest)] } else { &[] };
            assert_eq!(ids(&found), expected);
        }
        let later: Vec<Candidate> = candidates[..3]
            .iter()
            .map(|one| Candidate { at: one.at.saturating_add(every * 2), trace: id_of(100), ..one.clone() })
            .collect();
        let found = wanted(&later, &kept, every);
        assert_eq!(ids(&found), [(100, Quality::Healthy)], "an hour later another healthy one");
    }

    #[test]
    fn one_trace_stands_for_all_operations_in_it() {
        let inner = Candidate { is_root: false, ..candidate(1, 0, 10, false) };
        let root = candidate(1, 9, 20, false);
        let rare = Candidate { is_root: false, ..candidate(2, 5, 10, false) };
        let chosen = wanted(&[inner, root, rare], &[], Duration::from_secs(60));
        let routes: Vec<&Route> = chosen.iter().map(|one| &one.route).collect();
        assert_eq!(routes, [&route(9), &route(5)]);
    }

    #[test]
    fn no_more_are_chosen_at_one_time_than_may_be() {
        let candidates: Vec<Candidate> = (0..200).map(|n| candidate(n, n as u8, 10, false)).collect();
        assert_eq!(wanted(&candidates, &[], Duration::from_secs(60)).len(), AT_ONCE);
    }
}
