//! Where CLIENT and PRODUCER spans went, by the address that they name.

use super::config::{OTHER, PEERS, bounded};
use super::peer_facts::{Fact, Facts};
use super::series::SeriesTable;
use super::slots::{More, Slots};
use super::{EdgeCell, PeerKey};
use crate::model::{SpanKind, WindowId};
use crate::otlp::SpanView;
use crate::sketch::{Recording, Recordings};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// Ways of naming a peer that are remembered; beyond that all of them are learned anew.
const NAMES: usize = 65_536;
/// Longer ones are not remembered.
const NAME_BYTES: usize = 512;
const NONE: u32 = u32::MAX;

/// Peers by number, and their counts since the last barrier.
#[derive(Debug, Default)]
pub(super) struct Peers {
    hasher: RandomState,
    lookup: HashTable<u32>,
    all: Vec<Peer>,
    /// By the very bytes that name them, so that nothing is put into words for a span whose like was seen.
    names: Vec<Name>,
    by_name: HashTable<u32>,
    cells: Vec<PeerCell>,
    recordings: Recordings,
    more: More,
    epoch: u32,
    /// Address and system of the span in hand.
    address: String,
    system: String,
}

#[derive(Debug)]
struct Peer {
    service: u32,
    hash: u64,
    key: Arc<PeerKey>,
    slots: Slots,
}

#[derive(Debug)]
struct Name {
    service: u32,
    kind: SpanKind,
    raw: Box<[u8]>,
    hash: u64,
    /// `NONE` when the bytes name no peer.
    peer: u32,
}

#[derive(Debug)]
struct PeerCell {
    peer: u32,
    window: WindowId,
    requests: u64,
    errors: u64,
    latency: Recording,
}

impl Name {
    #[inline(always)]
    fn is(&self, facts: &Facts<'_>, kind: SpanKind, service: u32) -> bool {
        self.service == service && self.kind == kind && facts.equals(&self.raw)
    }
}

impl Peers {
    /// The number of the peer of a span of `service`, counted as of series `of`; `None` when the span
    /// does not name one.
    #[inline]
    pub fn number(
        &mut self,
        span: &SpanView<'_>,
        service: u32,
        of: u32,
        series: &mut SeriesTable,
    ) -> Option<u32> {
        let facts = Facts::of(span);
        // Mostly the name that the last span of the series had.
        let last = series.get(of).and_then(|series| self.names.get(series.last_peer_name as usize));
        let peer = match last.filter(|name| name.is(&facts, span.kind, service)) {
            Some(name) => name.peer,
            None => self.look_up(&facts, span.kind, service, of, series),
        };
        (peer != NONE).then_some(peer)
    }

    fn look_up(
        &mut self,
        facts: &Facts<'_>,
        kind: SpanKind,
        service: u32,
        of: u32,
        series: &mut SeriesTable,
    ) -> u32 {
        let hash = facts.hash(&self.hasher, service, kind);
        let names = &self.names;
        let known = self
            .by_name
            .find(hash, |&name| names.get(name as usize).is_some_and(|name| name.is(facts, kind, service)));
        let Some(&known) = known else { return self.learn(facts, hash, kind, service, series) };
        if let Some(of) = series.get_mut(of) {
            of.last_peer_name = known;
        }
        self.names.get(known as usize).map_or(NONE, |name| name.peer)
    }

    #[cold]
    fn learn(
        &mut self,
        facts: &Facts<'_>,
        hash: u64,
        kind: SpanKind,
        service: u32,
        series: &mut SeriesTable,
    ) -> u32 {
        let peer = self.of_facts(facts, kind, service, series).unwrap_or(NONE);
        let raw = facts.raw();
        if raw.len() > NAME_BYTES {
            return peer;
        }
        if self.names.len() >= NAMES {
            self.names.clear();
            self.by_name.clear();
        }
        let number = u32::try_from(self.names.len()).unwrap_or(NONE);
        self.names.push(Name { service, kind, raw, hash, peer });
        let names = &self.names;
        self.by_name
            .insert_unique(hash, number, |&name| names.get(name as usize).map_or(0, |name| name.hash));
        peer
    }

