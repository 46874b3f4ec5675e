//! The API: gRPC and HTTP, queries, event stream, what operators write.

pub mod text;
mod config;
mod error;
mod meter;
mod convert;
mod json;
mod windows;
mod query;
mod curves;
mod plot;
mod why;
mod adjustments;
mod anomaly;
mod records;
mod fold;
mod board;
mod changes;
mod incidents;
mod sources;
mod api;
mod near;
mod objectives;
mod follow;
mod foreign;
mod guarded;
mod download;
mod exemptions;
mod grpc;
mod journal;
mod journal_json;
mod grpc_journal;
mod grpc_query;
mod grpc_record;
mod http;
mod told;

pub use anomaly::{anomaly_message, anomaly_object};
pub use api::Api;
pub use board::Board;
pub use changes::Told;
pub use config::Config;
pub(crate) use convert::service;
pub use convert::{from_proto, to_proto};
pub use download::within_bundle;
pub use error::Error;
pub use fold::{Fold, Whole};
pub use foreign::read as read_alerts;
pub use grpc::serve_grpc;
pub use http::routes;
pub use incidents::Act;
pub use journal_json::{
    Bar, Waterfall, log_json, missing_of_trace, searched_json, severity_text, trace_json, whole_trace_json,
};
pub use json::{
    adjustment_json, anomaly_json, cause_json, change_json, check_json, edge_json, evidence_json,
    exemption_json, incident_json, latency_json, operation_json, refused_file_json, service_json, slo_json,
    status_json, time_series_json,
};
pub(crate) use json::{
    anomaly_state_name, budget_spent_text, change_kind_name, excluded_text, kind_name, severity_name,
    users_text, window_text,
};
pub use meter::{Meter, Turnstile};
pub(crate) use objectives::{BurnCell, refused_files_text, silent_text, slo_state_name, young_text};
pub use plot::Plot;
pub use query::{Beat, DEFAULT_RANGE, Queries, Range};
pub use records::Records;
pub use sources::{Condition, Objectives, Sources};
pub use told::{Heard, HeardChange, read_change};
pub(crate) use why::Why;
pub use windows::{Piece, Windows};

#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod tests;
