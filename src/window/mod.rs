//! Merges the partials of one cut into a tick (by arrival, each second) and into windows (by event
//! time, 10 s), seals windows, joins span halves into the topology, and publishes the snapshot that
//! queries read.

mod addresses;
mod cells;
mod collect;
mod config;
mod crowding;
mod graph;
mod instances;
mod joiner;
mod merge;
mod registry;
mod snapshot;
mod tick;
mod told;
mod topology;
#[cfg(test)]
mod tests;

pub use cells::{Cells, Packed};
pub use config::Config;
pub use crowding::{Crowd, Part, crowd, crowd_of_services};
pub use merge::{Merged, RestoreError, Windows};
pub use registry::{Forgotten, Registry};
pub use snapshot::{OpenWindow, Snapshot};
pub use tick::{CallCount, Calls, Quality, SealedWindow, Tick};
pub use topology::{Edge, EdgeKey, Node, Topology};
