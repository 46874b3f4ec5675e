//! What judging costs: 100,000 series that tick every ten seconds, half of them operations and half metrics.

use crate::calm::{Calm, START};
use crate::setting;
use barograph::confirm::{self, Confirm};
use barograph::context::Changes;
use barograph::detect::{self, Detectors};
use barograph::window::{Tick, Topology};
use std::time::{Duration, Instant};

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or_default();
    pages * 4_096.0
}

/// Processor time of this thread: others may be at work beside it.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

#[test]
fn judging_a_hundred_thousand_series_takes_a_hundredth_of_a_core() {
    let series = setting("BAROGRAPH_COST_SERIES", 2_000);
    let (warm_up, rounds) = (40, setting("BAROGRAPH_COST_ROUNDS", 10) as u64);
    let mut calm = Calm::new(1, series).in_step();
    let before = resident();
    let mut detectors = Detectors::new(detect::Config::default(), false);
    let mut confirm = Confirm::new(confirm::Config::default());
    let (topology, changes) = (Topology::default(), Changes::new());
    let (mut judging, mut cells, began) = (Duration::ZERO, 0usize, Instant::now());
    for second in 0..10 * (warm_up + rounds) {
        let (tick, sealed): (Tick, _) = calm.next();
        let from = worked();
        let detected = detectors.step(&tick, &sealed, &calm.registry, &[]);
        confirm.step(tick.cut.arrived, detected.findings, detectors.census(), &topology, &changes);
        if second >= 10 * warm_up {
            judging += worked().saturating_sub(from);
            cells += tick.changed.len();
        }
    }
    let share = judging.as_secs_f64() / (10 * rounds) as f64;
    let (per_tick, bytes) =
        (judging.as_secs_f64() * 1e9 / cells as f64, (resident() - before) / series as f64);
    println!(
        "{series} series, {cells} ticks from {START}: {:.2} % of a core, {per_tick:.0} ns a tick, {bytes:.0} B a series; {:.0?}",
        100.0 * share,
        began.elapsed()
    );
    // What a build without optimisation takes says nothing.
    if !cfg!(debug_assertions) && series >= 100_000 {
        assert!(share <= 0.01, "{:.2} % of a core", 100.0 * share);
    }
}
