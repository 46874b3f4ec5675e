//! Between the words of the model and those of the API.

use crate::api::v1;
use crate::model::{ServiceKey, SpanKind, Timestamp};
use std::time::Duration;

const NS_PER_S: u64 = 1_000_000_000;

/// A point in time as the API says it.
#[must_use]
pub fn to_proto(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(at.ns() / NS_PER_S).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.ns() % NS_PER_S).unwrap_or_default(),
    }
}

/// A point in time of the API. Before 1970 becomes 1970, after 2554 becomes 2554.
#[must_use]
pub fn from_proto(at: &prost_types::Timestamp) -> Timestamp {
    let ns = i128::from(at.seconds).saturating_mul(i128::from(NS_PER_S)).saturating_add(i128::from(at.nanos));
    Timestamp(u64::try_from(ns.max(0)).unwrap_or(u64::MAX))
}

/// A length of time of the API; negative ones are zero.
#[must_use]
pub(crate) fn duration(ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(ns).unwrap_or_default())
}

#[must_use]
pub(crate) fn service(key: &ServiceKey) -> v1::Service {
    v1::Service {
        environment: key.environment.to_string(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    }
}

#[must_use]
pub(crate) fn span_kind(kind: SpanKind) -> v1::SpanKind {
    match kind {
        SpanKind::Unspecified => v1::SpanKind::Unspecified,
        SpanKind::Internal => v1::SpanKind::Internal,
        SpanKind::Server => v1::SpanKind::Server,
        SpanKind::Client => v1::SpanKind::Client,
        SpanKind::Producer => v1::SpanKind::Producer,
        SpanKind::Consumer => v1::SpanKind::Consumer,
    }
}

/// Nanoseconds from a histogram: its values are not negative, and finite.
#[must_use]
pub(crate) fn nanoseconds(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways_and_never_overflow() {
        for ns in [0, 1, 1_704_067_200_250_000_000, u64::MAX] {
            assert_eq!(from_proto(&to_proto(Timestamp(ns))), Timestamp(ns));
        }
        let far = prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX };
        assert_eq!(from_proto(&far), Timestamp::MAX);
        let before = prost_types::Timestamp { seconds: -5, nanos: 0 };
        assert_eq!(from_proto(&before), Timestamp::ZERO);
        assert_eq!(duration(-1), Duration::ZERO);
    }
}
