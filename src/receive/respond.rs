//! The bodies of answers.

use super::Outcome;
use super::problem::Problem;
use crate::model::Signal;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use prost::Message;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// An answer's body: at most one piece of data, then trailers if any.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub data: Option<Bytes>,
    pub trailers: Option<HeaderMap>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// `Export*ServiceResponse`: the three signals' have the same layout.
#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `Export*PartialSuccess`.
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    /// `rejected_spans`, `rejected_log_records` or `rejected_data_points`.
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// The `Export*ServiceResponse` in protobuf; `None` when it is empty, that is when all was taken.
pub(super) fn export_response(outcome: Outcome) -> Option<Vec<u8>> {
    if outcome.rejected == 0 && outcome.message.is_empty() {
        return None;
    }
    let rejected = i64::try_from(outcome.rejected).unwrap_or(i64::MAX);
    let partial_success = PartialSuccess { rejected, error_message: outcome.message };
    Some(ExportResponse { partial_success: Some(partial_success) }.encode_to_vec())
}

/// The same in JSON.
pub(super) fn export_response_json(signal: Signal, outcome: &Outcome) -> String {
    if outcome.rejected == 0 && outcome.message.is_empty() {
        return "{}".to_owned();
    }
    let rejected = match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Logs => "rejectedLogRecords",
        Signal::Metrics => "rejectedDataPoints",
    };
    serde_json::json!({
        "partialSuccess": { rejected: outcome.rejected.to_string(), "errorMessage": outcome.message }
    })
    .to_string()
}

/// A `google.rpc.Status` in protobuf, with `RetryInfo` if there is a delay.
pub(super) fn status(problem: &Problem, retry: Option<Duration>) -> Vec<u8> {
    let details = retry.map(|delay| prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: RetryInfo { retry_delay: prost_types::Duration::try_from(delay).ok() }.encode_to_vec(),
    });
    Status {
        code: i32::from(problem.grpc_code()),
        message: problem.message.clone(),
        details: details.into_iter().collect(),
    }
    .encode_to_vec()
}

/// The same in JSON.
pub(super) fn status_json(problem: &Problem) -> String {
    serde_json::json!({ "code": problem.grpc_code(), "message": problem.message }).to_string()
}
