//! Trying again: each try has an end, and so have the tries.

use std::time::Duration;

/// Why something is not in the object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// On one line, without secrets.
    pub reason: String,
    /// Another try would end the same way.
    pub is_final: bool,
}

/// How often and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries, the first one included.
    pub tries: u32,
    /// How long one may take.
    pub timeout: Duration,
    /// Wait before the second; each further one is twice as long, up to `longest_wait`.
    pub first_wait: Duration,
    pub longest_wait: Duration,
}

/// Seven tries in about two minutes, four and a half more when each hangs.
impl Default for Retry {
    fn default() -> Self {
        Self {
            tries: 7,
            timeout: Duration::from_secs(30),
            first_wait: Duration::from_secs(2),
            longest_wait: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// How long to wait after so many tries have failed; half to all of it, so that many who failed together do
    /// not come back together.
    fn wait(&self, failed: u32, random: f64) -> Duration {
        let doubled = 1u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.first_wait.saturating_mul(doubled).min(self.longest_wait);
        longest.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// Runs `attempt` until it succeeds, fails for good, or was tried often enough; `failed` hears of every
    /// try that failed and says whether to go on. Gives the number of tries.
    ///
    /// # Errors
    /// The number of tries and the last failure.
    pub async fn run<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        mut attempt: impl FnMut() -> F,
        mut failed: impl FnMut(&Failure) -> bool,
    ) -> Result<(u32, T), (u32, Failure)> {
        let mut tries = 0u32;
        loop {
            tries = tries.saturating_add(1);
            let failure = match tokio::time::timeout(self.timeout, attempt()).await {
                Ok(Ok(done)) => return Ok((tries, done)),
                Ok(Err(failure)) => failure,
                Err(_) => Failure { reason: format!("no answer within {:?}", self.timeout), is_final: false },
            };
            if !failed(&failure) || failure.is_final || tries >= self.tries {
                return Err((tries, failure));
            }
            tokio::time::sleep(self.wait(tries, fastrand::f64())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn waits_grow_up_to_a_bound() {
        let retry = Retry::default();
        let waits: Vec<u64> = (1..=8).map(|failed| retry.wait(failed, 1.0).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(retry.wait(u32::MAX, 0.0), Duration::from_secs(30));
    }

    fn quick(tries: u32) -> Retry {
        let wait = Duration::from_millis(1);
        Retry { tries, timeout: Duration::from_millis(50), first_wait: wait, longest_wait: wait }
    }

    #[tokio::test]
    async fn what_fails_or_hangs_is_tried_again_and_not_for_ever() {
        let calls = Cell::new(0);
        let attempt = || async {
            calls.set(calls.get() + 1);
            match calls.get() {
                1 => Err(Failure { reason: "503".into(), is_final: false }),
                2 => std::future::pending().await,
                n => Ok(n),
            }
        };
        let mut told = Vec::new();
        let done = quick(5)
            .run(attempt, |failure| {
                told.push(failure.reason.clone());
                true
            })
            .await;
        assert_eq!(done, Ok((3, 3)));
        assert_eq!(told, ["503", "no answer within 50ms"]);
        let never = || async { Err::<(), _>(Failure { reason: "no".into(), is_final: false }) };
        assert_eq!(quick(4).run(never, |_| true).await.unwrap_err().0, 4);
        let refused = || async { Err::<(), _>(Failure { reason: "403".into(), is_final: true }) };
        assert_eq!(quick(4).run(refused, |_| true).await.unwrap_err().0, 1);
        let never = || async { Err::<(), _>(Failure { reason: "no".into(), is_final: false }) };
        assert_eq!(quick(4).run(never, |_| false).await.unwrap_err().0, 1, "it is not wanted any more");
    }
}
