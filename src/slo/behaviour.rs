//! What people see: pages of quiet services, states of data, adjustments, and the six approaches of the SRE
//! workbook's chapter 5.

use super::oracle::{MONTH, begun, counted, definition, shop, tick};
use super::{
    Adjustment, Budgets, Burn, BurnRule, Calendar, Config, Counting, DataState, Definition, Method, Period,
    RULES, Rule, Undone, Unit, in_words, of_checks,
};
use crate::aggregate::{Cell, Lines, Meaning, Source, Users};
use crate::model::{SeriesKey, ServiceKey, Signal, SpanKind, Timestamp, WindowId};
use crate::probe::Check;
use crate::settings::Setting as _;
use crate::window::Tick;
use std::sync::Arc;
use std::time::Duration;

const START: u64 = 1_700_000_000;

fn config() -> Config {
    Config { default: false, ..Config::default() }
}

fn with_rules(name: &str, target: f64, rules: Vec<Rule>) -> Definition {
    Definition { rules: Some(rules), ..definition(name, target, Method::Occurrences, MONTH) }
}

fn pages(burns: &[Burn]) -> usize {
    burns.iter().filter(|burn| burn.page && burn.burning).count()
}

/// Ten requests an hour, one every six minutes; which of them fail.
fn quiet_service(target: f64, failing: impl Fn(u64) -> bool) -> (Vec<(u64, Burn)>, Option<String>) {
    let of = definition("shop-ok", target, Method::Occurrences, MONTH);
    let (mut budgets, registry) = begun(&config(), &[of], START);
    let (mut said, mut words) = (Vec::new(), None);
    for second in 1..48 * 3_600u64 {
        let now = START + second;
        let number = second / 360;
        let step = if second.is_multiple_of(360) {
            counted(&budgets, now, now, u64::from(!failing(number)), 1)
        } else {
            tick(now)
        };
        for burn in budgets.step(&step, &registry) {
            said.push((number, burn));
        }
        let all = budgets.published().load_full();
        if said.iter().any(|(_, burn)| burn.burning) && words.is_none() {
            words = in_words(&all, &ServiceKey::named("shop"), &[]).filter(|text| text.contains(" bad)"));
        }
    }
    (said, words)
}

#[test]
fn one_failure_of_a_quiet_service_pages_nobody_and_three_in_a_row_do() {
    for target in [0.99, 0.999] {
        for every in [97, 50] {
            let (said, _) = quiet_service(target, |number| number.is_multiple_of(every));
            assert_eq!(said.iter().filter(|(_, burn)| burn.page).count(), 0, "{target} {every}");
        }
        let (said, words) = quiet_service(target, |number| (100..103).contains(&number));
        let page = said.iter().find(|(_, burn)| burn.page && burn.burning).expect("a page");
        assert_eq!(page.0, 102, "with the third");
        assert!(page.1.bad == 3 && (10..=11).contains(&page.1.total), "the counts are told: {page:?}");
        let text = words.expect("in words");
        assert!(text.contains("(3 of ") && text.contains(" bad)"), "{text}");
        // It is reset by three that succeed in a row, once, and does not come back.
        let of_pages: Vec<_> = said.iter().filter(|(_, burn)| burn.page && burn.factor > 14.0).collect();
        let ends: Vec<u64> =
            of_pages.iter().filter(|(_, burn)| !burn.burning).map(|(number, _)| *number).collect();
        assert_eq!(ends.len(), 1, "{ends:?}");
        assert!((104..=106).contains(&ends[0]), "{ends:?}");
    }
}

