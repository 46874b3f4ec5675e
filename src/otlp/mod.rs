//! OTLP on the wire: borrowed views over traces, metrics and logs, decompression in bounded steps,
//! JSON to wire, and the split of a request by resource.
//!
//! A request is [`split`] into slices; each slice is checked whole ([`Checked::new`]) and then walked:
//! `checked.spans().scopes()` → `scope.items()` → [`SpanView`]; [`Rows`] does both in one pass where a slice is
//! laid out plainly. A resource is accepted exactly if prost
//! decodes its bytes alone, and shows the same values; depth ([`DEPTH_LIMIT`]) and the size of resources
//! whose parts are scattered are the only differences.

#[cfg(test)]
mod against_prost;
mod base64;
mod check;
mod common;
#[cfg(test)]
mod every_field;
mod inflate;
mod json;
#[cfg(test)]
mod json_tests;
mod json_text;
mod logs;
mod metric_rows;
mod metrics;
mod plain;
mod rows;
#[cfg(test)]
mod rows_tests;
mod schema;
mod slice;
mod split;
mod traces;
mod wire;

pub use base64::{read as read_base64, write as write_base64};
pub use check::{Checked, count_items};
pub use common::{
    AnyValue, Attributes, InstrumentationScope, OfResource, OfScope, ResourceView, View, Views,
};
pub use inflate::{InflateError, Inflater, STEP_BYTES, inflate};
pub use json::{JsonError, json_to_wire, json_to_wire_within, wire_bytes_at_most};
pub use logs::{LogView, ResourceLogs};
pub use metric_rows::{ExplicitRow, MetricKind, MetricRow, MetricRows, PointRow, PointValue};
pub use metrics::{
    Buckets, Data, ExemplarView, ExponentialPoint, HistogramPoint, MetricView, NO_RECORDED_VALUE, Number,
    NumberPoint, Numbers, Quantile, ResourceMetrics, SummaryPoint, Temporality,
};
pub use rows::{Read, Rows};
pub use slice::{Encoding, PARTITIONS, Slice};
pub use split::{partition, split, split_within};
pub use traces::{EventView, LinkView, ResourceSpans, SpanView, StatusCode};
pub use wire::{DEPTH_LIMIT, Damage, Field, Fields, Malformed, Repeated, Value, WireType, put_varint};
