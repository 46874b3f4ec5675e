//! A simulated shop with faults over real OTLP: the demo, and recordings of it.

mod random;
mod fault;
mod shop;
mod instance;
mod meters;
mod spans;
mod request;
mod simulation;

pub use fault::Fault;
pub use simulation::{Drawn, Emission, Item, Simulation};
