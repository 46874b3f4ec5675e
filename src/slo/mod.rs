//! Service level objectives: OpenSLO, indicators, error budgets and burn rates. Pure maths over
//! exact counts.

mod adjustment;
mod advice;
#[cfg(test)]
mod behaviour;
mod budget;
mod budgets;
mod burn;
mod calendar;
mod checks;
mod config;
mod counts;
mod definition;
mod edges;
mod grain;
mod lint;
#[cfg(test)]
mod load;
mod kept;
mod objective;
#[cfg(test)]
mod oracle;
mod packed;
mod publish;
mod read;
mod service;
mod settle;
mod slices;
mod tail;
#[cfg(test)]
mod tests;
mod users;

pub use adjustment::{Adjustment, Undone};
pub use advice::{Alerted, Suggestion, rehearse, suggest};
pub use budget::{Budget, DataState, in_words, share_in_words};
pub use budgets::Budgets;
pub use burn::{Burn, BurnRule, RULES, Rule, WINDOWS, burn_rate, preset};
pub use calendar::{Calendar, Unit, is_time_zone, rolling, shorthand};
pub use checks::of_checks;
pub use config::Config;
pub use definition::{Counting, Definition, Method, Origin, Period};
pub use kept::RestoreError;
pub use lint::{Known, MetricName, Smell, Traffic, Warning, lint};
#[cfg(test)]
pub(crate) use oracle::{MONTH, definition};
pub use publish::{Counted, Lost};
pub use read::{FileError, Files, Refused, Taken, read, read_all};
pub use tail::at_least;
