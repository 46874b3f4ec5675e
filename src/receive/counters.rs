//! What the door counts of itself.

use super::CallerTag;
use super::callers::Callers;
use crate::limits::{Budget, RefusedReason, RejectedReason, Seats};
use crate::model::Signal;
use crate::observe::{Collect, Counter, Exposition, Kind};
use std::sync::Arc;

/// Counters of the door.
#[derive(Debug)]
pub struct Counters {
    pub(super) budget: Arc<Budget>,
    pub(super) requests: [Counter; Signal::ALL.len()],
    pub(super) rejected_items: [Counter; Signal::ALL.len()],
    pub(super) wire_bytes: Counter,
    pub(super) body_bytes: Counter,
    pub(super) accept_failures: Counter,
    pub(super) retries: Counter,
    pub(super) seats: Arc<Seats>,
    callers: Arc<Callers>,
    refused: [Counter; RefusedReason::ALL.len()],
    rejected: [Counter; RejectedReason::ALL.len()],
}

impl Counters {
    pub(super) fn new(budget: Arc<Budget>, seats: Arc<Seats>, callers: Arc<Callers>) -> Self {
        Self {
            budget,
            seats,
            callers,
            requests: Default::default(),
            rejected_items: Default::default(),
            wire_bytes: Counter::default(),
            body_bytes: Counter::default(),
            accept_failures: Counter::default(),
            retries: Counter::default(),
            refused: Default::default(),
            rejected: Default::default(),
        }
    }

    pub(super) fn refuse(&self, reason: RefusedReason) {
        add(&self.refused, reason as usize, 1);
    }

    pub(super) fn reject(&self, reason: RejectedReason) {
        add(&self.rejected, reason as usize, 1);
    }

    pub(super) fn add(counters: &[Counter; Signal::ALL.len()], signal: Signal, n: u64) {
        add(counters, signal as usize, n);
    }

    /// Requests turned away whole that may be sent again, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (RefusedReason, u64)> {
        RefusedReason::ALL.iter().zip(&self.refused).map(|(reason, counter)| (*reason, counter.get()))
    }

    /// Requests refused whole and for good, by reason.
    pub fn rejected(&self) -> impl Iterator<Item = (RejectedReason, u64)> {
        RejectedReason::ALL.iter().zip(&self.rejected).map(|(reason, counter)| (*reason, counter.get()))
    }

    /// Whether requests hold half of the memory that they may, or more.
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        self.budget.used_bytes() >= self.budget.limit_bytes() / 2
    }

    /// The name of a token or the address of whoever has a tag, if it is still known.
    #[must_use]
    pub fn caller(&self, tag: CallerTag) -> Option<Arc<str>> {
        self.callers.name_of(tag)
    }

    /// Requests that were let in, recorded and counted.
    #[must_use]
    pub fn requests(&self, signal: Signal) -> u64 {
        self.requests.get(signal as usize).map_or(0, Counter::get)
    }
}

fn add(counters: &[Counter], index: usize, n: u64) {
    if let Some(counter) = counters.get(index) {
        counter.add(n);
    }
}

impl Collect for Counters {
    fn collect(&self, out: &mut Exposition) {
        let by_signal = |counters: &[Counter]| -> Vec<(&'static str, u64)> {
            Signal::ALL.iter().zip(counters).map(|(signal, n)| (signal.as_str(), n.get())).collect()
        };
        out.by_label(
            "barograph_receive_requests_total",
            "Export requests recorded and counted.",
            "signal",
            by_signal(&self.requests),
        );
        out.by_label(
            "barograph_receive_rejected_items_total",
            "Items refused for good within requests that were taken.",
            "signal",
            by_signal(&self.rejected_items),
        );
        out.by_label(
            "barograph_receive_refused_requests_total",
            "Requests turned away whole that may be sent again.",
            "reason",
            self.refused().map(|(reason, n)| (reason.as_str(), n)),
        );
        out.by_label(
            "barograph_receive_rejected_requests_total",
            "Requests refused whole and for good.",
            "reason",
            self.rejected().map(|(reason, n)| (reason.as_str(), n)),
        );
        let counters = [
            ("barograph_receive_wire_bytes_total", "Bytes of requests as they came.", &self.wire_bytes),
            (
                "barograph_receive_retries_total",
                "Requests that had been counted before, whose answer was lost: acknowledged, not counted again.",
                &self.retries,
            ),
            ("barograph_receive_body_bytes_total", "Bytes of requests once inflated.", &self.body_bytes),
            (
                "barograph_receive_accept_failures_total",
                "Connections that could not be accepted.",
                &self.accept_failures,
            ),
        ];
        out.single(
            "barograph_receive_given_up_connections_total",
            Kind::Counter,
            "OTLP connections, nearly always idle ones, that were ended because others wanted to connect.",
            self.seats.given_up() as f64,
        );
        for (name, help, counter) in counters {
            out.single(name, Kind::Counter, help, counter.get() as f64);
        }
        let gauges = [
            ("barograph_receive_connections", "Open OTLP connections.", self.seats.taken() as u64),
            ("barograph_receive_memory_bytes", "Memory held by requests.", self.budget.used_bytes()),
            (
                "barograph_receive_memory_limit_bytes",
                "Memory that requests may hold.",
                self.budget.limit_bytes(),
            ),
        ];
        for (name, help, value) in gauges {
            out.single(name, Kind::Gauge, help, value as f64);
        }
    }
}
