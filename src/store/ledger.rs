//! The ledger: an append-only record through which the stages from `confirm` on speak.

use super::database::{Db, KEYS, LATEST, RECORDS};
use crate::model::Timestamp;
use crate::store::Error;
use redb::ReadableTable;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::watch;

/// Who wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Changes, silences, known issues.
    Context,
    /// `confirm::Anomaly`, whole, after each change of it.
    Confirm,
    /// `alert::Alert`, whole, after each change of it; and deliveries.
    Alert,
    /// `diagnose::Evidence`.
    Diagnose,
    /// `incident::Entry`: what operators did and said.
    Incident,
}

impl Stage {
    /// Its number in the database; never given to another one.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Context => 0,
            Self::Confirm => 1,
            Self::Alert => 2,
            Self::Diagnose => 3,
            Self::Incident => 4,
        }
    }
}

/// One record. `object` names what it is about (an anomaly's id, say); the payload carries the
/// object's whole state after the event, so that the latest record of an object is its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// Position in the ledger, from 1, without gaps: the resume token of its stream.
    pub sequence: u64,
    pub at: Timestamp,
    pub stage: Stage,
    pub object: String,
    /// Deterministic and unique within the stage: what the ledger already holds under a key wins.
    pub key: String,
    /// JSON.
    pub payload: serde_json::Value,
}

/// A record to be appended.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRecord {
    pub at: Timestamp,
    pub stage: Stage,
    pub object: String,
    pub key: String,
    pub payload: serde_json::Value,
}

impl NewRecord {
    /// # Errors
    /// If the payload has no form in JSON.
    pub fn new(
        at: Timestamp,
        stage: Stage,
        object: impl Into<String>,
        key: impl Into<String>,
        payload: &impl Serialize,
    ) -> Result<Self, Error> {
        let payload = serde_json::to_value(payload).map_err(|error| Error::Encode(error.to_string()))?;
        Ok(Self { at, stage, object: object.into(), key: key.into(), payload })
    }
}

/// A handle; clones share the ledger. What an append returned for is on disk.
#[derive(Clone, Debug)]
pub struct Ledger {
    db: Arc<Db>,
    last: Arc<watch::Sender<u64>>,
}

impl Ledger {
    /// A ledger that is gone when its last handle is dropped, for backtests and tests.
    ///
    /// # Errors
    /// Of the database.
    pub fn in_memory() -> Result<Self, Error> {
        Self::over(Arc::new(Db::in_memory()?))
    }

    pub(super) fn over(db: Arc<Db>) -> Result<Self, Error> {
        let last = db.read(|transaction| {
            Ok(transaction.open_table(RECORDS)?.last()?.map_or(0, |(key, _)| key.value()))
        })?;
        Ok(Self { db, last: Arc::new(watch::Sender::new(last)) })
    }

    /// Appends one record; `None` if the stage's key is held already.
    ///
    /// # Errors
    /// Of the payload or the database; nothing was appended then.
    pub fn append(
        &self,
        at: Timestamp,
        stage: Stage,
        object: &str,
        key: &str,
        payload: &impl Serialize,
    ) -> Result<Option<u64>, Error> {
        let record = NewRecord::new(at, stage, object, key, payload)?;
        Ok(self.append_all(vec![record])?.pop().flatten())
    }

    /// Appends records in this order and in one transaction; for each its sequence, or `None` if its
    /// key is held already.
    ///
    /// # Errors
    /// Of the database; nothing was appended then.
    pub fn append_all(&self, records: Vec<NewRecord>) -> Result<Vec<Option<u64>>, Error> {
        // Where the look fails, the write says why, and first does what can be done about it.
        if records.is_empty() || matches!(self.holds_all(&records), Ok(true)) {
            return Ok(vec![None; records.len()]);
        }
        let (given, last) = self.db.write(|transaction| {
            let mut table = transaction.open_table(RECORDS)?;
            let mut keys = transaction.open_table(KEYS)?;
            let mut latest = transaction.open_table(LATEST)?;
            let mut last = table.last()?.map_or(0, |(key, _)| key.value());
            let mut given = Vec::with_capacity(records.len());
            for NewRecord { at, stage, object, key, payload } in records {
                if keys.get((stage.number(), &*key))?.is_some() {
                    given.push(None);
                    continue;
                }
                last += 1;
                keys.insert((stage.number(), &*key), last)?;
                latest.insert((stage.number(), &*object), last)?;
                let record = LedgerRecord { sequence: last, at, stage, object, key, payload };
                let bytes = serde_json::to_vec(&record).map_err(|error| Error::Encode(error.to_string()))?;
                table.insert(last, bytes.as_slice())?;
                given.push(Some(last));
            }
            Ok((given, last))
        })?;
        self.last.send_if_modified(|seen| {
            let grew = last > *seen;
            *seen = last.max(*seen);
            grew
        });
        Ok(given)
    }

