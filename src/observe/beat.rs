//! Whether threads and tasks get on with the work that waits for them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How far one thread or task has come, told by itself. Telling is a relaxed store or two; nobody waits.
#[derive(Debug, Default)]
pub struct Beat {
    begun: AtomicU64,
    done: AtomicU64,
    steps: AtomicU64,
}

impl Beat {
    /// Everything up to this number is done.
    pub fn done(&self, number: u64) {
        self.done.store(number, Ordering::Relaxed);
    }

    /// A sign of life within what is long. Only the one that is watched may call this.
    pub fn step(&self) {
        self.steps.store(self.steps.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Something was begun, which [`Self::end`] ends. Only the one that is watched may call this.
    pub fn begin(&self) {
        self.begun.store(self.count().saturating_add(1), Ordering::Relaxed);
    }

    /// What was begun is done.
    pub fn end(&self) {
        self.done(self.begun.load(Ordering::Relaxed));
    }

    /// Up to which number everything is done.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How many signs of life there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn seen(&self) -> (u64, u64) {
        (self.count(), self.steps())
    }
}

/// What waits for one that is watched.
pub enum Work {
    /// There always is something: whoever does this is never still.
    Always,
    /// Everything up to this number, which grows each second.
    Cuts(Box<dyn Fn() -> u64 + Send>),
    /// Everything up to this number, which may stand still.
    UpTo(Box<dyn Fn() -> u64 + Send>),
    /// What it has begun itself.
    Begun,
}

impl fmt::Debug for Work {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Always => "Always",
            Self::Cuts(_) => "Cuts",
            Self::UpTo(_) => "UpTo",
            Self::Begun => "Begun",
        })
    }
}

/// How one that is watched gets on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    pub name: Arc<str>,
    /// Since when it has not got on although work waits for it, if that is longer than it may be.
    pub late: Option<Duration>,
}

#[derive(Debug)]
struct Watched {
    name: Arc<str>,
    beat: Arc<Beat>,
    work: Work,
    within: Duration,
    seen: (u64, u64),
    /// Whether work waited at the last look.
    waited: bool,
    /// When it was last seen to get on, or to have nothing to do.
    since: Duration,
}

impl Watched {
    fn look(&mut self, now: Duration) -> Pace {
        let seen = self.beat.seen();
        let (waits, may_rest) = match &self.work {
            Work::Always => (true, false),
            Work::Cuts(number) => (seen.0 < number(), false),
            Work::UpTo(number) => (seen.0 < number(), true),
            Work::Begun => (seen.0 < self.beat.begun.load(Ordering::Relaxed), true),
        };
        if seen != self.seen || (may_rest && !waits) {
            (self.seen, self.since) = (seen, now);
        }
        // Twice in a row: what came this moment cannot be done yet, however long there was nothing before.
        let waited = std::mem::replace(&mut self.waited, waits);
        let for_so_long = now.saturating_sub(self.since);
        let late = (waits && waited && for_so_long >= self.within).then_some(for_so_long);
        Pace { name: self.name.clone(), late }
    }
}

/// Finds who does not get on although work waits. Without a clock of its own: who looks says what time it is.
#[derive(Debug, Default)]
pub struct Watch {
    watched: Vec<Watched>,
    last_look: Option<Duration>,
    /// Time in which somebody looked.
    now: Duration,
}

impl Watch {
    /// How much later than the last one a look may be. Where nobody looked for longer (the process was
    /// stopped, or had no processor), nobody else could get on either: that time does not count.
    const LONGEST_GAP: Duration = Duration::from_secs(1);

    /// Watches one more: once `work` waits, `beat` must move `within` this time.
    pub fn add(&mut self, name: impl Into<Arc<str>>, beat: Arc<Beat>, within: Duration, work: Work) {
        let (seen, since) = (beat.seen(), self.now);
        self.watched.push(Watched { name: name.into(), beat, work, within, seen, waited: false, since });
    }

