//! Services that cannot speak for themselves any more: their callers do.

use super::*;

fn run(fault: Fault, seed: u64, traffic: f64) -> (&'static str, Told) {
    let trial = Trial { fault, seed, traffic, times: [120, 200, 300] };
    trial.run(&mut |at, _, request| vec![(at, request)])
}

#[test]
fn a_service_that_is_gone_wholly_or_by_half_is_paged_through_its_callers_and_named() {
    let seeds = if is_full() { 1..=5 } else { 1..=1 };
    for (fault, seed) in seeds.flat_map(|seed| [(Fault::ServiceDown, seed), (Fault::HalfDown, seed)]) {
        let (service, told) = run(fault, seed, 0.3);
        let pages = told.pages();
        let [page] = pages.as_slice() else { panic!("{fault} {service}, one page: {}", told.in_words()) };
        let delay = told.paged_after(&page.id, 120);
        println!("{fault} {service}: page after {delay} s: {}", page.title);
        assert_eq!(&*page.service.name, service, "{fault}: {}", told.in_words());
        assert!(delay <= 40, "{fault} {service}: after {delay} s: {}", told.in_words());
    }
}

#[test]
fn the_database_that_is_gone_is_one_page_and_named() {
    for seed in if is_full() { 1..=5 } else { 4..=4 } {
        let (service, told) = run(Fault::DatabaseDown, seed, 0.3);
        let pages = told.pages();
        let [page] = pages.as_slice() else { panic!("one page: {}", told.in_words()) };
        println!("database-down {seed}: page after {} s: {}", told.paged_after(&page.id, 120), page.title);
        assert_eq!(&*page.service.name, service, "{}", told.in_words());
        assert!(told.paged_after(&page.id, 120) <= 15);
    }
}
