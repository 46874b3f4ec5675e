//! The threads between the journal and the judge, and what each of them does.

use super::downstream::{Batch, Downstream, counted_parts};
use crate::aggregate::{Indicator, Partial, Shard};
use crate::app::Error;
use crate::app::counting::Counting;
use crate::app::diagnosing::Diagnosing;
use crate::app::keeping::{Keeping, Settled};
use crate::app::mailbox::Mailbox;
use crate::app::supervision::{DEADLINE, Supervisor};
use crate::app::totals::Totals;
use crate::app::waiting::{Serves, Waiting};
use crate::journal::{self, Cut, Sequencer, Step, StepReceiver};
use crate::observe::{Beat, Work};
use crate::window::Windows;
use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Steps that wait for one shard.
const SHARD_STEPS: usize = 4_096;
/// Cuts that the window stage may lag behind; then the shards wait for it, and senders are told to.
const PARTIALS_OF_A_SHARD: usize = 60;
/// The threads that diagnose. One makes first passes alone, so that these wait for no complete one.
const DIAGNOSES: [Serves; 2] = [Serves::First, Serves::Any];
/// How long a diagnosis may take: it gives way to everything else, and alerts do not wait for it.
const DIAGNOSED_WITHIN: Duration = Duration::from_secs(120);
/// A shard shows that it gets on with each cut, and each time it has counted so many requests.
const SHARD_REQUESTS_A_BEAT: u32 = 64;

/// Parts of the journal that wait to be looked at for keepsakes; those beyond are part of the next.
const KEEPSAKE_PARTS: usize = 16;

/// Takes the counting stages apart, one thread each. They end in this order once the journal is closed:
/// each when the one before it has gone and everything it left is done.
#[allow(clippy::too_many_arguments, reason = "the wiring at a glance")]
pub(super) fn start_threads(
    spawn: &mut Supervisor,
    sequencer: Sequencer,
    counting: Counting,
    downstream: Downstream,
    totals: Arc<Totals>,
    journal: &journal::Handle,
    diagnosing: &Arc<Diagnosing>,
    keeping: Option<Keeping>,
) -> Result<(), Error> {
    let Counting { shards, windows } = counting;
    let mut senders = Vec::new();
    let of = shards.len();
    let up_to = |beat: &Arc<Beat>| -> Box<dyn Fn() -> u64 + Send> {
        let beat = beat.clone();
        Box::new(move || beat.count())
    };
    let stamped = journal.beat();
    spawn.watch("sequencer", stamped.clone(), DEADLINE, Work::Always);
    spawn.watch("journal-helper", journal.helper_beat(), DEADLINE, Work::Always);
    let mut counted = Vec::new();
    let (partials, partials_received) = bounded(PARTIALS_OF_A_SHARD * of);
    for (number, shard) in shards.into_iter().enumerate() {
        let (sender, receiver) = journal::steps(SHARD_STEPS);
        senders.push(sender);
        let (partials, indicators) = (partials.clone(), downstream.indicators.clone());
        let name = format!("shard-{number}");
        let beat = Arc::new(Beat::default());
        spawn.watch(name.clone(), beat.clone(), DEADLINE, Work::Cuts(up_to(&stamped)));
        counted.push(beat.clone());
        spawn.thread("shard", name, move || {
            run_shard(shard, &receiver, &partials, &indicators, &beat);
            Ok(())
        })?;
    }
    drop(partials);
    let mailbox = Arc::new(Mailbox::default());
    let to_judge = mailbox.clone();
    let (merged, judged) = (Arc::new(Beat::default()), Arc::new(Beat::default()));
    let complete = move || counted.iter().map(|beat| beat.count()).min().unwrap_or_default();
    spawn.watch("window", merged.clone(), DEADLINE, Work::Cuts(Box::new(complete)));
    spawn.watch("judge", judged.clone(), DEADLINE, Work::Cuts(up_to(&merged)));
    spawn.thread("window", "window".to_owned(), move || {
        run_windows(windows, of, &partials_received, &to_judge, &totals, &merged);
        to_judge.close();
        Ok(())
    })?;
    let (judging, handle) = (downstream.judging.clone(), journal.clone());
    let waiting = diagnosing.waiting();
    let (settled, settled_received) = bounded(KEEPSAKE_PARTS);
    spawn.thread("judge", "judge".to_owned(), move || {
        let done = run_judge(&downstream, &mailbox, &waiting, &settled, &handle, &judged);
        // A stop waits only for what is under way: the next start plans the rest again.
        waiting.close();
        done
    })?;
    for (number, serves) in DIAGNOSES.into_iter().enumerate() {
        let (judging, diagnosing) = (judging.clone(), diagnosing.clone());
        let (name, beat) = (format!("diagnose-{number}"), Arc::new(Beat::default()));
        spawn.watch(name.clone(), beat.clone(), DIAGNOSED_WITHIN, Work::Begun);
        spawn.thread("diagnose", name, move || {
            diagnosing.run(serves, &judging, &beat);
            Ok(())
        })?;
    }
    if let Some(keeping) = keeping {
        spawn.thread("keepsakes", "keepsakes".to_owned(), move || {
            keeping.run(&settled_received);
            Ok(())
        })?;
    }
    spawn.thread("sequencer", "sequencer".to_owned(), move || Ok(sequencer.run(&senders)?))
}

