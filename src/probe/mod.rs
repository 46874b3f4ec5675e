//! Synthetic checks: requests that we make ourselves, each with a trace of its own.
//!
//! A check asks an address over and over: HTTP(S), gRPC's health protocol, TCP, DNS. Each run is a span of
//! the service `synthetic-checks/NAME` and enters by the door that all telemetry enters by, so objectives,
//! detectors, absence and evidence treat it as they treat any request. HTTP and gRPC carry the span as
//! `traceparent`: what the backend did for a failed check lies in the same trace.

mod check;
mod config;
mod dns;
mod prober;
mod run;
mod span;
mod target;

pub use check::Check;
pub use config::Config;
pub use prober::{Outcome, Prober, Standing, Standings};
pub use span::NAMESPACE;
