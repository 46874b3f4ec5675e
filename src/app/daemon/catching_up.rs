//! What was recorded after the last checkpoint, counted and judged again.

use super::downstream::{Batch, Downstream, counted_parts};
use crate::app::Error;
use crate::app::counting::Counting;
use crate::app::totals::Totals;
use crate::journal::{self, Cut, Position, Sequencer, Step};
use crate::model::{Clock, Timestamp};
use crate::receive::Print;
use crate::store::Checkpoint;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long before the end of an earlier life an answer may have been lost: as far as is looked back on when a
/// connection breaks, for all of them did. How many requests of that time are looked out for when they come again, and
/// how much of the journal before the checkpoint is read for them.
const UNANSWERED_FOR: Duration = Duration::from_secs(60);
const UNANSWERED: usize = 65_536;
const UNANSWERED_BYTES: u64 = 128 << 20;

/// Requests that may not have been answered: those that arrived last.
#[derive(Default)]
struct Unanswered {
    newest: VecDeque<(Timestamp, Print, u64)>,
}

impl Unanswered {
    fn add(&mut self, arrived: Timestamp, print: Print, at: Position) {
        self.newest.push_back((arrived, print, at.0));
        while self.newest.len() > UNANSWERED
            || self.newest.front().is_some_and(|(first, ..)| arrived.since(*first) > UNANSWERED_FOR)
        {
            self.newest.pop_front();
        }
    }
}

/// Replays what was recorded after the checkpoint, then passes over the time in which nobody was there:
/// one cut that is a checkpoint itself, so that the next restart does not live through it again. Gives the
/// requests that may not have been answered before the end, whether the checkpoint holds them or not: answers can be
/// lost in an orderly stop, too.
pub(super) fn catch_up(
    sequencer: &mut Sequencer,
    counting: &mut Counting,
    downstream: &Downstream,
    totals: &Totals,
    checkpoint: Option<&Checkpoint>,
    clock: &dyn Clock,
) -> Result<VecDeque<(Print, u64)>, Error> {
    let after = checkpoint.map(|checkpoint| checkpoint.cut);
    let mut last = after.map_or(Timestamp::ZERO, |cut| cut.arrived);
    let begun = Instant::now();
    let mut unanswered = Unanswered::default();
    let recorder = sequencer.recorder();
    if let (Some(cut), Some((_, newest))) = (after, recorder.newest()) {
        let since = newest.saturating_sub(UNANSWERED_FOR);
        for record in recorder.tail(cut.through, since, UNANSWERED_BYTES) {
            let print = Print::of(record.signal, record.encoding, &record.wire);
            unanswered.add(record.arrived, print, record.at);
        }
    }
    let replayed = sequencer.replay(after, |step| {
        if let Step::Work { arrived, at, request } = &step {
            last = last.max(*arrived);
            let print = Print::of(request.signal, request.encoding, &request.wire);
            unanswered.add(*arrived, print, *at);
        }
        counted(counting, downstream, totals, step).map(|_| ())
    })?;
    if replayed != journal::Replayed::default() {
        let took_ms = begun.elapsed().as_millis();
        tracing::info!(
            records = replayed.records,
            bytes = sequencer.end().0.saturating_sub(after.map_or(0, |cut| cut.through.0)),
            unreadable = replayed.unreadable,
            damaged = replayed.damage.len(),
            quarantined = replayed.quarantined,
            took_ms,
            "replayed the journal"
        );
    }
    let unanswered = unanswered.newest.into_iter().map(|(_, print, at)| (print, at)).collect();
    if last == Timestamp::ZERO {
        return Ok(unanswered);
    }
    // Never before what was recorded, whatever the wall clock says.
    let number = clock.now().secs().max(last.secs().saturating_add(1));
    let arrived = Timestamp::from_secs(number);
    counting.windows.note_gap(last, arrived);
    let cut = Cut { number, arrived, through: sequencer.end(), checkpoint: true };
    if let Some(through) = counted(counting, downstream, totals, Step::Barrier(cut))? {
        sequencer.handle().set_checkpoint(through);
    }
    sequencer.resume_after(cut);
    Ok(unanswered)
}

/// Counts a step and judges what it brings, on this thread. Gives how far a checkpoint holds everything,
/// if one was committed.
pub(super) fn counted(
    counting: &mut Counting,
    downstream: &Downstream,
    totals: &Totals,
    step: Step,
) -> Result<Option<Position>, Error> {
    let Some(mut merged) = counting.step(step) else { return Ok(None) };
    let sums = totals.add(&merged);
    let parts = counted_parts(&mut merged);
    let before = downstream.indicators.load_full();
    let through = downstream.step(Batch { merged, sums, parts })?;
    let indicators = downstream.indicators.load_full();
    if !Arc::ptr_eq(&before, &indicators) {
        counting.set_indicators(&indicators);
    }
    Ok(through)
}