#[test]
fn what_burns_began_when_it_did_and_not_a_window_ago() {
    const HEALTHY: u64 = 7_000;
    for (target, failing) in [(0.99, 20), (0.99, 8), (0.999, 20), (0.999, 1)] {
        let of = definition("shop-ok", target, Method::Occurrences, MONTH);
        let (mut budgets, registry) = begun(&config(), &[of], START);
        let fault = START + HEALTHY;
        let first = (START + 1..fault + 3_600).find_map(|now| {
            // Of twenty requests a second: one in 2,000 fails as ever.
            let bad = if now >= fault { failing } else { u64::from(now.is_multiple_of(100)) };
            let burns = budgets.step(&counted(&budgets, now, now, 20 - bad, 20), &registry);
            burns.into_iter().find(|burn| burn.burning)
        });
        let burn = first.expect("it burns");
        let off = burn.since.secs().abs_diff(fault);
        assert!(off <= 2, "{target}, {failing} of 20: {off} s from when it began, told at {}", burn.at);
    }
    // Of ten requests an hour, after the last one that was good.
    let (said, _) = quiet_service(0.99, |number| (100..103).contains(&number));
    let (_, page) = said.iter().find(|(_, burn)| burn.page && burn.burning).expect("a page");
    let since = page.since.secs() - START;
    assert!((99 * 360..=100 * 360).contains(&since), "{since}");
}

#[test]
fn the_four_states_of_data_are_neither_good_nor_bad_and_page_nobody() {
    let of = definition("shop-ok", 0.999, Method::Occurrences, MONTH);
    let (series, registry) = shop();
    let logs = SeriesKey {
        service: ServiceKey::named("shop"),
        signal: Signal::Logs,
        operation: "".into(),
        kind: SpanKind::Unspecified,
        entry: false,
        unit: "".into(),
        attributes: Vec::new(),
    };
    let logs_id = logs.id();
    registry.add(logs_id, Arc::new(logs), 0);
    let mut budgets = Budgets::new(config(), vec![of]);
    let mut said = Vec::new();
    // Each row: what comes each second for so many seconds, and the state at the end.
    let rows = [
        ("serving", 600, true, true, DataState::Ok),
        ("half of the instances gone", 300, true, true, DataState::Ok),
        ("no traffic", 120, false, true, DataState::Quiet),
        ("serving again", 60, true, true, DataState::Ok),
        ("a deploy's gap", 20, false, false, DataState::Ok),
        ("after the deploy", 60, true, true, DataState::Ok),
        ("exporter gone", 120, false, false, DataState::Silent),
        ("scaled to zero", 3_700, false, false, DataState::Gone),
        ("back", 60, true, true, DataState::Ok),
    ];
    let (mut now, mut total) = (START, 0);
    for (what, seconds, requests, lines, state) in rows {
        for _ in 0..seconds {
            now += 1;
            let window = WindowId(now / 10);
            let mut changed = Vec::new();
            if requests {
                changed.push((series, window, Cell::Requests(Box::default())));
            }
            if lines {
                changed.push((logs_id, window, Cell::Lines(Lines::default())));
            }
            let counted_one = requests && !budgets.indicators().is_empty();
            total += u64::from(counted_one);
            let of = if counted_one { counted(&budgets, now, now, 1, 1) } else { tick(now) };
            said.extend(budgets.step(&Tick { changed, ..of }, &registry));
        }
        // A second to be published.
        while budgets.published().load().first().is_none_or(|budget| budget.published_at.secs() + 600 < now) {
            now += 1;
            said.extend(budgets.step(&tick(now), &registry));
        }
        let all = budgets.published().load_full();
        assert_eq!(all[0].state, state, "{what}");
        assert_eq!(all[0].budget_remaining_ratio, 1.0, "{what}");
    }
    let all = budgets.published().load_full();
    assert!(all[0].good == all[0].total && total - all[0].total <= 10);
    assert_eq!(said.len(), 0, "{said:?}");
}

