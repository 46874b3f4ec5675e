//! The objective that each synthetic check has.

use super::burn::{BurnRule, Rule};
use super::definition::{Counting, Definition, Method, Origin, Period};
use crate::aggregate::GoodSpans;
use crate::probe::Check;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(30 * 86_400);

/// The objectives of these checks, named as they are: of their runs, the share that has to be good. They
/// page once as many runs failed as the check allows in a row (a single good one between them is
/// overlooked).
#[must_use]
pub fn of_checks(checks: &[Check]) -> Vec<Definition> {
    checks.iter().map(of_check).collect()
}

fn of_check(check: &Check) -> Definition {
    let failures = u32::try_from(check.failures).unwrap_or(u32::MAX);
    // Holds at least as many runs as have to fail, and at most one more; runs may be late by a timeout.
    let window = check.every.saturating_mul(failures).saturating_add(check.every / 2);
    let share = f64::from(failures) / f64::from(failures.saturating_add(1));
    let factor = share / (1.0 - check.objective).max(1e-6);
    // A single good run is no recovery: as many in a row as have to fail. By then what goes on failing burns again.
    let keep_firing_for = check.every.saturating_mul(failures);
    let rule =
        BurnRule { long: window, short: window, factor, page: true, after: Duration::ZERO, keep_firing_for };
    let good = GoodSpans { errors_are_bad: true, ..GoodSpans::default() };
    let service = check.runs_as();
    Definition {
        name: format!("{}-check", check.name),
        service: format!("{}/{}/{}", service.environment, service.namespace, service.name),
        parts: vec![Counting::requests(None, good)],
        some_is_bad: false,
        target: check.objective,
        method: Method::Occurrences,
        period: Period::Rolling(PERIOD),
        rules: Some(vec![Rule::Burn(rule)]),
        composed_of: Vec::new(),
        floor: Some(check.failures),
        users: None,
        origin: Origin::default(),
    }
}
