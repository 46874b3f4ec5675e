//! Who calls whom.

use crate::model::{ServiceKey, SpanKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One end of an edge: a service that sends telemetry, or something known only by its address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Node {
    Service(ServiceKey),
    /// A database, queue or foreign host: address and `db.system.name`, `messaging.system` … .
    Peer {
        address: Arc<str>,
        system: Arc<str>,
    },
}

impl Node {
    /// The service's name, or the address.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Service(service) => &service.name,
            Self::Peer { address, .. } => address,
        }
    }

    #[must_use]
    pub fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::Service(service) => Some(service),
            Self::Peer { .. } => None,
        }
    }
}

/// An edge of the call graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EdgeKey {
    pub client: ServiceKey,
    pub server: Node,
    /// CLIENT for calls, PRODUCER for messages.
    pub kind: SpanKind,
}

/// An edge and what passed along it in the last ten minutes.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    pub key: Arc<EdgeKey>,
    pub requests: u64,
    pub errors: u64,
}

/// The call graph of the last ten minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// Sorted by key.
    pub edges: Vec<Edge>,
}

impl Topology {
    /// How many edges lie between two services, whichever way they point, up to `at_most`.
    #[must_use]
    pub fn distance(&self, from: &ServiceKey, to: &ServiceKey, at_most: usize) -> Option<usize> {
        if from == to {
            return Some(0);
        }
        let mut neighbours: BTreeMap<Node, Vec<Node>> = BTreeMap::new();
        for edge in &self.edges {
            let (client, server) = (Node::Service(edge.key.client.clone()), edge.key.server.clone());
            neighbours.entry(client.clone()).or_default().push(server.clone());
            neighbours.entry(server).or_default().push(client);
        }
        let goal = Node::Service(to.clone());
        let mut seen = vec![Node::Service(from.clone())];
        let mut ring = seen.clone();
        for distance in 1..=at_most {
            let mut next = Vec::new();
            for node in ring.iter().filter_map(|node| neighbours.get(node)).flatten() {
                if *node == goal {
                    return Some(distance);
                }
                if !seen.contains(node) {
                    seen.push(node.clone());
                    next.push(node.clone());
                }
            }
            ring = next;
        }
        None
    }

    /// What a service calls.
    pub fn servers_of<'a>(&'a self, client: &'a ServiceKey) -> impl Iterator<Item = &'a Edge> {
        self.edges.iter().filter(move |edge| edge.key.client == *client)
    }

    /// What calls a service.
    pub fn clients_of<'a>(&'a self, server: &'a ServiceKey) -> impl Iterator<Item = &'a Edge> {
        self.edges.iter().filter(move |edge| edge.key.server.service() == Some(server))
    }
}
