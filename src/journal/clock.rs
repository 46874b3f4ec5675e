//! Journal time, made of two clocks: the wall clock, which may be wrong, and the monotonic clock, which does not know
//! what time it is.

use crate::model::Timestamp;
use std::fmt;
use std::time::Duration;

/// Turns the wall clock into journal time, which never goes back and does not follow the wall clock into the future
/// before the monotonic clock has confirmed it.
///
/// A wall clock that was set back is waited for at half speed. One that was set forward is followed once it has run
/// evenly with the monotonic clock for a while: the further, the longer, for what was followed in error is waited for
/// twice as long, and beyond an hour what senders time rightly is too old to count as long as that takes.
#[derive(Clone, Debug)]
pub struct JournalClock {
    now: Timestamp,
    wall: Timestamp,
    monotonic: Duration,
    /// The wall clock that is on probation, and since when.
    jumped: Option<(Timestamp, Duration)>,
    /// How far it was ahead when it was followed last, if that was not told yet.
    followed: Option<Duration>,
    /// What was told last.
    standing: Standing,
}

/// Steps forward of no more than this are followed at once, and not spoken of.
const JUMP: Duration = Duration::from_secs(60);
const PROBATION: Duration = Duration::from_secs(10);
/// Beyond this, probation is long: whoever repairs a clock that leapt so far has time to.
const FAR: Duration = Duration::from_secs(3_600);
const PROBATION_OF_FAR: Duration = Duration::from_secs(600);
/// Steps of more than this are not followed at all: each second of them would be lived through, and whatever is kept
/// for a time would be let go. A start takes the wall clock as it is.
const MOST: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How far two clocks that run evenly may drift apart in the time of probation.
const EVEN: Duration = Duration::from_secs(1);

/// How the wall clock stands to journal time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Even,
    /// It is ahead, and not followed, or not yet.
    Ahead,
    /// It is behind, and waited for.
    Behind,
}

/// What is to be told of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The wall clock is so far ahead of what has passed.
    NotFollowed(Duration),
    /// It was so far ahead, and is followed.
    Followed(Duration),
    /// It is so far behind.
    WaitedFor(Duration),
    /// Both show the same again.
    Even,
}

/// How long a wall clock that is so far ahead must run evenly before it is followed; `None` if it is not.
fn probation(ahead: Duration) -> Option<Duration> {
    if ahead > MOST {
        None
    } else if ahead > FAR {
        Some(PROBATION_OF_FAR)
    } else {
        Some(PROBATION)
    }
}

/// Time that has passed since some moment before the start. It goes on while the machine is suspended, where the
/// system says so: else the wall clock would seem to leap when it wakes.
pub(super) fn passed() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(now).unwrap_or_default()
    }
    #[cfg(not(target_os = "linux"))]
    {
        static BEGUN: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        BEGUN.elapsed()
    }
}

impl JournalClock {
    /// A clock that goes on from `last`, the latest stamp of an earlier life; from the wall clock if
    /// that is zero.
    #[must_use]
    pub fn new(last: Timestamp, wall: Timestamp, monotonic: Duration) -> Self {
        let now = last.max(wall);
        Self { now, wall, monotonic, jumped: None, followed: None, standing: Standing::Even }
    }

    /// The journal time at which the two clocks show this.
    pub fn read(&mut self, wall: Timestamp, monotonic: Duration) -> Timestamp {
        let passed = monotonic.saturating_sub(self.monotonic);
        self.monotonic = self.monotonic.max(monotonic);
        self.wall = wall;
        let expected = self.now.saturating_add(passed);
        let ahead = wall.since(expected);
        self.now = if wall < self.now {
            self.jumped = None;
            self.now.saturating_add(passed / 2)
        } else if ahead <= JUMP {
            self.jumped = None;
            wall
        } else if self.is_confirmed(probation(ahead)) {
            self.jumped = None;
            self.followed = Some(ahead);
            wall
        } else {
            expected
        };
        self.now
    }

    /// Whether the wall clock, which is ahead, has run evenly for so long.
    fn is_confirmed(&mut self, probation: Option<Duration>) -> bool {
        let (from, since) = *self.jumped.get_or_insert((self.wall, self.monotonic));
        let passed = self.monotonic.saturating_sub(since);
        let even = from.saturating_add(passed);
        if self.wall.since(even).max(even.since(self.wall)) > EVEN {
            self.jumped = Some((self.wall, self.monotonic));
            return false;
        }
        probation.is_some_and(|probation| passed >= probation)
    }

