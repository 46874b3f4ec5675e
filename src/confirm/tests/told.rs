//! Exemptions that were told while the daemon runs.

use super::*;
use crate::context::{Change, ChangeId, ChangeKind, Ended, ToldExemption};

fn told(line: &str, second: u64) -> ToldExemption {
    ToldExemption {
        exemption: "e1".into(),
        line: line.into(),
        author: "ada".into(),
        told_at: Timestamp::from_secs(START + second),
        ended: None,
    }
}

/// A world in which `payment` begins to fail after 40 s, with an exemption from 20 s on.
fn failing(line: &str, errors: f64) -> (World, usize) {
    let mut world = World::new(3);
    let payment = world.serve("payment", 20.0);
    world.run(20);
    world.judge.confirm.tell_exemption(told(line, 20));
    world.run(20);
    world.series[payment].errors = errors;
    world.run(30);
    (world, payment)
}

#[test]
fn a_silence_until_recovery_ends_with_it_and_says_so() {
    let (mut world, payment) = failing("service=payment until=recovery because=index work", 0.3);
    assert_eq!(world.only().suppressed_by.as_deref(), Some("index work"));
    assert_eq!(world.only().fired_at, None);
    world.series[payment].errors = 0.0;
    world.run(60);
    assert_eq!(world.only().state, AnomalyState::Suppressed);
    let ended = world.judge.confirm.take_ended_exemptions(Timestamp::from_secs(START + 130));
    assert_eq!(
        ended.iter().map(|of| of.ended.as_ref().unwrap().author.as_str()).collect::<Vec<_>>(),
        ["barograph"]
    );
    // What breaks afterwards is told.
    world.run(80);
    world.series[payment].errors = 0.3;
    world.run(30);
    assert!(world.anomalies.values().any(|anomaly| anomaly.fired_at.is_some()));
}

#[test]
fn what_is_still_wrong_when_somebody_ends_a_silence_is_told() {
    let (mut world, _) = failing("service=payment because=index work", 0.3);
    assert_eq!(world.only().fired_at, None);
    let ended = Some(Ended { author: "bob".into(), at: Timestamp::from_secs(START + 70) });
    world
        .judge
        .confirm
        .tell_exemption(ToldExemption { ended, ..told("service=payment because=index work", 20) });
    world.run(3);
    assert!(world.only().fired_at.is_some());
    assert_eq!(world.only().suppressed_by, None);
}

#[test]
fn a_known_issue_is_quiet_while_it_is_the_same() {
    let fingerprint = failing("service=nobody because=x", 0.3).0.only().fingerprint.0.clone();
    let line = format!("fingerprint={fingerprint} at_most=0.5 because=ticket 17");
    assert_eq!(failing(&line, 0.3).0.only().fired_at, None, "the same");
    assert!(failing(&line, 0.9).0.only().fired_at.is_some(), "another rate");
    // Another version.
    let (mut world, _) = failing(&line, 0.3);
    world.judge.changes.tell(Change {
        id: ChangeId("c".into()),
        at: Timestamp::from_secs(START + 65),
        service: Some(ServiceKey::named("payment")),
        kind: ChangeKind::Deploy,
        title: "payment 1 → 2".into(),
        inferred: true,
        version: Some("2".into()),
    });
    world.run(3);
    assert!(world.only().fired_at.is_some(), "another version");
    // Another shape: slowness has another fingerprint.
    let (mut world, payment) = failing(&line, 0.002);
    world.series[payment].median_ms *= 10.0;
    world.run(30);
    assert!(world.only().fired_at.is_some(), "another shape");
}

