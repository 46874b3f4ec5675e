//! A metric left the band of its own past: tail probabilities over two memories.

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};

/// Points that are only learned from.
const LEARN: u32 = 30;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    points: u32,
    mean: f64,
    variance: f64,
    /// Learned pause between points, in seconds.
    cadence_s: f64,
    last_at: Timestamp,
    /// Points until a new episode may begin.
    refractory: u32,
}

/// What a point says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelSeen {
    /// Probability of something at least as unusual while healthy.
    pub tail: f64,
    /// 0..1, high only where an episode begins.
    pub score: f64,
    pub low: f64,
    pub high: f64,
}

impl Level {
    /// A new point.
    pub fn observe(&mut self, at: Timestamp, value: f64) -> LevelSeen {
        if !value.is_finite() {
            return LevelSeen { tail: 1.0, score: 0.0, low: self.mean, high: self.mean };
        }
        if self.points > 0 {
            let pause = at.since(self.last_at).as_secs_f64();
            self.cadence_s += (pause - self.cadence_s) / f64::from(self.points.min(50));
        }
        self.last_at = self.last_at.max(at);
        self.points = self.points.saturating_add(1);
        let spread = self.variance.sqrt().max(1e-9 * self.mean.abs()).max(1e-12);
        let deviation = value - self.mean;
        let (low, high) = (self.mean - 3.0 * spread, self.mean + 3.0 * spread);
        let tail = if self.points <= LEARN { 1.0 } else { (spread / deviation.abs().max(spread)).powi(6) };
        let weight = 1.0 / f64::from(self.points.min(300));
        let clipped =
            if self.points > LEARN { deviation.clamp(-5.0 * spread, 5.0 * spread) } else { deviation };
        self.mean += weight * clipped;
        self.variance += weight * (clipped * clipped - self.variance);
        self.refractory = self.refractory.saturating_sub(1);
        let mut score = 0.0;
        if self.refractory == 0 && tail < 0.01 {
            score = (-tail.max(1e-12).log10() / 12.0).clamp(0.0, 1.0);
            self.refractory = 50;
        }
        LevelSeen { tail, score, low, high }
    }

    /// Learned pause between points, in seconds; 0 while unknown.
    #[must_use]
    pub fn cadence_s(&self) -> f64 {
        self.cadence_s
    }
}
