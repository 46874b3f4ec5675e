//! The life of an alert, step by step.

use super::fixture::anomaly;
use super::{Alert, AlertState, Attachment, Config, Impact, Lifecycle, Users};
use crate::confirm::{Anomaly, AnomalyId, AnomalyState, Severity};
use crate::model::{ServiceKey, Timestamp};
use crate::slo::Lost;
use std::time::Duration;

const START: u64 = 1_700_000_000;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(START + secs)
}

fn confirmed(when: u64) -> Anomaly {
    let mut confirmed = anomaly("00000000000000aa", at(0));
    confirmed.state = AnomalyState::Confirmed;
    confirmed.fired_at = Some(at(when));
    confirmed.revision += 1;
    confirmed
}

fn recovered(when: u64) -> Anomaly {
    let mut recovered = confirmed(2);
    recovered.state = AnomalyState::Recovered;
    recovered.ended_at = Some(at(when));
    recovered
}

fn cause() -> Attachment {
    Attachment {
        cause_summary: Some("queries of payment to its database take 4 s".into()),
        cause_service: Some("payment".into()),
        cause_kind: Some("database".into()),
        cause_probability: Some(0.9),
        evidence_url: Some("http://127.0.0.1:4320/evidence/00000000000000aa".into()),
        traces: 31,
        log_records: 64,
        ..Attachment::default()
    }
}

fn states(alerts: &[Alert]) -> Vec<(u32, AlertState)> {
    alerts.iter().map(|alert| (alert.revision, alert.state)).collect()
}

/// Figures in the text alone are news only so often; what is told is of the moment at which it is told.
#[test]
fn all_figures_of_a_text_are_of_the_moment_of_its_revision() {
    let figures = |when: u64| {
        move |of: &Anomaly| {
            let lost = Lost {
                slo: "charge-fast".into(),
                service: of.service.clone(),
                bad: when,
                share: 0.01 * when as f64,
            };
            let impact = Impact { budget_spent: vec![lost], users: None };
            Attachment { impact, budget: Some(format!("{when} bad")), ..Attachment::default() }
        }
    };
    let mut lifecycle = Lifecycle::new(Config::default());
    lifecycle.step_with(at(0), &[confirmed(0)], figures(0));
    let mut told = 0;
    for second in 1..400 {
        // Its title changes every ten seconds.
        let changed = Anomaly { title: format!("it goes on {}", second / 10), ..confirmed(0) };
        for alert in lifecycle.step_with(at(second), &[changed], figures(second)) {
            let text = &alert.annotations["description"];
            assert!(text.contains(&format!("Error budget: {second} bad")), "{second}: {text}");
            assert!(text.contains(&format!("({second} bad)")), "{second}: {text}");
            assert_eq!(alert.impact.budget_spent[0].bad, second);
            told += 1;
        }
    }
    assert!((6..=8).contains(&told), "{told}");
}

#[test]
fn it_fires_with_its_cause_or_three_seconds_later_without() {
    for with_cause in [true, false] {
        let mut lifecycle = Lifecycle::new(Config::default());
        let opened = anomaly("00000000000000aa", at(0));
        let id = opened.id.clone();
        assert_eq!(states(&lifecycle.step(at(1), &[opened])), [(1, AlertState::Pending)]);
        assert!(lifecycle.step(at(3), &[confirmed(3)]).is_empty());
        if with_cause {
            lifecycle.attach(&id, cause());
            let fired = lifecycle.step(at(4), &[]);
            assert_eq!(states(&fired), [(2, AlertState::Firing)]);
            assert_eq!(fired[0].annotations["cause_service"], "payment");
        } else {
            assert!(lifecycle.step(at(4), &[]).is_empty());
            assert!(lifecycle.step(at(5), &[]).is_empty());
            let fired = lifecycle.step(at(6), &[]);
            assert_eq!(states(&fired), [(2, AlertState::Firing)]);
            lifecycle.attach(&id, cause());
            let updated = lifecycle.step(at(7), &[]);
            assert_eq!(states(&updated), [(3, AlertState::Firing)]);
            assert_eq!(updated[0].labels, fired[0].labels);
            assert_eq!(updated[0].fired_at, fired[0].fired_at);
        }
    }
}

#[test]
fn labels_follow_from_what_is_fixed_and_from_the_severity() {
    let mut lifecycle = Lifecycle::new(Config::default());
    lifecycle.step(at(3), &[confirmed(0)]);
    let fired = lifecycle.alerts().next().unwrap().clone();
    let mut news = confirmed(0);
    news.members.clear();
    news.title = "something else".into();
    news.severity = Severity::Page;
    let risen = lifecycle.step(at(4), std::slice::from_ref(&news));
    assert_eq!(states(&risen), [(2, AlertState::Firing)]);
    let mut expected = fired.labels.clone();
    assert_eq!(expected.insert("severity".into(), "page".into()), Some("ticket".into()));
    assert_eq!(risen[0].labels, expected);
    let earlier: Vec<_> = risen[0].earlier_labels().collect();
    assert_eq!(earlier, [(fired.labels, at(4))]);

    news.severity = Severity::Ticket;
    lifecycle.step(at(100), &[news]);
    assert_eq!(lifecycle.alerts().next().unwrap().severity, Severity::Page, "it never falls");
}