#[test]
fn it_is_known_why_nothing_was_told() {
    // So many seconds of ten requests of which so many fail, then well for so long.
    let untold = |rules: Option<Vec<Rule>>, seconds: u64, bad: u64, well: u64| {
        let of = Definition { rules, ..definition("shop-ok", 0.99, Method::Occurrences, MONTH) };
        let (mut budgets, registry) = begun(&config(), &[of], START);
        for second in 1..=seconds + well {
            let bad = if second <= seconds { bad } else { 0 };
            let now = START + second;
            assert_eq!(pages(&budgets.step(&counted(&budgets, now, now, 10 - bad, 10), &registry)), 0);
        }
        let [one] = &budgets.counted()[..] else { panic!("one objective") };
        (one.left, one.untold.clone())
    };
    assert_eq!(untold(None, 30, 0, 0), (1.0, None));
    let (left, why) = untold(None, 31, 10, 0);
    assert!((left + 99.0).abs() < 1e-9, "{left}");
    assert_eq!(
        why.as_deref(),
        Some(
            "only 30 s were counted: over the whole 60 min of a rule its burn rate was 0.8, and 14.4 is asked for"
        )
    );
    let why = |rules, seconds, bad, well| untold(rules, seconds, bad, well).1.expect("something bad");
    assert_eq!(why(None, 1, 2, 60), "a rule begins with 3 bad ones (slo.bad_requests)");
    assert_eq!(why(Some(Vec::new()), 30, 5, 0), "it has no alerts of its own");
    let quick =
        BurnRule { long: Duration::from_secs(60), short: Duration::from_secs(30), factor: 60.0, ..RULES[0] };
    assert_eq!(
        why(Some(vec![Rule::Burn(quick)]), 30, 5, 60),
        "too slowly or too briefly for any of its rules, or too few to be sure"
    );
}

#[test]
fn an_adjustment_gives_the_budget_back_ends_the_page_and_can_be_undone() {
    const OUTAGE: u64 = 1_200;
    let of = definition("shop-ok", 0.99, Method::Occurrences, MONTH);
    let (mut budgets, registry) = begun(&config(), &[of], START);
    let run = |budgets: &mut Budgets, from: u64, seconds: u64, bad: u64| {
        let mut said = Vec::new();
        for now in from..from + seconds {
            said.extend(budgets.step(&counted(budgets, now, now, 10 - bad, 10), &registry));
        }
        said
    };
    let left = |budgets: &Budgets| budgets.published().load()[0].budget_remaining_ratio;
    assert_eq!(pages(&run(&mut budgets, START + 1, 3_600, 0)), 0);
    let begin = START + 3_601;
    assert!(pages(&run(&mut budgets, begin, OUTAGE, 5)) > 0);
    let burnt = left(&budgets);
    assert!(burnt < -5.0, "{burnt}");
    let shop = ServiceKey::named("shop");
    let during = |budgets: &Budgets, from, until| {
        budgets.lost(&[&shop].into(), Timestamp::from_secs(from), Timestamp::from_secs(until))
    };
    let lost = during(&budgets, begin, begin + OUTAGE);
    assert_eq!((lost[0].slo.as_str(), lost[0].bad), ("shop-ok", 5 * OUTAGE));
    assert!(during(&budgets, begin - 600, begin).is_empty(), "nothing was lost before");
    let mut adjustment = Adjustment {
        adjustment: "1".into(),
        slo: "shop-ok".into(),
        service: "shop".into(),
        from: Timestamp::from_secs(begin),
        until: Timestamp::from_secs(begin + OUTAGE),
        author: "ada".into(),
        reason: "the data base was moved".into(),
        incident: Some("00000000000000aa".into()),
        told_at: Timestamp::from_secs(begin + OUTAGE),
        undone: None,
    };
    budgets.adjust(adjustment.clone());
    let said = run(&mut budgets, begin + OUTAGE, 10, 0);
    assert!(said.iter().any(|burn| burn.page && !burn.burning), "the page ends: {said:?}");
    assert_eq!(left(&budgets), 1.0);
    // It outlives a restart.
    let state = budgets.state();
    budgets.restore_state(&state).expect("its own state");
    assert_eq!(budgets.adjustments(), std::slice::from_ref(&adjustment));
    let (author, reason) = ("bob".into(), "it was us".into());
    adjustment.undone = Some(Undone { author, reason, at: Timestamp::from_secs(begin + OUTAGE + 100) });
    budgets.adjust(adjustment.clone());
    let said = run(&mut budgets, begin + OUTAGE + 10, 10, 0);
    assert!(pages(&said) > 0, "it burns again: {said:?}");
    assert!(left(&budgets) < -5.0);
    assert_eq!(budgets.adjustments().len(), 1, "both stay on record");
    let other = Adjustment { slo: "another".into(), undone: None, adjustment: "2".into(), ..adjustment };
    budgets.adjust(other);
    run(&mut budgets, begin + OUTAGE + 20, 20, 0);
    assert!(left(&budgets) < -5.0, "that of another objective changes nothing");
}

