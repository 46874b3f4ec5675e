//! The recorder, the write-ahead log, and the order of all that follows: one writer appends
//! requests as they came, stamps position and arrival, and hands each shard its work, with a
//! barrier wherever arrival crosses a whole second.

mod event_time;
pub mod recording;
mod step;

pub use event_time::latest_event;
pub use step::{Cut, Position, Step};
