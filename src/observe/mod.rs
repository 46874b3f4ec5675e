//! What the daemon says of itself: counters with closed label sets, written as Prometheus text; and who of
//! its threads and tasks does not get on.

mod beat;
mod exposition;

pub use beat::{Beat, Pace, Watch, Work};
pub use exposition::{Collect, Counter, Exposition, Kind};