#[test]
fn what_is_taken_out_of_a_composite_is_taken_out_of_its_parts() {
    let whole = Definition {
        name: "whole".into(),
        parts: Vec::new(),
        composed_of: vec![("part".into(), 1.0)],
        ..definition("whole", 0.99, Method::Occurrences, MONTH)
    };
    let of = |name: &str| definition(name, 0.99, Method::Occurrences, MONTH);
    let (mut budgets, registry) = begun(&config(), &[of("part"), of("other"), whole], START);
    let run = |budgets: &mut Budgets, from: u64, seconds: u64, bad: u64| {
        for now in from..from + seconds {
            budgets.step(&counted(budgets, now, now, 10 - bad, 10), &registry);
        }
    };
    run(&mut budgets, START + 1, 600, 0);
    run(&mut budgets, START + 601, 600, 5);
    budgets.adjust(Adjustment {
        adjustment: "1".into(),
        slo: "whole".into(),
        service: String::new(),
        from: Timestamp::from_secs(START + 601),
        until: Timestamp::from_secs(START + 1_201),
        author: "ada".into(),
        reason: "maintenance".into(),
        incident: None,
        told_at: Timestamp::from_secs(START + 1_201),
        undone: None,
    });
    run(&mut budgets, START + 1_201, 120, 0);
    let all = budgets.published().load_full();
    let excluded = |name: &str| {
        let of = all.iter().find(|of| of.slo == name).expect("its budget");
        (of.excluded.as_secs(), of.budget_remaining_ratio == 1.0)
    };
    // Widened to whole minutes.
    assert_eq!(excluded("part"), (660, true));
    assert_eq!(excluded("whole"), (660, true));
    assert_eq!(excluded("other"), (0, false));
}

#[test]
fn points_of_a_share_are_told_as_points() {
    let counted_as = Meaning::Ratio { of_good: true };
    let source = Source::Metric { name: "success.ratio".into(), counted: counted_as };
    let parts = vec![Counting { source, only: Vec::new() }];
    let minute = Duration::from_secs(60);
    let rule = Rule::Burn(BurnRule { long: minute, short: minute, factor: 4.0, ..RULES[0] });
    let of = Definition { parts, ..with_rules("share", 0.9, vec![rule]) };
    let (mut budgets, registry) = begun(&config(), &[of], START);
    let mut burns = Vec::new();
    for second in 1..=120 {
        let now = START + second;
        let good = if second > 60 { 200_000 } else { 1_000_000 };
        burns.extend(budgets.step(&counted(&budgets, now, now, good, 1_000_000), &registry));
    }
    let all = budgets.published().load_full();
    assert_eq!((all[0].good, all[0].total), (72, 120), "60 whole ones and 60 fifths");
    let (window, seen) = (all[0].burn[0].0, all[0].seen[0]);
    assert_eq!((window, seen), ("5m", (48, 120)));
    let burn = burns.iter().find(|burn| burn.burning).expect("it burns");
    assert!(
        (60..=61).contains(&burn.total) && (24..=31).contains(&burn.bad),
        "half of it and a little: {burn:?}"
    );
    let at = Timestamp::from_secs(START + 60);
    let lost = budgets.lost(&[&ServiceKey::named("shop")].into(), at, Timestamp::from_secs(START + 120));
    assert!((47..=48).contains(&lost[0].bad), "{lost:?}");
}

