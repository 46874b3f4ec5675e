//! The call graph of the last ten minutes, kept by the minute, from three sources: joined span
//! halves, addresses that clients went to, and service graph metrics.

use super::addresses::{Addresses, Resolved};
use crate::aggregate::{EdgeCell, PeerKey};
use crate::window::{CallCount, Calls, Edge, EdgeKey, Node, Topology};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;

const MINUTES: u64 = 10;
/// How often counts are brought up to date when no edge is new, in seconds.
const REFRESH_SECONDS: u64 = 10;

/// Something that passes along edges and adds up.
pub(super) trait Flow: Clone + Default {
    fn add(&mut self, other: &Self);
}

impl Flow for EdgeCell {
    fn add(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl Flow for (u64, u64) {
    fn add(&mut self, other: &Self) {
        self.0 = self.0.saturating_add(other.0);
        self.1 = self.1.saturating_add(other.1);
    }
}

/// The same calls, as the three sources tell of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sources<V> {
    pub joined: BTreeMap<Arc<EdgeKey>, V>,
    pub peers: BTreeMap<Arc<PeerKey>, V>,
    pub told: BTreeMap<Arc<EdgeKey>, V>,
}

impl<V> Sources<V> {
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.peers.is_empty() && self.told.is_empty()
    }

    pub fn len(&self) -> usize {
        self.joined.len() + self.peers.len() + self.told.len()
    }
}

impl<V: Flow> Sources<V> {
    pub fn merge(&mut self, other: &Self) {
        merge_map(&mut self.joined, &other.joined);
        merge_map(&mut self.peers, &other.peers);
        merge_map(&mut self.told, &other.told);
    }

    /// One list of edges, sorted by key. An edge that two sources tell of is counted by the first of:
    /// joined halves (both ends known), the client's own end, metrics.
    pub fn resolve(
        &self,
        addresses: &Addresses,
        is_joined: impl Fn(&EdgeKey) -> bool,
    ) -> Vec<(Arc<EdgeKey>, V)> {
        let mut own: BTreeMap<Arc<EdgeKey>, V> = BTreeMap::new();
        for (peer, flow) in &self.peers {
            let server = match addresses.resolve(peer) {
                Resolved::Service(service) if service == peer.client => continue,
                Resolved::Service(service) => Node::Service(service),
                Resolved::Seen => continue,
                Resolved::Unknown => {
                    Node::Peer { address: peer.address.clone(), system: peer.system.clone() }
                }
            };
            let key = EdgeKey { client: peer.client.clone(), server, kind: peer.kind };
            if !self.joined.contains_key(&key) && !is_joined(&key) {
                own.entry(Arc::new(key)).or_default().add(flow);
            }
        }
        let mut edges = self.joined.clone();
        for (key, flow) in &self.told {
            if !own.contains_key(key) && !is_joined(key) {
                edges.entry(key.clone()).or_insert_with(|| flow.clone());
            }
        }
        edges.extend(own);
        edges.into_iter().collect()
    }
}

impl Sources<EdgeCell> {
    /// What clients say of their calls, of which the other end need not have been seen.
    pub fn calls(&self, addresses: &Addresses) -> Calls {
        let mut calls: BTreeMap<EdgeKey, CallCount> = BTreeMap::new();
        for (peer, cell) in &self.peers {
            let server = match addresses.resolve(peer) {
                Resolved::Service(service) if service == peer.client => continue,
                Resolved::Service(service) => Node::Service(service),
                Resolved::Seen => continue,
                Resolved::Unknown => {
                    Node::Peer { address: peer.address.clone(), system: peer.system.clone() }
                }
            };
            let key = EdgeKey { client: peer.client.clone(), server, kind: peer.kind };
            let count = CallCount { requests: cell.requests, errors: cell.errors };
            calls.entry(key).or_default().merge(&count);
        }
        calls.into_iter().map(|(key, count)| (Arc::new(key), count)).collect()
    }
}

fn merge_map<K: Ord + Clone, V: Flow>(into: &mut BTreeMap<K, V>, other: &BTreeMap<K, V>) {
    for (key, flow) in other {
        match into.get_mut(key) {
            Some(sum) => sum.add(flow),
            None => {
                into.insert(key.clone(), flow.clone());
            }
        }
    }
}

/// Requests and errors by minute of arrival, ascending.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Minutes(SmallVec<[(u64, u64, u64); 4]>);

