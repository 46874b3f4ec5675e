//! Collectors of yours that run when something broke: what they say goes into the bundle, that they ran into
//! the incident's timeline.

mod collector;
mod run;

pub use collector::{Asked, Collector};
pub use run::{Output, run};