#[test]
fn a_checks_page_ends_when_as_many_runs_were_good_as_had_to_fail() {
    let table = r#"{ name = "front", url = "http://127.0.0.1:1/", every = "10s" }"#.parse().expect("a table");
    let check = Check::read(&table).expect("a check");
    let of = Definition { service: "shop".into(), ..of_checks(&[check]).pop().expect("its objective") };
    // Runs that fail, those that are good and those that fail again, at each phase of the windows.
    for phase in 0..10 {
        let (mut budgets, registry) = begun(&config(), std::slice::from_ref(&of), START);
        let mut said = Vec::new();
        for second in 1..400 {
            let now = START + second;
            let step = if (second + phase).is_multiple_of(10) {
                let fails = (100..200).contains(&second) && !(150..160).contains(&second);
                counted(&budgets, now, now, u64::from(!fails), 1)
            } else {
                tick(now)
            };
            let burns = budgets.step(&step, &registry);
            said.extend(burns.into_iter().filter(|burn| burn.page).map(|burn| (second, burn.burning)));
        }
        let ends: Vec<u64> = said.iter().filter(|of| !of.1).map(|of| of.0).collect();
        assert!(said.first().is_some_and(|of| of.1 && (120..130).contains(&of.0)), "{phase}: {said:?}");
        assert_eq!(ends.len(), 1, "one good run between them ends nothing: {phase}: {said:?}");
        // With the third good run of a row, or at most two later.
        assert!((220..=250).contains(&ends[0]), "{phase}: {said:?}");
    }
}

#[test]
fn the_end_of_a_budget_and_its_fall_are_told() {
    let within = Duration::from_secs(86_400);
    let rules = vec![
        Rule::EndsWithin { within, page: false },
        Rule::Dropped { share: 0.02, over: Duration::from_secs(3_600), page: true },
    ];
    let (mut budgets, registry) = begun(&config(), &[with_rules("shop-ok", 0.99, rules)], START);
    let mut first = [None, None];
    for second in 1..10 * 86_400 / 10 {
        let now = START + second * 10;
        // Nothing fails for eight days; then a fifth does.
        let good = if now < START + 8 * 86_400 { 100 } else { 80 };
        for burn in budgets.step(&counted(&budgets, now, now, good, 100), &registry) {
            let kind = usize::from(burn.long == Duration::from_secs(3_600) && burn.page);
            if burn.burning && first[kind].is_none() {
                first[kind] = Some(now - START - 8 * 86_400);
            }
        }
    }
    // 2 % of 30 days' budget in an hour: burning 14.4 times too fast, at 20 % errors after 14.4/20 hours.
    let dropped = first[1].expect("told");
    assert!(dropped.abs_diff(2_592) <= 20, "{dropped}");
    // It ends in a day when what is left of it, times 30 days, is less than a day at the rate of an hour.
    let (mut expected, mut bad, mut total) = (0, 0.0, 8.0 * 8_640.0 * 100.0);
    loop {
        expected += 10;
        (bad, total) = (bad + 20.0, total + 100.0);
        let hour = (expected as f64 / 3_600.0).min(1.0) * 0.2 / 0.01;
        let left: f64 = 1.0 - bad / total / 0.01;
        if hour > 1.0 && left.max(0.0) * 30.0 / hour <= 1.0 {
            break;
        }
    }
    let ends = first[0].expect("told");
    assert!(ends.abs_diff(expected) <= 20, "{ends}, by the formula {expected}");
    let all = budgets.published().load_full();
    assert!(all[0].exhausted_at.is_some() && all[0].ends_at.is_none());
}

