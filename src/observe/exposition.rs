//! Counters, and the Prometheus text format (version 0.0.4) they are exposed in.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the counter to what an earlier life of the process had counted.
    pub fn restore(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

/// Type of a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// A room that has something to say on `/metrics`.
pub trait Collect: Send + Sync {
    fn collect(&self, out: &mut Exposition);
}

/// Prometheus text being written, family by family.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Writes a family: its name (with unit and `_total` as the conventions ask), help text, and a
    /// value for each set of labels.
    pub fn family<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        values: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], f64)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(
            self.0,
            "# HELP {name} {}\n# TYPE {name} {kind}",
            help.replace('\\', "\\\\").replace('\n', "\\n")
        );
        for (labels, value) in values {
            self.0.push_str(name);
            for (number, (label, text)) in labels.iter().enumerate() {
                let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(self.0, "{}{label}=\"{text}\"", if number == 0 { '{' } else { ',' });
            }
            self.0.push_str(if labels.is_empty() { " " } else { "} " });
            let _ = writeln!(self.0, "{value}");
        }
    }

    /// A family without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Into<f64>) {
        self.family(name, kind, help, [([].as_slice(), value.into())]);
    }

    /// A counter family with one label from a closed set.
    pub fn by_label(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl Display, u64)>,
    ) {
        let values: Vec<(String, u64)> = values.into_iter().map(|(text, n)| (text.to_string(), n)).collect();
        let rows: Vec<([(&str, &str); 1], f64)> =
            values.iter().map(|(text, n)| ([(label, text.as_str())], *n as f64)).collect();
        self.family(
            name,
            Kind::Counter,
            help,
            rows.iter().map(|(labels, value)| (labels.as_slice(), *value)),
        );
    }

    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut out = Exposition::default();
        out.family("x_total", Kind::Counter, "Help.", [([("a", "q\"\\\n"), ("b", "2")].as_slice(), 1.0)]);
        out.single("y", Kind::Gauge, "Y.", 2.5);
        assert_eq!(
            out.finish(),
            "# HELP x_total Help.\n# TYPE x_total counter\nx_total{a=\"q\\\"\\\\\\n\",b=\"2\"} 1\n# HELP y Y.\n# TYPE y gauge\ny 2.5\n"
        );
    }
}
