//! Keepsakes: a bounded few whole traces of each operation, healthy and worst, with their log records, which
//! outlive the journal. What burns so slowly that its healthy past was recycled still finds its twin.

mod choice;
mod extract;
mod file;
mod keeper;
mod keepsake;
mod shelf;

#[cfg(test)]
mod tests;

pub use keeper::Keeper;
pub use keepsake::{Keepsake, Quality, Route};
pub use shelf::Keepsakes;
pub(super) use shelf::{check, is_one};
