//! OTLP on the wire: borrowed views over traces, metrics and logs, decompression in bounded steps,
//! JSON to wire, and the split of a request by resource.

mod slice;

pub use slice::{Encoding, PARTITIONS, Slice};
