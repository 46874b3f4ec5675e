//! Pending, firing, resolved; desired state per target, re-sent; Alertmanager, webhooks, stream.

mod lifecycle;

pub use lifecycle::{Alert, AlertState};
