//! What outlives the process: blocks of sealed windows, the ledger of all that was judged, said and
//! done, and checkpoints at a cut.

mod block;
mod check;
mod checkpoint;
mod config;
mod contents;
#[cfg(test)]
mod crash_images;
mod database;
mod error;
mod files;
mod ledger;
mod level;
mod poison;
mod rollup;
mod salvage;
#[expect(clippy::module_inception, reason = "the store itself, as the design names it")]
mod store;
#[cfg(test)]
mod tests;

pub use check::check;
pub use checkpoint::{Checkpoint, PieceKey, Pieces};
pub use config::Config;
pub use contents::Stored;
pub use error::Error;
pub use ledger::{Ledger, LedgerRecord, NewRecord, Stage};
pub use level::Level;
pub use store::{Store, Usage};
