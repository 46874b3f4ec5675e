//! What the writer, the reader and whoever steers them share.

use super::segment::Segment;
use super::{Error, Index, Position};
use crate::observe::Beat;
use crate::parallel::Consumer;
use arc_swap::ArcSwap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Oldest first.
    pub segments: ArcSwap<Vec<Arc<Segment>>>,
    /// Everything before this position can be read.
    pub written: AtomicU64,
    /// Arrival of the last record.
    pub last_arrived: AtomicU64,
    /// How far journal time is ahead of the wall clock; below zero while it is behind.
    pub clock_ahead_ns: AtomicI64,
    /// Nothing from this position on is recycled.
    pub checkpoint: AtomicU64,
    /// Records kept aside, as of the last start.
    pub quarantined: AtomicU64,
    /// A checkpoint was asked for.
    pub checkpoint_wanted: AtomicBool,
    poisoned: OnceLock<String>,
    pub index: Arc<Index>,
    /// The thread that takes requests from the lanes.
    pub sequencer: Consumer,
    /// Up to which barrier everything was handed out, by number.
    pub beat: Arc<Beat>,
    /// How the thread that syncs gets on.
    pub helper_beat: Arc<Beat>,
}

impl Shared {
    /// Remembers for ever that a sync failed.
    pub fn poison(&self, error: &io::Error) -> Error {
        let _ = self.poisoned.set(error.to_string());
        self.sequencer.wake();
        Error::Poisoned(error.to_string())
    }

    pub fn poisoned(&self) -> Option<String> {
        self.poisoned.get().cloned()
    }
}

/// Steers a running sequencer from other threads.
#[derive(Clone, Debug)]
pub struct Handle(pub(super) Arc<Shared>);

impl Handle {
    /// Everything before this position is held by a checkpoint and may be recycled.
    pub fn set_checkpoint(&self, through: Position) {
        self.0.checkpoint.fetch_max(through.0, Ordering::AcqRel);
    }

    /// Asks that the next barrier be one for a checkpoint.
    pub fn request_checkpoint(&self) {
        self.0.checkpoint_wanted.store(true, Ordering::Release);
    }

    /// Takes no more requests. What was taken is still appended and counted; then, after a last
    /// barrier for a checkpoint, the sequencer ends.
    pub fn close(&self) {
        self.0.sequencer.close();
    }

    /// Why nothing is acknowledged any more, if that is so.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.0.poisoned()
    }

    /// Up to which barrier everything was handed out, by number: each second brings one.
    #[must_use]
    pub fn beat(&self) -> Arc<Beat> {
        self.0.beat.clone()
    }

    /// How the thread that syncs gets on, which never rests.
    #[must_use]
    pub fn helper_beat(&self) -> Arc<Beat> {
        self.0.helper_beat.clone()
    }
}
