//! The same door for what this process has to tell itself.

use super::door::{Door, Format};
use super::retries::Answered;
use super::{Outcome, Server};
use crate::model::Signal;
use crate::otlp::Encoding;
use bytes::Bytes;
use std::sync::Arc;

/// The door for what this process has to tell itself: recorded and counted as what comes from outside.
#[derive(Clone)]
pub struct Inlet(Arc<Door>);

impl Inlet {
    /// Hands over an `Export*ServiceRequest` and waits until it is recorded and counted. To be called on a
    /// thread that serves requests.
    ///
    /// # Errors
    /// Why it is not taken, in words.
    pub async fn admit(&self, signal: Signal, body: Bytes) -> Result<Outcome, String> {
        let own = self.0.callers.of(&Arc::from("this process"));
        let admitted = match self.0.permit(&own, body.len()) {
            Ok(permit) => {
                let (format, answered) = (Format::Protobuf, Answered::default());
                self.0.admit(signal, format, Encoding::Identity, body, permit, &own, &answered).await
            }
            Err(problem) => Err(problem),
        };
        admitted.map_err(|problem| {
            self.0.count(&problem);
            problem.message
        })
    }
}

impl Server {
    /// The door for what this process has to tell itself.
    #[must_use]
    pub fn inlet(&self) -> Inlet {
        Inlet(self.door())
    }
}
