//! The one door for telemetry: accept loop, gRPC framing, HTTP, admission before the body is read,
//! and the statuses that OTLP asks for.

mod admitted;
mod intake;
mod reply;

pub use admitted::Admitted;
pub use intake::Intake;
pub use reply::{Outcome, Pending, Reply};
