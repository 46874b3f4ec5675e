//! One objective: what was counted for it, and whether its rules hold.

use super::burn::{Rule, bad_rate, burn_rate};
use super::counts::Counts;
use super::definition::{Counting, Method, Period};
use super::grain::Grain;
use super::slices::Slices;
use super::tail::at_least;
use super::users::UserHistory;
use crate::aggregate::{IndicatorId, Meaning, RATIO_UNIT, Source};
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Periods of a calendar that an incident is followed back through: counts are kept for two.
const PERIODS_LOST: usize = 2;

/// What was counted in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reading {
    pub bad: u64,
    pub total: u64,
    pub burn: f64,
}

/// Counts of events, or of slices of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kept {
    Events(Counts),
    Slices(Box<Slices>),
}

/// Steps in which the beginning of burning is looked for, twice.
const BEGAN_STEPS: u64 = 60;

/// How one rule stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Since when its condition holds; zero while it does not.
    pub since: Timestamp,
    /// When what it began with began.
    pub began: Timestamp,
    /// When that was last said; zero while it was not.
    pub said: Timestamp,
    /// When the latest of what it began with happened.
    pub fresh: Timestamp,
    /// When it last ceased to hold; zero if it never did.
    pub ceased: Timestamp,
}

impl Standing {
    /// Neither its condition holds nor anything was said that would have to be taken back.
    pub fn is_idle(&self) -> bool {
        self.since == Timestamp::ZERO && self.said == Timestamp::ZERO
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Objective {
    pub name: String,
    pub service: u32,
    pub target: f64,
    pub period: Period,
    pub method: Method,
    pub parts: Vec<Counting>,
    pub some_is_bad: bool,
    /// One for each part.
    pub indicators: Vec<IndicatorId>,
    pub default: bool,
    kept: Kept,
    pub first: Timestamp,
    pub last: Timestamp,
    pub rules: Vec<Rule>,
    pub standing: Vec<Standing>,
    pub exhausted_at: Option<Timestamp>,
    pub composed_of: Vec<(String, f64)>,
    /// Bad events that a long window must hold at least, where that is not as for all.
    pub floor: Option<u64>,
    /// The attribute that tells users apart.
    pub user_attribute: Option<Arc<str>>,
    pub users: UserHistory,
    /// Times that do not count, disjoint and in order: first second, and the first one after.
    pub excluded: Vec<(u64, u64)>,
    /// First second of the calendar period, and of the next one.
    current: (u64, u64),
    /// The latest second in which something bad may have happened.
    last_bad: u64,
    /// Places of the objectives that it is composed of, and their weights.
    #[serde(skip)]
    pub members: Vec<(u32, f64)>,
    #[serde(skip)]
    pub touched: bool,
    /// Whether other times are excluded than when it was last judged.
    #[serde(skip)]
    pub adjusted: bool,
}

/// When a rule may begin to be said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caution {
    /// Bad events at least.
    pub floor: u64,
    /// How improbable they must be, for a page.
    pub improbable: f64,
}

/// What a rule saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub holds: bool,
    pub long: Reading,
    pub short: Reading,
    pub short_window: Duration,
}

/// What an objective is made from.
pub(super) struct Made {
    pub name: String,
    pub service: u32,
    pub target: f64,
    pub period: Period,
    pub method: Method,
    pub parts: Vec<Counting>,
    pub some_is_bad: bool,
    pub default: bool,
    pub rules: Vec<Rule>,
    pub composed_of: Vec<(String, f64)>,
    pub floor: Option<u64>,
    pub user_attribute: Option<Arc<str>>,
}

