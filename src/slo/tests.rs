//! Objectives stepped as the daemon steps them, against plain sums over all that ever happened.

use super::oracle::{MONTH, definition, shop};
use super::{Budgets, Burn, Config, Method, RULES, WINDOWS, at_least, burn_rate};
use crate::aggregate::{Cell, SecondCount};
use crate::journal::Cut;
use crate::model::{SeriesId, Timestamp, WindowId};
use crate::window::{Registry, Tick};

const START: u64 = 1_700_000_000;
const TARGET: f64 = 0.99;
const HOUR: u64 = 3_600;

/// One objective, and everything that was counted for it.
struct World {
    budgets: Budgets,
    registry: Registry,
    series: SeriesId,
    /// Good and total before each second since the start.
    before: Vec<(u64, u64)>,
    /// The last second that brought something.
    latest: u64,
    /// The first second that brought something.
    first: Option<u64>,
    /// Which rows of the table burn, by what was said.
    said: [bool; 4],
    /// When each row ceased to burn.
    ceased: [Option<u64>; 4],
    /// (second, row, whether it burns), at each change.
    changes: Vec<(u64, usize, bool)>,
}

impl World {
    /// With an objective from a file, or else the default one.
    fn new(from_file: bool) -> Self {
        let definition = definition("shop-ok", TARGET, Method::Occurrences, MONTH);
        let config = Config { default: !from_file, ..Config::default() };
        let definitions = if from_file { vec![definition] } else { Vec::new() };
        let (series, registry) = shop();
        let mut world = Self {
            budgets: Budgets::new(config, definitions),
            registry,
            series,
            before: vec![(0, 0)],
            latest: 0,
            first: None,
            said: [false; 4],
            ceased: [None; 4],
            changes: Vec::new(),
        };
        let first = world.tick(0);
        let seen = (world.series, WindowId(START / 10), Cell::Requests(Box::default()));
        world.budgets.step(&Tick { changed: vec![seen], ..first }, &world.registry);
        assert_eq!(world.budgets.indicators().len(), 1, "the objective is made with the first request");
        world
    }

    fn tick(&self, second: u64) -> Tick {
        let arrived = Timestamp::from_secs(START + second);
        Tick { cut: Cut { number: START + second, arrived, ..Cut::default() }, ..Tick::default() }
    }

    /// The next second, with what it brought; whether rows burn afterwards is compared with the oracle.
    fn second(&mut self, good: u64, total: u64) {
        let second = self.before.len() as u64 - 1;
        let &(g, t) = self.before.last().expect("there is a first one");
        self.before.push((g + good, t + total));
        let mut tick = self.tick(second);
        if total > 0 {
            let id = self.budgets.indicators()[0].id;
            tick.indicators = vec![(id, SecondCount { second: START + second, good, total })];
        }
        let burns = self.budgets.step(&tick, &self.registry);
        // Judged each second that brings something; between, as windows move on, while any row burns.
        if total > 0 {
            self.latest = second;
            self.first.get_or_insert(second);
        }
        let every = match second - self.latest {
            0..60 => 10,
            60..7_200 => 60,
            _ => 600,
        };
        let judged = total > 0 || self.said != [false; 4] && tick.cut.number.is_multiple_of(every);
        let expected: Vec<bool> =
            (0..4).map(|row| if judged { self.oracle(second, row) } else { self.said[row] }).collect();
        for (row, rule) in RULES.iter().enumerate() {
            let own = |burn: &&Burn| burn.long == rule.long && burn.short == rule.short;
            let said = burns.iter().find(own).map(|burn| burn.burning);
            let now = said.unwrap_or(self.said[row]);
            assert_eq!(now, expected[row], "row {row} of the table, second {second}: {burns:?}");
            if now != self.said[row] {
                self.changes.push((second, row, now));
                self.ceased[row] = (!now).then_some(second);
            }
            self.said[row] = now;
        }
    }

    /// Good and total of the last `window` seconds, its edge on the grain of its age.
    fn sum(&self, second: u64, window: u64) -> (u64, u64) {
        let grain = if window <= 2 * HOUR { 1 } else { 10 };
        let edge = ((START + second - window) / grain * grain).saturating_sub(START);
        let (all, before) = (self.before[second as usize + 1], self.before[edge as usize]);
        (all.0 - before.0, all.1 - before.1)
    }

    /// The workbook's condition: both windows burn faster than the row's factor, the short one made longer
    /// until it holds three requests, and what came before the first request counted as well. Beginning also
    /// takes three bad requests in the long window; if the row ceased to burn within it, three since then, or
    /// in so much of the short one.
    fn oracle(&self, second: u64, row: usize) -> bool {
        let rule = RULES[row];
        let short_s = (0..)
            .map(|doubled| (rule.short.as_secs() << doubled).min(rule.long.as_secs()))
            .find(|&seconds| self.sum(second, seconds).1 >= 3 || seconds == rule.long.as_secs())
            .expect("the long window is the last");
        let (good, total) = self.sum(second, short_s);
        let (long_good, long_total) = self.sum(second, rule.long.as_secs());
        let factor = rule.factor * (1.0 - 1e-9);
        let long_s = rule.long.as_secs();
        let part = (second - self.first.unwrap_or(second)).clamp(1, long_s) as f64 / long_s as f64;
        let is_enough = |(good, total)| total - good >= 3 && self.is_improbable(row, good, total);
        let since = self.ceased[row].map_or(long_s, |ceased| second - ceased);
        let begins = if since < long_s {
            is_enough(self.sum(second, since)) || is_enough(self.sum(second, since.min(short_s)))
        } else {
            is_enough((long_good, long_total))
        };
        burn_rate(good, total, TARGET) >= factor
            && burn_rate(long_good, long_total, TARGET) * part >= factor
            && (self.said[row] || begins)
    }

