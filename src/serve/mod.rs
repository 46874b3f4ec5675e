//! The API: gRPC and HTTP, queries, event stream, what operators write.

mod convert;
mod json;
mod anomaly;

pub use anomaly::{anomaly_message, anomaly_object};
pub use convert::{from_proto, to_proto};
pub use json::{
    anomaly_json, change_json, edge_json, evidence_json, incident_json, latency_json, operation_json,
    service_json, slo_json, status_json, time_series_json,
};
pub(crate) use json::{
    anomaly_state_name, change_kind_name, data_state_name, kind_name, severity_name, window_text,
};
