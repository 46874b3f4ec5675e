//! The words everything else is said in: time, ids, services, series. No I/O.

mod time;
mod id;
mod service;
mod series;

pub use id::{SpanId, TraceId, name_of};
pub use series::{Interner, SeriesId, SeriesKey, Signal, SpanKind};
pub use service::ServiceKey;
pub use time::{Clock, ManualClock, SystemClock, Timestamp, WINDOW, WindowId};
