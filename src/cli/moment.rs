//! `--since` and `--until`: a time or an age.

use crate::api::v1;
use crate::model::Timestamp;
use crate::settings::Seconds;
use clap::Args;

/// A time, or how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    At(Timestamp),
    AgoNs(i64),
}

/// A range of event time.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct History {
    /// From when: an age such as 15m, 6h, 7d, or a time such as 2024-05-01T12:00:00Z [default: 1h].
    #[arg(long, value_name = "DURATION|TIME", value_parser = read_moment)]
    pub since: Option<Moment>,
    /// Until when, likewise [default: now].
    #[arg(long, value_name = "DURATION|TIME", value_parser = read_moment)]
    pub until: Option<Moment>,
}

impl History {
    /// The range as the API takes it; `None` if neither end was given.
    pub fn range(&self) -> Option<v1::TimeRange> {
        if self.since.is_none() && self.until.is_none() {
            return None;
        }
        Some(v1::TimeRange {
            from: self.since.map(|moment| match moment {
                Moment::At(at) => v1::time_range::From::Since(crate::serve::to_proto(at)),
                Moment::AgoNs(ns) => v1::time_range::From::SinceAgoNs(ns),
            }),
            to: self.until.map(|moment| match moment {
                Moment::At(at) => v1::time_range::To::Until(crate::serve::to_proto(at)),
                Moment::AgoNs(ns) => v1::time_range::To::UntilAgoNs(ns),
            }),
        })
    }
}

/// Reads a time or an age.
pub(super) fn read_moment(text: &str) -> Result<Moment, String> {
    if let Ok(ns) = read_duration_ns(text) {
        return Ok(Moment::AgoNs(ns));
    }
    Timestamp::parse_rfc3339(text).map(Moment::At).map_err(|_| {
        format!("{text:?} is neither an age such as 15m nor a time with a zone such as 2024-05-01T12:00:00Z")
    })
}

/// Reads a point in time.
pub(super) fn read_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
}

/// Reads `250ms`, `30s`, `5m` …
pub(super) fn read_duration_ns(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a duration such as 30s, 5m, 2h or 7d");
    let duration = Seconds::parse(text).ok_or_else(wrong)?.0;
    i64::try_from(duration.as_nanos()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_times_are_told_apart() {
        assert_eq!(read_moment("15m"), Ok(Moment::AgoNs(900_000_000_000)));
        assert_eq!(read_moment("1970-01-01T00:00:01Z"), Ok(Moment::At(Timestamp::from_secs(1))));
        assert!(read_moment("2024-05-01T12:00:00").unwrap_err().contains("zone"));
        assert!(read_moment("yesterday").is_err());
        assert!(read_moment("").is_err());
    }
}
