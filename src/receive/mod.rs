//! The one door for telemetry: accept loop, gRPC framing, HTTP, admission before the body is read,
//! and the statuses that OTLP asks for.

mod admitted;
mod callers;
mod calls;
mod config;
mod counters;
mod door;
mod drain;
mod grpc;
mod http2;
mod inlet;
mod intake;
mod memory;
mod problem;
mod reply;
mod respond;
mod retries;
mod server;
mod web;

pub use admitted::{Admitted, CallerTag};
pub use callers::CallerKey;
pub use config::Config;
pub use counters::Counters;
pub use inlet::Inlet;
pub use intake::Intake;
pub use memory::available_bytes;
pub use reply::{Outcome, Pending, Receipt, Reply};
pub use retries::{Print, same_body};
pub use server::{Error, Server};
