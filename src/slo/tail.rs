//! How improbable a number of bad events is.

/// Probability of at least `bad` among `total` events that are each bad with probability `p`: the upper tail
/// of the binomial distribution, summed from `bad` on. Exact to about 1e-9 of itself while it is small.
#[must_use]
pub fn at_least(bad: u64, total: u64, p: f64) -> f64 {
    if bad == 0 {
        return 1.0;
    }
    if bad > total || p <= 0.0 {
        return 0.0;
    }
    let (n, k) = (total as f64, bad as f64);
    if p >= 1.0 || k <= n * p {
        // At or below what is expected: nobody asks how probable that is.
        return 1.0;
    }
    // First term by logarithms; each further one by the ratio of neighbours, which is below 1 here.
    let first = ln_choose(n, k) + k * p.ln() + (n - k) * (-p).ln_1p();
    let (mut term, mut sum) = (1.0, 1.0);
    let mut i = k;
    while i < n && term > sum * 1e-12 {
        term *= (n - i) / (i + 1.0) * p / (1.0 - p);
        sum += term;
        i += 1.0;
    }
    (first.exp() * sum).min(1.0)
}

fn ln_choose(n: f64, k: f64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Stirling's series; a plain sum where that is not exact enough.
fn ln_factorial(n: f64) -> f64 {
    if n < 32.0 {
        return (2..=n as u32).map(|i| f64::from(i).ln()).sum();
    }
    let x = n + 1.0;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + 1.0 / (12.0 * x)
        - 1.0 / (360.0 * x.powi(3))
        + 1.0 / (1_260.0 * x.powi(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_equals_the_plain_sum() {
        for (n, p) in [(1u64, 0.01), (10, 0.01), (10, 0.3), (60, 0.05), (500, 0.001)] {
            let mut terms = vec![0.0; n as usize + 1];
            // Each event added in turn.
            terms[0] = 1.0;
            for _ in 0..n {
                for k in (0..=n as usize).rev() {
                    terms[k] = terms[k] * (1.0 - p) + if k > 0 { terms[k - 1] * p } else { 0.0 };
                }
            }
            for bad in 0..=n {
                let plain: f64 = terms[bad as usize..].iter().sum();
                let got = at_least(bad, n, p);
                // Sums of denormal numbers are not exact.
                if bad as f64 > n as f64 * p && plain > 1e-280 {
                    assert!((got / plain - 1.0).abs() < 1e-8, "{bad} of {n} at {p}: {got}, not {plain}");
                } else if plain > 1e-280 {
                    assert!((got - 1.0).abs() < 1e-12);
                }
            }
        }
        assert_eq!(at_least(3, 2, 0.5), 0.0);
        assert!(at_least(1_000_000, 10_000_000, 0.001) < 1e-300);
    }
}
