//! Service level objectives: OpenSLO, indicators, error budgets and burn rates. Pure maths over
//! exact counts.

mod budget;
mod budgets;
mod burn;
mod config;
mod counts;
mod openslo;
#[cfg(test)]
mod tests;

pub use budget::{Budget, DataState, in_words};
pub use budgets::{Budgets, RestoreError};
pub use burn::{Burn, BurnRule, RULES, WINDOWS, burn_rate};
pub use config::Config;
pub use openslo::{Definition, OpenSloError, read, read_file};
