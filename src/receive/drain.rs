//! How fast memory is freed, and from that when to send again what found none.

use std::collections::VecDeque;
use std::time::Duration;

/// How far back is looked.
const SPAN: Duration = Duration::from_secs(5);
/// From less than this no rate follows.
const LEAST: Duration = Duration::from_secs(1);
/// What is told while no rate is known.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Bounds of what is told.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// By how much senders are told different times, so that not all come at once.
const SPREAD: f64 = 0.25;

/// A look at the memory of requests.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    freed_bytes: u64,
    is_used: bool,
}

/// The looks of the last seconds. Without a clock: who looks says what time it is.
#[derive(Debug, Default)]
pub(super) struct Drain(VecDeque<Look>);

impl Drain {
    /// Notes how many bytes were freed, ever, and how many are in use. To be called once a second.
    pub fn look(&mut self, at: Duration, freed_bytes: u64, used_bytes: u64) {
        self.0.push_back(Look { at, freed_bytes, is_used: used_bytes > 0 });
        // One more than the span has seconds, or a few more of them.
        while self.0.len() > 2 + SPAN.as_secs() as usize {
            self.0.pop_front();
        }
    }

    /// In which time half of what is in use is freed at the rate of the last seconds in which any was, give or
    /// take a quarter; `random` is from 0 to 1.
    pub fn delay(&self, now: Duration, freed_bytes: u64, used_bytes: u64, random: f64) -> Duration {
        // Time in which nothing was in use says nothing about how fast it would have been freed.
        let recent = self.0.iter().rev().take_while(|look| now.saturating_sub(look.at) <= SPAN + LEAST);
        let mut since = None;
        for look in recent {
            since = Some(look);
            if !look.is_used {
                break;
            }
        }
        let delay = match since {
            Some(since) if now.saturating_sub(since.at) >= LEAST => {
                let took = now.saturating_sub(since.at);
                match freed_bytes.saturating_sub(since.freed_bytes) {
                    // Where nothing moves: as long again as that has lasted.
                    0 => took.min(SPAN),
                    freed => {
                        let seconds = took.as_secs_f64() * (used_bytes as f64 / 2.0 / freed as f64);
                        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST)
                    }
                }
            }
            _ => UNKNOWN,
        };
        delay.mul_f64(1.0 + (random - 0.5) * 2.0 * SPREAD).clamp(SHORTEST, LONGEST)
    }
}

/// A moment before which it cannot be, and later than that by up to a quarter; `random` is from 0 to 1.
pub(super) fn not_before(delay: Duration, random: f64) -> Duration {
    delay.max(SHORTEST).mul_f64(1.0 + random * SPREAD)
}

/// The same in whole seconds, as `Retry-After` asks for: rounded up, or one more, at random, for else all that
/// are told a part of a second would come at once.
pub(super) fn whole_seconds(delay: Duration, random: f64) -> u64 {
    (delay.as_secs_f64() + random.clamp(0.0, 1.0)).ceil().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A drain that was looked at each second, of what was freed and what was in use then.
    fn looks(looks: &[(u64, u64)]) -> Drain {
        let mut drain = Drain::default();
        for (second, (freed, used)) in (0u64..).zip(looks) {
            drain.look(Duration::from_secs(second), *freed, *used);
        }
        drain
    }

    #[test]
    fn the_delay_follows_from_what_was_freed_in_the_last_seconds() {
        // 10 MiB a second for long, then 1 MiB a second.
        let freed = |second: u64| if second <= 100 { 10 * second } else { 1_000 + (second - 100) } * MIB;
        let of: Vec<_> = (0..=106).map(|second| (freed(second), 8 * MIB)).collect();
        let drain = looks(&of);
        assert_eq!(drain.delay(at(106_000), freed(106), 8 * MIB, 0.5), Duration::from_secs(4));
        // Jittered by a quarter to either side, within bounds.
        assert_eq!(drain.delay(at(106_000), freed(106), 8 * MIB, 0.0), Duration::from_secs(3));
        assert_eq!(drain.delay(at(106_000), freed(106), 8 * MIB, 1.0), Duration::from_secs(5));
        assert_eq!(drain.delay(at(106_000), freed(106), 1_000 * MIB, 1.0), LONGEST);
        assert_eq!(drain.delay(at(106_000), freed(106), 1, 0.0), SHORTEST);
    }

    #[test]
    fn a_quiet_night_does_not_make_the_first_refusals_wait_for_long() {
        let mut drain = looks(&[(7 * MIB, 0); 28_800]);
        let burst = Duration::from_secs(28_799);
        // Half a second into a burst nothing is known.
        assert_eq!(drain.delay(burst + at(500), 7 * MIB, 64 * MIB, 0.5), UNKNOWN);
        drain.look(burst + at(1_000), 39 * MIB, 64 * MIB);
        assert_eq!(drain.delay(burst + at(1_000), 39 * MIB, 64 * MIB, 0.5), at(1_000));
        assert_eq!(drain.delay(burst + at(2_000), 71 * MIB, 64 * MIB, 0.5), at(1_000));
    }

    #[test]
    fn what_was_let_in_and_is_not_dealt_with_does_not_count() {
        // Full since a while, and nothing comes free.
        let drain = looks(&[(5 * MIB, 0), (5 * MIB, 64 * MIB), (5 * MIB, 64 * MIB), (5 * MIB, 64 * MIB)]);
        assert_eq!(drain.delay(at(3_000), 5 * MIB, 64 * MIB, 0.5), at(3_000));
        let drain = looks(&[(5 * MIB, 64 * MIB); 60]);
        assert_eq!(drain.delay(at(59_000), 5 * MIB, 64 * MIB, 0.5), SPAN);
    }

    #[test]
    fn looks_of_long_ago_and_none_at_all_say_nothing() {
        assert_eq!(Drain::default().delay(at(9_000), 0, MIB, 0.5), UNKNOWN);
        let drain = looks(&[(0, MIB), (MIB, MIB)]);
        assert_eq!(drain.delay(at(60_000), 2 * MIB, MIB, 0.5), UNKNOWN);
    }

    #[test]
    fn a_given_moment_is_never_come_before_and_whole_seconds_are_spread() {
        assert_eq!(not_before(at(2_000), 0.0), at(2_000));
        assert_eq!(not_before(at(2_000), 1.0), at(2_500));
        assert_eq!(not_before(Duration::ZERO, 0.0), SHORTEST);
        let seconds = |random| whole_seconds(at(300), random);
        assert_eq!([seconds(0.0), seconds(0.5), seconds(0.9), seconds(1.0)], [1, 1, 2, 2]);
        assert_eq!((whole_seconds(LONGEST, 0.0), whole_seconds(LONGEST, 1.0)), (30, 31));
    }
}
