//! What a shard learned between two barriers.

use super::hot::Counted;
use crate::aggregate::{Cell, IndicatorId, SecondCount, Users, Weight};
use crate::journal::Cut;
use crate::limits::{LateReason, RejectedReason, UntimelyReason};
use crate::model::{SeriesId, SeriesKey, ServiceKey, SpanId, SpanKind, WindowId};
use crate::receive::CallerTag;
use crate::sketch::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a shard learned between two barriers. Handed over by ownership.
#[derive(Debug, Default)]
pub struct Partial {
    pub cut: Cut,
    pub shard: u16,
    /// Complete once [`Partial::settle`] was called, which is not for the shard's thread.
    pub cells: Vec<(SeriesId, WindowId, Cell)>,
    pub counted: Counted,
    /// Series that the shard saw for the first time, in the order in which it did.
    pub new: Vec<(SeriesId, Arc<SeriesKey>)>,
    pub facets: Vec<(Arc<FacetKey>, WindowId, Facet)>,
    pub indicators: Vec<(IndicatorId, SecondCount)>,
    pub users: Vec<(IndicatorId, Users)>,
    /// Halves of edges of the traces chosen for topology.
    pub halves: Vec<SpanHalf>,
    /// CLIENT and PRODUCER spans by the address they went to: exact, not sampled.
    pub peers: Vec<(Arc<PeerKey>, WindowId, EdgeCell)>,
    pub accepted: Accepted,
    /// Items by reason since the last barrier.
    pub rejected: BTreeMap<RejectedReason, u64>,
    pub late: BTreeMap<LateReason, u64>,
    /// Live series of this shard.
    pub series: usize,
    /// Services with more series than they may have, in order, and how many items were counted in
    /// their overflow series since the last barrier.
    pub overflowed: Vec<(Arc<ServiceKey>, u64)>,
    /// Services with items whose time was not followed, by reason, in order, and how many since the last barrier.
    pub untimely: Vec<((Arc<ServiceKey>, UntimelyReason), u64)>,
    /// Callers that brought more services or series than they may, in order, and how many of their items there was
    /// no room for since the last barrier.
    pub turned_away: Vec<(CallerTag, u64)>,
    /// The shard's own state (series, cumulative values), when the cut asks for a checkpoint.
    pub state: Option<Vec<u8>>,
}

impl Partial {
    /// Makes cells of what the shard counted, and gives the shard its memory back.
    pub fn settle(&mut self) {
        self.counted.append_to(&mut self.cells);
    }
}

/// Items counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub spans: u64,
    pub log_records: u64,
    pub metric_points: u64,
}

impl Accepted {
    pub fn add(&mut self, other: Self) {
        self.spans += other.spans;
        self.log_records += other.log_records;
        self.metric_points += other.metric_points;
    }
}

/// A fact about requests that is not part of a series: which version, which instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FacetKey {
    pub service: ServiceKey,
    /// The resource attribute: `service.version`, `service.instance.id`, `k8s.pod.name`, `host.name` …
    pub name: Arc<str>,
    pub value: Arc<str>,
}

/// What a service did under one value of a facet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facet {
    /// Items of any signal: whether it is alive.
    pub items: u64,
    /// Entry spans, those of them with status ERROR, and the sum of their durations.
    pub requests: u64,
    pub errors: u64,
    pub sum_ns: u64,
}

impl Facet {
    pub fn merge(&mut self, other: &Self) {
        self.items += other.items;
        self.requests += other.requests;
        self.errors += other.errors;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

/// One end of a possible edge between services, of a trace that was chosen for topology.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanHalf {
    /// Low half of the trace id, little endian.
    pub trace: u64,
    pub span: SpanId,
    pub parent: SpanId,
    pub service: Arc<ServiceKey>,
    pub kind: SpanKind,
    pub duration_ns: u64,
    pub error: bool,
    /// The address a CLIENT or PRODUCER span went to, so that an address can be told to be a service.
    pub peer: Option<Arc<PeerKey>>,
    /// 1 / the share of traces chosen.
    pub weight: Weight,
    pub window: WindowId,
}

/// Where a CLIENT or PRODUCER span went, as far as its own side knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerKey {
    pub client: ServiceKey,
    /// `peer.service`, else `server.address[:server.port]`, else `db.namespace` or
    /// `messaging.destination.name` with their system.
    pub address: Arc<str>,
    /// `db.system.name`, `messaging.system`, `rpc.system`, or `http`.
    pub system: Arc<str>,
    pub kind: SpanKind,
}

/// What passed along an edge in one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeCell {
    pub requests: u64,
    pub errors: u64,
    pub latency: Histogram,
}

impl EdgeCell {
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.latency.merge(&other.latency);
    }
}
