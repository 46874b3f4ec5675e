//! What the attributes of a CLIENT or PRODUCER span say of where it went, as raw bytes.

use super::equality::equal;
use crate::model::SpanKind;
use crate::otlp::{AnyValue, SpanView, View};
use foldhash::fast::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Attributes that tell of a peer, in the order of their precedence.
#[derive(Clone, Copy)]
pub(super) enum Fact {
    Service,
    Server,
    Port,
    OldServer,
    OldPort,
    Destination,
    Namespace,
    Database,
    Messaging,
    Rpc,
    Http,
}

/// How many facts there are.
const FACTS: usize = Fact::Http as usize + 1;

/// What a span's attributes say of where it went: the bytes of the `AnyValue` of each fact, empty where
/// there is none.
pub(super) struct Facts<'a>([&'a [u8]; FACTS]);

/// The first eight bytes of a key as a number.
const fn word(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}

/// The tag with which an `AnyValue` of text begins.
const TEXT: u8 = 0x0a;

impl<'a> Facts<'a> {
    #[inline]
    pub fn of(span: &SpanView<'a>) -> Self {
        const SERVER_ADDRESS: u64 = word(b"server.a");
        const SERVER_PORT: u64 = word(b"server.p");
        const PEER: u64 = word(b"peer.ser");
        const SERVICE: u64 = word(b"service.");
        const NET_PEER: u64 = word(b"net.peer");
        const NET_SOCKET: u64 = word(b"net.sock");
        const DB_NAMESPACE: u64 = word(b"db.names");
        const DB_SYSTEM: u64 = word(b"db.syste");
        const MESSAGING: u64 = word(b"messagin");
        const RPC: u64 = word(b"rpc.syst");
        const URL: u64 = word(b"url.full");
        let mut facts = Self([&[]; FACTS]);
        for (key, value) in span.attributes().raw() {
            let Some(first) = key.first_chunk::<8>() else {
                if key == b"db.name" {
                    facts.set(Fact::Namespace, value);
                } else if key.starts_with(b"http.") {
                    facts.set(Fact::Http, b"http");
                }
                continue;
            };
            let first = u64::from_le_bytes(*first);
            let fact = match first {
                SERVER_ADDRESS if key == b"server.address" => Fact::Server,
                SERVER_PORT if key == b"server.port" => Fact::Port,
                PEER if key == b"peer.service" => Fact::Service,
                SERVICE if key == b"service.peer.name" => Fact::Service,
                NET_PEER if key == b"net.peer.name" || key == b"net.peer.ip" => Fact::OldServer,
                NET_PEER if key == b"net.peer.port" => Fact::OldPort,
                NET_SOCKET if key == b"net.sock.peer.addr" => Fact::OldServer,
                DB_NAMESPACE if key == b"db.namespace" => Fact::Namespace,
                DB_SYSTEM if key == b"db.system.name" || key == b"db.system" => Fact::Database,
                MESSAGING if key == b"messaging.system" => Fact::Messaging,
                MESSAGING if key == b"messaging.destination.name" || key == b"messaging.destination" => {
                    Fact::Destination
                }
                RPC if key == b"rpc.system" || key == b"rpc.system.name" => Fact::Rpc,
                URL if key == b"url.full" => {
                    facts.set(Fact::Http, b"http");
                    continue;
                }
                // The prefix of all HTTP attributes.
                _ if first.to_le_bytes().starts_with(b"http.") => {
                    facts.set(Fact::Http, b"http");
                    continue;
                }
                _ => continue,
            };
            facts.set(fact, value);
        }
        facts.keep_what_counts();
        facts
    }

    /// Lets go of what texts take precedence over.
    #[inline]
    fn keep_what_counts(&mut self) {
        let [service, server, port, old_server, old_port, destination, namespace, ..] = &mut self.0;
        if let [TEXT, ..] = service {
            (*server, *port, *old_server, *old_port) = (&[], &[], &[], &[]);
            (*destination, *namespace) = (&[], &[]);
        } else if let [TEXT, ..] = server {
            (*old_server, *destination, *namespace) = (&[], &[], &[]);
        }
    }

    #[inline]
    fn set(&mut self, fact: Fact, value: &'a [u8]) {
        if let Some(place) = self.0.get_mut(fact as usize) {
            *place = value;
        }
    }

    pub fn get(&self, fact: Fact) -> AnyValue<'a> {
        self.0.get(fact as usize).map(|value| AnyValue::of(value)).unwrap_or_default()
    }

    pub fn any(&self, facts: &[Fact]) -> AnyValue<'a> {
        facts.iter().map(|&fact| self.get(fact)).find(|value| !value.is_empty()).unwrap_or_default()
    }

    /// Facts that there are, with their places.
    #[inline(always)]
    fn present(&self) -> impl Iterator<Item = (u32, &'a [u8])> {
        (0u32..).zip(self.0).filter(|(_, value)| !value.is_empty())
    }

    #[inline]
    pub fn hash(&self, hasher: &RandomState, service: u32, kind: SpanKind) -> u64 {
        let mut hasher = hasher.build_hasher();
        hasher.write_u64(u64::from(service) << 8 | kind as u64);
        for (place, value) in self.present() {
            hasher.write_u64(u64::from(place) << 32 | value.len() as u64);
            hasher.write(value);
        }
        hasher.finish()
    }

    pub fn is_http(&self) -> bool {
        self.present().any(|(place, _)| place == Fact::Http as u32)
    }

    /// All facts in one piece: place, length, bytes.
    pub fn raw(&self) -> Box<[u8]> {
        let mut raw = Vec::new();
        for (place, value) in self.present() {
            raw.push(place as u8);
            raw.extend_from_slice(&(value.len() as u32).to_le_bytes());
            raw.extend_from_slice(value);
        }
        raw.into()
    }

    #[inline]
    pub fn equals(&self, mut raw: &[u8]) -> bool {
        for (place, value) in self.present() {
            let Some((head, rest)) = raw.split_first_chunk::<5>() else { return false };
            let [known_place, a, b, c, d] = *head;
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            let Some((known, rest)) = rest.split_at_checked(length) else { return false };
            if u32::from(known_place) != place || !equal(known, value) {
                return false;
            }
            raw = rest;
        }
        raw.is_empty()
    }
}
