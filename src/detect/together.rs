//! All metrics of a service together: whether now is unusual for it, and since when it has been said.
//!
//! A fault shows in many metrics at once, chance in one at a time. What is beyond a first surprise is
//! added up over the metrics of a round, and the sum is calibrated by its own past like any statistic.
//! With fewer than three metrics the strongest decides, times their number (Bonferroni).
//!
//! Alarms are a rate: each one raises the bar for the next of the same service, and the bar comes down
//! again within half a week, so that what cries wolf has to cry louder.

use super::tail::{Scale, Tail, stretch};
use crate::model::{SeriesId, Timestamp};
use serde::{Deserialize, Serialize};

/// Natural logarithms of probability that are no surprise yet.
const FIRST: f64 = 2.0;
/// From so many metrics on their sum is judged.
pub const MANY: u32 = 3;
/// Rounds that are only learned from.
const LEARN: u32 = 100;
/// Weight with which rounds of an episode are learned.
const FAULT: f32 = 0.1;
/// How far an alarm raises the bar, and rounds of five minutes in which the bar comes down to a third.
const RAISE: f64 = 0.5;
const RAISED_FOR: f64 = 1000.0;
/// Such rounds in which what an episode reached fades to a third: only what is beyond begins another.
const HELD_FOR: f64 = 110.0;
/// Probability above which a round is healthy, and healthy rounds that end an episode.
const HEALTHY: f64 = 0.01;
const HEALTHY_ROUNDS: u32 = 3;
/// An alarm's episode has about so many rounds that are as unusual by themselves (its extremal index is
/// the inverse), of one metric and of many that are added up: measured on the metrics of `docs/detection.md`.
const ROUNDS_AN_EPISODE: f64 = 10.0;
const ROUNDS_AN_EPISODE_OF_MANY: f64 = 7.0;
/// Logarithm of the tail probability that scores 1.
const CERTAIN: f64 = 30.0;
/// Members of an episode.
const MEMBERS_AT_MOST: usize = 100;
/// Pauses between points after which a round is judged without the metrics that are missing.
const PATIENCE: f64 = 1.5;
const WEEK_S: f64 = 604_800.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Together {
    tail: Tail,
    rounds: u32,
    cadence_s: f32,
    judged_at: Timestamp,
    /// Metrics ever met, and how many of them a round is complete with.
    known: u32,
    expected: u32,
    bar: f64,
    held: f64,
    open: bool,
    healthy: u32,
    /// Metrics that take part in the open episode.
    members: Vec<SeriesId>,
    /// Of the present round.
    round: Round,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Round {
    metrics: u32,
    sum: f64,
    strongest: f64,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Quiet,
    /// An episode begins.
    Begins,
    Goes,
    Ends,
}

/// What a round says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundSeen {
    pub turn: Turn,
    /// Natural logarithm of the probability of such a round in health.
    pub log_p: f64,
    /// 0..1, high only where an episode may begin.
    pub score: f64,
    /// The strongest surprise of a metric by itself.
    pub strongest: f64,
}

impl Together {
    /// A metric's point: how surprising it is by itself, and as one of many; its usual pause.
    pub fn add(&mut self, alone: f64, among: f64, cadence_s: f64) {
        self.cadence_s += (cadence_s as f32 - self.cadence_s) / self.rounds.saturating_add(1).min(50) as f32;
        self.round.metrics = self.round.metrics.saturating_add(1);
        self.round.sum += (among - FIRST).max(0.0);
        self.round.strongest = self.round.strongest.max(alone);
    }

    /// Whether rounds are judged, and not only learned from.
    #[must_use]
    pub fn has_learned(&self) -> bool {
        self.rounds > LEARN
    }

    /// Whether an episode is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// A metric takes part in the open episode.
    pub fn joins(&mut self, metric: SeriesId) {
        if self.members.len() < MEMBERS_AT_MOST && !self.members.contains(&metric) {
            self.members.push(metric);
        }
    }

    /// The metrics that take part in the open episode.
    #[must_use]
    pub fn members(&self) -> &[SeriesId] {
        &self.members
    }

    /// Takes the metrics that took part in the episode that ended.
    pub fn take_members(&mut self) -> Vec<SeriesId> {
        std::mem::take(&mut self.members)
    }

    /// Judges the round if it is complete: all `known` metrics have come, or its time is over.
    /// `tickets_per_week`: episodes that may begin in a week of health.
    pub fn judge(&mut self, now: Timestamp, known: u32, tickets_per_week: f64) -> Option<RoundSeen> {
        self.expected = self.expected.saturating_add(known.saturating_sub(self.known));
        self.known = known;
        if self.round.metrics == 0 {
            return None;
        }
        if self.round.metrics < self.expected {
            if self.judged_at == Timestamp::ZERO {
                self.judged_at = now;
            }
            let patience = PATIENCE * f64::from(self.cadence_s);
            if patience == 0.0 || now.since(self.judged_at).as_secs_f64() < patience {
                return None;
            }
            // Some do not come any more.
            self.expected = self.round.metrics;
        }
        let Round { metrics, sum, strongest } = std::mem::take(&mut self.round);
        self.judged_at = now;
        self.rounds = self.rounds.saturating_add(1);
        let calibrated = self.tail.judge(sum, Scale::Linear);
        let log_p = if metrics < MANY { f64::from(metrics).ln() - strongest } else { calibrated };
        let log_p = log_p.min(0.0);
        let weight = if self.open { FAULT } else { 1.0 };
        self.tail.learn(sum, Scale::Linear, weight, stretch(f64::from(self.cadence_s)));
        if !self.has_learned() {
            return Some(RoundSeen { turn: Turn::Quiet, log_p: 0.0, score: 0.0, strongest });
        }
        let rounds = if metrics < MANY { ROUNDS_AN_EPISODE } else { ROUNDS_AN_EPISODE_OF_MANY };
        Some(RoundSeen { strongest, ..self.turn(log_p, tickets_per_week * rounds) })
    }

