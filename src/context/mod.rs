//! What people and pipelines told us, and what can be inferred of it: deploys and other changes.

mod change;

pub use change::{Change, ChangeId, ChangeKind};
