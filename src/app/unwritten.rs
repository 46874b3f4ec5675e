//! What the ledger could not take yet: a full disk delays what is recorded, it does not stop the daemon.

use crate::store::{Error, NewRecord};

/// Records that may wait; the oldest go first. Later records of an object carry its whole state.
const AT_MOST: usize = 10_000;

/// Records on their way into the ledger, in order.
#[derive(Debug, Default)]
pub struct Unwritten {
    waiting: Vec<NewRecord>,
    /// The last attempt failed.
    is_behind: bool,
}

impl Unwritten {
    /// Appends `records` behind those that wait. When that fails all of them wait for the next call:
    /// keys are deterministic, so that a record is held once however often it is tried.
    pub fn write<T>(
        &mut self,
        records: Vec<NewRecord>,
        append: impl FnOnce(Vec<NewRecord>) -> Result<T, Error>,
    ) {
        self.waiting.extend(records);
        if self.waiting.is_empty() {
            return;
        }
        match append(self.waiting.clone()) {
            Ok(_) => {
                if std::mem::take(&mut self.is_behind) {
                    tracing::info!(records = self.waiting.len(), "the ledger can be written again");
                }
                self.waiting.clear();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_behind, true) {
                    tracing::error!(%error, "the ledger cannot be written: alerts are told from memory until it can");
                }
                let over = self.waiting.len().saturating_sub(AT_MOST);
                self.waiting.drain(..over);
            }
        }
    }

    /// Whether anything waits: then no checkpoint may say that it was recorded.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::store::{Ledger, Stage};

    #[test]
    fn what_could_not_be_written_comes_first_the_next_time() {
        let ledger = Ledger::in_memory().unwrap();
        let record = |key: &str| NewRecord::new(Timestamp::ZERO, Stage::Confirm, "a", key, &key).unwrap();
        let full = |_: Vec<NewRecord>| Err::<(), _>(Error::Encode("the disk is full".to_owned()));
        let mut unwritten = Unwritten::default();
        unwritten.write(vec![record("1")], full);
        unwritten.write(Vec::new(), full);
        unwritten.write(vec![record("2")], full);
        assert!(unwritten.is_behind());
        unwritten.write(vec![record("3")], |records| ledger.append_all(records));
        assert!(!unwritten.is_behind());
        unwritten.write(vec![record("4")], |records| ledger.append_all(records));
        let keys: Vec<String> =
            ledger.read_from(0, 10).unwrap().into_iter().map(|record| record.key).collect();
        assert_eq!(keys, ["1", "2", "3", "4"]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut unwritten = Unwritten::default();
        for n in 0..AT_MOST + 5 {
            let record = NewRecord::new(Timestamp::ZERO, Stage::Confirm, "a", n.to_string(), &n).unwrap();
            unwritten.waiting.push(record);
        }
        unwritten.write(Vec::new(), |_| Err::<(), _>(Error::Encode("the disk is full".to_owned())));
        assert_eq!(unwritten.waiting.first().map(|record| record.key.as_str()), Some("5"));
    }
}
