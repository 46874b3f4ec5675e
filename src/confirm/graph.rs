//! The call graph, prepared for the questions that grouping asks.

use crate::model::ServiceKey;
use crate::window::{Node, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far calls are followed when looking for the deepest service.
const DEPTH: usize = 6;

/// Services and peers as numbers, so that searching does not compare texts.
pub(super) struct Graph {
    services: BTreeMap<ServiceKey, usize>,
    others: BTreeMap<Node, usize>,
    /// Peers by their address, which is the name that findings about them have.
    peers: BTreeMap<Arc<str>, usize>,
    neighbours: Vec<Vec<usize>>,
    calls: Vec<Vec<usize>>,
}

impl Graph {
    pub fn new(topology: &Topology) -> Self {
        let mut graph = Self {
            services: BTreeMap::new(),
            others: BTreeMap::new(),
            peers: BTreeMap::new(),
            neighbours: Vec::new(),
            calls: Vec::new(),
        };
        for edge in &topology.edges {
            let client = graph.number(Node::Service(edge.key.client.clone()));
            let server = graph.number(edge.key.server.clone());
            for (from, to) in [(client, server), (server, client)] {
                graph.neighbours.get_mut(from).into_iter().for_each(|list| list.push(to));
            }
            graph.calls.get_mut(client).into_iter().for_each(|list| list.push(server));
        }
        graph
    }

    fn number(&mut self, node: Node) -> usize {
        let next = self.neighbours.len();
        let (number, peer) = match node {
            Node::Service(service) => (*self.services.entry(service).or_insert(next), None),
            Node::Peer { ref address, .. } => {
                let address = address.clone();
                (*self.others.entry(node).or_insert(next), Some(address))
            }
        };
        if number == next {
            self.neighbours.push(Vec::new());
            self.calls.push(Vec::new());
            self.peers.extend(peer.map(|address| (address, number)));
        }
        number
    }

    /// The number of a service, or of the peer that a finding names as one.
    fn find(&self, service: &ServiceKey) -> Option<usize> {
        self.services.get(service).or_else(|| self.peers.get(&service.name)).copied()
    }

    /// How many edges it has.
    pub fn edges(&self) -> usize {
        self.calls.iter().map(Vec::len).sum()
    }

    /// What is at most so many edges away from a service, whichever way they point.
    pub fn around(&self, service: &ServiceKey, at_most: usize) -> Around<'_> {
        Around { graph: self, numbers: self.reach(service, &self.neighbours, at_most) }
    }

    fn reach(&self, from: &ServiceKey, edges: &[Vec<usize>], at_most: usize) -> BTreeSet<usize> {
        let Some(start) = self.find(from) else { return BTreeSet::new() };
        let mut seen = BTreeSet::from([start]);
        let mut ring = vec![start];
        for _ in 0..at_most {
            let next: Vec<usize> = ring
                .iter()
                .filter_map(|&at| edges.get(at))
                .flatten()
                .copied()
                .filter(|&to| seen.insert(to))
                .collect();
            ring = next;
        }
        seen
    }

    /// Whether two services are at most so many edges apart, whichever way they point.
    pub fn near(&self, a: &ServiceKey, b: &ServiceKey, at_most: usize) -> bool {
        a == b || self.around(a, at_most).has(b)
    }

    /// How many of `others` are reached from `service` by following calls.
    pub fn below<'b>(&self, service: &ServiceKey, others: impl Iterator<Item = &'b ServiceKey>) -> usize {
        let reached = self.reach(service, &self.calls, DEPTH);
        others
            .filter(|other| *other != service)
            .filter(|other| self.find(other).is_some_and(|number| reached.contains(&number)))
            .count()
    }
}

/// The surroundings of a service.
pub(super) struct Around<'g> {
    graph: &'g Graph,
    numbers: BTreeSet<usize>,
}

impl Around<'_> {
    /// Whether a service lies within, the one in the middle too if it has any edge.
    pub fn has(&self, service: &ServiceKey) -> bool {
        // A service that nobody calls has itself alone around it.
        self.numbers.len() > 1
            && self.graph.find(service).is_some_and(|number| self.numbers.contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpanKind;
    use crate::window::{Edge, EdgeKey};

    #[test]
    fn near_and_below() {
        let service = ServiceKey::named;
        let edge = |client: &str, server: &str| Edge {
            key: Arc::new(EdgeKey {
                client: service(client),
                server: Node::Service(service(server)),
                kind: SpanKind::Client,
            }),
            requests: 1,
            errors: 0,
        };
        let graph = Graph::new(&Topology {
            edges: vec![edge("a", "b"), edge("b", "c"), edge("c", "d"), edge("d", "c")],
        });
        assert!(graph.near(&service("c"), &service("a"), 2));
        assert!(!graph.near(&service("d"), &service("a"), 2));
        assert!(!graph.near(&service("d"), &service("x"), 2));
        assert!(graph.near(&service("x"), &service("x"), 0));
        let all = ["a", "b", "c", "d", "x"].map(service);
        assert_eq!(all.each_ref().map(|s| graph.below(s, all.iter())), [3, 2, 1, 1, 0]);
    }
}