impl Objective {
    pub fn new(made: Made, indicators: Vec<IndicatorId>) -> Self {
        let Made {
            name,
            service,
            target,
            period,
            method,
            parts,
            some_is_bad,
            default,
            rules,
            composed_of,
            floor,
            user_attribute,
        } = made;
        let seconds = horizon(&period, &rules);
        let kept = match Slices::new(method, some_is_bad, seconds) {
            Some(slices) => Kept::Slices(Box::new(slices)),
            None => Kept::Events(Counts::new(seconds)),
        };
        Self {
            name,
            service,
            target,
            period,
            method,
            parts,
            some_is_bad,
            indicators,
            default,
            kept,
            first: Timestamp::ZERO,
            last: Timestamp::ZERO,
            standing: vec![Standing::default(); rules.len()],
            rules,
            exhausted_at: None,
            composed_of,
            floor,
            user_attribute,
            users: UserHistory::default(),
            excluded: Vec::new(),
            current: (0, 0),
            last_bad: 0,
            members: Vec::new(),
            touched: false,
            adjusted: false,
        }
    }

    /// Takes over what its author changed. What was counted stays.
    pub fn redefine(&mut self, target: f64, period: Period, rules: Vec<Rule>) {
        let seconds = horizon(&period, &rules);
        match &mut self.kept {
            Kept::Events(counts) => counts.set_period(seconds),
            Kept::Slices(slices) => slices.set_period(seconds),
        }
        if self.rules != rules {
            self.standing = vec![Standing::default(); rules.len()];
        }
        if self.period != period {
            self.current = (0, 0);
        }
        (self.target, self.period, self.rules) = (target, period, rules);
    }

    /// Counts what a part brought of a second of event time.
    pub fn add(&mut self, now: Timestamp, second: u64, some: u64, total: u64) {
        if self.first == Timestamp::ZERO {
            self.first = now;
        }
        // Where several parts are counted each on its own, what is bad is known only of them together.
        if self.parts.len() != 1 {
            self.last_bad = u64::MAX;
        } else if if self.some_is_bad { some > 0 } else { some < total } {
            self.last_bad = self.last_bad.max(second);
        }
        match &mut self.kept {
            Kept::Events(counts) => counts.add(now.secs(), second, some, total),
            Kept::Slices(slices) => slices.add(now.secs(), second, some, total),
        }
        (self.last, self.touched) = (now, true);
    }

    /// Good and total since a second, without what is excluded.
    pub fn since(&self, now: u64, from: u64) -> (u64, u64) {
        let (mut good, mut total) = self.between(now, from, from, u64::MAX);
        for &(begin, end) in self.excluded.iter().filter(|(_, end)| *end > from) {
            let (less_good, less) = self.between(now, from, begin.max(from), end);
            (good, total) = (good.saturating_sub(less_good), total.saturating_sub(less));
        }
        (good, total)
    }

    /// Good and total between two seconds, in the unit of the method, on the grain that a window from `edge`
    /// on has.
    fn between(&self, now: u64, edge: u64, from: u64, to: u64) -> (u64, u64) {
        match &self.kept {
            Kept::Slices(slices) => slices.between(now, from, to),
            Kept::Events(counts) => {
                let (some, total) = counts.between(now, now.saturating_sub(edge), from, to);
                let some = some.min(total);
                (if self.some_is_bad { total - some } else { some }, total)
            }
        }
    }

