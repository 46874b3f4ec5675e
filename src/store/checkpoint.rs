//! What a restart goes on from.

use super::database::{META, PARTS, PIECES};
use crate::aggregate::Accepted;
use crate::journal::Cut;
use crate::limits::{LateReason, RejectedReason};
use crate::store::Error;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which grain, which block of it, and whose.
pub type PieceKey = (u8, u64, u32);

/// Pieces of a state that are written when they change, and stay until they are removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    pub put: Vec<(PieceKey, Vec<u8>)>,
    pub remove: Vec<PieceKey>,
}

/// Every stage's state as of one cut. Nothing after the cut is in it; a restart replays the journal
/// from `cut.through`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    pub cut: Cut,
    /// Each stage's state, by a name that the stage's owner chooses: `window`, `shard/3` …
    pub parts: BTreeMap<String, Vec<u8>>,
    /// What changed of the states that are too large to be written whole each time.
    pub pieces: Pieces,
    /// Totals since the data directory was made.
    pub accepted: Accepted,
    pub rejected: BTreeMap<RejectedReason, u64>,
    pub late: BTreeMap<LateReason, u64>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    cut: Cut,
    accepted: Accepted,
    /// By name, so that reasons may come and go between versions.
    rejected: BTreeMap<String, u64>,
    late: BTreeMap<String, u64>,
}

impl Checkpoint {
    pub(super) fn write(&self, transaction: &WriteTransaction) -> Result<(), Error> {
        let head = Head {
            cut: self.cut,
            accepted: self.accepted,
            rejected: self.rejected.iter().map(|(reason, n)| (reason.as_str().to_owned(), *n)).collect(),
            late: self.late.iter().map(|(reason, n)| (reason.as_str().to_owned(), *n)).collect(),
        };
        transaction.open_table(META)?.insert("checkpoint", encode(&head)?.as_slice())?;
        let mut parts = transaction.open_table(PARTS)?;
        parts.retain(|name, _| self.parts.contains_key(name))?;
        for (name, bytes) in &self.parts {
            parts.insert(&**name, bytes.as_slice())?;
        }
        if self.pieces != Pieces::default() {
            let mut pieces = transaction.open_table(PIECES)?;
            for key in &self.pieces.remove {
                pieces.remove(key)?;
            }
            for (key, bytes) in &self.pieces.put {
                pieces.insert(key, bytes.as_slice())?;
            }
        }
        Ok(())
    }

    /// All pieces, in ascending order.
    pub(super) fn read_pieces(transaction: &ReadTransaction) -> Result<Vec<(PieceKey, Vec<u8>)>, Error> {
        let mut pieces = Vec::new();
        for entry in transaction.open_table(PIECES)?.iter()? {
            let (key, bytes) = entry?;
            pieces.push((key.value(), bytes.value().to_vec()));
        }
        Ok(pieces)
    }

    pub(super) fn read(transaction: &ReadTransaction) -> Result<Option<Self>, Error> {
        let Some(head) = transaction.open_table(META)?.get("checkpoint")? else { return Ok(None) };
        let head: Head = decode(head.value())?;
        let mut parts = BTreeMap::new();
        for entry in transaction.open_table(PARTS)?.iter()? {
            let (name, bytes) = entry?;
            parts.insert(name.value().to_owned(), bytes.value().to_vec());
        }
        let count = |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied();
        Ok(Some(Self {
            cut: head.cut,
            parts,
            pieces: Pieces::default(),
            accepted: head.accepted,
            rejected: RejectedReason::ALL
                .iter()
                .filter_map(|&reason| Some((reason, count(&head.rejected, reason.as_str())?)))
                .collect(),
            late: LateReason::ALL
                .iter()
                .filter_map(|&reason| Some((reason, count(&head.late, reason.as_str())?)))
                .collect(),
        }))
    }
}

pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(value).map_err(|error| Error::Encode(error.to_string()))
}

pub(super) fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Error> {
    postcard::from_bytes(bytes).map_err(|error| Error::Record(error.to_string()))
}
