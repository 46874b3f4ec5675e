//! Which service an address is: learned from calls of which both ends were seen, and from names.

use crate::aggregate::PeerKey;
use crate::model::ServiceKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many addresses are learned at most; further ones stay addresses.
const LIMIT: usize = 20_000;

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Known {
    One(ServiceKey),
    /// Several services answer there: a gateway, or `localhost`.
    Many,
}

impl Known {
    fn meet(&mut self, service: &ServiceKey) -> bool {
        let is_news = matches!(self, Self::One(known) if known != service);
        if is_news {
            *self = Self::Many;
        }
        is_news
    }
}

/// What an address stands for in the eyes of one client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    Service(ServiceKey),
    /// Several services, whose ends have been seen: the edges to them say it all.
    Seen,
    Unknown,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Addresses {
    /// By client and address.
    of_client: BTreeMap<(ServiceKey, Arc<str>), Known>,
    /// By the client's environment and address, for clients whose own calls were not joined.
    of_any: BTreeMap<(Arc<str>, Arc<str>), Known>,
    /// Services by environment and name.
    #[serde(skip)]
    names: BTreeMap<(Arc<str>, Arc<str>), Known>,
}

impl Addresses {
    /// A service that sends telemetry; `true` if that is news.
    pub fn note_service(&mut self, service: &ServiceKey) -> bool {
        note(&mut self.names, (service.environment.clone(), service.name.clone()), service)
    }

    /// A call to `peer` was answered by `service`; `true` if that is news.
    pub fn learn(&mut self, peer: &PeerKey, service: &ServiceKey) -> bool {
        let own = note(&mut self.of_client, (peer.client.clone(), peer.address.clone()), service);
        let any = note(&mut self.of_any, (peer.client.environment.clone(), peer.address.clone()), service);
        own || any
    }

    pub fn resolve(&self, peer: &PeerKey) -> Resolved {
        match self.of_client.get(&(peer.client.clone(), peer.address.clone())) {
            Some(Known::One(service)) => return Resolved::Service(service.clone()),
            Some(Known::Many) => return Resolved::Seen,
            None => {}
        }
        let environment = &peer.client.environment;
        match self.of_any.get(&(environment.clone(), peer.address.clone())) {
            Some(Known::One(service)) => return Resolved::Service(service.clone()),
            Some(Known::Many) => return Resolved::Unknown,
            None => {}
        }
        let host = peer.address.rsplit_once(':').map_or(&*peer.address, |(host, _port)| host);
        self.named(environment, &peer.address)
            .or_else(|| self.named(environment, host))
            .map_or(Resolved::Unknown, Resolved::Service)
    }

    /// The one service of an environment that has this name.
    pub fn named(&self, environment: &Arc<str>, name: &str) -> Option<ServiceKey> {
        match self.names.get(&(environment.clone(), name.into()))? {
            Known::One(service) => Some(service.clone()),
            Known::Many => None,
        }
    }

    /// Takes over what a checkpoint kept; names are known already.
    pub fn restore(&mut self, state: Self) {
        self.of_client = state.of_client;
        self.of_any = state.of_any;
    }
}

fn note<K: Ord>(known: &mut BTreeMap<K, Known>, key: K, service: &ServiceKey) -> bool {
    if let Some(known) = known.get_mut(&key) {
        return known.meet(service);
    }
    if known.len() >= LIMIT {
        return false;
    }
    known.insert(key, Known::One(service.clone()));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpanKind;

    fn peer(client: &str, address: &str) -> PeerKey {
        PeerKey {
            client: ServiceKey::named(client),
            address: address.into(),
            system: "http".into(),
            kind: SpanKind::Client,
        }
    }

    #[test]
    fn an_address_is_learned_for_every_client_until_two_services_answer_there() {
        let (a, b) = (ServiceKey::named("a"), ServiceKey::named("b"));
        let mut addresses = Addresses::default();
        assert_eq!(addresses.resolve(&peer("x", "gate:80")), Resolved::Unknown);
        assert!(addresses.learn(&peer("x", "gate:80"), &a));
        assert!(!addresses.learn(&peer("x", "gate:80"), &a));
        assert_eq!(addresses.resolve(&peer("x", "gate:80")), Resolved::Service(a.clone()));
        assert_eq!(addresses.resolve(&peer("y", "gate:80")), Resolved::Service(a.clone()));
        assert!(addresses.learn(&peer("y", "gate:80"), &b));
        assert_eq!(addresses.resolve(&peer("x", "gate:80")), Resolved::Service(a));
        assert_eq!(addresses.resolve(&peer("z", "gate:80")), Resolved::Unknown);
        assert!(addresses.learn(&peer("x", "gate:80"), &b));
        assert_eq!(addresses.resolve(&peer("x", "gate:80")), Resolved::Seen);
    }

    #[test]
    fn a_name_is_an_address_with_or_without_port() {
        let mut addresses = Addresses::default();
        let cart = ServiceKey::new("", "shop", "cart");
        addresses.note_service(&cart);
        assert_eq!(addresses.resolve(&peer("x", "cart")), Resolved::Service(cart.clone()));
        assert_eq!(addresses.resolve(&peer("x", "cart:8080")), Resolved::Service(cart));
        addresses.note_service(&ServiceKey::new("", "other", "cart"));
        assert_eq!(addresses.resolve(&peer("x", "cart")), Resolved::Unknown);
    }
}
