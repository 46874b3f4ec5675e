//! From fault to page, at the demo's traffic and at a hundredth of it. The latter takes minutes: only with
//! `BAROGRAPH_TRIALS`.

use super::*;

/// Traffic, seconds to learn from, seconds a page may take, and of absence.
const RATES: [(f64, u64, u64, u64); 2] = [(1.0, 60, 15, 40), (0.01, 900, 60, 90)];

#[test]
fn the_six_faults_of_the_demo_are_paged_in_time_also_at_a_hundredth_of_its_traffic() {
    if !is_full() {
        return;
    }
    let mut late = Vec::new();
    for (traffic, learn, limit, absence) in RATES {
        for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::None) {
            for seed in 1..=2 {
                let allowed = if fault.is_absence() { absence } else { limit };
                let trial = Trial { fault, seed, traffic, times: [learn, learn + 120, learn + 121] };
                let (service, told) = trial.run(&mut |at, _, request| vec![(at, request)]);
                let pages = told.pages();
                let after = pages.first().map(|page| told.paged_after(&page.id, learn));
                println!(
                    "{fault} of {service} at {traffic}: {} pages, the first after {after:?} s",
                    pages.len()
                );
                let in_time = after.is_some_and(|after| after <= allowed);
                if !in_time || pages.len() != 1 {
                    late.push(format!("{fault} {seed} at {traffic}: {}", told.in_words()));
                }
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}

/// Absence is judged on sealed windows, and metrics tell of the time before them: neither may cost a second window,
/// wherever in a window requests begin to stay away. Of the 40 s the diagnosis takes three.
#[test]
fn requests_that_stay_away_are_paged_in_time_wherever_in_a_window_it_begins() {
    let (every, seeds) = if is_full() { (1, 3) } else { (3, 1) };
    let mut late = Vec::new();
    for (slow_metrics, learned) in [(false, 35), (true, 55)] {
        for learn in (learned..learned + 10).step_by(every) {
            for seed in 1..=seeds {
                let times = [learn, learn + 45, learn + 46];
                let trial = Trial { fault: Fault::TrafficDrop, seed, traffic: 1.0, times };
                let (service, told) = trial.run(&mut |at, instance, request| {
                    let delay = Duration::from_secs(3);
                    if slow_metrics {
                        return with_slow_metrics(delay, (at, instance, request)).into_iter().collect();
                    }
                    vec![(at, request)]
                });
                let pages = told.pages();
                let after = pages.first().map(|page| told.paged_after(&page.id, learn));
                let what = format!("after {learn} s, seed {seed}, slow metrics {slow_metrics}");
                println!("requests of {service} {what}: paged after {after:?} s");
                let is_right = pages.len() == 1 && pages.iter().all(|page| &*page.service.name == service);
                if !is_right || after.is_none_or(|after| after > 37) {
                    late.push(format!("{what}: {}", told.in_words()));
                }
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}
