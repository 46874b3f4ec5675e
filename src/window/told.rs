//! Edges that metrics tell of: the service graph counters of the Collector's `servicegraph` connector
//! and of Tempo (`traces_service_graph_request_total{client,server}`).

use super::addresses::Addresses;
use crate::aggregate::{Cell, EdgeCell};
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanKind};
use crate::window::{EdgeKey, Node, Registry};
use std::collections::BTreeMap;
use std::sync::Arc;

const REQUESTS: &str = "traces_service_graph_request_total";
const FAILED: &str = "traces_service_graph_request_failed_total";

#[derive(Debug)]
struct Pair {
    environment: Arc<str>,
    client: Arc<str>,
    server: Arc<str>,
    kind: SpanKind,
    failed: bool,
}

/// Which series are such counters.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<SeriesId, Pair>);

impl Told {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn note(&mut self, id: SeriesId, key: &SeriesKey) {
        let failed = &*key.operation == FAILED;
        if key.signal != Signal::Metrics || !(failed || &*key.operation == REQUESTS) {
            return;
        }
        let attribute = |name: &str| {
            key.attributes.iter().find(|(key, _)| **key == *name).map(|(_, value)| value.clone())
        };
        let (Some(client), Some(server)) = (attribute("client"), attribute("server")) else { return };
        let kind = match attribute("connection_type").as_deref() {
            Some("messaging_system") => SpanKind::Producer,
            _ => SpanKind::Client,
        };
        let environment = key.service.environment.clone();
        self.0.insert(id, Pair { environment, client, server, kind, failed });
    }

    /// Lets go of series whose names are forgotten.
    pub fn forget(&mut self, registry: &Registry) {
        self.0.retain(|id, _| registry.names(*id));
    }

    /// The edge that a cell of this series tells of.
    pub fn edge(
        &self,
        series: SeriesId,
        cell: &Cell,
        addresses: &Addresses,
    ) -> Option<(Arc<EdgeKey>, EdgeCell)> {
        let pair = self.0.get(&series)?;
        let Cell::Total(total) = cell else { return None };
        // Saturates, and takes what is no number as 0.
        let calls = total.delta.round() as u64;
        let service = |name: &Arc<str>| {
            addresses
                .named(&pair.environment, name)
                .unwrap_or_else(|| ServiceKey::new(&pair.environment, "", name))
        };
        let key = EdgeKey {
            client: service(&pair.client),
            server: Node::Service(service(&pair.server)),
            kind: pair.kind,
        };
        let (requests, errors) = if pair.failed { (0, calls) } else { (calls, 0) };
        Some((Arc::new(key), EdgeCell { requests, errors, ..EdgeCell::default() }))
    }
}