/// What is left and what faults took of it are one figure: from the first minute on, with a request a minute, over
/// the end of a calendar's day, of slices of time, and of a composite's parts.
#[test]
fn what_is_left_is_what_faults_did_not_take() {
    let day = Period::Calendar(Calendar {
        from: "2026-01-01T00:00:00".parse().expect("a date"),
        time_zone: "UTC".into(),
        unit: Unit::Day,
        count: 1,
    });
    let slices = Method::RatioTimeslices { slice_s: 60 };
    let own = [
        definition("month", 0.99, Method::Occurrences, MONTH),
        definition("day", 0.99, Method::Occurrences, day),
        definition("slices", 0.9, slices, MONTH),
    ];
    // START is at 22:13:20 UTC. Faults from whole minutes on: one in the third of them, one over midnight.
    let faults = [(100, 160), (5_440, 7_240)];
    let midnight = START.next_multiple_of(86_400) - START;
    assert!((faults[1].0..faults[1].1).contains(&midnight));
    for (every_s, default) in [(1, false), (60, false), (1, true)] {
        let config = Config { default, ..config() };
        let (mut budgets, registry) = begun(&config, if default { &[] } else { &own }, START);
        let at = |second: u64| Timestamp::from_secs(START + second);
        let mut compared = 0;
        for second in 1..10_000u64 {
            let event = second - 1;
            let is_bad = faults.iter().any(|(from, until)| (*from..*until).contains(&event));
            let step = if second.is_multiple_of(every_s) {
                counted(&budgets, START + second, START + event, u64::from(!is_bad), 1)
            } else {
                tick(START + second)
            };
            budgets.step(&step, &registry);
            let all = budgets.published().load_full();
            // A slice counts when it is over.
            if all.iter().any(|of| of.published_at != at(second)) || !(START + second).is_multiple_of(60) {
                continue;
            }
            let lost = |from: u64, until: u64, slo: &str| {
                let lost = budgets.lost(&[&ServiceKey::named("shop")].into(), at(from), at(until));
                lost.into_iter().find(|lost| lost.slo == slo).map_or((0, 0.0), |lost| (lost.bad, lost.share))
            };
            for budget in all.iter() {
                let begin = if budget.slo == "day" && second >= midnight { midnight } else { 0 };
                let taken: f64 = faults
                    .map(|(from, until)| lost(from.max(begin), until.min(second).max(begin), &budget.slo).1)
                    .iter()
                    .sum();
                let left = budget.budget_remaining_ratio;
                assert!((left + taken - 1.0).abs() < 1e-9, "{} after {second} s: {left} {taken}", budget.slo);
                compared += usize::from(taken > 0.0);
            }
        }
        assert!(compared > 100, "{compared}");
        if !default {
            let lost = budgets.lost(&[&ServiceKey::named("shop")].into(), at(faults[1].0), at(faults[1].1));
            let day = lost.iter().find(|lost| lost.slo == "day").expect("it lost something");
            assert_eq!(day.bad, 1_800 / every_s, "those before midnight count, too");
            let before = (midnight - faults[1].0) as f64 / midnight as f64 / 0.01;
            let after = (faults[1].1 - midnight) as f64 / (9_999 - midnight) as f64 / 0.01;
            assert!((day.share / (before + after) - 1.0).abs() < 0.05, "{} {before} {after}", day.share);
        }
    }
}

