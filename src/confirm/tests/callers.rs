//! What callers see of servers that say nothing themselves.

use super::*;

fn database() -> Node {
    Node::Peer { address: "orders-db:5432".into(), system: "postgresql".into() }
}

#[test]
fn a_database_down_under_twenty_services_is_one_page_about_the_database() {
    for seed in 0..3 {
        let mut world = World::new(seed);
        let all: Vec<usize> = (0..20).map(|n| world.serve(&format!("service-{n}"), 5.0)).collect();
        for &at in &all {
            world.calls.push((at, database(), 0.001));
            let client = world.series[at].key.service.clone();
            let key = EdgeKey { client, server: database(), kind: SpanKind::Client };
            world.topology.edges.push(Edge { key: Arc::new(key), requests: 1, errors: 0 });
        }
        world.run(60);
        assert!(world.anomalies.is_empty(), "{:#?}", world.anomalies);
        for (at, call) in all.iter().zip(0..) {
            world.series[*at].errors = 0.9;
            world.calls[call].2 = 0.9;
        }
        world.run(90);
        let delay = world.opened_after(60);
        assert!(delay <= 8, "seed {seed}: after {delay} s");
        let anomaly = world.only();
        assert_eq!((&*anomaly.service.name, anomaly.severity), ("orders-db:5432", Severity::Page));
        assert!(anomaly.title.contains("of calls from service-"), "{}", anomaly.title);
        let mut services: Vec<_> = anomaly.members.iter().map(|member| &*member.service.name).collect();
        services.sort_unstable();
        services.dedup();
        assert_eq!(services.len(), 21, "the database and all that call it: {services:?}");
        for (at, call) in all.iter().zip(0..) {
            world.series[*at].errors = 0.002;
            world.calls[call].2 = 0.001;
        }
        world.run(120);
        assert_eq!(world.anomalies.len(), 1);
        assert!(world.recovered_after(150) <= 60);
    }
}

#[test]
fn one_caller_that_fails_of_three_is_not_the_servers_fault() {
    let mut world = World::new(5);
    let all = ["a", "b", "c"].map(|name| world.serve(name, 20.0));
    let server = world.serve("stock", 60.0);
    for &at in &all {
        let stock = Node::Service(world.series[server].key.service.clone());
        world.calls.push((at, stock, 0.001));
        let client = world.series[at].key.service.name.to_string();
        world.call(&client, "stock");
    }
    world.run(60);
    world.series[all[0]].errors = 0.5;
    world.calls[0].2 = 0.5;
    world.run(30);
    let found = world.opened_after(60);
    assert!(found <= 5, "after {found} s");
    assert_eq!(&*world.only().service.name, "a");
}

#[test]
fn nothing_recovers_while_nobody_sees_it() {
    let mut world = World::new(6);
    let payment = world.serve("payment", 20.0);
    world.serve("cart", 20.0);
    world.run(60);
    world.series[payment].errors = 0.5;
    world.run(20);
    assert_eq!(world.only().state, AnomalyState::Confirmed);
    // It goes silent while it fails, for longer than news of errors are waited for.
    world.series[payment].rate = 0.0;
    world.run(1_200);
    let ended: Vec<_> = world.log.iter().filter(|(.., state)| *state == AnomalyState::Recovered).collect();
    assert!(ended.is_empty(), "{ended:?}");
    world.series[payment].rate = 20.0;
    world.series[payment].errors = 0.002;
    world.run(120);
    assert_eq!(world.only().state, AnomalyState::Recovered);
}
