//! Shards: each is one thread and what it owns. A shard walks the wire bytes of its partitions,
//! finds the series and counts; at a barrier it hands over what it learned.

mod cell;
mod indicator;
mod partial;

pub use cell::{Cell, Distribution, Exemplar, Level, Lines, Requests, SEVERITIES, Total, Weight};
pub use indicator::{Indicator, IndicatorId, SecondCount};
pub use partial::{Accepted, EdgeCell, Facet, FacetKey, Partial, PeerKey, SpanHalf};
