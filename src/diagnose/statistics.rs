//! Robust statistics: medians and quartiles instead of means and deviations, shrunken log-odds,
//! likelihood ratios for shares.

/// The `q`-quantile (0..=1) of sorted values, interpolated linearly; `None` of none.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks are small and not negative"
)]
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let rank = q.clamp(0.0, 1.0) * last as f64;
    let below = *sorted.get(rank.floor() as usize)?;
    let above = *sorted.get((rank.ceil() as usize).min(last))?;
    Some(below + (above - below) * rank.fract())
}

/// Sorts values and drops what is not finite.
pub fn sort(values: &mut Vec<f64>) {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
}

/// Median and a scale that outliers cannot inflate: the interquartile range over 1.349, which is
/// the standard deviation of normal data. `None` of no values.
#[must_use]
pub fn median_and_scale(sorted: &[f64]) -> Option<(f64, f64)> {
    let (low, middle, high) = (quantile(sorted, 0.25)?, quantile(sorted, 0.5)?, quantile(sorted, 0.75)?);
    Some((middle, (high - low) / 1.349))
}

/// A share: how many of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub hits: u64,
    pub of: u64,
}

impl Share {
    /// Both counts together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { hits: self.hits.saturating_add(other.hits), of: self.of.saturating_add(other.of) }
    }

    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^53")]
    pub fn ratio(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.hits as f64 / self.of as f64 }
    }
}

/// The two shares of a count that is split into strata, such as the callers of a place in the code,
/// as if the healthy period had had the faulty one's mix of strata (direct standardisation): what is
/// then left of a difference is not one of who calls. Strata of only one period compare nothing; when
/// they are the most, the plain shares are compared, which is worth half as much: the last value.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of rows are far below 2^53, and a share of them is not negative"
)]
pub fn standardised(strata: impl IntoIterator<Item = (Share, Share)>) -> (Share, Share, f64) {
    let (mut before, mut now, mut expected) = (Share::default(), Share::default(), 0.0);
    let (mut all_before, mut all_now) = (Share::default(), Share::default());
    for (was, is) in strata {
        all_before = all_before.and(was);
        all_now = all_now.and(is);
        if was.of == 0 || is.of == 0 {
            continue;
        }
        before.of += was.of;
        now = now.and(is);
        expected += was.ratio() * is.of as f64;
    }
    if now.of < all_now.of / 2 {
        return (all_before, all_now, 0.5);
    }
    if now.of > 0 {
        before.hits = (expected / now.of as f64 * before.of as f64).round().min(before.of as f64) as u64;
    }
    (before, now, 1.0)
}

/// Natural logarithm of the likelihood ratio of two shares being different rather than equal (half
/// of the G statistic). By Wilks' theorem its double is χ² with one degree of freedom when they are
/// equal, so 3.3 is p = 1 %, and 9.2 + ln(tests) guards as many tests at about 1 in 50,000 each.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^53")]
pub fn log_likelihood_ratio(a: Share, b: Share) -> f64 {
    fn term(hits: u64, of: u64, ratio: f64) -> f64 {
        let part =
            |count: u64, ratio: f64| if count == 0 { 0.0 } else { count as f64 * ratio.max(1e-300).ln() };
        part(hits, ratio) + part(of.saturating_sub(hits), 1.0 - ratio)
    }
    if a.of == 0 || b.of == 0 {
        return 0.0;
    }
    let pooled = Share { hits: a.hits.saturating_add(b.hits), of: a.of.saturating_add(b.of) }.ratio();
    let apart = term(a.hits, a.of, a.ratio()) + term(b.hits, b.of, b.ratio());
    (apart - term(a.hits, a.of, pooled) - term(b.hits, b.of, pooled)).max(0.0)
}

/// Log-odds ratio of two shares, shrunk towards none by half a count in each cell
/// (Haldane–Anscombe), so that few rows say little.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^53")]
pub fn log_odds_ratio(bad: Share, good: Share) -> f64 {
    let odds =
        |share: Share| ((share.hits as f64 + 0.5) / (share.of.saturating_sub(share.hits) as f64 + 0.5)).ln();
    odds(bad) - odds(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&values, 0.5), Some(2.5));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn another_mix_of_callers_is_no_difference() {
        let share = |hits, of| Share { hits, of };
        // One caller's calls always hit, the other's never; only how often each calls changed.
        let same = standardised([(share(90, 90), share(10, 10)), (share(0, 10), share(0, 90))]);
        assert_eq!(same, (share(10, 100), share(10, 100), 1.0));
        let fewer = standardised([(share(90, 90), share(5, 10)), (share(0, 10), share(0, 90))]);
        assert_eq!(fewer, (share(10, 100), share(5, 100), 1.0));
        let strangers = standardised([(share(5, 5), share(0, 0)), (share(0, 0), share(1, 4))]);
        assert_eq!(strangers, (share(5, 5), share(1, 4), 0.5));
    }

    #[test]
    fn equal_shares_have_no_evidence_and_different_ones_have() {
        let share = |hits, of| Share { hits, of };
        assert!(log_likelihood_ratio(share(10, 100), share(20, 200)) < 1e-9);
        // G = 2 Σ O ln(O/E), by hand: 20 of 20 against 0 of 20 is 40 ln 2, halved.
        assert!(
            (log_likelihood_ratio(share(20, 20), share(0, 20)) - 40.0 * std::f64::consts::LN_2).abs() < 1e-9
        );
        assert!(log_odds_ratio(share(1, 1), share(0, 1)) < log_odds_ratio(share(100, 100), share(0, 100)));
    }
}
