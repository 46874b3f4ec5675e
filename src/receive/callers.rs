//! What each caller may have: a share of the memory for requests, so that one cannot take it all, and a rate
//! if one is set. A caller is the holder of a token, else an address.

use super::CallerTag;
use crate::disk;
use crate::limits::{Budget, Permit, Rate};
use arc_swap::ArcSwap;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Callers that are told apart; what is beyond shares one allowance.
const MOST: usize = 4_096;

/// By what callers are given their tags. Whoever knew it could choose an address that has another's.
#[derive(Clone)]
pub struct CallerKey([u8; 32]);

impl fmt::Debug for CallerKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("CallerKey(…)")
    }
}

impl CallerKey {
    /// One that nobody knows.
    #[must_use]
    pub fn random() -> Self {
        let mut key = [0; 32];
        if SystemRandom::new().fill(&mut key).is_err() {
            // Better one that can be guessed than no daemon: what it keeps apart is fairness, no secret.
            key.fill_with(|| fastrand::u8(..));
        }
        Self(key)
    }

    /// That of a data directory, in whose journal are tags. Made if there is none.
    ///
    /// # Errors
    /// It can neither be read nor be written.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let path = dir.join("callers.key");
        match std::fs::read(&path).map(<[u8; 32]>::try_from) {
            Ok(Ok(key)) => return Ok(Self(key)),
            // Of a crash while it was made, when nobody had a tag yet; or damaged.
            Ok(Err(_)) => tracing::warn!(
                "{} is not whole, a new one is made: who sent what is in the journal may be named wrongly",
                path.display()
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let new = Self::random();
        disk::write_file(&path, &new.0)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        disk::sync_folder(dir)?;
        Ok(new)
    }

    /// Never that of nobody.
    fn tag(&self, name: &str) -> CallerTag {
        let [low, high, ..] = *blake3::keyed_hash(&self.0, name.as_bytes()).as_bytes();
        CallerTag(u16::from_le_bytes([low, high]).max(1))
    }
}

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
    key: CallerKey,
}

impl Callers {
    pub fn new(share_bytes: u64, bytes_per_second: Option<u64>, key: CallerKey) -> Self {
        let others = Arc::new(Self::allowance(share_bytes, bytes_per_second, key.tag("")));
        Self { known: ArcSwap::default(), others, share_bytes, bytes_per_second, key }
    }

    fn allowance(share_bytes: u64, bytes_per_second: Option<u64>, tag: CallerTag) -> Allowance {
        let rate = bytes_per_second.map(|bytes| Rate::new(bytes, Instant::now()));
        Allowance { budget: Budget::new(share_bytes), rate, tag }
    }

    /// Who has a tag, of those that are known; all of them, where they are several.
    pub fn name_of(&self, tag: CallerTag) -> Option<Arc<str>> {
        let known = self.known.load();
        let mut names: Vec<&str> =
            known.iter().filter(|(_, of)| of.tag == tag).map(|(name, _)| &**name).collect();
        let beyond = format!("all beyond the first {MOST} callers");
        if self.others.tag == tag && known.len() >= MOST {
            names.push(&beyond);
        }
        (!names.is_empty()).then(|| names.join(", ").into())
    }

    /// The allowance of a caller, the same each time.
    pub fn of(&self, name: &Arc<str>) -> Arc<Allowance> {
        if let Some(known) = self.known.load().get(name) {
            return known.clone();
        }
        let new = Arc::new(Self::allowance(self.share_bytes, self.bytes_per_second, self.key.tag(name)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_one_allowance_and_they_are_bounded() {
        let callers = Callers::new(100, None, CallerKey::random());
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

    #[test]
    fn a_caller_has_its_tag_after_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let tags = |key: &CallerKey| ["", "10.0.0.7", "gateway"].map(|name| key.tag(name));
        let before = tags(&CallerKey::of(folder.path()).unwrap());
        assert_eq!(tags(&CallerKey::of(folder.path()).unwrap()), before);
        assert_ne!(tags(&CallerKey::random()), before, "nobody can know it beforehand");
        std::fs::write(folder.path().join("callers.key"), b"cut").unwrap();
        assert_ne!(tags(&CallerKey::of(folder.path()).unwrap()), before, "damage is replaced");
        std::fs::remove_file(folder.path().join("callers.key")).unwrap();
        std::fs::create_dir(folder.path().join("callers.key")).unwrap();
        assert!(CallerKey::of(folder.path()).is_err());
    }

    #[test]
    fn of_callers_that_share_a_tag_all_are_named() {
        let callers = Callers::new(100, None, CallerKey::random());
        let names: Vec<Arc<str>> = (0..1_000).map(|number| format!("caller {number}").into()).collect();
        let mut of_tag: BTreeMap<CallerTag, Vec<&str>> = BTreeMap::new();
        for name in &names {
            of_tag.entry(callers.of(name).tag).or_default().push(name);
        }
        for (tag, mut named) in of_tag {
            named.sort_unstable();
            assert_eq!(callers.name_of(tag).as_deref(), Some(&*named.join(", ")));
        }
        let held: Vec<_> = (0..MOST).map(|number| callers.of(&format!("held {number}").into())).collect();
        let name = callers.name_of(callers.others.tag);
        assert!(
            name.is_some_and(|name| name.contains("all beyond the first 4096 callers")),
            "{}",
            held.len()
        );
    }
}