    /// When the burning that shows in the window before `now` began: after the last moment at which the events up
    /// to it were rather healthy than as bad as the window as a whole (CUSUM of bad ones, less what lies half-way
    /// between both shares on a logarithmic scale). For composites and slices the beginning of the window.
    pub fn began(&self, now: Timestamp, window: Duration) -> Timestamp {
        let from = now.saturating_sub(window);
        if !self.members.is_empty() || self.is_sliced() {
            return from;
        }
        let (first, last) = (from.secs(), now.secs().saturating_add(1));
        let counted = |from: u64, to: u64| {
            let is_excluded = self.excluded.iter().any(|&(begin, end)| begin < to && end > from);
            let (good, total) = if is_excluded { (0, 0) } else { self.between(now.secs(), first, from, to) };
            (total.saturating_sub(good) as f64, total as f64)
        };
        let (bad, total) = counted(first, last);
        let (share, allowed) = (bad / total.max(1.0), 1.0 - self.target);
        let half_way = (share.max(allowed) * allowed).sqrt();
        let began_in = |from: u64, to: u64, step: u64| {
            let (mut sum, mut began, mut at) = (0.0f64, from, from);
            while at < to {
                let until = at.saturating_add(step).min(to);
                let (bad, total) = counted(at, until);
                sum = (sum + bad - half_way * total).max(0.0);
                if sum == 0.0 {
                    began = until;
                }
                at = until;
            }
            began
        };
        // Coarsely over the whole window, then second by second.
        let step = ((last - first) / BEGAN_STEPS).max(1);
        let began = began_in(first, last, step).min(now.secs());
        let began = began_in(began, began.saturating_add(step).min(last), (step / BEGAN_STEPS).max(1));
        Timestamp::from_secs(began.clamp(first, now.secs()))
    }

    /// When something bad may have happened last, at most `now`.
    pub fn last_bad(&self, now: Timestamp) -> Timestamp {
        if self.members.is_empty() { Timestamp::from_secs(self.last_bad).min(now) } else { now }
    }

    /// Whether a rule cannot hold, for nothing bad lies in its windows.
    pub fn is_at_peace(&self, now: u64, rule: &Rule) -> bool {
        let any_takes_bad = match rule {
            Rule::Burn(rule) => rule.factor > 0.0,
            Rule::EndsWithin { .. } => true,
            Rule::Dropped { share, .. } => *share > 0.0,
        };
        // The edge of a window may lie a grain earlier.
        let reach = rule.long().as_secs().saturating_add(self.grain_s().saturating_mul(2));
        any_takes_bad && self.members.is_empty() && self.last_bad < now.saturating_sub(reach)
    }

    /// What is too slow, if it counts spans by that.
    pub fn threshold_ns(&self) -> Option<u64> {
        self.parts.iter().find_map(|part| match &part.source {
            Source::Spans { good, .. } => good.threshold_ns,
            _ => None,
        })
    }

    /// What it counts by; 0 in a composite.
    pub fn number(&self) -> u32 {
        self.indicators.first().map_or(0, |id| id.0)
    }

    /// Its counts, finest first.
    pub fn grains(&self) -> &[Grain] {
        match &self.kept {
            Kept::Events(counts) => &counts.grains,
            Kept::Slices(slices) => std::slice::from_ref(&slices.0),
        }
    }

    /// The same, to be changed.
    pub fn grains_mut(&mut self) -> &mut [Grain] {
        match &mut self.kept {
            Kept::Events(counts) => &mut counts.grains,
            Kept::Slices(slices) => std::slice::from_mut(&mut slices.0),
        }
    }

    /// The coarsest grain on which it counts.
    pub const fn grain_s(&self) -> u64 {
        match self.method {
            Method::Occurrences => 60,
            Method::Timeslices { slice_s, .. } | Method::RatioTimeslices { slice_s } => slice_s,
        }
    }

    /// Whether it counts slices of time.
    pub const fn is_sliced(&self) -> bool {
        matches!(self.kept, Kept::Slices(_))
    }

    /// What one event counts as: slices, and points of a gauge that is itself a share, count by their parts.
    pub fn unit(&self) -> u64 {
        let is_share =
            |part: &Counting| matches!(part.source, Source::Metric { counted: Meaning::Ratio { .. }, .. });
        if self.is_sliced() || self.parts.iter().any(is_share) { RATIO_UNIT } else { 1 }
    }

    /// What a window that ends now held, in whole events or slices.
    pub fn reading(&self, now: u64, seconds: u64) -> Reading {
        let (good, total) = self.since(now, now.saturating_sub(seconds));
        let unit = self.unit();
        let burn = burn_rate(good, total, self.target);
        Reading { bad: (total - good.min(total)).div_ceil(unit), total: total / unit, burn }
    }

