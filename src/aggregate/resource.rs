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

#[derive(Debug)]
pub(super) struct Resource {
    raw: Box<[u8]>,
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
        let number = self.find_raw(self.hasher.hash_one(raw), raw)?;
        let refused = self.get(number).and_then(|resource| resource.refused);
        refused.is_none_or(|refused| refused == (self.caller, self.taken)).then_some(number)
    }

    fn find_raw(&self, hash: u64, raw: &[u8]) -> Option<u32> {
        let is_it = |&number: &u32| self.get(number).is_some_and(|resource| *resource.raw == *raw);
        self.lookup.find(hash, is_it).copied()
    }

    /// The number of a resource that [`Resources::find`] does not know.
    pub fn add(&mut self, view: ResourceView<'_>, series: &mut SeriesTable, facets: &mut Facets) -> u32 {
        let hash = self.hasher.hash_one(view.bytes());
        if self.all.len() >= self.limit {
            self.clear();
            // Open facet counts refer to facets by number, so those stay.
        }
        let made = self.parse(view, hash, series, facets);
        self.taken = self.taken.saturating_add(u64::from(made.refused.is_none()));
        if let Some(number) = self.find_raw(hash, view.bytes())
            && let Some(place) = self.all.get_mut(number as usize)
        {
            *place = made;
            return number;
        }
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
        hash: u64,
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
        Resource { raw: view.bytes().into(), hash, service, facets: found.into(), identity, refused }
    }

    /// Forgets every number.
    pub fn clear(&mut self) {
        self.all.clear();
        self.lookup.clear();
    }
}
