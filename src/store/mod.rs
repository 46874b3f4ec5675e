//! What outlives the process: blocks of sealed windows, the ledger of all that was judged, said and
//! done, and checkpoints at a cut.

mod ledger;

pub use ledger::{LedgerRecord, Stage};
