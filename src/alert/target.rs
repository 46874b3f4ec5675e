//! What a target is: something that can be told of alerts.

use super::Alert;
use crate::model::Timestamp;
use futures_util::future::BoxFuture;

/// What came of telling a target of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// The target understood and refused this very alert: the same again would be refused again.
    Refused(String),
    /// Worth another attempt.
    Failed(String),
}

/// Something that can be told of alerts.
pub(super) trait Target: Send + Sync {
    /// Kind and URL: names it in the ledger and on `/metrics`.
    fn name(&self) -> &str;

    /// Whether it forgets unless told again from time to time.
    fn forgets(&self) -> bool;

    /// Tells of alerts that fire, or that have ended; one outcome for each, in order.
    fn deliver<'a>(&'a self, alerts: &'a [Alert], now: Timestamp) -> BoxFuture<'a, Vec<Outcome>>;
}
