//! A simulated shop with faults over real OTLP: the demo, and recordings of it.

mod random;
mod fault;
mod shop;
mod instance;
mod meters;
mod spans;
mod request;
mod simulation;
mod batch;
mod json;
mod record;
mod exporter;
mod driver;
mod receiver;
mod children;
mod evidence;
mod view;
mod report;
mod screen;
mod interrupt;
mod demo;
#[cfg(test)]
mod trial;
pub mod load;

pub use batch::{Batcher, Outgoing, Request};
pub use demo::{Error as DemoError, Options as DemoOptions, run as demo};
pub use exporter::{Exporters, Sent};
pub use fault::Fault;
pub use interrupt::interrupted;
pub use record::{Error as RecordError, Recorded, Recording, record};
pub use report::Report;
pub use simulation::{Drawn, Emission, Item, Simulation};
