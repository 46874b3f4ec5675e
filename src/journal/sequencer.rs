//! The sequencer: the one thread (or, in replays, the one caller) that puts everything in order.

use super::clock::{JournalClock, News, passed};
use super::in_hand::InHand;
use super::lane::{Lanes, StepSender, refuse, refuse_at_the_end};
use super::record::HEADER_BYTES;
use super::shared::{Handle, Shared};
use super::stamper::Stamper;
use super::writer::Writer;
use super::{Cut, Damage, Error, Lock, Position, Recorder, Step};
use crate::limits::RefusedReason;
use crate::model::{Clock, Timestamp};
use crate::receive::Admitted;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Seconds between checkpoints.
const CHECKPOINT_EVERY_S: u64 = 30;
/// Seconds between looks for what is too old.
const EXPIRE_EVERY_S: u64 = 60;
/// Requests and wire bytes in one group.
const GROUP_REQUESTS: usize = 256;
const GROUP_BYTES: usize = 8 << 20;

/// Where requests are recorded.
enum Target {
    Segments {
        writer: Box<Writer>,
        _lock: Lock,
    },
    /// Nowhere: positions grow as if they were.
    Nothing {
        end: Position,
    },
}

/// Appends, stamps, and says what the shards do in which order.
pub struct Sequencer {
    target: Target,
    stamper: Stamper,
    shared: Arc<Shared>,
    lanes: Lanes,
    clock: Arc<dyn Clock>,
    /// Second and position of the last barrier for a checkpoint; `None` = only when asked.
    checkpoint: Option<(u64, Position)>,
    /// Bytes after which a checkpoint is due before its time.
    checkpoint_bytes: u64,
    /// Remembers over starts which record is in hand, until the replay is through.
    in_hand: Option<InHand>,
    outcome: Vec<Result<Position, String>>,
}

impl Sequencer {
    pub(super) fn recording(
        writer: Writer,
        lock: Lock,
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        stamper: Stamper,
        max_bytes: u64,
        in_hand: Option<InHand>,
    ) -> Self {
        let checkpoint = Some((stamper.last().secs(), Position(shared.checkpoint.load(Ordering::Acquire))));
        let target = Target::Segments { writer: Box::new(writer), _lock: lock };
        let mut sequencer = Self::new(target, shared, clock, stamper, checkpoint, max_bytes / 2);
        sequencer.in_hand = in_hand;
        sequencer
    }

    pub(super) fn unrecorded(shared: Arc<Shared>, clock: Arc<dyn Clock>) -> Self {
        let target = Target::Nothing { end: Position(0) };
        Self::new(target, shared, clock, Stamper::new(), None, u64::MAX)
    }

    fn new(
        target: Target,
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        stamper: Stamper,
        checkpoint: Option<(u64, Position)>,
        checkpoint_bytes: u64,
    ) -> Self {
        let lanes = Lanes::new(shared.clone());
        Self {
            target,
            stamper,
            shared,
            lanes,
            clock,
            checkpoint,
            checkpoint_bytes,
            in_hand: None,
            outcome: Vec::new(),
        }
    }

    /// Asks for no checkpoints of its own accord, and recycles whatever is oldest: for backtests, which
    /// are not gone on with.
    #[must_use]
    pub fn without_checkpoints(mut self) -> Self {
        self.checkpoint = None;
        self.shared.checkpoint.store(u64::MAX, Ordering::Release);
        self
    }

    /// Steers this sequencer while another thread runs it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    #[must_use]
    pub fn lanes(&self) -> Lanes {
        self.lanes.clone()
    }

    #[must_use]
    pub fn recorder(&self) -> Recorder {
        Recorder(self.shared.clone())
    }

    /// First position after the last record.
    #[must_use]
    pub fn end(&self) -> Position {
        match &self.target {
            Target::Segments { writer, .. } => writer.end(),
            Target::Nothing { end } => *end,
        }
    }

