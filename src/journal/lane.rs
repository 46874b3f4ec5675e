//! The ways from the I/O threads into the sequencer, and from there to the shards.

use super::shared::Shared;
use super::{Position, Recorder, Step};
use crate::limits::RefusedReason;
use crate::otlp::Encoding;
use crate::parallel;
use crate::receive::{Admitted, Intake, same_body};
use std::sync::Arc;

/// A lane for each processor, within these bounds, so that each I/O thread has one; more threads than lanes share
/// them. A lane takes 220 KB.
const LANES: std::ops::RangeInclusive<usize> = 2..=16;
/// Requests that fit into a lane. The budget of ingest memory runs out first.
const LANE_REQUESTS: usize = 1024;

/// The way from the I/O threads into the sequencer.
#[derive(Clone, Debug)]
pub struct Lanes {
    pub(super) queues: Arc<parallel::Lanes<Admitted>>,
    shared: Arc<Shared>,
}

impl Lanes {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let lanes = processors.clamp(*LANES.start(), *LANES.end());
        Self { queues: Arc::new(parallel::Lanes::new(lanes, LANE_REQUESTS)), shared }
    }

    /// To be called once by a thread that will call [`Intake::announce`] each time before it waits for
    /// anything, or works for long.
    pub fn announces_at_rest() {
        parallel::announce_at_rest();
    }
}

impl Intake for Lanes {
    fn try_push(&self, admitted: Admitted) -> Result<(), Admitted> {
        self.queues.try_push(admitted, &self.shared.sequencer, |request| refuse_at_the_end(&request))
    }

    fn announce(&self) {
        parallel::announce(&self.shared.sequencer);
    }

    fn holds(&self, position: u64, encoding: Encoding, wire: &[u8]) -> bool {
        let record = Recorder(self.shared.clone()).records(Position(position)).next();
        record.is_some_and(|record| record.at.0 == position && same_body(encoding, &record.wire, wire))
    }
}

/// Reports a request as not taken, with all its parts.
pub(super) fn refuse(request: &Admitted, reason: RefusedReason, why: String) {
    request.reply.refuse(reason, || why);
    request.reply.done(1 + u32::try_from(request.slices.len()).unwrap_or(u32::MAX - 1));
}

/// Reports a request as not taken because no more are.
pub(super) fn refuse_at_the_end(request: &Admitted) {
    refuse(request, RefusedReason::NotReady, "the daemon is stopping".into());
}

/// The sequencer's end of the way to a shard.
pub type StepSender = parallel::Sender<Step>;

/// A shard's end of the way from the sequencer.
pub type StepReceiver = parallel::Receiver<Step>;

/// A bounded queue from the sequencer to one shard.
#[must_use]
pub fn steps(capacity: usize) -> (StepSender, StepReceiver) {
    parallel::pipe(capacity)
}
