//! Pages: the overview, an anomaly, an incident, and the evidence; rendered on the server, without
//! scripts. Everything that telemetry says is escaped.

mod spark;
mod band;
mod head;
mod slos;
mod dashboard;
mod detail;
mod journal;
mod guard;
mod sign_in;
mod router;

pub use router::{router, serve_http};

#[cfg(test)]
mod samples;
