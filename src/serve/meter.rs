//! What one question may cost: its turn, its time and its memory.

use super::Error;
use crate::limits::{Budget, Permit};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets a bounded number of questions be worked on at once, each within time and memory.
#[derive(Clone, Debug)]
pub struct Turnstile {
    turns: Arc<Semaphore>,
    memory: Arc<Budget>,
    deadline: Duration,
}

impl Turnstile {
    #[must_use]
    pub fn new(config: &super::Config) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(usize::try_from(config.queries).unwrap_or(1).max(1))),
            memory: Budget::new(config.memory_bytes.0),
            deadline: config.deadline.0,
        }
    }

    /// Works on a question on a thread where it may take its time.
    ///
    /// # Errors
    /// `Deadline` when its turn did not come in time, else what the question says.
    pub async fn work<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Meter) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.work_and_hold(question).await.map(|(answer, _)| answer)
    }

    /// The same with the memory that the question took, for an answer that is held on to.
    ///
    /// # Errors
    /// As [`Self::work`].
    pub async fn work_and_hold<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Meter) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Option<Permit>), Error> {
        let ends = Instant::now() + self.deadline;
        let turn = tokio::time::timeout(self.deadline, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Error::Deadline(self.deadline)) };
        let mut meter =
            Meter { ends, allowed: self.deadline, memory: self.memory.try_take(0), _turn: Some(turn) };
        tokio::task::spawn_blocking(move || question(&mut meter).map(|answer| (answer, meter.memory.take())))
            .await
            .map_err(|error| Error::Storage(format!("the question failed: {error}")))?
    }
}

/// Counts what a question uses while it is worked on.
#[derive(Debug)]
pub struct Meter {
    ends: Instant,
    allowed: Duration,
    memory: Option<Permit>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Meter {
    /// Without bounds, for tests and replays.
    #[must_use]
    pub fn unbounded() -> Self {
        let long = Duration::from_secs(86_400);
        Self { ends: Instant::now() + long, allowed: long, memory: None, _turn: None }
    }

    /// Fails when the time is up.
    pub(super) fn check(&self) -> Result<(), Error> {
        if Instant::now() < self.ends { Ok(()) } else { Err(Error::Deadline(self.allowed)) }
    }

    /// Whether so little of the time is left that what was found should be told.
    pub(super) fn is_nearly_over(&self) -> bool {
        Instant::now() + self.allowed / 4 >= self.ends
    }

    /// Takes memory until the question is answered.
    ///
    /// # Errors
    /// `Memory` when there is not that much.
    pub fn take(&mut self, bytes: u64) -> Result<(), Error> {
        let room = self.memory.as_mut().is_none_or(|permit| permit.try_grow(bytes));
        if room { Ok(()) } else { Err(Error::Memory) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Config;
    use crate::settings::{ByteSize, Seconds};

    #[tokio::test]
    async fn time_and_memory_are_bounded_and_come_back() {
        let config = Config {
            queries: 1,
            deadline: Seconds(Duration::from_millis(50)),
            memory_bytes: ByteSize(100),
            ..Config::default()
        };
        let turnstile = Turnstile::new(&config);
        assert!(matches!(turnstile.work(|meter| meter.take(101)).await, Err(Error::Memory)));
        assert!(turnstile.work(|meter| meter.take(100)).await.is_ok());
        assert!(turnstile.work(|meter| meter.take(100)).await.is_ok(), "memory came back");
        let held = turnstile.work_and_hold(|meter| meter.take(60)).await.expect("room");
        assert!(matches!(turnstile.work(|meter| meter.take(60)).await, Err(Error::Memory)), "it is held");
        drop(held);
        assert!(turnstile.work(|meter| meter.take(100)).await.is_ok());

        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let first = {
            let turnstile = turnstile.clone();
            tokio::spawn(async move {
                turnstile
                    .work(move |meter| {
                        let _ = blocked.recv();
                        meter.check()
                    })
                    .await
            })
        };
        tokio::task::yield_now().await;
        assert!(matches!(turnstile.work(|_| Ok(())).await, Err(Error::Deadline(_))), "its turn never came");
        drop(release);
        assert!(matches!(first.await, Ok(Err(Error::Deadline(_)))));
    }
}