    /// How far journal time was ahead of the wall clock when they were read last; below zero while it is behind.
    #[must_use]
    pub fn ahead_ns(&self) -> i64 {
        let ns = |later: Timestamp, earlier: Timestamp| {
            i64::try_from(later.0.saturating_sub(earlier.0)).unwrap_or(i64::MAX)
        };
        if self.now >= self.wall { ns(self.now, self.wall) } else { -ns(self.wall, self.now) }
    }

    /// What is to be told since it was asked last: each change once.
    pub fn news(&mut self) -> Option<News> {
        let (ahead, behind) = (self.wall.since(self.now), self.now.since(self.wall));
        let standing = if ahead > JUMP {
            Standing::Ahead
        } else if behind > JUMP {
            Standing::Behind
        } else {
            Standing::Even
        };
        let followed = self.followed.take();
        if std::mem::replace(&mut self.standing, standing) == standing {
            return None;
        }
        Some(match standing {
            Standing::Ahead => News::NotFollowed(ahead),
            Standing::Behind => News::WaitedFor(behind),
            Standing::Even => followed.map_or(News::Even, News::Followed),
        })
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotFollowed(ahead) => {
                write!(f, "the wall clock leapt {} s ahead of the time that has passed: ", ahead.as_secs())?;
                match probation(ahead) {
                    Some(probation) => write!(
                        f,
                        "it is followed once it has run evenly for {} s; set it right before if it is wrong",
                        probation.as_secs()
                    ),
                    None => f.write_str(
                        "so far it is not followed; set it right, or start the daemon anew if it is right now",
                    ),
                }
            }
            Self::Followed(ahead) => {
                write!(f, "the wall clock, which leapt {} s ahead, is followed", ahead.as_secs())
            }
            Self::WaitedFor(behind) => {
                write!(
                    f,
                    "the wall clock is {} s behind the journal, whose time never goes back: it is waited for at half \
                     speed, for {} s",
                    behind.as_secs(),
                    behind.as_secs().saturating_mul(2)
                )?;
                match behind.checked_sub(FAR) {
                    Some(too_far) => write!(
                        f,
                        "; for {} s of these, what senders time rightly is refused as too old (too_old). If the wall \
                         clock is wrong, set it right; if it is right and you cannot wait, start with a new data \
                         directory",
                        too_far.as_secs().saturating_mul(2)
                    ),
                    None => f.write_str("; if it is wrong, set it right"),
                }
            }
            Self::Even => f.write_str("the wall clock and the journal show the same time again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_S: u64 = 24 * 3_600;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_secs(s)
    }

    /// Runs second by second from one to another while the wall clock shows what has passed and so much more.
    fn run(clock: &mut JournalClock, seconds: std::ops::Range<u64>, ahead_s: u64) -> Timestamp {
        let mut now = Timestamp::ZERO;
        for s in seconds {
            now = clock.read(at(1_000 + s + ahead_s), Duration::from_secs(s));
        }
        now
    }

    proptest! {
        #[test]
        fn journal_time_never_goes_back(readings in prop::collection::vec((0u64..20_000, 0u64..5_000), 1..60)) {
            let mut monotonic = Duration::ZERO;
            let mut clock = JournalClock::new(Timestamp::ZERO, at(1_000), monotonic);
            let mut last = at(1_000);
            for (wall_s, passed_ms) in readings {
                monotonic += Duration::from_millis(passed_ms);
                let now = clock.read(at(900 + wall_s), monotonic);
                prop_assert!(now >= last);
                last = now;
            }
        }
    }

    #[test]
    fn a_step_forward_waits_for_the_monotonic_clock() {
        let mut clock = JournalClock::new(Timestamp::ZERO, at(1_000), Duration::ZERO);
        assert_eq!(run(&mut clock, 1..2, 0), at(1_001));
        assert_eq!(clock.news(), None);
        // Half an hour ahead: not believed yet, then confirmed by ten even seconds.
        assert_eq!(run(&mut clock, 2..12, 1_800), at(1_011));
        assert_eq!(clock.news(), Some(News::NotFollowed(Duration::from_secs(1_800))));
        assert_eq!(run(&mut clock, 12..13, 1_800), at(2_812));
        assert_eq!(clock.news(), Some(News::Followed(Duration::from_secs(1_800))));
        // Ten seconds back: half speed until the wall clock has caught up.
        assert_eq!(clock.read(at(2_804), Duration::from_secs(14)), at(2_813));
        assert_eq!(clock.read(at(2_820), Duration::from_secs(30)), at(2_820));
        assert_eq!(clock.news(), None, "of little nobody speaks");
    }

    #[test]
    fn a_clock_that_leaps_far_ahead_and_is_set_right_within_ten_minutes_leaves_nothing_behind() {
        let mut clock = JournalClock::new(Timestamp::ZERO, at(1_000), Duration::ZERO);
        assert_eq!(run(&mut clock, 1..600, DAY_S), at(1_599));
        assert_eq!(clock.news(), Some(News::NotFollowed(Duration::from_secs(DAY_S))));
        assert_eq!(clock.ahead_ns(), -i64::try_from(DAY_S).unwrap() * 1_000_000_000);
        assert_eq!(run(&mut clock, 600..601, 0), at(1_600));
        assert_eq!((clock.news(), clock.ahead_ns()), (Some(News::Even), 0));
        // Probation begins anew with another leap, and with each further one within it.
        assert_eq!(run(&mut clock, 601..1_200, DAY_S), at(2_199));
        assert_eq!(run(&mut clock, 1_200..1_800, DAY_S + 5), at(2_799));
        assert_eq!(run(&mut clock, 1_800..1_801, DAY_S + 5), at(2_800 + DAY_S + 5));
    }

    #[test]
    fn a_clock_that_was_followed_far_ahead_is_waited_for_at_half_speed() {
        let mut clock = JournalClock::new(Timestamp::ZERO, at(1_000), Duration::ZERO);
        let ahead_s = 2 * 3_600;
        let wrong = run(&mut clock, 1..602, ahead_s);
        assert_eq!(wrong, at(1_601 + ahead_s), "confirmed for ten minutes");
        clock.news();
        run(&mut clock, 602..603, 0);
        let Some(News::WaitedFor(behind)) = clock.news() else { panic!("it is told") };
        assert_eq!(behind.as_secs(), ahead_s - 1);
        assert_eq!(run(&mut clock, 603..602 + 2 * ahead_s - 200, 0).since(wrong).as_secs(), ahead_s - 100);
        assert_eq!(clock.news(), None, "told once");
        let end = 602 + 2 * ahead_s;
        assert_eq!(run(&mut clock, 602 + 2 * ahead_s - 200..end + 1, 0), at(1_000 + end));
        assert_eq!((clock.news(), clock.ahead_ns()), (Some(News::Even), 0));
    }

    #[test]
    fn a_clock_that_leaps_by_years_is_not_followed_before_a_start() {
        let mut clock = JournalClock::new(Timestamp::ZERO, at(1_000), Duration::ZERO);
        assert_eq!(run(&mut clock, 1..5_000, 400 * DAY_S), at(5_999));
        let told = clock.news().expect("it is told").to_string();
        assert!(told.contains("34560000 s ahead") && told.contains("start the daemon anew"), "{told}");
        let anew = JournalClock::new(at(5_999), at(6_000 + 400 * DAY_S), Duration::ZERO);
        assert_eq!(anew.ahead_ns(), 0);
    }

    #[test]
    fn a_start_with_a_journal_from_the_future_says_so_and_what_to_do() {
        let mut clock = JournalClock::new(at(1_000 + 3 * 3_600), at(1_000), Duration::ZERO);
        let told = clock.news().expect("it is told").to_string();
        for words in
            ["10800 s behind", "for 21600 s", "for 14400 s of these", "too_old", "new data directory"]
        {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert_eq!(clock.news(), None);
        // Within the hour everything is still counted.
        let mut clock = JournalClock::new(at(1_000 + 1_800), at(1_000), Duration::ZERO);
        let told = clock.news().expect("it is told").to_string();
        assert!(told.contains("for 3600 s") && !told.contains("too_old"), "{told}");
    }
}
