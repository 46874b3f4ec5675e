//! The order: what the sequencer hands to shards.

use crate::model::Timestamp;
use crate::receive::Admitted;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A byte offset in the journal's whole history: it only grows, also when segments are recycled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

/// A barrier: all partials that carry it are an exact cut of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The whole second of journal time that the barrier stands at, since the epoch. Barriers follow
    /// each other by one, whether or not anything arrived; so they are a function of the stamps.
    pub number: u64,
    /// `number` as a timestamp: everything before it arrived earlier.
    pub arrived: Timestamp,
    /// Everything before this position is in the cut, nothing else is.
    pub through: Position,
    /// Whether each stage is to add its state, so that a checkpoint can be committed.
    pub checkpoint: bool,
}

/// What a shard gets, in this order.
#[derive(Clone, Debug)]
pub enum Step {
    /// A recorded request, of which the shard counts the slices in its partitions.
    Work {
        at: Position,
        arrived: Timestamp,
        request: Arc<Admitted>,
    },
    Barrier(Cut),
}