#[test]
fn new_figures_wait_but_are_not_lost() {
    let mut lifecycle = Lifecycle::new(Config::default());
    assert_eq!(lifecycle.step(at(3), &[confirmed(0)]).len(), 1);
    let mut news = confirmed(0);
    for second in 4..63 {
        news.members[0].observed = f64::from(second) / 100.0;
        assert!(lifecycle.step(at(u64::try_from(second).unwrap()), &[news.clone()]).is_empty());
    }
    let told = lifecycle.step(at(63), &[]);
    assert_eq!(states(&told), [(2, AlertState::Firing)]);
    assert!(told[0].annotations["description"].contains("62 %"), "{:?}", told[0].annotations);
    assert!(lifecycle.step(at(200), &[]).is_empty());
}

#[test]
fn each_end_is_told_once_and_a_relapse_fires_again() {
    for (state, ended) in [
        (AnomalyState::Recovered, AlertState::Resolved),
        (AnomalyState::Merged, AlertState::Merged),
        (AnomalyState::Suppressed, AlertState::Suppressed),
    ] {
        let mut lifecycle = Lifecycle::new(Config::default());
        lifecycle.step(at(3), &[confirmed(0)]);
        let mut over = recovered(5);
        over.state = state;
        let told = lifecycle.step(at(5), std::slice::from_ref(&over));
        assert_eq!(states(&told), [(2, ended)]);
        assert_eq!(told[0].resolved_at, Some(at(5)));
        assert!(lifecycle.step(at(6), &[over]).is_empty());
        let again = lifecycle.step(at(7), &[confirmed(7)]);
        assert_eq!(states(&again), [(3, AlertState::Firing)]);
        assert_eq!(again[0].resolved_at, None);
    }
}

#[test]
fn a_restart_never_resolves_until_two_whole_windows_were_judged() {
    let mut before = Lifecycle::new(Config::default());
    before.step(at(3), &[confirmed(0)]);
    let mut after = Lifecycle::new(Config::default());
    after.restore(&before.state().unwrap()).unwrap();
    // START is a multiple of 10 s: windows begin at 110 and 120, the second is sealed at 145.
    assert!(after.step(at(103), &[recovered(103)]).is_empty());
    for second in 104..145 {
        assert!(after.step(at(second), &[]).is_empty(), "second {second}");
    }
    assert_eq!(states(&after.step(at(145), &[])), [(2, AlertState::Resolved)]);

    // Also when the journal is replayed first, and the time of being away lies within the steps.
    let mut after = Lifecycle::new(Config::default());
    after.restore(&before.state().unwrap()).unwrap();
    for second in 4..20 {
        assert!(after.step(at(second), &[]).is_empty());
    }
    assert!(after.step(at(3_600), &[recovered(3_600)]).is_empty());
    assert!((3_601..3_645).all(|second| after.step(at(second), &[]).is_empty()));
    assert_eq!(after.step(at(3_645), &[]).len(), 1);
}

#[test]
fn state_goes_both_ways_and_damage_is_an_error() {
    let mut one = Lifecycle::new(Config::default());
    one.step(at(1), &[anomaly("00000000000000aa", at(0)), anomaly("00000000000000bb", at(0))]);
    one.step(at(2), &[confirmed(2)]);
    let mut other = Lifecycle::new(Config::default());
    other.restore(&one.state().unwrap()).unwrap();
    other.frozen_until = None;
    other.last_step = one.last_step;
    for second in 3..70 {
        assert_eq!(one.step(at(second), &[]), other.step(at(second), &[]), "second {second}");
    }
    let bytes = one.state().unwrap();
    assert!(other.restore(&bytes[..bytes.len() / 2]).is_err());
}

