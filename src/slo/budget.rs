//! Error budgets as queries show them.

use super::burn::WINDOWS;
use super::calendar::in_words as in_words_at;
use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Whether there is anything to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataState {
    /// What is counted comes.
    Ok,
    /// Nothing that is counted, but the service's instances send something.
    Quiet,
    /// Nothing from any instance for max(3 cadences, 30 s).
    Silent,
    /// Silent for an hour.
    Gone,
}

impl DataState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Quiet => "quiet",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }
}

/// One objective of one service and what is left of its budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    pub slo: String,
    pub service: ServiceKey,
    pub target: f64,
    /// Length of the period.
    pub window: Duration,
    pub state: DataState,
    /// Exact counts over the period; of slices of time, those.
    pub good: u64,
    pub total: u64,
    /// 1 = untouched, 0 = used up, negative = overdrawn: one less what [`Budgets::lost`](super::Budgets::lost)
    /// tells of the period. Of an objective from a file: of what the counts allow. Of a default one younger than
    /// its period: of a whole period at the traffic seen so far.
    pub budget_remaining_ratio: f64,
    /// Burn rates by the name of their window, shortest first: 1 = the budget lasts exactly the period.
    pub burn: Vec<(&'static str, f64)>,
    /// Bad ones and all in the same windows.
    pub seen: Vec<(u64, u64)>,
    /// Distinct users of the last hour that something bad happened to, and all; `None` where nobody counts them.
    pub users: Option<(u64, u64)>,
    /// How much of the period so far adjustments take out.
    pub excluded: Duration,
    /// Since when the budget has been used up.
    pub exhausted_at: Option<Timestamp>,
    /// When it will be at the rate of the last hour.
    pub ends_at: Option<Timestamp>,
    /// Since when it is counted; `None` before the first count.
    pub counted_since: Option<Timestamp>,
    /// Until when a default objective only supports other findings, while it does.
    pub silent_until: Option<Timestamp>,
    /// The moment that all this is about.
    pub published_at: Timestamp,
    /// Where people are who read of moments.
    pub time_zone: String,
    /// Made by default, not from a file.
    pub default: bool,
    /// What counts as too slow, if anything does.
    pub threshold_ns: Option<u64>,
    pub operation: Option<String>,
}

/// A share of a budget as it is told everywhere: `99.93 %`. What is not whole does not read as if it were, nor as
/// nothing what is something.
#[must_use]
pub fn share_in_words(share: f64) -> String {
    let percent = share * 100.0;
    let text = if percent.abs() >= 1_000.0 { format!("{percent:.0}") } else { format!("{percent:.2}") };
    let text = match text.as_str() {
        "100.00" if percent < 100.0 => "99.99",
        "0.00" | "-0.00" if percent > 0.0 => "<0.01",
        "0.00" | "-0.00" if percent < 0.0 => ">-0.01",
        "-0.00" => "0",
        text if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.'),
        text => text,
    };
    format!("{text} %")
}

