//! Resources: parsed once, then recognised by their bytes.

use super::config::{Bounds, bounded};
use super::facets::Facets;
use super::series::SeriesTable;
use crate::model::ServiceKey;
use crate::otlp::{AnyValue, ResourceView};
use crate::receive::CallerTag;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Attributes of a resource that are facets: what was deployed, and where it runs.
const FACETS: [&str; 10] = [
    "service.version",
    "service.instance.id",
    "k8s.pod.name",
    "host.name",
    "container.image.tag",
    "container.image.tags",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "cloud.region",
    "cloud.availability_zone",
];

/// Longer resources are recognised by a hash of their bytes, so that little of them is held.
const RAW_BYTES: usize = 4_096;
/// So many bytes are held for each that there may be; few have as many.
const BYTES_EACH: usize = 1_024;

#[derive(Debug)]
pub(super) struct Resource {
    /// Its bytes, or where those are too many their BLAKE3.
    raw: Box<[u8]>,
    length: usize,
    hash: u64,
    pub service: u32,
    pub facets: Box<[u32]>,
    /// Hash of its attributes in the order of their keys: equal after a restart.
    pub identity: [u8; 16],
    /// For whose request there was no room for its service, and when. Of another caller there may be.
    refused: Option<(CallerTag, u64)>,
}

#[derive(Debug)]
pub(super) struct Resources {
    hasher: RandomState,
    lookup: HashTable<u32>,
    all: Vec<Resource>,
    limit: usize,
    /// Of `raw`, in all.
    raw_bytes: usize,
    facet_names: Vec<Arc<str>>,
    /// Whose request is counted now.
    pub caller: CallerTag,
    /// Of resources that were taken: with each there may be a service that was refused to others.
    taken: u64,
}

impl Resources {
    /// `wanted`: attributes that are facets, too.
    pub fn new(bounds: Bounds, wanted: &[String]) -> Self {
        let wanted = wanted.iter().map(String::as_str).filter(|name| !FACETS.contains(name));
        Self {
            hasher: RandomState::default(),
            lookup: HashTable::new(),
            all: Vec::new(),
            limit: bounds.resources,
            raw_bytes: 0,
            facet_names: FACETS.into_iter().chain(wanted).map(Into::into).collect(),
            caller: CallerTag::NOBODY,
            taken: 0,
        }
    }

    pub fn get(&self, number: u32) -> Option<&Resource> {
        self.all.get(number as usize)
    }

    /// The number of the service of a resource.
    pub fn service_of(&self, number: u32) -> Option<u32> {
        self.get(number).map(|resource| resource.service)
    }

    /// The number of a resource of which these very bytes were seen before.
    pub fn find(&self, raw: &[u8]) -> Option<u32> {
        let number = if raw.len() > RAW_BYTES {
            let digest = blake3::hash(raw);
            self.find_raw(self.hasher.hash_one(digest.as_bytes().as_slice()), digest.as_bytes(), raw.len())
        } else {
            self.find_raw(self.hasher.hash_one(raw), raw, raw.len())
        }?;
        let refused = self.get(number).and_then(|resource| resource.refused);
        refused.is_none_or(|refused| refused == (self.caller, self.taken)).then_some(number)
    }

    fn find_raw(&self, hash: u64, raw: &[u8], length: usize) -> Option<u32> {
        let is_it = |&number: &u32| {
            self.get(number).is_some_and(|resource| *resource.raw == *raw && resource.length == length)
        };
        self.lookup.find(hash, is_it).copied()
    }

    /// The number of a resource that [`Resources::find`] does not know.
    pub fn add(&mut self, view: ResourceView<'_>, series: &mut SeriesTable, facets: &mut Facets) -> u32 {
        let raw: Box<[u8]> = match view.bytes() {
            long if long.len() > RAW_BYTES => blake3::hash(long).as_bytes().as_slice().into(),
            bytes => bytes.into(),
        };
        let hash = self.hasher.hash_one(&*raw);
        let most_bytes = self.limit.saturating_mul(BYTES_EACH);
        if self.all.len() >= self.limit || self.raw_bytes.saturating_add(raw.len()) > most_bytes {
            self.clear();
            // Open facet counts refer to facets by number, so those stay.
        }
        let known = self.find_raw(hash, &raw, view.bytes().len());
        let made = self.parse(view, (raw, hash), series, facets);
        self.taken = self.taken.saturating_add(u64::from(made.refused.is_none()));
        if let Some(number) = known
            && let Some(place) = self.all.get_mut(number as usize)
        {
            *place = made;
            return number;
        }
        self.raw_bytes = self.raw_bytes.saturating_add(made.raw.len());
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(made);
        let all = &self.all;
        self.lookup
            .insert_unique(hash, number, |&number| all.get(number as usize).map_or(0, |known| known.hash));
        number
    }