    /// `allowed_per_week`: rounds of a week that may be so unusual in health.
    fn turn(&mut self, log_p: f64, allowed_per_week: f64) -> RoundSeen {
        let rounds_a_week = WEEK_S / f64::from(self.cadence_s).max(1.0);
        let allowed = (allowed_per_week / rounds_a_week).min(0.5).ln();
        let stretch = stretch(f64::from(self.cadence_s));
        self.bar *= 1.0 - 1.0 / (RAISED_FOR * stretch);
        self.held *= 1.0 - 1.0 / (HELD_FOR * stretch);
        let above = (-log_p - self.bar).clamp(0.0, CERTAIN);
        let fresh = above > self.held;
        self.held = self.held.max(above);
        let score = if fresh { above / CERTAIN } else { 0.0 };
        let turn = if self.open {
            self.healthy = if log_p > HEALTHY.ln() { self.healthy + 1 } else { 0 };
            self.open = self.healthy < HEALTHY_ROUNDS;
            if self.open { Turn::Goes } else { Turn::Ends }
        } else if fresh && -above < allowed {
            (self.open, self.healthy) = (true, 0);
            self.bar += RAISE;
            Turn::Begins
        } else {
            Turn::Quiet
        };
        RoundSeen { turn, log_p, score, strongest: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of `metrics` metrics each five minutes; all of them jump where `fault` says so.
    fn turns(rounds: u64, metrics: u32, fault: impl Fn(u64) -> bool) -> Vec<(u64, RoundSeen)> {
        let (mut together, mut random) = (Together::default(), fastrand::Rng::with_seed(8));
        let seen = (0..rounds).filter_map(|n| {
            for _ in 0..metrics {
                let surprise = -random.f64().max(1e-12).ln() + if fault(n) { 4.0 } else { 0.0 };
                together.add(surprise, surprise, 300.0);
            }
            Some((n, together.judge(Timestamp::from_secs(1_700_000_000 + 300 * n), metrics, 0.5)?))
        });
        seen.collect()
    }

    #[test]
    fn many_little_surprises_at_once_are_one_alarm_that_ends() {
        let turns = turns(4_000, 20, |n| (3_000..3_010).contains(&n));
        let begins = turns.iter().filter(|(_, seen)| seen.turn == Turn::Begins).map(|(n, _)| *n);
        let begins: Vec<u64> = begins.collect();
        assert!(begins.contains(&3_000), "{begins:?}");
        // Two weeks of noise without any memory, which has no episodes of several rounds.
        assert!(begins.len() <= 4, "{begins:?}");
        let ends = turns.iter().find(|(n, seen)| *n > 3_000 && seen.turn == Turn::Ends).map(|(n, _)| *n);
        assert!(ends.is_some_and(|n| (3_010..3_020).contains(&n)), "{ends:?}");
    }

    #[test]
    fn what_cries_wolf_has_to_cry_louder() {
        let wolf = turns(6_000, 1, |n| n % 150 == 0);
        let begins = |from: u64| {
            let within = wolf.iter().filter(|(n, _)| (from..from + 1_500).contains(n));
            within.filter(|(_, seen)| seen.turn == Turn::Begins).count()
        };
        assert!(begins(4_500) <= begins(0).max(2), "{} after {}", begins(4_500), begins(0));
    }

    #[test]
    fn the_bar_stays_raised_for_as_long_at_any_cadence() {
        let bar = |cadence_s: u64| {
            let (mut together, mut random) = (Together::default(), fastrand::Rng::with_seed(8));
            for n in 0..10 * 86_400 / cadence_s {
                let fault = n % (43_200 / cadence_s) == 0;
                let surprise = -random.f64().max(1e-12).ln() + if fault { 20.0 } else { 0.0 };
                together.add(surprise, surprise, cadence_s as f64);
                together.judge(Timestamp::from_secs(1_700_000_000 + cadence_s * n), 1, 0.5);
            }
            together.bar
        };
        let (slow, fast) = (bar(300), bar(30));
        assert!(slow > 1.5 && (0.7..1.4).contains(&(fast / slow)), "{fast} against {slow}");
    }

    #[test]
    fn a_round_whose_metrics_come_over_seconds_is_judged_once() {
        let mut together = Together::default();
        let mut judged = 0;
        for second in 0..3_000u64 {
            if second % 10 < 4 {
                together.add(1.0, 1.0, 10.0);
            }
            judged += u32::from(together.judge(Timestamp::from_secs(1_000 + second), 4, 0.5).is_some());
        }
        assert!((290..=310).contains(&judged), "{judged}");
    }
}