    /// Appends one request with a given arrival time. The steps that follow from it must be taken from
    /// the iterator to its end: the barriers before it, then its work. A request that cannot be
    /// appended is refused, and there is no work.
    ///
    /// # Errors
    /// [`Error::Poisoned`]
    pub fn append_at(&mut self, request: Admitted, arrival: Timestamp) -> Result<Steps<'_>, Error> {
        let (arrived, barriers) = self.stamper.admit(arrival);
        let through = self.end();
        let mut group = vec![request];
        let appended = self.append(&mut group, arrived);
        let work = group.pop().and_then(|request| self.settle(request, 0, arrived));
        appended?;
        Ok(Steps { sequencer: self, barriers, through, work })
    }

    /// The barriers that stand before `now`, without any request.
    pub fn idle_until(&mut self, now: Timestamp) -> Steps<'_> {
        let (_, barriers) = self.stamper.admit(now);
        let through = self.end();
        Steps { sequencer: self, barriers, through, work: None }
    }

    /// Replays what was recorded after a cut (everything, if there is none), as if it arrived again:
    /// the same records at the same positions with the same barriers between them. `each` gets every
    /// step; records that cannot be read back are left out and logged.
    ///
    /// # Errors
    /// Whatever `each` returns.
    pub fn replay<E>(
        &mut self,
        after: Option<Cut>,
        mut each: impl FnMut(Step) -> Result<(), E>,
    ) -> Result<Replayed, E> {
        let mut through = after.map_or(Position(0), |cut| cut.through);
        self.stamper = after.map_or_else(Stamper::new, Stamper::after);
        let mut replayed = Replayed::default();
        let mut records = self.recorder().records(through);
        for record in records.by_ref() {
            let (arrived, barriers) = self.stamper.admit(record.arrived);
            for number in barriers {
                self.in_hand.iter_mut().for_each(InHand::put_down);
                each(Step::Barrier(cut(number, through, false)))?;
            }
            through = record.end();
            if self.in_hand.as_mut().is_some_and(|in_hand| !in_hand.take(&record)) {
                replayed.quarantined += 1;
                continue;
            }
            match record.admitted() {
                Ok(request) => {
                    replayed.records += 1;
                    each(Step::Work { at: record.at, arrived, request: request.shared() })?;
                }
                Err(error) => {
                    replayed.unreadable += 1;
                    tracing::error!(%error, "a record is left out of the replay");
                }
            }
        }
        if let Some(in_hand) = self.in_hand.take() {
            self.shared.quarantined.store(in_hand.kept(), Ordering::Release);
            in_hand.end();
        }
        replayed.damage = records.damage().to_vec();
        for damage in &replayed.damage {
            tracing::error!(%damage, "a part of the journal cannot be read");
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            *checkpoint = (self.stamper.last().secs(), after.map_or(Position(0), |cut| cut.through));
        }
        Ok(replayed)
    }

    /// Goes on after a cut that stands later than everything recorded: the time between was not lived
    /// through, and gets no barriers.
    pub fn resume_after(&mut self, cut: Cut) {
        self.stamper = Stamper::after(cut);
        if let Some(checkpoint) = &mut self.checkpoint {
            *checkpoint = (cut.number, cut.through);
        }
    }

    /// Appends a group and leaves in `outcome` what became of each request.
    fn append(&mut self, group: &mut [Admitted], arrived: Timestamp) -> Result<(), Error> {
        match &mut self.target {
            Target::Segments { writer, .. } => {
                let appended = writer.append(group, arrived, &mut self.outcome);
                if let Err(error) = &appended {
                    self.outcome.clear();
                    self.outcome.extend(group.iter().map(|_| Err(error.to_string())));
                }
                appended
            }
            Target::Nothing { end } => {
                self.outcome.clear();
                for request in group {
                    self.outcome.push(Ok(*end));
                    end.0 += (HEADER_BYTES + request.wire.len()) as u64;
                }
                Ok(())
            }
        }
    }

    /// Reports what became of a request of the group just appended; its work, if it was appended.
    fn settle(&mut self, request: Admitted, number: usize, arrived: Timestamp) -> Option<Step> {
        let outcome = self.outcome.get_mut(number).map(|outcome| std::mem::replace(outcome, Ok(Position(0))));
        match outcome.unwrap_or_else(|| Err("the journal is stopping".into())) {
            Ok(at) => {
                request.reply.recorded(at.0);
                request.reply.done(1);
                Some(Step::Work { at, arrived, request: request.shared() })
            }
            Err(why) => {
                refuse(&request, RefusedReason::Journal, why);
                None
            }
        }
    }

    fn cut(&mut self, number: u64, through: Position) -> Cut {
        if let Target::Segments { writer, .. } = &mut self.target {
            writer.look();
            if number.is_multiple_of(EXPIRE_EVERY_S) {
                writer.expire(Timestamp::from_secs(number));
            }
        }
        let mut due = self.shared.checkpoint_wanted.swap(false, Ordering::AcqRel);
        if let Some((second, position)) = &mut self.checkpoint {
            due |= number.saturating_sub(*second) >= CHECKPOINT_EVERY_S
                || through.0.saturating_sub(position.0) >= self.checkpoint_bytes;
            if due {
                (*second, *position) = (number, through);
            }
        }
        cut(number, through, due)
    }

    /// Runs until the handle closes it: takes requests from the lanes, and gives each shard (shard n of
    /// `shards.len()` has the partitions ≡ n) its steps.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::ShardGone`]; what is still in the lanes is refused then.
    pub fn run(mut self, shards: &[StepSender]) -> Result<(), Error> {
        let mut clock = JournalClock::new(self.stamper.last(), self.clock.now(), passed());
        let result = self.run_until_closed(shards, &mut clock);
        self.lanes.queues.end(&self.shared.sequencer, |request| refuse_at_the_end(&request));
        result
    }

    fn run_until_closed(&mut self, shards: &[StepSender], clock: &mut JournalClock) -> Result<(), Error> {
        let beat = self.shared.beat.clone();
        let mut group = Vec::with_capacity(GROUP_REQUESTS);
        let mut turn = 0usize;
        let mut ending = false;
        loop {
            // Whether the end was asked for is read before the lanes are: nothing is left in them then.
            let closed = self.shared.sequencer.is_closed();
            let wire_bytes = |request: &Admitted| request.wire.len();
            self.lanes.queues.drain(turn, GROUP_REQUESTS, GROUP_BYTES, wire_bytes, &mut group);
            turn = turn.wrapping_add(1);
            let now = clock.read(self.clock.now(), passed());
            self.shared.clock_ahead_ns.store(clock.ahead_ns(), Ordering::Release);
            match clock.news() {
                None => {}
                Some(news @ News::Even) => tracing::info!("{news}"),
                Some(news) => tracing::warn!("{news}"),
            }
            let mut ended = false;
            for step in self.idle_until(now) {
                ended |= ending && matches!(step, Step::Barrier(cut) if cut.checkpoint);
                let number = if let Step::Barrier(cut) = &step { Some(cut.number) } else { None };
                hand_out(step, shards)?;
                shards.iter().for_each(StepSender::announce);
                if let Some(number) = number {
                    beat.done(number);
                }
            }
            if !group.is_empty() {
                self.take(&mut group, now, shards)?;
                // What came behind the last checkpoint asks for another one.
                ending &= !ended;
                continue;
            }
            if let Some(why) = self.shared.poisoned() {
                return Err(Error::Poisoned(why));
            }
            if ended {
                return match &self.target {
                    Target::Segments { writer, .. } => writer.sync(),
                    Target::Nothing { .. } => Ok(()),
                };
            }
            if closed && !ending {
                ending = true;
                self.shared.checkpoint_wanted.store(true, Ordering::Release);
            }
            let next = Timestamp::from_secs(now.secs().saturating_add(1)).since(now);
            let shared = &*self.shared;
            self.lanes.queues.sleep(&shared.sequencer, next, || {
                shared.poisoned().is_some() || (!ending && shared.sequencer.is_closed())
            });
        }
    }

    fn take(
        &mut self,
        group: &mut Vec<Admitted>,
        now: Timestamp,
        shards: &[StepSender],
    ) -> Result<(), Error> {
        let appended = self.append(group, now);
        for (number, request) in group.drain(..).enumerate() {
            if let Some(step) = self.settle(request, number, now) {
                hand_out(step, shards)?;
            }
        }
        shards.iter().for_each(StepSender::announce);
        appended
    }
}

