//! Why: the journal around the onset and a healthy twin period, contrasted; blame and class; and the
//! evidence bundle.

mod archive;
mod blame;
mod bundle;
mod capture;
mod changes;
mod check;
mod classify;
mod clue;
mod collect;
mod config;
mod context;
mod contrast;
mod decode;
mod diagnosis;
mod error;
mod evidence;
mod explain;
mod forest;
mod keepsakes;
mod last_run;
mod log_clues;
mod metric_clues;
mod moment;
mod offline;
mod other_clues;
mod page;
mod parquet_files;
mod redact;
mod removal;
mod rows;
mod search;
mod secret_values;
mod series;
mod source;
mod span_clues;
mod statistics;
mod templates;
mod time_clues;
mod twin;
mod upload;

#[cfg(test)]
mod capture_tests;
#[cfg(test)]
mod crash_images;
#[cfg(test)]
mod sampling_tests;
#[cfg(test)]
mod tests;

pub use archive::{pack, packed};
pub use bundle::Made;
pub use check::{Checked, Damaged, check};
pub use collect::{Asked, Collector, Output, run as run_collector};
pub use config::{Config, Effort};
pub use decode::decode;
pub use diagnosis::{Case, Diagnosis, summary};
pub use error::Error;
pub use evidence::{Cause, CauseKind, Collected, Evidence, Manifest, Pass};
pub use explain::{Explanation, FAULTY, compare, explain, periods};
pub use keepsakes::{Keeper, Keepsake, Keepsakes, Quality, Route};
pub use moment::{Inquiry, Moment, at_moment};
pub use offline::Bundle;
pub use redact::Redaction;
pub use removal::{Removed, RemovedReason, Swept, sweep};
pub use rows::{Gather, Limits, LogRow, PointKind, PointRow, Resource, Rows, SpanRow, Status};
pub use search::{Condition, Found, FoundTrace, Search, conditions};
pub use search::{logs as find_logs, trace as find_trace, traces as find_traces};
pub use series::Counted;
pub use source::{Backwards, Memory, Recorded, Source};
pub use templates::{TemplateId, Templates};
pub use upload::{Bucket, Failure, ObjectUrl, Retry, Uploaded, Uploading};
