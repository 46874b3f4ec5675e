//! Search over what is recorded: spans, log records and whole traces, newest first, as captures read
//! them: redacted, and of the journal only the parts that may hold what is looked for.

mod condition;
mod find;
#[cfg(test)]
mod tests;

pub use condition::{Condition, conditions};
pub use find::{Found, FoundTrace, Search, logs, trace, traces};
