//! The recorder, the write-ahead log, and the order of all that follows: one writer appends
//! requests as they came, stamps position and arrival, and hands each shard its work, with a
//! barrier wherever arrival crosses a whole second.

mod check;
mod clock;
mod config;
#[cfg(test)]
mod crash_images;
mod damage;
mod error;
mod event_time;
mod in_hand;
mod index;
mod lane;
mod lock;
mod open;
mod record;
mod recorder;
pub mod recording;
mod reread;
mod segment;
mod sequencer;
mod shared;
mod stamper;
mod step;
mod writer;

#[cfg(test)]
mod tests;

pub use check::{Report, SegmentReport, check};
pub use config::{Config, Durability};
pub use damage::Damage;
pub use error::Error;
pub use event_time::latest_event;
pub use index::{BLOCK_BYTES, BlockPart, BlockWriter, Filter, Index};
pub use lane::{Lanes, StepReceiver, StepSender, steps};
pub use lock::{Lock, lock};
pub use open::Journal;
pub use record::Record;
pub use recorder::{Backstep, Backward, Captured, Recorder, Records};
pub use sequencer::{Replayed, Sequencer, Steps};
pub use shared::Handle;
pub use stamper::Stamper;
pub use step::{Cut, Position, Step};
