//! Why: the journal around the onset and a healthy twin period, contrasted; blame and class; and the
//! evidence bundle.

mod evidence;

pub use evidence::{Cause, CauseKind, Evidence, Manifest, Pass};
