//! Where admitted requests go.

use crate::otlp::Encoding;
use crate::receive::Admitted;

/// The lock-free hand-off to the sequencer.
pub trait Intake: Send + Sync {
    /// Hands a request over without waiting.
    ///
    /// # Errors
    /// The request itself, when there is no room for it or the daemon is stopping: refuse it as
    /// retryable.
    #[allow(clippy::result_large_err, reason = "what is handed back is what was handed over")]
    fn try_push(&self, admitted: Admitted) -> Result<(), Admitted>;

    /// Says that this thread is about to wait or to work for long: what it handed over is to be seen now.
    fn announce(&self) {}

    /// Whether the record at a position holds this very body. Reads it, so it is asked only when much speaks
    /// for it.
    fn holds(&self, _position: u64, _encoding: Encoding, _wire: &[u8]) -> bool {
        false
    }
}