    /// First second of the period that a moment lies in, and its length. Found anew where one ends.
    pub fn period_at(&mut self, now: Timestamp) -> (u64, Duration) {
        if let Period::Calendar(calendar) = &self.period
            && !(self.current.0..self.current.1).contains(&now.secs())
        {
            self.current = calendar.period_at(now);
        }
        self.period_around(now)
    }

    /// The same without keeping what was found.
    pub fn period_around(&self, now: Timestamp) -> (u64, Duration) {
        match &self.period {
            Period::Rolling(length) => (now.secs().saturating_sub(length.as_secs()), *length),
            Period::Calendar(calendar) => {
                let (begin, end) = if (self.current.0..self.current.1).contains(&now.secs()) {
                    self.current
                } else {
                    calendar.period_at(now)
                };
                (begin, Duration::from_secs(end.saturating_sub(begin)))
            }
        }
    }

    /// How much of its period so far adjustments take out.
    pub fn excluded(&self, now: Timestamp) -> Duration {
        let begin = self.period_around(now).0;
        let within = |&(from, until): &(u64, u64)| until.min(now.secs()).saturating_sub(from.max(begin));
        Duration::from_secs(self.excluded.iter().map(within).fold(0, u64::saturating_add))
    }

    /// Good and total of its period so far, in whole events or slices, and how much of its budget is spent:
    /// 1 = all.
    pub fn spent(&self, now: Timestamp) -> (u64, u64, f64) {
        let begin = self.period_around(now).0;
        let (good, total) = self.since(now.secs(), begin);
        let spent = self.budget_share(total.saturating_sub(good), total, now);
        let unit = self.unit();
        (good / unit, total / unit, spent)
    }

    /// The one formula of budgets: which share of a period's budget so many bad ones take, where so many were
    /// counted in that period until `now`. 1 = all of it. Whatever is told as left or spent goes by this.
    fn budget_share(&self, bad: u64, total: u64, now: Timestamp) -> f64 {
        bad_rate(bad, total, self.target) * self.part_seen(now)
    }

    /// What was lost between two moments, as they are known `now`: bad ones in the unit of the method, and the
    /// share of the budget that they took. What lies in several periods of a calendar took of the budget of each.
    pub fn lost(&self, now: Timestamp, from: Timestamp, until: Timestamp) -> (u64, f64) {
        let bad_since = |second: u64| {
            let (good, total) = self.since(now.secs(), second);
            (total.saturating_sub(good), total)
        };
        let (mut bad, mut share) = (0u64, 0.0);
        // Of the period that is now, its end is not known to lie before anything.
        let (mut end, mut moment) = (u64::MAX, now);
        for _ in 0..PERIODS_LOST {
            let begin = self.period_around(moment).0;
            let after = if end == u64::MAX { (0, 0) } else { bad_since(end) };
            let total = bad_since(begin).1.saturating_sub(after.1);
            let (first, last) = (from.secs().max(begin), until.secs().min(end));
            if first < last {
                let part = bad_since(first).0.saturating_sub(bad_since(last).0);
                share += self.budget_share(part, total, moment);
                bad = bad.saturating_add(part);
            }
            if from.secs() >= begin || begin == 0 || matches!(self.period, Period::Rolling(_)) {
                break;
            }
            (end, moment) = (begin, Timestamp::from_secs(begin - 1));
        }
        (bad, share)
    }

    /// Until when it only supports other findings, which a default one does for so long after its first count.
    pub fn silent_until(&self, silent: Duration) -> Option<Timestamp> {
        (self.default && self.first != Timestamp::ZERO).then(|| self.first.saturating_add(silent))
    }

