//! Faults of which a budget alone speaks.

use super::*;
use crate::context::Changes;
use crate::detect::{Census, Finding, Gravity, Phase};
use crate::slo::{Adjustment, Definition, MONTH, Method, Undone, definition};

/// A service with an objective of its own, of which no detector says anything: it never ceases to learn.
fn objective(target: f64) -> (World, usize) {
    let definition = Definition {
        service: "payment".into(),
        ..definition("payment-ok", target, Method::Occurrences, MONTH)
    };
    let mut world = World::new(8);
    let learn_requests = 100_000;
    world.judge = Judge::new(
        Budgets::new(slo::Config { default: false, ..slo::Config::default() }, vec![definition]),
        Detectors::new(detect::Config { learn_requests, ..detect::Config::default() }, false),
        Confirm::new(Config::default()),
    );
    let payment = world.serve("payment", 5.0);
    world.series[payment].errors = 0.0;
    (world, payment)
}

/// Seconds at which anomalies were opened, and at which they recovered.
fn story(world: &World) -> (Vec<u64>, Vec<u64>) {
    let opened = world.anomalies.values().map(|anomaly| anomaly.opened_at.secs() - START);
    let mut opened: Vec<u64> = opened.collect();
    opened.sort_unstable();
    let recovered = world.log.iter().filter(|(.., state)| *state == AnomalyState::Recovered);
    (opened, recovered.map(|(_, second, _)| *second).collect())
}

#[test]
fn a_second_outage_that_only_a_budget_sees_is_told_and_the_tail_of_one_is_not() {
    for (outage_min, lag_min, pause_min) in [(4, 6, 16), (20, 31, 45)] {
        let (mut world, payment) = objective(0.999);
        world.run(3_600);
        world.series[payment].errors = 0.3;
        world.run(outage_min * 60);
        world.series[payment].errors = 0.0;
        world.run(pause_min * 60);
        let (opened, recovered) = story(&world);
        assert_eq!((opened.len(), recovered.len()), (1, 1), "{opened:?} {recovered:?}");
        assert!(
            recovered[0] <= 3_600 + (outage_min + lag_min) * 60,
            "as the short window of the page says: {recovered:?}"
        );
        let is_over = world.only().members.iter().all(|member| member.recovered);
        assert_eq!(is_over, outage_min == 4, "the windows of tickets hold twenty minutes for hours");
        let again = 3_600 + (outage_min + pause_min) * 60;
        world.series[payment].errors = 0.3;
        world.run(5 * 60);
        let (opened, _) = story(&world);
        assert_eq!(opened.len(), 2, "after {pause_min} min: {opened:?}");
        assert!((again..again + 240).contains(&opened[1]), "{opened:?}");
        let second = world.anomalies.values().max_by_key(|anomaly| anomaly.opened_at).expect("the second");
        assert_eq!((second.severity, second.symptom), (Severity::Page, Symptom::BudgetBurn));
        world.series[payment].errors = 0.0;
        world.run(50 * 60);
        let (opened, recovered) = story(&world);
        assert_eq!(
            (opened.len(), recovered.len()),
            (2, 2),
            "its tail opens nothing: {opened:?} {recovered:?}"
        );
    }
}

#[test]
fn what_an_undone_adjustment_gives_back_is_told_at_once() {
    let (mut world, payment) = objective(0.99);
    world.run(900);
    world.series[payment].errors = 0.5;
    world.run(1_200);
    assert_eq!(story(&world), (story(&world).0, Vec::new()));
    assert_eq!(world.anomalies.len(), 1);
    let second = |second: u64| Timestamp::from_secs(START + second);
    let mut adjustment = Adjustment {
        adjustment: "1".into(),
        slo: "payment-ok".into(),
        service: "payment".into(),
        from: second(0),
        until: second(3_600),
        author: "ada".into(),
        reason: "maintenance".into(),
        incident: None,
        told_at: second(2_100),
        undone: None,
    };
    world.judge.budgets.adjust(adjustment.clone());
    world.run(15);
    assert_eq!(story(&world).1.len(), 1, "nothing burns any more");
    adjustment.undone = Some(Undone { author: "bob".into(), reason: "it was us".into(), at: second(2_115) });
    world.judge.budgets.adjust(adjustment);
    world.run(10);
    let (opened, _) = story(&world);
    assert_eq!(opened.len(), 2, "it burns again: {opened:?}");
    assert!(world.anomalies.values().all(|anomaly| anomaly.fired_at.is_some()));
}

