//! The first minutes after the very first start.

use super::*;

#[test]
fn what_always_failed_is_a_ticket_and_a_later_fault_a_page() {
    let mut world = World::new(8);
    let payment = world.serve("payment", 20.0);
    let cart = world.serve("cart", 20.0);
    world.series[payment].errors = 1.0;
    world.run(300);
    let anomaly = world.only();
    assert_eq!((anomaly.symptom, anomaly.severity), (Symptom::Errors, Severity::Ticket));
    assert!(anomaly.title.contains("fail, as far as is known always"), "{}", anomaly.title);
    world.series[payment].errors = 0.002;
    world.run(120);
    assert_eq!(world.only().state, AnomalyState::Recovered);
    world.run(120);
    for at in [payment, cart] {
        world.series[at].errors = 0.3;
    }
    world.run(30);
    let pages: Vec<_> =
        world.anomalies.values().filter(|anomaly| anomaly.severity == Severity::Page).collect();
    let services: Vec<_> = pages.iter().map(|page| &*page.service.name).collect();
    assert_eq!(services.len(), 2, "{services:?}");
}

#[test]
fn a_fault_twenty_minutes_after_the_very_first_start_is_found() {
    for (rate, errors, slower, limit_s) in [(20.0, 0.1, 1.0, 10), (2.0, 0.5, 1.0, 15), (5.0, 0.002, 5.0, 15)]
    {
        let mut world = World::new(7);
        let payment = world.serve("payment", rate);
        world.serve("cart", 5.0);
        world.run(1_200);
        assert!(world.anomalies.is_empty());
        world.series[payment].errors = errors;
        world.series[payment].median_ms *= slower;
        world.run(60);
        let delay = world.opened_after(1_200);
        println!("{rate} requests/s, {errors} fail, {slower} times slower: found after {delay} s");
        assert!(delay <= limit_s, "{rate}: after {delay} s");
        assert_eq!(world.only().severity, Severity::Page);
    }
}
