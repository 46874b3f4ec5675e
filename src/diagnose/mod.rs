//! Why: the journal around the onset and a healthy twin period, contrasted; blame and class; and the
//! evidence bundle.

mod blame;
mod classify;
mod clue;
mod decode;
mod evidence;
mod explain;
mod forest;
mod log_clues;
mod metric_clues;
mod other_clues;
mod redact;
mod rows;
mod span_clues;
mod statistics;
mod templates;

pub use evidence::{Cause, CauseKind, Evidence, Manifest, Pass};
pub use decode::decode;
pub use explain::{Explanation, compare, explain};
pub use redact::Redaction;
pub use rows::{Gather, Limits, LogRow, PointKind, PointRow, Resource, Rows, SpanRow, Status};
