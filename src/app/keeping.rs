//! Keepsakes, looked for on a thread of their own that gives way to ingest.

use crate::diagnose::Keeper;
use crate::journal::{Position, Recorder};
use crate::limits::RefusedReason;
use crate::model::Timestamp;
use crate::receive::Counters;
use crossbeam::channel::Receiver;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Everything before the position arrived before the time, and may be recycled.
pub(super) type Settled = (Timestamp, Position);

/// The keeper and what it looks at.
pub(super) struct Keeping {
    pub keeper: Keeper,
    pub recorder: Recorder,
    /// While requests press, nothing is looked at.
    pub counters: Arc<Counters>,
}

impl Keeping {
    /// Looks at one part of the journal after the other until no more can come.
    pub fn run(mut self, parts: &Receiver<Settled>) {
        super::give_way();
        let mut refused_before = self.refused();
        while let Ok((arrived, through)) = parts.recv() {
            let refused = self.refused();
            let is_refusing = std::mem::replace(&mut refused_before, refused) != refused;
            let is_pressed = is_refusing || self.counters.is_half_full();
            // What goes wrong here costs keepsakes, and nothing else.
            let step = AssertUnwindSafe(|| self.keeper.step(&self.recorder, arrived, through, is_pressed));
            match std::panic::catch_unwind(step) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "keepsakes of a part of the journal are missing"),
                Err(_) => tracing::error!("looking for keepsakes panicked"),
            }
        }
    }

    /// Requests refused for want of room: what one caller sends too fast is its own matter.
    fn refused(&self) -> u64 {
        let of_room =
            |reason: &RefusedReason| matches!(reason, RefusedReason::Memory | RefusedReason::Journal);
        let refused = self.counters.refused().filter(|(reason, _)| of_room(reason));
        refused.map(|(_, requests)| requests).fold(0, u64::saturating_add)
    }
}
