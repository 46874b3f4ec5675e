//! The call graph, prepared for the questions that grouping asks.

use crate::model::ServiceKey;
use crate::window::{Node, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far calls are followed when looking for the deepest service.
const DEPTH: usize = 6;

/// Services and peers as numbers, so that searching does not compare texts.
pub(super) struct Graph {
    numbers: BTreeMap<Node, usize>,
    /// Peers by their address, which is the name that findings about them have.
    peers: BTreeMap<Arc<str>, usize>,
    neighbours: Vec<Vec<usize>>,
    calls: Vec<Vec<usize>>,
}

impl Graph {
    pub fn new(topology: &Topology) -> Self {
        let mut graph = Self {
            numbers: BTreeMap::new(),
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
        let peer = match &node {
            Node::Peer { address, .. } => Some(address.clone()),
            Node::Service(_) => None,
        };
        let number = *self.numbers.entry(node).or_insert(next);
        if number == next {
            self.neighbours.push(Vec::new());
            self.calls.push(Vec::new());
            self.peers.extend(peer.map(|address| (address, number)));
        }
        number
    }

    /// The number of a service, or of the peer that a finding names as one.
    fn find(&self, service: &ServiceKey) -> Option<usize> {
        let known = self.numbers.get(&Node::Service(service.clone()));
        known.or_else(|| self.peers.get(&service.name)).copied()
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
        a == b
            || self.find(b).is_some_and(|number| self.reach(a, &self.neighbours, at_most).contains(&number))
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