#[test]
fn what_was_told_says_which_exemptions_did_not_cover_it_and_what_it_took_of_the_budget() {
    let lines = ["service=billing because=nobody", "service=payment symptom=latency because=index work"];
    let mut world = World::new(3);
    let payment = world.serve("payment", 20.0);
    world.run(40);
    let config = Config { exemptions: lines.map(str::to_owned).to_vec(), ..Config::default() };
    world.judge.confirm = Confirm::new(config);
    let night = "service=payment daily=01:00-02:00 because=backup";
    world.judge.confirm.tell_exemption(told(night, 40));
    world.series[payment].errors = 0.3;
    world.run(30);
    let anomaly = world.only();
    assert!(anomaly.fired_at.is_some());
    assert_eq!(anomaly.examined.exemptions, 3);
    let nearest: Vec<(&str, &str)> =
        anomaly.examined.nearest.iter().map(|of| (of.line.as_str(), of.why_not.as_str())).collect();
    assert!(nearest[0].0 == night && nearest[0].1.contains("outside of its times"), "{nearest:?}");
    let others =
        [(lines[0], "service is payment, not billing"), (lines[1], "symptom is errors, not latency")];
    assert_eq!(nearest[1..], others);
    let drawn = anomaly.budget_draw.expect("evidence decided it");
    assert!(drawn.share > 0.0 && drawn.share <= 1.0 && drawn.in_week >= drawn.share, "{drawn:?}");
    assert_eq!(drawn.per_week, 1.0);
}

#[test]
fn a_known_issue_of_another_version_says_so() {
    let fingerprint = failing("service=nobody because=x", 0.3).0.only().fingerprint.0.clone();
    let (mut world, _) = failing(&format!("fingerprint={fingerprint} because=ticket 17"), 0.3);
    world.judge.changes.tell(Change {
        id: ChangeId("c".into()),
        at: Timestamp::from_secs(START + 65),
        service: Some(ServiceKey::named("payment")),
        kind: ChangeKind::Deploy,
        title: "payment 1 → 2".into(),
        inferred: true,
        version: Some("2".into()),
    });
    world.run(3);
    assert_eq!(world.only().examined.nearest[0].why_not, "another version was deployed since it was told");
}

#[test]
fn what_would_have_silenced_it_does() {
    for name in ["payment", "pay ment", "$(reboot)'"] {
        let fails = |exemptions: Vec<String>| {
            let mut world = World::new(3);
            let at = world.serve(name, 20.0);
            world.run(40);
            world.judge.confirm = Confirm::new(Config { exemptions, ..Config::default() });
            world.series[at].errors = 0.3;
            world.run(30);
            world.only().clone()
        };
        let told = fails(Vec::new());
        assert!(told.fired_at.is_some());
        let lines: Vec<String> = silencers(&told).into_iter().filter_map(|one| one.line).collect();
        assert_eq!(lines.len(), 2);
        for line in lines {
            assert!(!line.contains(['$', '\'']), "it may be pasted into a shell: {line}");
            assert_eq!(line.contains("service="), name == "payment", "{line}");
            assert_eq!(fails(vec![line.clone()]).fired_at, None, "{line}");
        }
    }
}

#[test]
fn a_cluster_is_exempt_for_those_that_run_nowhere_else() {
    let line = "k8s.cluster.name=blue deployment.environment.name=live because=blue is rebuilt";
    for (clusters, environment, is_quiet) in [
        (&["blue"][..], "live", true),
        (&["blue", "green"], "live", false),
        (&["green"], "live", false),
        (&[], "live", false),
        (&["blue"], "test", false),
    ] {
        let mut world = World::new(3);
        let service = ServiceKey::new(environment, "", "payment");
        let payment = world.add(
            SeriesKey { service: service.clone(), ..key("payment", "GET /", SpanKind::Server, true) },
            20.0,
        );
        let facet = |value: &&str| {
            let key = FacetKey {
                service: service.clone(),
                name: "k8s.cluster.name".into(),
                value: (*value).into(),
            };
            (Arc::new(key), Facet { items: 1, ..Facet::default() })
        };
        world.facets = clusters.iter().map(facet).collect();
        world.judge.confirm = Confirm::new(Config { exemptions: vec![line.to_owned()], ..Config::default() });
        world.run(40);
        world.series[payment].errors = 0.3;
        world.run(30);
        assert_eq!(world.only().fired_at.is_none(), is_quiet, "{clusters:?} in {environment}");
    }
}