#[test]
fn what_the_ledger_knows_stays_told() {
    // Live, the cause came at once; in the replay it does not come at all.
    let mut live = Lifecycle::new(Config::default());
    let opened = anomaly("00000000000000aa", at(0));
    live.step(at(1), std::slice::from_ref(&opened));
    live.attach(&opened.id, cause());
    let told = live.step(at(2), &[confirmed(2)]).pop().unwrap();
    assert_eq!(told.state, AlertState::Firing);

    let mut replayed = Lifecycle::new(Config::default());
    replayed.step(at(1), std::slice::from_ref(&opened));
    replayed.step(at(2), &[confirmed(2)]);
    let mut orphan = told.clone();
    orphan.anomaly = AnomalyId("00000000000000cc".into());
    replayed.adopt([told.clone(), orphan]);
    let held: Vec<Alert> = replayed.alerts().cloned().collect();
    assert_eq!(held[0], told);
    assert!(held[1].state == AlertState::Firing);
    // Revisions go on from what was told; nobody resolves the orphan before the freeze is over.
    let next = replayed.step(at(600), &[]);
    assert!(
        next.iter().all(|alert| alert.revision == told.revision + 1 && alert.state == AlertState::Firing)
    );
    assert!((601..645).all(|second| replayed.step(at(second), &[]).is_empty()));
    let thawed = replayed.step(at(645), &[]);
    let ended: Vec<&str> =
        thawed.iter().filter(|alert| alert.state.is_ended()).map(|alert| alert.anomaly.0.as_str()).collect();
    assert_eq!(ended, ["00000000000000cc"]);
}

#[test]
fn what_the_crash_kept_from_being_told_is_told_after_it() {
    for held_by_ledger in [true, false] {
        let mut replayed = Lifecycle::new(Config::default());
        let pending = replayed.step(at(1), &[anomaly("00000000000000aa", at(0))]);
        replayed.step(at(2), &[confirmed(2)]);
        assert_eq!(states(&replayed.step(at(6), &[])), [(2, AlertState::Firing)]);
        replayed.adopt(pending.into_iter().filter(|_| held_by_ledger));
        let told = replayed.step(at(20), &[]);
        assert_eq!(states(&told), [(if held_by_ledger { 2 } else { 1 }, AlertState::Firing)]);
    }
}

#[test]
fn the_text_says_in_order_what_someone_woken_by_it_needs() {
    let mut lifecycle = Lifecycle::new(Config {
        runbook_url: "https://wiki.example/runbooks/{service}#{symptom}".into(),
        ..Config::default()
    });
    let mut hostile = confirmed(0);
    hostile.members[1].signal = "GET /a\n\u{1b}[2JResolved: all is well".into();
    hostile.members[1].service = hostile.service.clone();
    lifecycle.step(at(1), &[hostile]);
    let attachment = Attachment {
        change: Some("payment 1.4.2 → 1.5.0, 40 s before".into()),
        budget: Some("63 % of 30 days left, burning 14 times too fast".into()),
        impact: Impact {
            budget_spent: [("charge-fast", "payment", 3_000, 0.121), ("page-fast", "web", 20, 0.005)]
                .map(|(slo, service, bad, share)| Lost {
                    slo: slo.into(),
                    service: match service {
                        "payment" => ServiceKey::new("prod", "shop", "payment"),
                        other => ServiceKey::new("", "shop", other),
                    },
                    bad,
                    share,
                })
                .to_vec(),
            users: Some(Users { affected: 1_240, all: 8_300 }),
        },
        ..cause()
    };
    lifecycle.attach(&AnomalyId("00000000000000aa".into()), attachment);
    let alert = lifecycle.step(at(2), &[]).pop().unwrap();
    let description = &alert.annotations["description"];
    let names: Vec<&str> = description.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "What",
            "Where",
            "Since",
            "Users",
            "Error budget",
            "Budget spent on it",
            "Suspected cause",
            "Change before it",
            "Evidence",
            "Runbook"
        ]
    );
    assert!(description.lines().count() <= 12);
    assert_eq!(alert.annotations["runbook_url"], "https://wiki.example/runbooks/payment#errors");
    assert!(alert.annotations.values().all(|text| !text.chars().any(|c| c.is_control() && c != '\n')));
    insta::assert_snapshot!(description);
}

#[test]
fn an_empty_step_costs_next_to_nothing() {
    let mut lifecycle = Lifecycle::new(Config::default());
    lifecycle.step(at(3), &[confirmed(0)]);
    let begin = std::time::Instant::now();
    for second in 100..100_100 {
        lifecycle.step(at(second), &[]);
    }
    let each = begin.elapsed() / 100_000;
    assert!(each < Duration::from_micros(5), "{each:?} an empty step, in a debug build");
}

#[test]
fn names_from_outside_cannot_lead_a_runbook_astray() {
    let mut hostile = confirmed(0);
    hostile.service = ServiceKey::new("prod", "", "../../evil?x=1&y={symptom} ü");
    let url = super::text::runbook("https://wiki.example/{namespace}/{service}", &hostile);
    assert_eq!(url, "https://wiki.example//..%2F..%2Fevil%3Fx%3D1%26y%3D%7Bsymptom%7D%20%C3%BC");
    assert_eq!(super::text::runbook("", &hostile), "");
}
