//! Merges the partials of one cut into a tick (by arrival, each second) and into windows (by event
//! time, 10 s), seals windows, joins span halves into the topology, and publishes the snapshot that
//! queries read.

mod registry;
mod tick;
mod topology;

pub use registry::Registry;
pub use tick::{Quality, SealedWindow, Tick};
pub use topology::{Edge, EdgeKey, Node, Topology};
