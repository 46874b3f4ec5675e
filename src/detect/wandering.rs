//! How a rate or a share wanders over minutes, beyond what counts do by chance: what is over-dispersed only slowly
//! looks like new evidence in each second or window by itself, so it belongs to the null.

use serde::{Deserialize, Serialize};

/// Blocks of minutes that are remembered, and how many the wandering that is taken for granted speaks for.
const BLOCKS: u16 = 150;
const BLOCKS_PRIOR: f32 = 6.0;
/// Standard deviations of it that belong to the null.
const WANDERS: f64 = 3.0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wandering {
    /// Variance relative to the mean.
    variance: f32,
    blocks: u16,
}

impl Wandering {
    /// Learns of a block that is over and was no fault: the squared deviation of what was seen from what was expected,
    /// relative to the latter, beyond what chance explains.
    pub fn learn(&mut self, beyond: f32) {
        self.blocks = self.blocks.saturating_add(1).min(BLOCKS);
        self.variance += (beyond - self.variance) / f32::from(self.blocks).max(10.0);
    }

    /// By which part of the mean the null lies beside it; `granted` is the variance that is taken for granted until it
    /// is known.
    #[must_use]
    pub fn deviation(&self, granted: f32) -> f64 {
        let known = f32::from(self.blocks);
        let variance = (self.variance * known + granted * BLOCKS_PRIOR).max(0.0) / (known + BLOCKS_PRIOR);
        WANDERS * f64::from(variance).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_gives_way_to_what_is_known() {
        let (mut steady, mut wanders) = (Wandering::default(), Wandering::default());
        assert_eq!(steady.deviation(0.04), 3.0 * f64::from(0.04f32).sqrt());
        for _ in 0..200 {
            steady.learn(0.0);
            wanders.learn(0.25);
        }
        assert!(steady.deviation(0.04) < 0.15, "{steady:?}");
        assert!((1.4..1.5).contains(&wanders.deviation(0.04)), "{wanders:?}");
    }
}
