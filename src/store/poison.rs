//! A disk that fails. What could not be synced may be lost although a second try says otherwise, so nothing is
//! tried again: the store refuses everything from then on. Only a full disk is waited for.

use crate::store::Error;
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Why nothing is written any more, if that is so.
#[derive(Debug, Default)]
pub(super) struct Poison(OnceLock<String>);

impl Poison {
    /// What came of a write: a full disk may have room later.
    pub fn written<T>(&self, path: &Path, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| {
            if !is_full(error) {
                self.set(path, error);
            }
        })
    }

    /// What came of a read: what ends too early is damaged, which is another matter.
    fn read<T>(&self, path: &Path, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| {
            if !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) {
                self.set(path, error);
            }
        })
    }

    /// What came of a sync, also of one that says that the disk is full: the kernel forgets what it could not
    /// write.
    pub fn synced<T>(&self, path: &Path, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| self.set(path, error))
    }

    fn set(&self, path: &Path, error: &io::Error) {
        if self.0.set(format!("{}: {error}", path.display())).is_ok() {
            tracing::error!(path = %path.display(), %error, "the disk failed: the store writes nothing more");
        }
    }

    /// Why nothing is written any more.
    pub fn why(&self) -> Option<String> {
        self.0.get().cloned()
    }

    /// # Errors
    /// [`Error::Poisoned`]
    pub fn check(&self) -> Result<(), Error> {
        self.why().map_or(Ok(()), |why| Err(Error::Poisoned(why)))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A database file of which every failure is noted.
#[derive(Debug)]
pub(super) struct Noting<B> {
    pub inner: B,
    pub path: Arc<Path>,
    pub poison: Arc<Poison>,
}

impl<B: StorageBackend> StorageBackend for Noting<B> {
    fn len(&self) -> io::Result<u64> {
        self.poison.read(&self.path, self.inner.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.poison.read(&self.path, self.inner.read(offset, out))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.poison.written(&self.path, self.inner.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.poison.synced(&self.path, self.inner.sync_data())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.poison.written(&self.path, self.inner.write(offset, bytes))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Failure, Trace};
    use crate::model::Timestamp;
    use crate::store::tests::{checkpoint, cut, seals, window};
    use crate::store::{Config, NewRecord, Stage, Store};

    fn record(number: u64) -> Vec<NewRecord> {
        let key = number.to_string();
        vec![NewRecord::new(Timestamp::ZERO, Stage::Confirm, "a", key, &number).unwrap()]
    }

    fn store(folder: &Path) -> Store {
        let store = Store::open(&folder.join("data"), Config::default()).unwrap();
        store.ledger().append_all(record(1)).unwrap();
        assert!(store.seal(window(1_000, false, seals(1_000), &[(1, 1)])));
        store.commit(&checkpoint(seals(1_000))).unwrap();
        assert!(store.seal(window(1_001, false, seals(1_001), &[(1, 1)])));
        store
    }

    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;

    #[test]
    fn a_full_disk_is_waited_for() {
        for (of_database, with_read) in [(true, true), (true, false), (false, false)] {
            let folder = tempfile::tempdir().unwrap();
            let trace = Trace::begin(folder.path());
            let store = store(folder.path());
            let full = |name| trace.fail(Failure { name, syncs: false, writes: true, error: ENOSPC });
            full(if of_database { "redb" } else { "arrow" });
            store.commit(&checkpoint(seals(1_001))).unwrap_err();
            assert_eq!(store.ledger().append_all(record(2)).is_err(), of_database);
            assert_eq!(store.poisoned(), None);
            trace.heal();
            // Whoever comes first finds it open again: one that reads, or one that writes.
            if with_read {
                assert!(store.ledger().latest_of(Stage::Confirm, "a").unwrap().is_some());
            }
            store.ledger().append_all(record(2)).unwrap();
            store.commit(&checkpoint(seals(1_001))).unwrap();
            assert_eq!(store.checkpoint().unwrap().unwrap().cut, seals(1_001));
            assert_eq!(store.ledger().last(), 2);
        }
    }

    #[test]
    fn after_any_other_failure_nothing_is_tried_again() {
        // A sync fails for good whatever it says; a write unless the disk is full.
        for (syncs, writes, error) in [(true, false, EIO), (true, false, ENOSPC), (false, true, EIO)] {
            for name in ["redb", "arrow"] {
                let folder = tempfile::tempdir().unwrap();
                let trace = Trace::begin(folder.path());
                let store = store(folder.path());
                let told = format!("{name} syncs: {syncs}, error {error}");
                trace.fail(Failure { name, syncs, writes, error });
                let failed = store.commit(&checkpoint(seals(1_001))).unwrap_err();
                assert!(matches!(failed, Error::Poisoned(_)), "{told}: {failed}");
                trace.heal();
                let begun = trace.now();
                for again in
                    [store.commit(&checkpoint(cut(2_000))).err(), store.ledger().append_all(record(2)).err()]
                {
                    assert!(matches!(again, Some(Error::Poisoned(_))), "{told}: {again:?}");
                }
                assert_eq!(trace.now(), begun, "{told}: something was done to the disk");
                assert!(store.poisoned().is_some_and(|why| why.contains(name)), "{told}");
                // What was committed before still holds.
                drop(store);
                let store = Store::open(&folder.path().join("data"), Config::default()).unwrap();
                assert_eq!(store.ledger().last(), 1, "{told}");
            }
        }
    }
}