    fn of_facts(
        &mut self,
        facts: &Facts<'_>,
        kind: SpanKind,
        service: u32,
        series: &mut SeriesTable,
    ) -> Option<u32> {
        self.address.clear();
        self.system.clear();
        let _ = write!(self.system, "{}", facts.any(&[Fact::Database, Fact::Messaging, Fact::Rpc]));
        if self.system.is_empty() && facts.is_http() {
            self.system.push_str("http");
        }
        let named = facts.get(Fact::Service);
        let server = facts.any(&[Fact::Server, Fact::OldServer]);
        let _ = if !named.is_empty() {
            write!(self.address, "{named}")
        } else if !server.is_empty() {
            let port = facts.any(&[Fact::Port, Fact::OldPort]);
            let colon = if port.is_empty() { "" } else { ":" };
            write!(self.address, "{server}{colon}{port}")
        } else {
            write!(self.address, "{}", facts.any(&[Fact::Destination, Fact::Namespace]))
        };
        if self.address.is_empty() {
            if self.system.is_empty() {
                return None;
            }
            self.address.push_str(&self.system);
        }
        let (address, system) = (bounded(&self.address), bounded(&self.system));
        if let Some(known) = self.find(service, kind, address, system) {
            return Some(known);
        }
        let owner = series.service_mut(service)?;
        // Systems are few, but a client may send anything.
        let (address, system) = if owner.peers >= PEERS { (OTHER, "") } else { (address, system) };
        if let Some(known) = self.find(service, kind, address, system) {
            return Some(known);
        }
        owner.peers += 1;
        let key =
            PeerKey { client: (*owner.key).clone(), address: address.into(), system: system.into(), kind };
        let hash = hash(&self.hasher, service, kind, address, system);
        let number = u32::try_from(self.all.len()).ok()?;
        self.all.push(Peer { service, hash, key: Arc::new(key), slots: Slots::default() });
        let all = &self.all;
        self.lookup
            .insert_unique(hash, number, |&number| all.get(number as usize).map_or(0, |peer| peer.hash));
        Some(number)
    }

    fn find(&self, service: u32, kind: SpanKind, address: &str, system: &str) -> Option<u32> {
        self.lookup
            .find(hash(&self.hasher, service, kind, address, system), |&number| {
                self.all.get(number as usize).is_some_and(|peer| {
                    let key = &peer.key;
                    peer.service == service
                        && key.kind == kind
                        && *key.address == *address
                        && *key.system == *system
                })
            })
            .copied()
    }

    pub fn key(&self, peer: u32) -> Option<Arc<PeerKey>> {
        self.all.get(peer as usize).map(|peer| peer.key.clone())
    }

    #[inline]
    pub fn add(&mut self, number: u32, window: WindowId, duration_ns: u64, error: bool) {
        let Some(peer) = self.all.get_mut(number as usize) else { return };
        let made = u32::try_from(self.cells.len()).unwrap_or(NONE);
        let epoch = self.epoch.wrapping_add(1);
        let (cell, is_beyond) = peer.slots.cell(number, window, made, epoch, &mut self.more);
        let before = if is_beyond { self.recordings.size_bytes() } else { 0 };
        if cell == made {
            if is_beyond {
                self.more.grow(size_of::<PeerCell>());
            }
            let latency = Recording::default();
            self.cells.push(PeerCell { peer: number, window, requests: 0, errors: 0, latency });
        }
        let Some(cell) = self.cells.get_mut(cell as usize) else { return };
        cell.requests += 1;
        cell.errors += u64::from(error);
        cell.latency.record(duration_ns, &mut self.recordings);
        if is_beyond {
            self.more.grow(self.recordings.size_bytes().saturating_sub(before));
        }
    }

    /// Cells beyond two windows of each peer.
    #[inline]
    pub fn beyond(&self) -> usize {
        self.more.len()
    }

    /// Memory that those take.
    #[inline]
    pub fn beyond_bytes(&self) -> usize {
        self.more.size_bytes()
    }

    /// What was counted, sorted by key and window.
    pub fn take(&mut self) -> Vec<(Arc<PeerKey>, WindowId, EdgeCell)> {
        let mut taken = Vec::with_capacity(self.cells.len());
        for cell in self.cells.drain(..) {
            let Some(peer) = self.all.get(cell.peer as usize) else { continue };
            let latency = cell.latency.histogram(&self.recordings);
            let edge = EdgeCell { requests: cell.requests, errors: cell.errors, latency };
            taken.push((peer.key.clone(), cell.window, edge));
        }
        self.epoch = self.epoch.wrapping_add(1);
        self.recordings.clear();
        self.more.clear();
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
