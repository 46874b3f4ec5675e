//! Where CLIENT and PRODUCER spans went, by the address that they name.

use super::config::{OTHER, PEERS, bounded};
use super::series::SeriesTable;
use super::{EdgeCell, PeerKey};
use crate::model::{SpanKind, WindowId};
use crate::otlp::{AnyValue, SpanView};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// Peers by number, and their counts since the last barrier.
#[derive(Debug, Default)]
pub(super) struct Peers {
    hasher: RandomState,
    lookup: HashTable<u32>,
    all: Vec<(u32, u64, Arc<PeerKey>)>,
    counts: HashMap<(u32, WindowId), EdgeCell>,
    /// Address and system of the span in hand.
    address: String,
    system: String,
}

/// What a span's attributes say of where it went.
#[derive(Default)]
struct Facts<'a> {
    service: AnyValue<'a>,
    server: AnyValue<'a>,
    port: AnyValue<'a>,
    old_server: AnyValue<'a>,
    old_port: AnyValue<'a>,
    namespace: AnyValue<'a>,
    destination: AnyValue<'a>,
    database: AnyValue<'a>,
    messaging: AnyValue<'a>,
    rpc: AnyValue<'a>,
    http: bool,
}

impl<'a> Facts<'a> {
    fn of(span: &SpanView<'a>) -> Self {
        let mut facts = Self::default();
        for (key, value) in span.attributes() {
            let place = match key {
                "peer.service" | "service.peer.name" => &mut facts.service,
                "server.address" => &mut facts.server,
                "server.port" => &mut facts.port,
                "net.peer.name" | "net.sock.peer.addr" | "net.peer.ip" => &mut facts.old_server,
                "net.peer.port" => &mut facts.old_port,
                "db.namespace" | "db.name" => &mut facts.namespace,
                "messaging.destination.name" | "messaging.destination" => &mut facts.destination,
                "db.system.name" | "db.system" => &mut facts.database,
                "messaging.system" => &mut facts.messaging,
                "rpc.system" | "rpc.system.name" => &mut facts.rpc,
                _ => {
                    facts.http |= key.starts_with("http.") || key == "url.full";
                    continue;
                }
            };
            *place = value;
        }
        facts
    }
}

fn first<'a>(of: [AnyValue<'a>; 2]) -> AnyValue<'a> {
    of.into_iter().find(|value| !value.is_empty()).unwrap_or_default()
}

impl Peers {
    /// The number of the peer of a span of `service`, or `None` when the span does not name one.
    pub fn number(&mut self, span: &SpanView<'_>, service: u32, series: &mut SeriesTable) -> Option<u32> {
        let facts = Facts::of(span);
        self.address.clear();
        self.system.clear();
        let system = first([facts.database, first([facts.messaging, facts.rpc])]);
        let _ = write!(self.system, "{system}");
        if self.system.is_empty() && facts.http {
            self.system.push_str("http");
        }
        let server = first([facts.server, facts.old_server]);
        let _ = if !facts.service.is_empty() {
            write!(self.address, "{}", facts.service)
        } else if !server.is_empty() {
            let port = first([facts.port, facts.old_port]);
            let colon = if port.is_empty() { "" } else { ":" };
            write!(self.address, "{server}{colon}{port}")
        } else {
            write!(self.address, "{}", first([facts.destination, facts.namespace]))
        };
        if self.address.is_empty() {
            if self.system.is_empty() {
                return None;
            }
            self.address.push_str(&self.system);
        }
        let (address, system) = (bounded(&self.address), bounded(&self.system));
        if let Some(known) = find(&self.lookup, &self.all, &self.hasher, service, span.kind, address, system)
        {
            return Some(known);
        }
        let owner = series.service_mut(service)?;
        let is_full = owner.peers >= PEERS;
        let address = if is_full { OTHER } else { address };
        if is_full
            && let Some(known) =
                find(&self.lookup, &self.all, &self.hasher, service, span.kind, address, system)
        {
            return Some(known);
        }
        owner.peers += 1;
        let key = PeerKey {
            client: (*owner.key).clone(),
            address: address.into(),
            // Systems are few, but a client may send anything.
            system: if is_full { "".into() } else { system.into() },
            kind: span.kind,
        };
        let hash = hash(&self.hasher, service, span.kind, &key.address, &key.system);
        if let Some(known) =
            find(&self.lookup, &self.all, &self.hasher, service, span.kind, &key.address, &key.system)
        {
            return Some(known);
        }
        let number = u32::try_from(self.all.len()).ok()?;
        self.all.push((service, hash, Arc::new(key)));
        let all = &self.all;
        self.lookup.insert_unique(hash, number, |&number| all.get(number as usize).map_or(0, |peer| peer.1));
        Some(number)
    }

    pub fn key(&self, peer: u32) -> Option<Arc<PeerKey>> {
        self.all.get(peer as usize).map(|(_, _, key)| key.clone())
    }

    pub fn add(&mut self, peer: u32, window: WindowId, duration_ns: u64, error: bool) {
        let cell = self.counts.entry((peer, window)).or_default();
        cell.requests += 1;
        cell.errors += u64::from(error);
        cell.latency.record(duration_ns as f64);
    }

    /// What was counted, sorted by key and window.
    pub fn take(&mut self) -> Vec<(Arc<PeerKey>, WindowId, EdgeCell)> {
        let mut taken: Vec<_> = self
            .counts
            .drain()
            .filter_map(|((peer, window), cell)| Some((self.all.get(peer as usize)?.2.clone(), window, cell)))
            .collect();
        taken.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        taken
    }
}

fn hash(hasher: &RandomState, service: u32, kind: SpanKind, address: &str, system: &str) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u64(u64::from(service) << 8 | kind as u64);
    hasher.write(address.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(system.as_bytes());
    hasher.finish()
}

fn find(
    lookup: &HashTable<u32>,
    all: &[(u32, u64, Arc<PeerKey>)],
    hasher: &RandomState,
    service: u32,
    kind: SpanKind,
    address: &str,
    system: &str,
) -> Option<u32> {
    lookup
        .find(hash(hasher, service, kind, address, system), |&number| {
            all.get(number as usize).is_some_and(|(owner, _, key)| {
                *owner == service && key.kind == kind && *key.address == *address && *key.system == *system
            })
        })
        .copied()
}
