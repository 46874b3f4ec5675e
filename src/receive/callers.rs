//! What each caller may have: a share of the memory for requests, so that one cannot take it all, and a rate
//! if one is set. A caller is the holder of a token, else an address.

use super::CallerTag;
use crate::limits::{Budget, Permit, Rate};
use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Callers that are told apart; what is beyond shares one allowance.
const MOST: usize = 4_096;

/// What one caller has of the budget of all, and how fast it sends.
#[derive(Debug)]
pub(super) struct Allowance {
    budget: Arc<Budget>,
    rate: Option<Rate>,
    pub tag: CallerTag,
}

impl Allowance {
    /// How long the caller must wait before it may send more, if it must.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.rate.as_ref().and_then(|rate| rate.wait(now))
    }

    /// The caller sent so many bytes.
    pub fn charge(&self, bytes: usize, now: Instant) {
        if let Some(rate) = &self.rate {
            rate.charge(bytes as u64, now);
        }
    }

    /// Bytes of both budgets; of neither when one lacks them.
    pub fn try_take(&self, of_all: &Arc<Budget>, bytes: u64) -> Option<Permit> {
        of_all.try_take_within(&self.budget, bytes)
    }

    fn is_in_use(&self) -> bool {
        self.budget.used_bytes() > 0
            || self.rate.as_ref().is_some_and(|rate| rate.wait(Instant::now()).is_some())
    }
}

/// All callers. Looking one up takes no lock.
#[derive(Debug)]
pub(super) struct Callers {
    known: ArcSwap<BTreeMap<Arc<str>, Arc<Allowance>>>,
    others: Arc<Allowance>,
    share_bytes: u64,
    bytes_per_second: Option<u64>,
    /// With a seed of its own, so that nobody can choose an address that has another's tag.
    tags: RandomState,
}

impl Callers {
    pub fn new(share_bytes: u64, bytes_per_second: Option<u64>) -> Self {
        let tags = RandomState::default();
        let others = Arc::new(Self::allowance(share_bytes, bytes_per_second, tag(&tags, "")));
        Self { known: ArcSwap::default(), others, share_bytes, bytes_per_second, tags }
    }

    fn allowance(share_bytes: u64, bytes_per_second: Option<u64>, tag: CallerTag) -> Allowance {
        let rate = bytes_per_second.map(|bytes| Rate::new(bytes, Instant::now()));
        Allowance { budget: Budget::new(share_bytes), rate, tag }
    }

    /// Who has a tag, of those that are known.
    pub fn name_of(&self, tag: CallerTag) -> Option<Arc<str>> {
        self.known.load().iter().find(|(_, of)| of.tag == tag).map(|(name, _)| name.clone())
    }

    /// The allowance of a caller, the same each time.
    pub fn of(&self, name: &Arc<str>) -> Arc<Allowance> {
        if let Some(known) = self.known.load().get(name) {
            return known.clone();
        }
        let new = Arc::new(Self::allowance(self.share_bytes, self.bytes_per_second, tag(&self.tags, name)));
        self.known.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            if known.len() >= MOST {
                known.retain(|_, of| Arc::strong_count(of) > 1 || of.is_in_use());
            }
            if known.len() < MOST {
                known.entry(name.clone()).or_insert_with(|| new.clone());
            }
            known
        });
        self.known.load().get(name).unwrap_or(&self.others).clone()
    }
}

/// Never that of nobody.
fn tag(tags: &RandomState, name: &str) -> CallerTag {
    let number = tags.hash_one(name) % u64::from(u16::MAX);
    CallerTag(u16::try_from(number).unwrap_or_default().saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_one_allowance_and_they_are_bounded() {
        let callers = Callers::new(100, None);
        let budget = Budget::new(150);
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        let tag = callers.of(&one).tag;
        assert!(tag != CallerTag::NOBODY && tag == callers.of(&one).tag);
        assert_eq!(callers.name_of(tag), Some(one.clone()));
        let held = callers.of(&one).try_take(&budget, 100).unwrap();
        assert!(callers.of(&one).try_take(&budget, 1).is_none() && held.is_held_back(1));
        let mut other = callers.of(&two).try_take(&budget, 50).unwrap();
        assert!(!other.try_grow(1) && !other.is_held_back(1), "that of all is taken");
        drop(held);
        assert!(other.try_grow(50) && !other.try_grow(1));
        assert_eq!(budget.used_bytes(), 100);
        for number in 0..2 * MOST {
            let _ = callers.of(&number.to_string().into());
        }
        assert!(callers.known.load().len() <= MOST);
        assert!(callers.of(&two).try_take(&budget, 1).is_none(), "who holds something is not forgotten");
    }
}