#[test]
fn users_affected_are_counted_over_time_and_a_restart() {
    let of = Definition {
        users: Some("session.id".into()),
        ..definition("shop-ok", 0.99, Method::Occurrences, MONTH)
    };
    let (mut budgets, registry) = begun(&config(), std::slice::from_ref(&of), START);
    assert_eq!(budgets.indicators()[0].users.as_deref(), Some("session.id"));
    let mut disk = std::collections::BTreeMap::new();
    for second in (10..6 * 3_600u64).step_by(10) {
        let now = START + second;
        let mut tick = counted(&budgets, now, now, 9, 10);
        // A new user every ten seconds stays for a minute; of the fifth hour, every second one is affected.
        let mut users = Users::default();
        for user in second.saturating_sub(60) / 10..=second / 10 {
            users.all.insert(&user.to_le_bytes());
            if user % 2 == 0 && (4 * 3_600..5 * 3_600).contains(&second) {
                users.affected.insert(&user.to_le_bytes());
            }
        }
        tick.users = vec![(budgets.indicators()[0].id, users)];
        budgets.step(&tick, &registry);
        if second % 1_000 == 0 {
            // A checkpoint, and a restart from all that was ever kept.
            let (head, pieces) = (budgets.head(), budgets.unsaved());
            budgets.saved(&pieces);
            disk.extend(pieces.put);
            pieces.remove.iter().for_each(|key| drop(disk.remove(key)));
            let whole = budgets.state();
            budgets = super::Budgets::new(config(), vec![of.clone()]);
            budgets
                .restore(&head, disk.iter().map(|(key, bytes)| (*key, bytes.as_slice())))
                .expect("its own");
            assert_eq!(budgets.state(), whole, "second {second}");
        }
    }
    let shop = ServiceKey::named("shop");
    let between = |from: u64, to: u64| {
        let at = |second| Timestamp::from_secs(START + second);
        budgets.users(&[&shop].into(), at(from), at(to)).expect("somebody is there")
    };
    // Slots of five minutes begin earlier, and END later, than what is asked for; START is no multiple of them.
    let (affected, all) = between(4 * 3_600, 5 * 3_600);
    assert!(affected.abs_diff(183) <= 1, "{affected}");
    assert!((360..=430).contains(&all), "{all}");
    let (affected, _) = between(5 * 3_600 + 600, 6 * 3_600);
    assert_eq!(affected, 0);
    let (_, all) = between(0, 6 * 3_600);
    assert!(all.abs_diff(2_160) <= 43, "{all} to two percent");
    assert!(budgets.published().load()[0].users.is_some());
}

#[test]
fn words_say_when_a_budget_ends() {
    let (mut budgets, registry) = begun(
        &Config { time_zone: "Europe/Berlin".into(), ..config() },
        &[definition("shop-ok", 0.99, Method::Occurrences, MONTH)],
        START,
    );
    for second in 1..3 * 86_400 / 10 {
        let now = START + second * 10;
        let good = if second < 3 * 8_640 - 400 { 1_000 } else { 970 };
        budgets.step(&counted(&budgets, now, now, good, 1_000), &registry);
    }
    let all = budgets.published().load_full();
    let budget = &all[0];
    let ends = budget.ends_at.expect("it ends");
    let burn = budget.burn.iter().find(|(name, _)| *name == "1h").expect("an hour").1;
    let left_s = budget.budget_remaining_ratio * 30.0 * 86_400.0 / burn;
    assert!((ends.since(budget.published_at).as_secs_f64() - left_s).abs() < 1.0);
    let text = in_words(&all, &ServiceKey::named("shop"), &[]).expect("text");
    assert!(text.contains(". At this rate the budget ends on ") && text.contains(" at "), "{text}");
}

/// The workbook's six approaches, as rules, all for 99.9 % over 30 days.
fn approaches() -> Vec<(&'static str, Vec<(u64, u64, f64, u64)>)> {
    let hour = 3_600;
    vec![
        ("1: error rate over 10 min", vec![(600, 600, 1.0, 0)]),
        ("2: error rate over 36 h", vec![(36 * hour, 36 * hour, 1.0, 0)]),
        ("3: error rate over 1 min, for 1 h", vec![(60, 60, 1.0, hour)]),
        ("4: burn rate", vec![(hour, hour, 36.0, 0)]),
        (
            "5: several burn rates",
            vec![(hour, hour, 14.4, 0), (6 * hour, 6 * hour, 6.0, 0), (72 * hour, 72 * hour, 1.0, 0)],
        ),
        ("6: several windows", RULES.map(|r| (r.long.as_secs(), r.short.as_secs(), r.factor, 0)).to_vec()),
    ]
}

