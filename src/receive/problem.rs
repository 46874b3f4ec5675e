//! Why a request is not taken, and what each protocol calls that.

use crate::access::Denial;
use crate::limits::{RefusedReason, RejectedReason};
use crate::otlp::{InflateError, JsonError, Malformed};
use http::StatusCode;
use std::time::Duration;

/// Longest message that is sent back.
const MESSAGE_LIMIT_BYTES: usize = 1_024;

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub kind: ProblemKind,
    /// In words: which field, which limit.
    pub message: String,
    /// When to send it again, where that follows from more than how fast memory is freed.
    pub delay: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProblemKind {
    /// Not what was announced.
    Malformed,
    /// Over a limit.
    TooLarge,
    /// An encoding that is not spoken here.
    UnknownEncoding,
    /// A content type that is not spoken here.
    UnknownType,
    /// A path that leads nowhere.
    UnknownPath,
    /// A method other than POST.
    WrongMethod,
    /// The sender stopped sending.
    TimedOut,
    /// The caller did not show who it is, or may not send telemetry.
    Denied(Denial),
    /// Not now: to be sent again.
    Refused(RefusedReason),
}

/// Codes of gRPC (and of `google.rpc.Status`).
pub(super) mod code {
    pub const INVALID_ARGUMENT: u8 = 3;
    pub const DEADLINE_EXCEEDED: u8 = 4;
    pub const PERMISSION_DENIED: u8 = 7;
    pub const UNIMPLEMENTED: u8 = 12;
    pub const UNAVAILABLE: u8 = 14;
    pub const UNAUTHENTICATED: u8 = 16;
}

impl Problem {
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_LIMIT_BYTES {
            message.truncate(message.floor_char_boundary(MESSAGE_LIMIT_BYTES));
            message.push('…');
        }
        Self { kind, message, delay: None }
    }

    pub fn request_too_large(limit_bytes: usize) -> Self {
        Self::new(
            ProblemKind::TooLarge,
            format!("the request is larger than {limit_bytes} bytes (limits.request_bytes)"),
        )
    }

    pub fn memory() -> Self {
        Self::new(
            ProblemKind::Refused(RefusedReason::Memory),
            "the memory for requests is taken (limits.memory_bytes), send it again later",
        )
    }

    pub fn process() -> Self {
        Self::new(
            ProblemKind::Refused(RefusedReason::Memory),
            "the process has all the memory that it may have (limits.process_bytes), send it again later",
        )
    }

    pub fn share() -> Self {
        Self::new(
            ProblemKind::Refused(RefusedReason::Caller),
            "this caller has its share of the memory for requests in use (limits.caller_share), send it again later",
        )
    }

    pub fn too_fast(delay: Duration) -> Self {
        let message =
            "this caller sends faster than it may (limits.caller_bytes_per_second), send it again later";
        Self { delay: Some(delay), ..Self::new(ProblemKind::Refused(RefusedReason::Caller), message) }
    }

    /// The code in gRPC. OTLP clients send again on UNAVAILABLE (with `RetryInfo`), and drop the data on
    /// INVALID_ARGUMENT and UNIMPLEMENTED.
    pub const fn grpc_code(&self) -> u8 {
        match self.kind {
            ProblemKind::Malformed | ProblemKind::TooLarge => code::INVALID_ARGUMENT,
            ProblemKind::UnknownEncoding
            | ProblemKind::UnknownType
            | ProblemKind::UnknownPath
            | ProblemKind::WrongMethod => code::UNIMPLEMENTED,
            ProblemKind::TimedOut => code::DEADLINE_EXCEEDED,
            ProblemKind::Denied(denial) if denial.is_unauthenticated() => code::UNAUTHENTICATED,
            ProblemKind::Denied(_) => code::PERMISSION_DENIED,
            ProblemKind::Refused(_) => code::UNAVAILABLE,
        }
    }

    pub const fn http_status(&self) -> StatusCode {
        match self.kind {
            ProblemKind::Malformed => StatusCode::BAD_REQUEST,
            ProblemKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ProblemKind::UnknownEncoding | ProblemKind::UnknownType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ProblemKind::UnknownPath => StatusCode::NOT_FOUND,
            ProblemKind::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            ProblemKind::Denied(denial) => denial.http_status(),
            // Not 408 for a body that came too slowly, which would name it better: OTLP/HTTP clients send
            // again on 429, 502, 503 and 504 alone, and drop the data on anything else.
            ProblemKind::Refused(_) | ProblemKind::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Under which reason it is counted as turned away, to be sent again; `None` for all else.
    pub const fn refused(&self) -> Option<RefusedReason> {
        match self.kind {
            ProblemKind::Refused(reason) => Some(reason),
            ProblemKind::TimedOut => Some(RefusedReason::Slow),
            _ => None,
        }
    }

    /// Under which reason it is counted as refused for good; `None` for what may be sent again.
    pub const fn rejected(&self) -> Option<RejectedReason> {
        match self.kind {
            ProblemKind::Malformed => Some(RejectedReason::Malformed),
            ProblemKind::TooLarge => Some(RejectedReason::TooLarge),
            ProblemKind::UnknownEncoding
            | ProblemKind::UnknownType
            | ProblemKind::UnknownPath
            | ProblemKind::WrongMethod => Some(RejectedReason::Unsupported),
            ProblemKind::Denied(_) => Some(RejectedReason::Denied),
            ProblemKind::TimedOut | ProblemKind::Refused(_) => None,
        }
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        Self::new(ProblemKind::Denied(denial), denial.message())
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        Self::new(ProblemKind::Malformed, malformed.to_string())
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        Self::new(ProblemKind::Malformed, error.to_string())
    }
}

impl From<InflateError> for Problem {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::TooLarge { limit_bytes } => Self::new(
                ProblemKind::TooLarge,
                format!("the request inflates to more than {limit_bytes} bytes (limits.inflated_bytes)"),
            ),
            InflateError::Truncated(_) | InflateError::Corrupt { .. } => {
                Self::new(ProblemKind::Malformed, error.to_string())
            }
        }
    }
}
