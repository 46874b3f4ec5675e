//! What people and pipelines told us, and what can be inferred of it: deploys and other changes.

mod change;
mod changes;
mod exemption;

pub use change::{Change, ChangeId, ChangeKind};
pub use changes::{Changes, RestoreError, SUSPECT_FOR};
pub use exemption::{Ended, Exemption, LINE_BYTES, Subject, ToldExemption};
