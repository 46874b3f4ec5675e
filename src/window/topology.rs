//! Who calls whom.

use crate::model::{ServiceKey, SpanKind};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
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
        // A walk over the edges for each ring: rings are few, and nothing has to be built or copied.
        let mut seen = HashSet::from([End::Service(from)]);
        let mut ring = seen.clone();
        for distance in 1..=at_most {
            let mut next = HashSet::new();
            for edge in &self.edges {
                let (client, server) = (End::Service(&edge.key.client), End::of(&edge.key.server));
                for (near, far) in [(client, server), (server, client)] {
                    if ring.contains(&near) {
                        if far == End::Service(to) {
                            return Some(distance);
                        }
                        if seen.insert(far) {
                            next.insert(far);
                        }
                    }
                }
            }
            if next.is_empty() {
                break;
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

/// A [`Node`] by reference.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum End<'a> {
    Service(&'a ServiceKey),
    Peer(&'a str, &'a str),
}

impl<'a> End<'a> {
    fn of(node: &'a Node) -> Self {
        match node {
            Node::Service(service) => Self::Service(service),
            Node::Peer { address, system } => Self::Peer(address, system),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(client: &str, server: Node) -> Edge {
        let key = EdgeKey { client: ServiceKey::named(client), server, kind: SpanKind::Client };
        Edge { key: Arc::new(key), requests: 1, errors: 0 }
    }

    #[test]
    fn distance_counts_edges_either_way_and_through_addresses() {
        let service = |name| Node::Service(ServiceKey::named(name));
        let queue = || Node::Peer { address: "queue".into(), system: "kafka".into() };
        let graph = Topology {
            edges: vec![
                edge("a", service("b")),
                edge("b", service("c")),
                edge("c", queue()),
                edge("d", queue()),
                edge("x", service("y")),
            ],
        };
        let distance = |a, b, at_most| graph.distance(&ServiceKey::named(a), &ServiceKey::named(b), at_most);
        assert_eq!(distance("a", "a", 0), Some(0));
        assert_eq!(distance("a", "b", 1), Some(1));
        assert_eq!(distance("c", "a", 2), Some(2));
        assert_eq!(distance("c", "a", 1), None);
        assert_eq!(distance("c", "d", 2), Some(2));
        assert_eq!(distance("a", "d", 4), Some(4));
        assert_eq!(distance("a", "y", 10), None);
    }
}