#[test]
fn a_metric_that_is_back_in_its_band_does_not_end_what_a_budget_opened() {
    let service = ServiceKey::named("payment");
    let at = |second: u64| Timestamp::from_secs(START + second);
    let burn = |second: u64, tier: &str, phase| {
        let mut finding = Finding::about(at(second), &service, "payment-ok", Symptom::BudgetBurn);
        (finding.decided, finding.gravity, finding.log_evidence) = (true, Gravity::Page, 14.0);
        finding.phase = phase;
        finding.attributes = vec![("tier".into(), tier.into())];
        finding
    };
    let level = |second: u64, phase| {
        let mut finding = Finding::about(at(second), &service, "pool", Symptom::Level);
        (finding.decided, finding.gravity, finding.log_evidence) = (true, Gravity::Ticket, 20.0);
        finding.phase = phase;
        finding
    };
    let mut confirm = Confirm::new(Config::default());
    let mut step = |second: u64, findings: Vec<Finding>| {
        let told =
            confirm.step(at(second), findings, &Census::default(), &Topology::default(), &Changes::new());
        told.last().map(|anomaly| anomaly.state)
    };
    step(0, vec![burn(0, "page", Phase::Active), burn(0, "ticket", Phase::Active)]);
    assert_eq!(step(5, vec![level(5, Phase::Active)]), Some(AnomalyState::Confirmed));
    assert_eq!(step(60, vec![level(60, Phase::Cleared)]), Some(AnomalyState::Confirmed));
    assert_eq!(step(90, vec![burn(90, "page", Phase::Cleared)]), Some(AnomalyState::Recovered));
    // Nor what the metric opened and a budget made a page of.
    step(5_000, vec![level(5_000, Phase::Active)]);
    step(5_010, vec![burn(5_010, "page", Phase::Active)]);
    assert_eq!(step(5_060, vec![level(5_060, Phase::Cleared)]), Some(AnomalyState::Confirmed));
    assert_eq!(step(5_090, vec![burn(5_090, "page", Phase::Cleared)]), Some(AnomalyState::Recovered));
}

/// Steps a confirmation of its own; what was told last, if anything was.
struct Told(Confirm);

impl Told {
    fn step(&mut self, second: u64, findings: Vec<Finding>) -> Option<Anomaly> {
        let at = Timestamp::from_secs(START + second);
        let (census, topology) = (Census::default(), Topology::default());
        self.0.step(at, findings, &census, &topology, &Changes::new()).pop()
    }
}

fn found(second: u64, signal: &str, symptom: Symptom, gravity: Gravity) -> Finding {
    let at = Timestamp::from_secs(START + second);
    let mut finding = Finding::about(at, &ServiceKey::named("payment"), signal, symptom);
    (finding.decided, finding.gravity, finding.log_evidence) = (true, gravity, 14.0);
    finding
}

