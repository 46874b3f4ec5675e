//! Which traces are chosen for topology: all at low rates, then 1 in 2^k.

use super::{SpanHalf, Weight};

/// Largest k: 1 trace in 65,536.
const MOST: u32 = 16;
/// Quiet barriers before twice as many traces are chosen again.
const PATIENCE: u32 = 10;

/// Halves of the chosen traces since the last barrier.
#[derive(Debug)]
pub(super) struct Halves {
    chosen: Vec<SpanHalf>,
    /// At most so many a barrier, a second.
    limit: usize,
    pub shift: u32,
    pub quiet: u32,
}

/// Whether a trace is among 1 in 2^shift. Every shard chooses alike.
#[inline]
fn is_chosen(trace: u64, shift: u32) -> bool {
    // The top bits of a product depend on all bits of the id, random or not.
    shift == 0 || trace.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - shift) == 0
}

impl Halves {
    pub fn new(limit: usize) -> Self {
        Self { chosen: Vec::new(), limit, shift: 0, quiet: 0 }
    }

    #[inline]
    pub fn wants(&self, trace: u64) -> bool {
        is_chosen(trace, self.shift)
    }

    pub fn add(&mut self, half: SpanHalf) {
        while self.chosen.len() >= self.limit && self.shift < MOST {
            self.shift += 1;
            self.quiet = 0;
            let shift = self.shift;
            self.chosen.retain(|half| is_chosen(half.trace, shift));
        }
        if self.wants(half.trace) && self.chosen.len() < self.limit {
            self.chosen.push(half);
        }
    }

    /// The halves, each with the share of traces that were chosen as its weight.
    pub fn take(&mut self) -> Vec<SpanHalf> {
        let mut taken = std::mem::take(&mut self.chosen);
        for half in &mut taken {
            half.weight = Weight(half.weight.0.saturating_mul(1 << self.shift));
        }
        self.quiet = if taken.len() < self.limit / 3 { self.quiet + 1 } else { 0 };
        if self.quiet >= PATIENCE && self.shift > 0 {
            self.shift -= 1;
            self.quiet = 0;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ServiceKey, SpanId, SpanKind, WindowId};
    use std::sync::Arc;

    #[test]
    fn the_share_follows_the_rate_and_the_weight_the_share() {
        let mut halves = Halves::new(1_000);
        let service = Arc::new(ServiceKey::named("a"));
        let mut random = fastrand::Rng::with_seed(3);
        let mut second = |halves: &mut Halves, traces: u64| {
            for _ in 0..traces {
                halves.add(SpanHalf {
                    trace: random.u64(..),
                    span: SpanId::NONE,
                    parent: SpanId::NONE,
                    service: service.clone(),
                    kind: SpanKind::Server,
                    duration_ns: 1,
                    error: false,
                    peer: None,
                    weight: Weight::ONE,
                    window: WindowId(1),
                });
            }
            halves.take()
        };
        assert_eq!(second(&mut halves, 900).len(), 900);
        let many = second(&mut halves, 30_000);
        assert!((300..=1_000).contains(&many.len()), "{}", many.len());
        let estimate: f64 = many.iter().map(|half| half.weight.items()).sum();
        assert!((24_000.0..36_000.0).contains(&estimate), "{estimate}");
        for _ in 0..100 {
            second(&mut halves, 100);
        }
        assert_eq!(second(&mut halves, 100).len(), 100);
    }
}