fn run_shard(
    mut shard: Shard,
    steps: &StepReceiver,
    partials: &Sender<Partial>,
    indicators: &ArcSwap<Vec<Indicator>>,
    beat: &Beat,
) {
    let mut counted = indicators.load_full();
    let mut requests = 0u32;
    while let Some(step) = steps.receive() {
        match step {
            Step::Work { at, arrived, request } => {
                shard.apply(at, arrived, &request);
                request.release();
                // Much may lie between two cuts.
                requests = requests.wrapping_add(1);
                if requests.is_multiple_of(SHARD_REQUESTS_A_BEAT) {
                    beat.step();
                }
            }
            Step::Barrier(cut) => {
                if partials.send(shard.cut(cut)).is_err() {
                    return;
                }
                beat.done(cut.number);
                let wanted = indicators.load_full();
                if !Arc::ptr_eq(&wanted, &counted) {
                    shard.set_indicators(wanted.clone());
                    counted = wanted;
                }
            }
        }
    }
}

fn run_windows(
    mut windows: Windows,
    shards: usize,
    partials: &Receiver<Partial>,
    judge: &Mailbox<Batch>,
    totals: &Totals,
    beat: &Beat,
) {
    let mut gathering = Gathering::new(shards);
    while let Ok(partial) = partials.recv() {
        if let Some((cut, partials)) = gathering.take(partial) {
            judge.post(merge(&mut windows, cut, partials, totals));
            beat.done(cut.number);
        }
    }
}

/// Partials of cuts, until those of all shards are there.
pub(super) struct Gathering {
    shards: usize,
    waiting: BTreeMap<u64, Vec<Partial>>,
}

impl Gathering {
    pub fn new(shards: usize) -> Self {
        Self { shards, waiting: BTreeMap::new() }
    }

    /// Takes a partial; gives all of its cut if it is the last one.
    pub fn take(&mut self, partial: Partial) -> Option<(Cut, Vec<Partial>)> {
        let cut = partial.cut;
        let of_cut = self.waiting.entry(cut.number).or_default();
        of_cut.push(partial);
        if of_cut.len() < self.shards {
            return None;
        }
        self.waiting.remove(&cut.number).map(|partials| (cut, partials))
    }
}

pub(super) fn merge(windows: &mut Windows, cut: Cut, partials: Vec<Partial>, totals: &Totals) -> Batch {
    let mut merged = windows.merge(cut, partials);
    let sums = totals.add(&merged);
    let parts = counted_parts(&mut merged);
    Batch { merged, sums, parts }
}

fn run_judge(
    downstream: &Downstream,
    mailbox: &Mailbox<Batch>,
    waiting: &Waiting,
    settled: &Sender<Settled>,
    journal: &journal::Handle,
    beat: &Beat,
) -> Result<(), Error> {
    while let Some(batch) = mailbox.take() {
        let Cut { number, arrived, .. } = batch.merged.tick.cut;
        let through = downstream.step(batch)?;
        beat.done(number);
        if let Some(through) = through {
            journal.set_checkpoint(through);
            // When too many wait, this part is looked at with the next.
            let _ = settled.try_send((arrived, through));
        }
        downstream.plan(waiting);
    }
    Ok(())
}
