//! Draws from the distributions the shop needs, from a seed.

use std::time::Duration;

/// A seeded source of draws. Equal seeds give equal draws on every machine.
#[derive(Clone, Debug)]
pub struct Random(fastrand::Rng);

impl Random {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// An independent source, so that draws of one purpose do not shift those of another.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.0.f64() * (high - low)
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.0.f64() < probability
    }

    /// A number in `0..below`; 0 if that is empty.
    pub fn below(&mut self, below: usize) -> usize {
        if below == 0 { 0 } else { self.0.usize(0..below) }
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// Time to the next event of a Poisson process.
    pub fn exponential(&mut self, per_second: f64) -> Duration {
        // `1 - u` lies in (0, 1], so its logarithm is finite.
        let seconds = -(1.0 - self.0.f64()).ln() / per_second.max(1e-9);
        Duration::from_secs_f64(seconds.min(1e6))
    }

    /// A standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.0.f64()).cos()
    }

    /// A latency as services have them: log-normal around the median, and one in a hundred stretched
    /// by a Pareto tail (shape 1.5), at most twenty times.
    pub fn latency(&mut self, median: Duration, sigma: f64) -> Duration {
        let mut factor = (sigma * self.normal()).exp();
        if self.chance(0.01) {
            factor *= (1.0 - self.0.f64()).powf(-1.0 / 1.5).min(20.0);
        }
        median.mul_f64(factor.clamp(0.05, 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_medians_are_as_asked() {
        let mut random = Random::new(1);
        let mean: f64 = (0..20_000).map(|_| random.exponential(50.0).as_secs_f64()).sum::<f64>() / 20_000.0;
        assert!((mean - 0.02).abs() < 0.001, "{mean}");
        let mut latencies: Vec<Duration> =
            (0..20_001).map(|_| random.latency(Duration::from_millis(10), 0.4)).collect();
        latencies.sort();
        let (median, p999) = (latencies[10_000], latencies[19_980]);
        assert!((median.as_secs_f64() - 0.010).abs() < 0.0005, "{median:?}");
        assert!(p999 > 4 * median, "heavy tail: {p999:?}");
    }
}