fn cut(number: u64, through: Position, checkpoint: bool) -> Cut {
    Cut { number, arrived: Timestamp::from_secs(number), through, checkpoint }
}

/// Work goes to the shards that have part in it, barriers to all.
fn hand_out(step: Step, shards: &[StepSender]) -> Result<(), Error> {
    match &step {
        Step::Barrier(_) => {
            for shard in shards {
                if !shard.send(step.clone()) {
                    return Err(Error::ShardGone);
                }
            }
        }
        Step::Work { request, .. } => {
            for (number, shard) in shards.iter().enumerate() {
                let has_part =
                    request.slices.iter().any(|slice| usize::from(slice.partition) % shards.len() == number);
                if has_part && !shard.send(step.clone()) {
                    return Err(Error::ShardGone);
                }
            }
        }
    }
    Ok(())
}

/// What follows from one arrival, in order. To be taken to its end.
#[must_use = "barriers and work that are not handed on are lost"]
pub struct Steps<'a> {
    sequencer: &'a mut Sequencer,
    barriers: Range<u64>,
    through: Position,
    work: Option<Step>,
}

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        match self.barriers.next() {
            Some(number) => Some(Step::Barrier(self.sequencer.cut(number, self.through))),
            None => self.work.take(),
        }
    }
}

/// How a replay went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub records: u64,
    /// Records that could not be read back as what they were admitted as.
    pub unreadable: u64,
    /// Records left out because three starts in a row ended at them.
    pub quarantined: u64,
    /// Where records were lost.
    pub damage: Vec<Damage>,
}