    /// Which part of its period what was counted stands for, 0..1. An objective from a file is taken at
    /// its word: what was counted is the period. A default one was made when its service was first
    /// seen; until a period has passed, its budget is that of a whole period at the traffic seen so far.
    /// Else one bad minute in the first hour would overdraw a month's budget several times.
    fn part_seen(&self, now: Timestamp) -> f64 {
        if !self.default || self.first == Timestamp::ZERO {
            return 1.0;
        }
        let seen = now.since(self.first).max(Duration::from_secs(1));
        (seen.as_secs_f64() / self.period.longest().as_secs_f64().max(1.0)).min(1.0)
    }
}

/// How far back its rules and its period look.
fn horizon(period: &Period, rules: &[Rule]) -> u64 {
    let longest = rules.iter().map(Rule::long).max().unwrap_or_default();
    period.longest().max(longest).as_secs()
}

/// What came before a judgement of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before {
    /// It held, so that it need not begin.
    Held,
    /// It ceased to hold so many seconds ago, and begins again only with what came since: what it held for
    /// is no news.
    Ceased(u64),
    Never,
}

/// Whether a rule's condition holds, of what was first counted `seen_s` seconds ago.
pub(super) fn judge(
    rule: &Rule,
    target: f64,
    period: Duration,
    remaining: impl FnOnce() -> f64,
    caution: Caution,
    before: Before,
    seen_s: u64,
    read: impl Fn(u64) -> Reading,
) -> Seen {
    // Of a window that began before anything was counted, what came before is taken to be well: nobody knows
    // better, and seconds of trouble are no three days of it.
    let over_all = |reading: &Reading, seconds: u64| {
        reading.burn * (seen_s.min(seconds).max(1) as f64 / seconds.max(1) as f64)
    };
    let is_enough = |reading: &Reading| {
        reading.bad >= caution.floor
            && (!rule.page()
                || caution.floor <= 1
                || at_least(reading.bad, reading.total, 1.0 - target) <= caution.improbable)
    };
    let begins = |long: &Reading, short_s: u64| match before {
        Before::Held => true,
        Before::Ceased(seconds) if seconds < rule.long().as_secs() => {
            is_enough(&read(seconds)) || is_enough(&read(seconds.min(short_s)))
        }
        Before::Ceased(_) | Before::Never => is_enough(long),
    };
    match rule {
        Rule::Burn(rule) => {
            let (long_s, mut short_s) = (rule.long.as_secs(), rule.short.as_secs());
            let mut short = read(short_s);
            // A window that holds next to nothing says nothing: it is made longer until it does.
            while short.total < caution.floor && short_s < long_s {
                short_s = short_s.saturating_mul(2).clamp(1, long_s);
                short = read(short_s);
            }
            let short_window = Duration::from_secs(short_s);
            // A rounding error must not hide a rate that is just reached.
            let factor = rule.factor * (1.0 - 1e-9);
            if short.burn < factor {
                return Seen { holds: false, long: short, short, short_window };
            }
            let long = if short_s == long_s { short } else { read(long_s) };
            Seen {
                holds: over_all(&long, long_s) >= factor && begins(&long, short_s),
                long,
                short,
                short_window,
            }
        }
        Rule::EndsWithin { within, .. } => {
            let hour = read(3_600);
            let seen = |holds| Seen { holds, long: hour, short: hour, short_window: rule.long() };
            let burn = over_all(&hour, 3_600);
            if burn <= 1.0 {
                return seen(false);
            }
            let left_s = remaining().max(0.0) * period.as_secs_f64() / burn;
            seen(left_s <= within.as_secs_f64() && begins(&hour, 3_600))
        }
        Rule::Dropped { share, over, .. } => {
            let window = read(over.as_secs());
            let spent =
                over_all(&window, over.as_secs()) * over.as_secs_f64() / period.as_secs_f64().max(1.0);
            let holds = spent >= *share && begins(&window, over.as_secs());
            Seen { holds, long: window, short: window, short_window: *over }
        }
    }
}