    fn parse(
        &self,
        view: ResourceView<'_>,
        (raw, hash): (Box<[u8]>, u64),
        series: &mut SeriesTable,
        facets: &mut Facets,
    ) -> Resource {
        let attributes = view.attributes();
        let text = |key: &str| attributes.get(key).map(|value| value.to_string()).unwrap_or_default();
        let environment = Some(text("deployment.environment.name"))
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| text("deployment.environment"));
        let name = Some(text("service.name")).filter(|text| !text.is_empty());
        let name = name.as_deref().unwrap_or("unknown_service");
        let key = ServiceKey::new(bounded(&environment), bounded(&text("service.namespace")), bounded(name));
        let service = series.service_number(&key);
        let is_refused = series.service(service).is_some_and(|service| *service.key != key);
        let key = series.service(service).map_or(key, |service| (*service.key).clone());
        let mut found = Vec::new();
        for name in &self.facet_names {
            let value = match attributes.get(name) {
                Some(AnyValue::Array(mut values)) => values.next(),
                other => other,
            };
            let value = value.map(|value| value.to_string()).unwrap_or_default();
            if !value.is_empty() {
                found.push(facets.number(&key, name, bounded(&value)));
            }
        }
        let mut sorted: Vec<(&str, String)> =
            attributes.map(|(key, value)| (key, value.to_string())).collect();
        sorted.sort();
        let mut hasher = blake3::Hasher::new();
        for (key, value) in &sorted {
            for text in [*key, value.as_str()] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        let mut identity = [0u8; 16];
        hasher.finalize_xof().fill(&mut identity);
        let refused = is_refused.then_some((self.caller, self.taken));
        let length = view.bytes().len();
        Resource { raw, length, hash, service, facets: found.into(), identity, refused }
    }

    /// Forgets every number.
    pub fn clear(&mut self) {
        self.all.clear();
        self.lookup.clear();
        self.raw_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::tests::{NOW, admitted, pair, resource};
    use crate::aggregate::{Config, Shard};
    use crate::journal::Position;
    use crate::model::{Signal, Timestamp};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message;

    fn send(shard: &mut Shard, instance: usize, length: usize) {
        let mut of = resource("cart", &instance.to_string()).unwrap_or_default();
        of.attributes.push(pair("note", &"x".repeat(length)));
        let span = Span {
            name: "GET /cart".into(),
            start_time_unix_nano: NOW * 1_000_000_000,
            end_time_unix_nano: NOW * 1_000_000_000,
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let group = ResourceSpans { resource: Some(of), scope_spans, ..ResourceSpans::default() };
        let body = ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec();
        shard.apply(Position(0), Timestamp::from_secs(NOW), &admitted(Signal::Traces, body).0);
    }

    #[test]
    fn what_resources_are_recognised_by_is_bounded_in_bytes() {
        let config = Config { series: 1_000, ..Config::default() };
        let mut shard = Shard::new(0, 1, &config);
        let most = config.bounds(1).resources * BYTES_EACH;
        // Long ones are little to hold, and known again.
        for instance in (0..100).chain(0..100) {
            send(&mut shard, instance, 200_000);
        }
        assert_eq!((shard.resources.all.len(), shard.resources.raw_bytes), (100, 3_200));
        // Another is another.
        send(&mut shard, 0, 200_001);
        assert_eq!(shard.resources.all.len(), 101);
        // Those that are held as they are fill it sooner the longer they are.
        let mut largest = 0;
        for instance in 0..1_500 {
            send(&mut shard, instance, RAW_BYTES - 200);
            largest = largest.max(shard.resources.raw_bytes);
            assert!(shard.resources.raw_bytes <= most);
        }
        assert!(largest > most / 2, "{largest} of {most}");
        // What is usual is not cut short.
        shard.resources.clear();
        for instance in 0..2_000 {
            send(&mut shard, instance, 500);
        }
        assert_eq!(shard.resources.all.len(), 2_000);
    }
}
