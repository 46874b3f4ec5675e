//! Shards: each is one thread and what it owns. A shard walks the wire bytes of its partitions,
//! finds the series and counts; at a barrier it hands over what it learned.

mod cell;
mod config;
mod equality;
mod explicit;
mod facets;
mod halves;
mod hot;
mod indicator;
mod matcher;
mod metrics;
#[cfg(test)]
mod metrics_tests;
mod names;
mod partial;
mod peer_facts;
mod peers;
mod place;
mod point_names;
mod points;
mod resource;
mod series;
mod shard;
mod slots;
mod spans;
mod state;
mod streams;
mod template;
mod users;

#[cfg(test)]
mod tests;

pub use cell::{Cell, Distribution, Exemplar, Level, Lines, Requests, SEVERITIES, Total, Weight};
pub use config::{Config, OTHER};
pub use hot::Counted;
pub use indicator::{
    Comparison, GoodSpans, Indicator, IndicatorId, Meaning, Part, RATIO_UNIT, SecondCount, Source,
};
pub use matcher::{Matcher, Pattern, Test, same_name};
pub use partial::{Accepted, EdgeCell, Facet, FacetKey, Partial, PeerKey, SpanHalf};
pub use place::{AHEAD, TOO_OLD};
pub use shard::Shard;
pub use state::StateError;
pub use template::operation_name;
pub use users::Users;