#[test]
fn a_rule_that_only_remarks_upon_something_keeps_no_page_open() {
    let rule = |second: u64, severity: &str| {
        let mut rule = found(second, "DiskFull", Symptom::Rule, Gravity::Info);
        rule.attributes = vec![("rule".into(), "a".into()), ("severity".into(), severity.into())];
        rule
    };
    let errors = |second: u64, phase| {
        let mut errors = found(second, "POST /pay", Symptom::Errors, Gravity::Page);
        errors.phase = phase;
        errors
    };
    for (severity, end) in [("info", AnomalyState::Recovered), ("ticket", AnomalyState::Confirmed)] {
        let mut told = Told(Confirm::new(Config::default()));
        told.step(0, vec![errors(0, Phase::Active)]);
        told.step(5, vec![rule(5, severity)]);
        told.step(50, vec![rule(50, severity)]);
        let last = told.step(60, vec![errors(60, Phase::Cleared)]).expect("news");
        assert_eq!((last.state, last.members.len()), (end, 2), "{severity}");
    }
    // What it opened lasts as long as it does.
    let mut told = Told(Confirm::new(Config::default()));
    told.step(0, vec![rule(0, "info")]);
    assert_eq!(told.step(5, Vec::new()).map(|of| of.state), Some(AnomalyState::Confirmed));
    assert_eq!(told.step(60, Vec::new()), None);
    let over = Finding { phase: Phase::Cleared, ..rule(70, "info") };
    assert_eq!(told.step(70, vec![over]).map(|of| of.state), Some(AnomalyState::Recovered));
}

#[test]
fn a_budget_that_pages_leads_the_words_of_the_ticket_that_it_joins() {
    let mut told = Told(Confirm::new(Config::default()));
    told.step(0, vec![found(0, "pool", Symptom::Level, Gravity::Ticket)]);
    let ticket = told.step(5, Vec::new()).expect("a ticket");
    assert_eq!((ticket.severity, ticket.state), (Severity::Ticket, AnomalyState::Confirmed));
    assert!(ticket.title.starts_with("payment: pool is "), "{}", ticket.title);
    // The tier of tickets changes nothing of what it is about.
    let burn = |second: u64, tier: &str, gravity| {
        let mut burn = found(second, "payment-ok", Symptom::BudgetBurn, gravity);
        burn.attributes = vec![("tier".into(), tier.into())];
        burn
    };
    let joined = told.step(10, vec![burn(10, "ticket", Gravity::Ticket)]).expect("a member more");
    assert!(joined.title.starts_with("payment: pool is "), "{}", joined.title);
    let paged = told.step(15, vec![burn(15, "page", Gravity::Page)]).expect("followers hear of it");
    assert_eq!((&paged.id, paged.severity), (&ticket.id, Severity::Page));
    assert!(paged.title.starts_with("payment: payment-ok burns its error budget: "), "{}", paged.title);
    assert_eq!((paged.symptom, &paged.fingerprint), (Symptom::Level, &ticket.fingerprint), "these are fixed");
    // The next page is about the same fault: the words stay, also over a restart.
    let mut restarted = Confirm::new(Config::default());
    restarted.restore(&told.0.state()).expect("its own state");
    let mut told = Told(restarted);
    let later = told.step(20, vec![found(20, "GET /", Symptom::Errors, Gravity::Page)]).expect("a member");
    assert!(later.title.starts_with("payment: payment-ok burns"), "{}", later.title);
}

#[test]
fn a_member_that_comes_to_page_leads_the_words_at_once() {
    let mut told = Told(Confirm::new(Config::default()));
    let pool = || found(0, "pool", Symptom::Level, Gravity::Ticket);
    told.step(0, vec![pool(), found(0, "GET /", Symptom::Errors, Gravity::Ticket)]);
    let ticket = told.step(3, Vec::new()).expect("a ticket");
    let begins = |anomaly: &Anomaly, signal: &str| anomaly.title.contains(signal);
    let (first, second) = if begins(&ticket, "pool") { ("GET /", "pool") } else { ("pool", "GET /") };
    let symptom = if first == "pool" { Symptom::Level } else { Symptom::Errors };
    assert_eq!((ticket.severity, begins(&ticket, second)), (Severity::Ticket, true), "{}", ticket.title);
    let paged = told.step(4, vec![found(4, first, symptom, Gravity::Page)]).expect("told at once");
    assert_eq!((paged.severity, begins(&paged, first)), (Severity::Page, true), "{}", paged.title);
}