    /// A page takes bad requests that are less probable than one in a hundred, were the target met: summed
    /// from the other side, term by term.
    fn is_improbable(&self, row: usize, good: u64, total: u64) -> bool {
        let bad = total - good;
        if !RULES[row].page {
            return true;
        }
        if bad > 60 {
            // Where terms are too small to be summed.
            return at_least(bad, total, 1.0 - TARGET) <= 0.01;
        }
        let (mut term, mut fewer) = (TARGET.powf(total as f64), 0.0);
        for k in 0..bad {
            fewer += term;
            term *= (total - k) as f64 / (k + 1) as f64 * (1.0 - TARGET) / TARGET;
        }
        1.0 - fewer <= 0.01
    }
}

#[test]
fn every_row_of_the_workbooks_table_fires_and_resets_where_the_oracle_does() {
    let factors: Vec<(u64, u64, f64, bool)> = RULES
        .iter()
        .map(|rule| (rule.long.as_secs() / HOUR, rule.short.as_secs() / 60, rule.factor, rule.page))
        .collect();
    assert_eq!(
        factors,
        [(1, 5, 14.4, true), (6, 30, 6.0, true), (24, 120, 3.0, false), (72, 360, 1.0, false)]
    );

    for seed in 0..3 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(true);
        let (mut fired, mut reset) = ([0; 4], [0; 4]);
        // Six days of phases of random length, each with its own share of failures; some bring nothing.
        let (mut left, mut rate, mut bad) = (0u64, 0u64, 0.0);
        for _ in 0..6 * 86_400 {
            if left == 0 {
                left = random.u64(60..6 * HOUR);
                rate = random.u64(0..8);
                bad = [0.0, 0.001, 0.012, 0.04, 0.08, 0.2, 1.0][random.usize(0..7)];
            }
            left -= 1;
            // A request every few seconds, several at once.
            let total = if random.u64(0..9) == 0 { rate } else { 0 };
            let failed = (0..total).filter(|_| random.f64() < bad).count() as u64;
            world.second(total - failed, total);
        }
        for &(_, row, burning) in &world.changes {
            let counts = if burning { &mut fired } else { &mut reset };
            counts[row] += 1;
        }
        assert!(fired.iter().chain(&reset).all(|n| *n > 0), "seed {seed}: fired {fired:?}, reset {reset:?}");
    }
}

#[test]
fn an_outage_fires_and_resets_each_row_at_the_second_that_arithmetic_gives() {
    let mut world = World::new(true);
    for _ in 0..73 * HOUR {
        world.second(1, 1);
    }
    let outage = world.before.len() as u64 - 1;
    // Everything fails until the last row fires, after 1 % of 72 hours.
    while !world.said[3] {
        world.second(0, 1);
    }
    let over = world.before.len() as u64 - 1;
    while world.said.iter().any(|burns| *burns) {
        world.second(1, 1);
    }
    for (row, rule) in RULES.iter().enumerate() {
        let at = |burning| {
            let change = world.changes.iter().find(|change| change.1 == row && change.2 == burning);
            change.expect("it fires once, and resets").0
        };
        let bad_share = rule.factor * (1.0 - TARGET);
        // Fires when that share of the long window failed. An edge on a coarse grain holds ten seconds more.
        let fires = bad_share * rule.long.as_secs_f64();
        let took = (at(true) + 1 - outage) as f64;
        assert!((fires..=fires + 2.0).contains(&took), "row {row} fired after {took} s, not {fires}");
        // Resets when less than that share of the short window, or of the long one, is the outage.
        let resets = (1.0 - bad_share) * rule.short.as_secs_f64();
        let took = (at(false) + 1 - over) as f64;
        assert!(took <= resets + 12.0, "row {row} was reset after {took} s, not {resets}");
    }
    assert_eq!(world.changes.len(), 8, "each row fires once and resets once: {:?}", world.changes);
}

#[test]
fn minutes_of_trouble_do_not_use_up_a_default_budget_of_a_month() {
    let left = |from_file| {
        let mut world = World::new(from_file);
        for second in 0..620 {
            // Seven of a hundred fail in the last minutes.
            world.second(if second < 300 { 100 } else { 93 }, 100);
        }
        let published = world.budgets.published().load_full();
        let budget = published.first().expect("one objective").clone();
        (budget.budget_remaining_ratio, budget.exhausted_at.is_some(), budget.good, budget.total)
    };
    let (remaining, exhausted, good, total) = left(false);
    let (spent, part) = ((total - good) as f64 / total as f64 / 0.01, 610.0 / (30.0 * 86_400.0));
    assert!((remaining - (1.0 - spent * part)).abs() < 1e-5, "{remaining}");
    assert!(!exhausted && remaining > 0.999);
    // Who wrote an objective down gets what the counts say.
    let (remaining, exhausted, good, total) = left(true);
    assert!((remaining - (1.0 - (total - good) as f64 / (total as f64 * (1.0 - TARGET)))).abs() < 1e-9);
    assert!(exhausted && remaining < -1.0);
}

#[test]
fn windows_and_rows_name_the_same_lengths() {
    for rule in RULES {
        for length in [rule.long, rule.short] {
            assert!(WINDOWS.iter().any(|&(_, seconds)| seconds == length.as_secs()));
        }
    }
}
