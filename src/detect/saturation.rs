//! A pool, queue or disk is near its limit, and was not before.
//!
//! Which gauges tell utilisation follows from the names of the OpenTelemetry semantic conventions:
//! `*.utilization` (0..1, or % by its unit); pools as used against a maximum
//! (`db.client.connection.count{state=used}` and `db.client.connection.max`, `*.usage` or `*.used`
//! and `*.limit`).

use serde::{Deserialize, Serialize};

/// What a metric says about a resource that can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The share in use; `percent` if 100 is all.
    Utilization {
        percent: bool,
    },
    /// How much is in use, to be held against a [`Role::Limit`] of the same resource.
    Used,
    Limit,
    None,
}

/// The role of a metric, and the name of the resource that it shares with its counterpart.
#[must_use]
pub fn role(
    name: &str,
    unit: &str,
    attributes: &[(std::sync::Arc<str>, std::sync::Arc<str>)],
) -> (Role, String) {
    let name = name.to_ascii_lowercase();
    let state = attributes.iter().find(|(key, _)| key.ends_with("state")).map(|(_, value)| &**value);
    let pool = || {
        let rest: Vec<String> = attributes
            .iter()
            .filter(|(key, _)| !key.ends_with("state"))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        rest.join(",")
    };
    let tail = name.rsplit(['.', '_']).next().unwrap_or_default();
    if matches!(tail, "utilization" | "utilisation") {
        // Free and idle shares say nothing by being high.
        let idle = matches!(state, Some("idle" | "free" | "inactive" | "cached" | "buffered"));
        let role = if idle { Role::None } else { Role::Utilization { percent: unit == "%" } };
        return (role, String::new());
    }
    let in_use = state.is_none_or(|state| matches!(state, "used" | "active" | "in_use" | "busy"));
    for (suffix, limits) in [
        ("connection.count", ["connection.max", "connection.limit"]),
        ("connections.usage", ["connections.max", "connections.limit"]),
        (".usage", [".limit", ".max"]),
        (".used", [".limit", ".max"]),
        (".size", [".capacity", ".limit"]),
    ] {
        if let Some(stem) = name.strip_suffix(suffix) {
            return (if in_use { Role::Used } else { Role::None }, format!("{stem}|{}", pool()));
        }
        if let Some(stem) = limits.iter().find_map(|limit| name.strip_suffix(limit)) {
            return (Role::Limit, format!("{stem}|{}", pool()));
        }
    }
    (Role::None, String::new())
}

/// Whether users wait when it is full: connections and threads, not memory or processors.
#[must_use]
pub fn is_pool(name: &str) -> bool {
    ["connection", "pool", "thread", "worker", "queue"].iter().any(|word| name.contains(word))
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saturation {
    points: u32,
    /// Mean and slowly forgotten maximum of the healthy share.
    mean: f64,
    highest: f64,
    /// Points in a row that were saturated, or not any more.
    full: u32,
    fine: u32,
    pub active: bool,
}

/// What a point changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saturated {
    No,
    Active,
    Cleared,
}

impl Saturation {
    /// A new share in use, 0..1.
    pub fn observe(&mut self, share: f64, limit: f64) -> Saturated {
        if !share.is_finite() {
            return Saturated::No;
        }
        let full = self.points >= 3 && share >= limit && share >= self.highest + 0.05;
        if self.active {
            self.fine = if share < limit { self.fine + 1 } else { 0 };
            if self.fine >= 3 {
                (self.active, self.full, self.fine) = (false, 0, 0);
                return Saturated::Cleared;
            }
            return Saturated::Active;
        }
        self.full = if full { self.full + 1 } else { 0 };
        if self.full >= 2 {
            self.active = true;
            return Saturated::Active;
        }
        if self.full == 0 {
            self.points = self.points.saturating_add(1);
            self.mean += (share - self.mean) / f64::from(self.points.min(100));
            self.highest = (self.highest - 0.001).max(share);
        }
        Saturated::No
    }

    /// Mean and highest healthy share.
    #[must_use]
    pub fn band(&self) -> (f64, f64) {
        (self.mean, self.highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_the_conventions() {
        let attributes = |state: &str| {
            vec![
                ("db.client.connection.pool.name".into(), "main".into()),
                ("db.client.connection.state".into(), state.into()),
            ]
        };
        let (used, pool) = role("db.client.connection.count", "{connection}", &attributes("used"));
        let (limit, same) = role("db.client.connection.max", "{connection}", &attributes("used")[..1]);
        assert_eq!((used, limit), (Role::Used, Role::Limit));
        assert_eq!(pool, same);
        assert_eq!(role("db.client.connection.count", "", &attributes("idle")).0, Role::None);
        assert_eq!(role("system.cpu.utilization", "1", &[]).0, Role::Utilization { percent: false });
        let (used, limit) = (role("jvm.memory.used", "By", &[]), role("jvm.memory.limit", "By", &[]));
        assert_eq!((used.0, limit.0), (Role::Used, Role::Limit));
        assert_eq!(used.1, limit.1);
        assert_eq!(role("http.server.request.duration", "s", &[]).0, Role::None);
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut saturation = Saturation::default();
        for n in 0..50 {
            assert_eq!(saturation.observe(0.3 + 0.01 * f64::from(n % 7), 0.9), Saturated::No);
        }
        assert_eq!(saturation.observe(0.97, 0.9), Saturated::No, "one point is not enough");
        assert_eq!(saturation.observe(1.0, 0.9), Saturated::Active);
        assert_eq!([0.4, 0.4, 0.4].map(|x| saturation.observe(x, 0.9))[2], Saturated::Cleared);
        let mut always = Saturation::default();
        assert!((0..50).all(|_| always.observe(0.95, 0.9) == Saturated::No), "a busy one is its own normal");
    }
}