/// Detection and reset time in seconds, from the formulas: a window of W seconds that asks for the burn rate
/// f is reached after W·f·(1 − SLO)/error; it falls below W·(1 − f·(1 − SLO)/error) after the end.
fn formulas(rows: &[(u64, u64, f64, u64)], errors: f64) -> Option<(f64, f64)> {
    let part = |factor: f64| factor * 0.001 / errors;
    let reached = rows.iter().filter(|(_, _, factor, _)| part(*factor) <= 1.0 + 1e-9);
    let detected = reached.clone().map(|&(long, _, factor, after)| long as f64 * part(factor) + after as f64);
    let reset = reached.map(|&(_, short, factor, _)| short as f64 * (1.0 - part(factor)).max(0.0));
    Some((detected.min_by(f64::total_cmp)?, reset.max_by(f64::total_cmp)?))
}

#[test]
fn the_six_approaches_detect_and_reset_where_the_formulas_say() {
    const STEP: u64 = 20;
    let definitions: Vec<Definition> = approaches()
        .into_iter()
        .map(|(name, rows)| {
            let rules = rows.into_iter().map(|(long, short, factor, after)| {
                let (long, short) = (Duration::from_secs(long), Duration::from_secs(short));
                Rule::Burn(BurnRule {
                    long,
                    short,
                    factor,
                    page: false,
                    after: Duration::from_secs(after),
                    ..RULES[0]
                })
            });
            with_rules(name, 0.999, rules.collect())
        })
        .collect();
    let mut table = String::new();
    for errors in [0.001f64, 0.01, 0.1, 1.0] {
        let (mut budgets, registry) = begun(&config(), &definitions, START);
        let mut holding = [0u32; 6];
        let (mut detected, mut reset) = ([None; 6], [None; 6]);
        let (begin, end) = (START + 73 * 3_600, START + 153 * 3_600);
        let mut now = START;
        while now < end + 80 * 3_600 {
            now += STEP;
            let bad =
                if (begin..end).contains(&(now - STEP)) { (errors * 20_000.0).round() as u64 } else { 0 };
            for burn in budgets.step(&counted(&budgets, now, now - STEP / 2, 20_000 - bad, 20_000), &registry)
            {
                let at = definitions.iter().position(|of| of.name == burn.slo).expect("one of them");
                // Said again while it burns.
                let row = 1u32
                    << definitions[at]
                        .rules
                        .as_ref()
                        .expect("rules")
                        .iter()
                        .position(|rule| matches!(rule, Rule::Burn(rule) if rule.long == burn.long))
                        .expect("a row");
                holding[at] = if burn.burning { holding[at] | row } else { holding[at] & !row };
                if burn.burning {
                    detected[at].get_or_insert(now - begin);
                } else if holding[at] == 0 && now > end {
                    reset[at].get_or_insert(now - end);
                }
            }
        }
        for (at, (name, rows)) in approaches().iter().enumerate() {
            let found = detected[at].zip(reset[at].or(Some(0)));
            let expected = formulas(rows, errors);
            assert_eq!(
                found.is_some(),
                expected.is_some(),
                "{name} at {errors}: {found:?}, not {expected:?}"
            );
            let (Some((took, ended)), Some((formula, formula_reset))) = (found, expected) else {
                table.push_str(&format!("| {name} | {} % | never | – | – |\n", errors * 100.0));
                continue;
            };
            // An edge on the grain of its age holds up to a minute more; then one evaluation.
            let grain = if rows[0].0 > 7_200 || rows.len() > 1 { 10.0 } else { 1.0 };
            let slack = STEP as f64 + grain + 1e-6;
            assert!((took as f64 - formula).abs() <= slack, "{name} at {errors}: {took}, not {formula}");
            assert!(
                (ended as f64 - formula_reset).abs() <= slack,
                "{name} at {errors}: reset {ended}, not {formula_reset}"
            );
            let spent = errors * formula / (0.001 * 30.0 * 86_400.0);
            table.push_str(&format!(
                "| {name} | {} % | {formula:.1} s | {formula_reset:.1} s | {:.3} % |\n",
                errors * 100.0,
                spent * 100.0
            ));
        }
    }
    let documented = include_str!("../../docs/slo.md");
    for row in table.lines() {
        assert!(documented.contains(row), "docs/slo.md lacks the row\n{row}\nof\n{table}");
    }
}
