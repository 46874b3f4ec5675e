//! Barograph: one daemon that counts everything OpenTelemetry sends, notices what breaks within
//! seconds, and sends one alert that already knows why.
//!
//! The rooms below stand in the order in which data flows. **A room may import only rooms above
//! it**; `tests/architecture.rs` fails with file and line when one does not. The whole idea in one
//! read is `docs/architecture.md`.

// Floor 0: words, no I/O.
pub mod model;
pub mod settings;
pub mod sketch;
pub mod observe;
pub mod parallel;
pub mod limits;

// Floor 1: wire and disk.
pub mod disk;
pub mod otlp;
pub mod api;
pub mod access;

// Floor 2: the flow.
pub mod receive;
pub mod probe;
pub mod journal;
pub mod aggregate;
pub mod window;
pub mod store;

// Floor 3: judgement and response.
pub mod slo;
pub mod context;
pub mod detect;
pub mod confirm;
pub mod alert;
pub mod diagnose;
pub mod incident;

// Side: the API.
pub mod serve;
pub mod web;

// Top.
pub mod app;
pub mod drill;
pub mod cli;