impl Minutes {
    fn count(&mut self, minute: u64, cell: &EdgeCell) {
        match self.0.last_mut() {
            Some((last, requests, errors)) if *last == minute => {
                *requests = requests.saturating_add(cell.requests);
                *errors = errors.saturating_add(cell.errors);
            }
            _ => self.0.push((minute, cell.requests, cell.errors)),
        }
    }

    /// Forgets what is older than ten minutes; `false` if nothing is left.
    fn forget(&mut self, minute: u64) -> bool {
        self.0.retain(|&mut (at, ..)| at + MINUTES > minute);
        !self.0.is_empty()
    }

    fn sum(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(requests, errors): (u64, u64), &(_, more, failed)| {
            (requests.saturating_add(more), errors.saturating_add(failed))
        })
    }
}

/// The last ten minutes.
#[derive(Debug)]
pub(super) struct Graph {
    limit: usize,
    recent: Sources<Minutes>,
    /// Something was counted since the topology was built.
    counted: bool,
    /// An edge is new, or means something else now.
    changed: bool,
    minute: u64,
    built_at: u64,
    topology: Arc<Topology>,
    /// Edges beyond the limit that were not taken in.
    pub dropped: u64,
}

impl Graph {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            recent: Sources::default(),
            counted: false,
            changed: false,
            minute: 0,
            built_at: 0,
            topology: Arc::default(),
            dropped: 0,
        }
    }

    /// Counts what passed in one second of arrival.
    pub fn count(&mut self, second: u64, flows: &Sources<EdgeCell>) {
        let minute = second / 60;
        let mut room = self.limit.saturating_sub(self.recent.len());
        let mut news = Count { minute, room: &mut room, changed: false, dropped: 0 };
        news.add(&mut self.recent.joined, &flows.joined);
        news.add(&mut self.recent.peers, &flows.peers);
        news.add(&mut self.recent.told, &flows.told);
        self.dropped += news.dropped;
        self.changed |= news.changed;
        self.counted |= !flows.is_empty();
    }

    /// An address became a service, or a name did.
    pub fn learned(&mut self) {
        self.changed = true;
    }

    pub fn is_joined(&self, key: &EdgeKey) -> bool {
        self.recent.joined.contains_key(key)
    }

    /// The call graph as of this second; the same `Arc` while nothing changes.
    pub fn topology(&mut self, second: u64, addresses: &Addresses) -> Arc<Topology> {
        if self.recent.is_empty() && !self.changed {
            return self.topology.clone();
        }
        let minute = second / 60;
        if minute != self.minute {
            self.minute = minute;
            self.recent.joined.retain(|_, minutes| minutes.forget(minute));
            self.recent.peers.retain(|_, minutes| minutes.forget(minute));
            self.recent.told.retain(|_, minutes| minutes.forget(minute));
            self.changed = true;
        }
        if self.changed || (self.counted && second >= self.built_at + REFRESH_SECONDS) {
            let sums = Sources {
                joined: sums(&self.recent.joined),
                peers: sums(&self.recent.peers),
                told: sums(&self.recent.told),
            };
            let edges = sums
                .resolve(addresses, |_| false)
                .into_iter()
                .map(|(key, (requests, errors))| Edge { key, requests, errors })
                .collect();
            let topology = Topology { edges };
            if topology != *self.topology {
                self.topology = Arc::new(topology);
            }
            (self.changed, self.counted, self.built_at) = (false, false, second);
        }
        self.topology.clone()
    }

    pub fn state(&self) -> impl Serialize + use<'_> {
        &self.recent
    }

    pub fn restore(&mut self, state: GraphState) {
        self.recent = state.0;
        self.changed = true;
    }
}

/// See [`Graph::state`].
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct GraphState(Sources<Minutes>);

struct Count<'a> {
    minute: u64,
    room: &'a mut usize,
    changed: bool,
    dropped: u64,
}

impl Count<'_> {
    fn add<K: Ord + Clone>(&mut self, into: &mut BTreeMap<K, Minutes>, flows: &BTreeMap<K, EdgeCell>) {
        for (key, cell) in flows {
            if let Some(minutes) = into.get_mut(key) {
                minutes.count(self.minute, cell);
            } else if *self.room == 0 {
                self.dropped += 1;
            } else {
                *self.room -= 1;
                self.changed = true;
                into.entry(key.clone()).or_default().count(self.minute, cell);
            }
        }
    }
}

fn sums<K: Ord + Clone>(of: &BTreeMap<K, Minutes>) -> BTreeMap<K, (u64, u64)> {
    of.iter().map(|(key, minutes)| (key.clone(), minutes.sum())).collect()
}
