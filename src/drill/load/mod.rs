//! Load: OTLP/gRPC requests at a rate or as fast as answers come, and what became of them.

mod payload;
mod process;
mod wire;
mod send;

pub use payload::{Shape, Template, templates};
pub use process::Usage;
pub use send::{Compression, Error, Figures, Load, send};