/// A length of time in its largest unit that leaves two digits or a few.
pub(super) fn length_in_words(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How the budget of a service stands that burns fastest, in one sentence: of those that are told to be `burning` if
/// there are any, and among them of those from files before default ones. `None` if it has none.
#[must_use]
pub fn in_words(budgets: &[Budget], service: &ServiceKey, burning: &[&str]) -> Option<String> {
    let fastest = |budget: &Budget| budget.burn.iter().map(|&(_, rate)| rate).fold(0.0, f64::max);
    let worst = budgets.iter().filter(|budget| budget.service == *service).max_by(|a, b| {
        let is_told = |budget: &Budget| burning.contains(&budget.slo.as_str());
        let burns = |budget: &Budget| fastest(budget) > 1.0;
        let by_rate = || fastest(a).total_cmp(&fastest(b));
        is_told(a)
            .cmp(&is_told(b))
            .then_with(|| burns(a).cmp(&burns(b)))
            // Somebody asked for what stands in a file.
            .then_with(|| b.default.cmp(&a.default))
            .then_with(by_rate)
            .then_with(|| b.slo.cmp(&a.slo))
    })?;
    let hours = worst.window.as_secs() / 3_600;
    let length = if hours >= 48 { format!("{}-day", hours / 24) } else { format!("{hours}-hour") };
    let mut text = format!(
        "{} % objective {:?}: {} of the {length} budget left",
        worst.target * 100.0,
        worst.slo,
        share_in_words(worst.budget_remaining_ratio)
    );
    if let Some(burning) = burning_in_words(worst) {
        text.push_str(&burning);
    }
    if let Some(at) = worst.ends_at {
        let moment = in_words_at(at, worst.published_at, &worst.time_zone);
        text.push_str(&format!(". At this rate the budget ends on {moment}"));
    }
    Some(text)
}

/// How fast a budget burns at most; `None` if it will last.
fn burning_in_words(of: &Budget) -> Option<String> {
    let seen_s = of.counted_since.map_or(0, |first| of.published_at.since(first).as_secs());
    let seconds = |window: &str| WINDOWS.iter().find(|(name, _)| *name == window).map_or(0, |(_, s)| *s);
    // Windows that reach back before the first count all hold the same: the shortest of them speaks for all, of
    // the time that there was.
    let whole = of.burn.iter().take_while(|(window, _)| seconds(window) < seen_s).count();
    let windows = of.burn.iter().zip(&of.seen).take(whole.saturating_add(1));
    // A window that holds one or two says little; the longest of those that do not is taken then.
    let ((window, rate), (bad, total)) = windows
        .max_by(|(a, a_seen), (b, b_seen)| {
            (a_seen.1 >= 3).cmp(&(b_seen.1 >= 3)).then_with(|| a.1.total_cmp(&b.1))
        })
        .filter(|((_, rate), _)| *rate > 1.0)?;
    let over = if seconds(window) > seen_s {
        format!("the {} that it has been counted", length_in_words(seen_s.max(1)))
    } else {
        format!("the last {window}")
    };
    Some(format!(", burning {rate:.1} times too fast over {over} ({bad} of {total} bad)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn shares_neither_round_to_all_nor_to_nothing() {
        for (share, text) in [
            (1.0, "100 %"),
            (0.999_96, "99.99 %"),
            (0.9993, "99.93 %"),
            (0.121, "12.1 %"),
            (0.000_01, "<0.01 %"),
            (0.0, "0 %"),
            (-0.0, "0 %"),
            (-0.000_01, ">-0.01 %"),
            (-0.07, "-7 %"),
            (-28.004, "-2800 %"),
            (1.5, "150 %"),
        ] {
            assert_eq!(share_in_words(share), text, "{share}");
        }
    }

    #[test]
    fn what_is_said_of_a_window_is_no_longer_than_what_was_seen() {
        let at = Timestamp::from_secs(1_700_000_000);
        let budget = |age_s: u64, burn: [f64; 7], seen: (u64, u64)| Budget {
            slo: "shop-ok".into(),
            service: ServiceKey::named("shop"),
            target: 0.99,
            window: Duration::from_secs(30 * 86_400),
            state: DataState::Ok,
            good: 0,
            total: 0,
            budget_remaining_ratio: 0.9996,
            burn: WINDOWS.iter().zip(burn).map(|(&(name, _), rate)| (name, rate)).collect(),
            seen: vec![seen; 7],
            users: None,
            excluded: Duration::ZERO,
            exhausted_at: None,
            ends_at: None,
            counted_since: Some(at.saturating_sub(Duration::from_secs(age_s))),
            silent_until: None,
            published_at: at,
            time_zone: "UTC".into(),
            default: true,
            threshold_ns: None,
            operation: None,
        };
        let said = |age_s, burn, seen| {
            in_words(&[budget(age_s, burn, seen)], &ServiceKey::named("shop"), &[]).expect("its budget")
        };
        // Four minutes old: every window holds the same.
        let young = said(250, [8.0; 7], (20, 250));
        assert!(
            young.ends_with(
                "left, burning 8.0 times too fast over the 4 min that it has been counted (20 of 250 bad)"
            ),
            "{young}"
        );
        // Two hours and a bit: the windows of an hour and more are whole up to two hours.
        let older = said(7_500, [1.0, 2.0, 9.0, 5.0, 4.8, 4.8, 4.8], (50, 900));
        assert!(older.contains("too fast over the last 1h (50 of 900 bad)"), "{older}");
        let all = said(7_500, [1.0, 2.0, 3.0, 4.0, 4.8, 4.8, 4.8], (50, 900));
        assert!(all.contains("over the 2 h that it has been counted"), "{all}");
        let old = said(4 * 86_400, [0.1, 0.1, 0.1, 0.1, 0.5, 1.0, 2.0], (50, 900));
        assert!(old.contains("2.0 times too fast over the last 3d"), "{old}");
        assert!(said(250, [0.5; 7], (1, 250)).ends_with("99.96 % of the 30-day budget left"));
        // The one that is told to burn is spoken of, also where another one burns faster.
        let other = Budget { slo: "shop-fast".into(), ..budget(250, [9.0; 7], (90, 250)) };
        let both = [budget(250, [8.0; 7], (20, 250)), other];
        for (burning, wanted) in [(&["shop-ok"][..], "shop-ok"), (&[], "shop-fast"), (&["gone"], "shop-fast")]
        {
            let text = in_words(&both, &ServiceKey::named("shop"), burning).expect("its budget");
            assert!(text.contains(&format!("objective {wanted:?}")), "{burning:?}: {text}");
        }
        // One from a file goes before a default one that covers the same and burns faster, unless it does not burn.
        let spoken = |rate: f64, burning: &[&str]| {
            let own = Budget { slo: "own".into(), default: false, ..budget(250, [rate; 7], (20, 250)) };
            let both = [budget(250, [9.0; 7], (90, 250)), own];
            in_words(&both, &ServiceKey::named("shop"), burning).expect("its budget")
        };
        for (rate, burning, wanted) in [
            (8.0, &["own", "shop-ok"][..], "own"),
            (8.0, &["shop-ok"], "shop-ok"),
            (8.0, &[], "own"),
            (0.5, &[], "shop-ok"),
        ] {
            let text = spoken(rate, burning);
            assert!(text.contains(&format!("objective {wanted:?}")), "{rate} {burning:?}: {text}");
        }
    }
}
