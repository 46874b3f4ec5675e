//! Why a question got no answer.

use std::time::Duration;

/// What goes to whoever asked: a message that says what to do, and a status of gRPC or HTTP.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Invalid(String),
    #[error(
        "this question needs more memory than `serve.memory_bytes` leaves: ask for a shorter range or one service"
    )]
    Memory,
    #[error("this question took longer than {} s (`serve.deadline`): ask for a shorter range", .0.as_secs())]
    Deadline(Duration),
    #[error("{0}")]
    TooMany(String),
    #[error("{0}")]
    Conflict(String),
    #[error("cannot read what is stored: {0}")]
    Storage(String),
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NotFound(_) => Self::not_found(message),
            Error::Invalid(_) => Self::invalid_argument(message),
            Error::Memory | Error::TooMany(_) => Self::resource_exhausted(message),
            Error::Deadline(_) => Self::deadline_exceeded(message),
            Error::Conflict(_) => Self::failed_precondition(message),
            Error::Storage(_) => Self::internal(message),
        }
    }
}

impl Error {
    /// The HTTP status that says the same.
    #[must_use]
    pub fn http_status(&self) -> http::StatusCode {
        match self {
            Self::NotFound(_) => http::StatusCode::NOT_FOUND,
            Self::Invalid(_) => http::StatusCode::BAD_REQUEST,
            Self::Memory | Self::TooMany(_) => http::StatusCode::TOO_MANY_REQUESTS,
            Self::Deadline(_) => http::StatusCode::GATEWAY_TIMEOUT,
            Self::Conflict(_) => http::StatusCode::CONFLICT,
            Self::Storage(_) => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
