//! Reads objectives from files: OpenSLO v1, and what Sloth and Pyrra write. Everything that is not
//! understood is refused with file, line and key.

mod alerting;
mod document;
mod indicator;
mod openslo;
mod promql;
mod pyrra;
mod sloth;
#[cfg(test)]
mod tests;
mod watch;

pub use document::{FileError, Refused, Taken, read, read_all};
pub use watch::Files;