    /// A replay re-derives much that is held: that needs no write.
    fn holds_all(&self, records: &[NewRecord]) -> Result<bool, Error> {
        self.db.read(|transaction| {
            let keys = transaction.open_table(KEYS)?;
            for record in records {
                if keys.get((record.stage.number(), &*record.key))?.is_none() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Up to `at_most` records from this sequence on, in order.
    ///
    /// # Errors
    /// Of the database.
    pub fn read_from(&self, sequence: u64, at_most: usize) -> Result<Vec<LedgerRecord>, Error> {
        self.db.read(|transaction| {
            let table = transaction.open_table(RECORDS)?;
            table.range(sequence..)?.take(at_most).map(|entry| record(entry?.1.value())).collect()
        })
    }

    /// The latest record of each object of a stage, in order of the objects' names.
    ///
    /// # Errors
    /// Of the database.
    pub fn latest(&self, stage: Stage) -> Result<Vec<LedgerRecord>, Error> {
        self.db.read(|transaction| {
            let table = transaction.open_table(RECORDS)?;
            let latest = transaction.open_table(LATEST)?;
            let mut records = Vec::new();
            for entry in latest.range((stage.number(), "")..(stage.number() + 1, ""))? {
                if let Some(bytes) = table.get(entry?.1.value())? {
                    records.push(record(bytes.value())?);
                }
            }
            Ok(records)
        })
    }

    /// The latest record of one object.
    ///
    /// # Errors
    /// Of the database.
    pub fn latest_of(&self, stage: Stage, object: &str) -> Result<Option<LedgerRecord>, Error> {
        self.find(LATEST, stage, object)
    }

    /// The record that a stage's key holds.
    ///
    /// # Errors
    /// Of the database.
    pub fn held(&self, stage: Stage, key: &str) -> Result<Option<LedgerRecord>, Error> {
        self.find(KEYS, stage, key)
    }

    fn find(
        &self,
        index: redb::TableDefinition<(u8, &str), u64>,
        stage: Stage,
        name: &str,
    ) -> Result<Option<LedgerRecord>, Error> {
        self.db.read(|transaction| {
            let Some(sequence) = transaction.open_table(index)?.get((stage.number(), name))? else {
                return Ok(None);
            };
            let table = transaction.open_table(RECORDS)?;
            table.get(sequence.value())?.map(|bytes| record(bytes.value())).transpose()
        })
    }

    /// Sequence of the last record; 0 while there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Follows [`Self::last`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

fn record(bytes: &[u8]) -> Result<LedgerRecord, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Record(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(ledger: &Ledger) {
        let at = Timestamp::from_secs(7);
        assert_eq!(ledger.append(at, Stage::Confirm, "a", "a/1", &1).unwrap(), Some(1));
        assert_eq!(ledger.append(at, Stage::Alert, "a", "a/1", &"alert").unwrap(), Some(2));
        assert_eq!(ledger.append(at, Stage::Confirm, "a", "a/1", &99).unwrap(), None);
        let records = [("b", "b/1", 3), ("a", "a/2", 4), ("a", "a/2", 5)]
            .map(|(object, key, n)| NewRecord::new(at, Stage::Confirm, object, key, &n).unwrap());
        assert_eq!(ledger.append_all(records.to_vec()).unwrap(), [Some(3), Some(4), None]);
    }

    fn check(ledger: &Ledger) {
        let payloads = |records: Vec<LedgerRecord>| -> Vec<String> {
            records.into_iter().map(|record| record.payload.to_string()).collect()
        };
        assert_eq!(payloads(ledger.read_from(0, 10).unwrap()), ["1", "\"alert\"", "3", "4"]);
        assert_eq!(payloads(ledger.read_from(2, 2).unwrap()), ["\"alert\"", "3"]);
        assert_eq!(payloads(ledger.latest(Stage::Confirm).unwrap()), ["4", "3"]);
        assert_eq!(ledger.latest_of(Stage::Alert, "a").unwrap().unwrap().sequence, 2);
        assert_eq!(ledger.latest_of(Stage::Alert, "b").unwrap(), None);
        assert_eq!(ledger.held(Stage::Confirm, "a/1").unwrap().unwrap().payload, 1);
        assert_eq!(ledger.last(), 4);
    }

    #[test]
    fn what_is_held_wins_in_memory_and_in_a_file_across_restarts() {
        let memory = Ledger::in_memory().unwrap();
        let mut watch = memory.watch();
        assert!(!watch.has_changed().unwrap());
        fill(&memory);
        assert!(watch.has_changed().unwrap());
        assert_eq!(*watch.borrow_and_update(), 4);
        check(&memory);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let file = Ledger::over(Arc::new(Db::open(&path, true).unwrap())).unwrap();
        fill(&file);
        check(&file);
        assert_eq!(memory.read_from(0, 100).unwrap(), file.read_from(0, 100).unwrap());
        drop(file);
        let again = Ledger::over(Arc::new(Db::open(&path, true).unwrap())).unwrap();
        check(&again);
        assert_eq!(again.append(Timestamp::ZERO, Stage::Confirm, "b", "b/1", &0).unwrap(), None);
        assert_eq!(again.append(Timestamp::ZERO, Stage::Confirm, "b", "b/2", &0).unwrap(), Some(5));
    }

    #[test]
    fn a_second_owner_is_told_that_the_file_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let _first = Db::open(&path, true).unwrap();
        assert!(matches!(Db::open(&path, true), Err(Error::InUse(_))));
    }
}
