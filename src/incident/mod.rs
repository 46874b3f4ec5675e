//! The record of an incident: its timeline, time to detect and to recover, and what operators did
//! and said. All of it is a fold of the ledger.

mod entry;
mod error;
mod fold;
mod record;
#[cfg(test)]
mod tests;

pub use entry::{Action, Entry, Hash, Write};
pub use error::Error;
pub use fold::Incidents;
pub use record::{Incident, IncidentState, TimelineEntry};
