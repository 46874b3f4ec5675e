//! What fills the room of a service whose items go to overflow series: the part of its names with most values.

use super::Registry;
use crate::model::{ServiceKey, Signal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The part of a series' name that has most values within a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    ServiceName,
    SpanName,
    MetricName,
    /// Of metric points, or of spans where `aggregate` keeps them apart by one.
    Attribute(Arc<str>),
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceName => out.write_str("service names"),
            Self::SpanName => out.write_str("span names"),
            Self::MetricName => out.write_str("metric names"),
            Self::Attribute(key) => write!(out, "values of the attribute {key}"),
        }
    }
}

/// What makes a service's series many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Series of the service that are counted apart.
    pub series: usize,
    pub part: Part,
    /// Distinct values of the part.
    pub values: usize,
    /// What more than half of the values begin with, and `*`: `GET /user/*`; `*` alone if they have nothing in
    /// common.
    pub pattern: String,
}

/// What makes the series of a service many; `None` if it has none.
#[must_use]
pub fn crowd(registry: &Registry, service: &ServiceKey) -> Option<Crowd> {
    let keys = registry.of_service(service);
    let mut parts: BTreeMap<Part, BTreeSet<&str>> = BTreeMap::new();
    for key in &keys {
        let name = match key.signal {
            Signal::Traces => Some(Part::SpanName),
            Signal::Metrics => Some(Part::MetricName),
            Signal::Logs => None,
        };
        if let Some(part) = name {
            parts.entry(part).or_default().insert(&key.operation);
        }
        for (attribute, value) in &key.attributes {
            parts.entry(Part::Attribute(attribute.clone())).or_default().insert(value);
        }
    }
    let (part, values) = parts.into_iter().max_by_key(|(_, values)| values.len())?;
    let (values, pattern) = (values.len(), common(values));
    Some(Crowd { series: keys.len(), part, values, pattern })
}

/// What there is of services, for who brings too many of them.
#[must_use]
pub fn crowd_of_services(registry: &Registry) -> Crowd {
    let services = registry.services();
    let names: BTreeSet<&str> = services.iter().map(|service| &*service.name).collect();
    let values = names.len();
    Crowd { series: registry.len(), part: Part::ServiceName, values, pattern: common(names) }
}

/// Where the first word, number or sign of a text ends.
fn first_piece(text: &str) -> usize {
    let mut characters = text.char_indices();
    let Some((_, first)) = characters.next() else { return 0 };
    characters
        .find(|(_, next)| !(first.is_alphanumeric() && next.is_alphanumeric()))
        .map_or(text.len(), |(at, _)| at)
}

/// The longest beginning, piece by piece, that more than half of all values share; followed by `*` where they
/// go on.
fn common(values: BTreeSet<&str>) -> String {
    let most_of_them = values.len() / 2 + 1;
    let mut shared = String::new();
    let mut rest: Vec<&str> = values.into_iter().collect();
    loop {
        let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for text in &rest {
            let (piece, after) = text.split_at(first_piece(text));
            next.entry(piece).or_default().push(after);
        }
        let most = next.into_iter().max_by_key(|(_, after)| after.len());
        match most {
            Some((piece, after)) if after.len() >= most_of_them && !piece.is_empty() => {
                shared.push_str(piece);
                rest = after;
            }
            _ => break,
        }
    }
    if rest.iter().any(|after| !after.is_empty()) {
        shared.push('*');
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SeriesKey, SpanKind};

    fn add(registry: &Registry, service: &str, signal: Signal, name: &str, attributes: &[(&str, &str)]) {
        let key = SeriesKey {
            service: ServiceKey::named(service),
            signal,
            operation: name.into(),
            kind: SpanKind::Server,
            entry: true,
            unit: "".into(),
            attributes: attributes.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
        };
        registry.add(key.id(), Arc::new(key), 0);
    }

    #[test]
    fn the_part_with_most_values_is_named_with_what_they_have_in_common() {
        let registry = Registry::default();
        for number in 0..200 {
            let name = format!("GET /user/name{}{number}/cart", char::from(b'a' + (number % 26) as u8));
            add(&registry, "cart", Signal::Traces, &name, &[]);
        }
        for name in ["GET /", "POST /cart", "GET /user"] {
            add(&registry, "cart", Signal::Traces, name, &[]);
        }
        for number in 0..40 {
            add(&registry, "mail", Signal::Metrics, "sent", &[("user.id", &format!("{number:x}"))]);
            add(&registry, "mail", Signal::Metrics, "taken", &[("user.id", &format!("{number:x}"))]);
        }
        let cart = crowd(&registry, &ServiceKey::named("cart")).unwrap();
        assert_eq!((cart.series, cart.values, cart.part), (203, 203, Part::SpanName));
        assert_eq!(cart.pattern, "GET /user/*");
        let mail = crowd(&registry, &ServiceKey::named("mail")).unwrap();
        assert_eq!((mail.series, mail.values), (80, 40));
        assert_eq!(mail.part.to_string(), "values of the attribute user.id");
        assert_eq!(mail.pattern, "*");
        assert_eq!(crowd(&registry, &ServiceKey::named("nobody")), None);
        for number in 0..5 {
            add(&registry, &format!("worker-{number}"), Signal::Traces, "run", &[]);
        }
        let services = crowd_of_services(&registry);
        assert_eq!((services.values, services.series), (7, 203 + 80 + 5));
        assert_eq!(
            (services.part.to_string().as_str(), services.pattern.as_str()),
            ("service names", "worker-*")
        );
    }

    #[test]
    fn what_values_share_ends_at_a_whole_piece() {
        let of = |values: &[&str]| common(values.iter().copied().collect());
        assert_eq!(of(&["op-10-x", "op-11-x", "op-12-y"]), "op-*");
        assert_eq!(of(&["only"]), "only");
        assert_eq!(of(&["größe 1", "größe 2"]), "größe *");
        assert_eq!(of(&["a", "b", "c"]), "*");
        assert_eq!(of(&[]), "");
        assert_eq!(of(&["", "a"]), "*");
    }
}
