//! Pending, firing, resolved; desired state per target, re-sent; Alertmanager, webhooks.
//!
//! [`Lifecycle`] turns anomalies into alerts: pure, stepped once a cut. [`Outbox`] brings every
//! target to the state that the ledger holds: asynchronous, on the side.

mod alertmanager;
mod attachment;
mod client;
mod config;
mod credentials;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod heartbeat;
mod impact;
mod lifecycle;
#[cfg(test)]
mod lifecycle_tests;
mod outbox;
mod record;
mod signature;
mod state;
mod target;
mod template;
mod text;
mod webhook;

pub use attachment::Attachment;
pub use client::Url;
pub use config::Config;
pub use error::Error;
pub use heartbeat::Heartbeat;
pub use impact::{Impact, Users, users_in_words};
pub use lifecycle::Lifecycle;
pub use outbox::{Delivered, Deliveries, Outbox};
pub use record::Recorded;
pub use state::{Alert, AlertState};