    /// How everyone gets on, in the order in which they were added. `monotonic` never goes back.
    pub fn look(&mut self, monotonic: Duration) -> Vec<Pace> {
        let last = self.last_look.replace(monotonic).unwrap_or(monotonic);
        self.now += monotonic.saturating_sub(last).min(Self::LONGEST_GAP);
        let now = self.now;
        self.watched.iter_mut().map(|one| one.look(now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(4);

    /// A watch that is looked at four times a second of a clock that only the test moves.
    struct Fixture {
        watch: Watch,
        quarters: u32,
    }

    impl Fixture {
        fn new() -> Self {
            Self { watch: Watch::default(), quarters: 0 }
        }

        fn add(&mut self, name: &str, work: Work) -> Arc<Beat> {
            let beat = Arc::new(Beat::default());
            self.watch.add(name, beat.clone(), WITHIN, work);
            beat
        }

        /// Who is late after so many quarters of a second.
        fn after(&mut self, quarters: u32) -> Vec<String> {
            let mut paces = Vec::new();
            for _ in 0..quarters {
                self.quarters += 1;
                paces = self.watch.look(Duration::from_millis(250) * self.quarters);
            }
            let late = paces.into_iter().filter(|pace| pace.late.is_some());
            late.map(|pace| pace.name.to_string()).collect()
        }
    }

    fn of(beat: &Arc<Beat>) -> Box<dyn Fn() -> u64 + Send> {
        let beat = beat.clone();
        Box::new(move || beat.count())
    }

    #[test]
    fn of_several_in_a_row_only_the_one_that_hangs_is_late_and_within_five_seconds() {
        let mut fixture = Fixture::new();
        let sequencer = fixture.add("sequencer", Work::Always);
        let shard = fixture.add("shard", Work::Cuts(of(&sequencer)));
        let window = fixture.add("window", Work::Cuts(of(&shard)));
        for cut in 1..=20 {
            for beat in [&sequencer, &shard, &window] {
                beat.done(cut);
            }
            assert_eq!(fixture.after(4), [""; 0]);
        }
        // The shard hangs right after a cut; the others go on with what they get.
        let mut heard = Vec::new();
        for cut in 21..=25 {
            sequencer.done(cut);
            heard.push(fixture.after(4));
        }
        let late = vec!["shard".to_owned()];
        assert_eq!(heard, [vec![], vec![], vec![], late.clone(), late]);
        // It goes on.
        shard.done(25);
        window.done(25);
        assert_eq!(fixture.after(1), [""; 0]);
    }

    #[test]
    fn whoever_has_nothing_to_do_may_rest_and_is_given_time_when_something_comes() {
        let mut fixture = Fixture::new();
        let ledger = Arc::new(Beat::default());
        let reader = fixture.add("reader", Work::UpTo(of(&ledger)));
        let worker = fixture.add("worker", Work::Begun);
        assert_eq!(fixture.after(400), [""; 0]);
        ledger.done(3);
        worker.begin();
        assert_eq!(fixture.after(15), [""; 0]);
        assert_eq!(fixture.after(2), ["reader", "worker"]);
        // What is only long says so.
        worker.step();
        reader.done(3);
        assert_eq!(fixture.after(15), [""; 0]);
        assert_eq!(fixture.after(2), ["worker"]);
        worker.end();
        assert_eq!(fixture.after(400), [""; 0]);
    }

    #[test]
    fn a_cut_that_came_this_moment_makes_nobody_late() {
        let mut fixture = Fixture::new();
        let sequencer = Arc::new(Beat::default());
        let shard = fixture.add("shard", Work::Cuts(of(&sequencer)));
        assert_eq!(fixture.after(100), [""; 0]);
        sequencer.done(1);
        assert_eq!(fixture.after(1), [""; 0]);
        shard.done(1);
        assert_eq!(fixture.after(20), [""; 0]);
    }

    #[test]
    fn time_in_which_the_whole_process_stood_still_does_not_count() {
        let mut fixture = Fixture::new();
        let beat = fixture.add("sequencer", Work::Always);
        beat.done(1);
        assert_eq!(fixture.after(4), [""; 0]);
        fixture.quarters += 4 * 3_600;
        assert_eq!(fixture.after(8), [""; 0], "three seconds have counted");
        assert_eq!(fixture.after(8), ["sequencer"]);
    }
}
