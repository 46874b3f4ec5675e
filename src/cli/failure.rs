//! Why a command did not do what it was asked, and what to do next.

use super::dispatch::USAGE;
use crate::serve::text::plain;
use std::io::Write as _;
use std::process::ExitCode;
use tonic::Code;

/// A message for people and the exit code that goes with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    /// Exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// Exit code 2.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// Exit code 64.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    /// What the daemon answered.
    pub fn from_status(endpoint: &str, status: &tonic::Status) -> Self {
        let said = plain(status.message());
        match status.code() {
            Code::NotFound => Self::not_found(said),
            Code::InvalidArgument | Code::OutOfRange => Self::usage(said),
            Code::Unavailable => Self::unreachable(endpoint, &said),
            Code::Unauthenticated => Self::failed(format!(
                "{endpoint} does not let this caller in ({said}): name the token with --token-file or \
                 $BAROGRAPH_TOKEN_FILE"
            )),
            Code::PermissionDenied => Self::failed(format!("{endpoint}: {said}")),
            Code::DeadlineExceeded => Self::failed(format!(
                "{endpoint} did not answer in time: ask for a shorter range with --since ({said})"
            )),
            Code::ResourceExhausted => Self::failed(format!("{said} (from {endpoint})")),
            Code::Unimplemented => Self::failed(format!(
                "{endpoint} does not know this question: is it an older daemon? ({said})"
            )),
            code => Self::failed(format!("{endpoint} answered {code:?}: {said}")),
        }
    }

    pub fn unreachable(endpoint: &str, reason: &str) -> Self {
        Self::failed(format!(
            "cannot reach {}: is `barograph serve` running there? Its query address is printed when it is ready; \
             name it with --endpoint or $BAROGRAPH_ENDPOINT ({reason})",
            plain(endpoint)
        ))
    }
}

/// Writing to a pipe that was closed ends the command without a word, as other tools do.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self { code: 0, message: String::new() },
            _ => Self::failed(format!("cannot write: {error}")),
        }
    }
}

/// Prints the failure, if it is one, and gives its exit code.
pub(super) fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "barograph: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_what_the_daemon_said() {
        let code = |status| Failure::from_status("http://here", &status).code;
        assert_eq!(code(tonic::Status::not_found("no such")), 2);
        assert_eq!(code(tonic::Status::invalid_argument("two services")), 64);
        assert_eq!(code(tonic::Status::internal("oh")), 1);
        let failure = Failure::from_status("http://here", &tonic::Status::unavailable("refused"));
        assert!(failure.message.contains("barograph serve"), "{}", failure.message);
        let hostile = Failure::from_status("http://here", &tonic::Status::not_found("a\u{1b}[2Jb"));
        assert!(!hostile.message.contains('\u{1b}'));
    }
}
