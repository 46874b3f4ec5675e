//! What is counted apart: a series and its id.

use super::ServiceKey;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Which of OTLP's three signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    Traces,
    Logs,
    Metrics,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Traces, Self::Logs, Self::Metrics];

    /// As in the paths of OTLP/HTTP: `traces`, `logs`, `metrics`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }
}

/// `opentelemetry.proto.trace.v1.Span.SpanKind`. Unknown numbers are `Unspecified`, which the
/// specification says to treat as internal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    #[default]
    Unspecified = 0,
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

impl SpanKind {
    #[must_use]
    pub const fn from_wire(number: u64) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    /// Whether a span of this kind is a request to its service even when it has a parent.
    #[must_use]
    pub const fn is_entry(self) -> bool {
        matches!(self, Self::Server | Self::Consumer)
    }
}

/// The canonical key of a series. Status is not in it (errors are counted in the cell); version and
/// instance are not either (a deploy would reset every baseline just when it is needed).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    pub service: ServiceKey,
    pub signal: Signal,
    /// Traces: the span's name. Metrics: the metric's name. Logs: empty.
    pub operation: Arc<str>,
    /// Traces only; `Unspecified` otherwise.
    pub kind: SpanKind,
    /// Traces: whether its spans are requests to the service: SERVER, CONSUMER, or roots of any kind.
    pub entry: bool,
    /// Metrics: the UCUM unit as sent. Empty otherwise.
    pub unit: Arc<str>,
    /// Metrics: the point's attributes; traces: the configured ones. Sorted by key.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

impl SeriesKey {
    /// The id of this key: the first 128 bits of BLAKE3 over its canonical encoding, in which every
    /// text is preceded by its length, so that no two keys share an encoding.
    #[must_use]
    pub fn id(&self) -> SeriesId {
        let attributes = self.attributes.iter().map(|(key, value)| (&**key, &**value));
        let of_what = (self.signal, self.kind, self.entry);
        Self::id_of(&self.service, of_what, &self.operation, &self.unit, attributes)
    }

    /// The id of the key of these parts: signal, kind and whether it is an entry; attributes by key.
    #[must_use]
    pub fn id_of<'a>(
        service: &ServiceKey,
        (signal, kind, entry): (Signal, SpanKind, bool),
        operation: &str,
        unit: &str,
        attributes: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> SeriesId {
        fn text(hasher: &mut blake3::Hasher, text: &str) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        for part in [&service.environment, &service.namespace, &service.name] {
            text(&mut hasher, part);
        }
        hasher.update(&[signal as u8, kind as u8, u8::from(entry)]);
        text(&mut hasher, operation);
        text(&mut hasher, unit);
        for (key, value) in attributes {
            text(&mut hasher, key);
            text(&mut hasher, value);
        }
        let mut id = [0u8; 16];
        hasher.finalize_xof().fill(&mut id);
        SeriesId(id)
    }
}

/// 128-bit id of a series, equal on every node without any registry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesId(pub [u8; 16]);

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Gives equal texts one allocation.
#[derive(Debug, Default)]
pub struct Interner(HashSet<Arc<str>>);

impl Interner {
    /// The allocation that equal texts have, or a new one that is not remembered: for texts of which it is not known yet
    /// whether they will stay.
    #[must_use]
    pub fn find_or_make(&self, text: &str) -> Arc<str> {
        self.0.get(text).cloned().unwrap_or_else(|| text.into())
    }

    /// Remembers a text, unless an equal one is remembered.
    pub fn remember(&mut self, text: &Arc<str>) {
        if !self.0.contains(&**text) {
            self.0.insert(text.clone());
        }
    }

    /// Texts that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.0.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(operation: &str, attributes: &[(&str, &str)]) -> SeriesKey {
        SeriesKey {
            service: ServiceKey::named("cart"),
            signal: Signal::Traces,
            operation: operation.into(),
            kind: SpanKind::Server,
            entry: true,
            unit: "".into(),
            attributes: attributes.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
        }
    }

    #[test]
    fn ids_tell_keys_apart_even_when_their_texts_join_alike() {
        assert_eq!(key("a", &[]).id(), key("a", &[]).id());
        assert_ne!(key("ab", &[("c", "d")]).id(), key("a", &[("bc", "d")]).id());
        assert_ne!(key("a", &[("c", "d")]).id(), key("a", &[("cd", "")]).id());
    }
}
