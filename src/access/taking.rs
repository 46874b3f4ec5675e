//! Answers that begin and are not taken: a peer that keeps the window of HTTP/2 shut, and answers every ping, is there
//! and holds a seat for as long as it likes.

use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// For how long a peer may take nothing of an answer, and how often within that it is looked at.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(60);
const LOOKS: u32 = 6;

/// Stands for an answer that waits for nothing but its next piece.
const NOT_WAITING: u64 = u64::MAX;

/// The answers of one connection that are under way.
pub struct Takings {
    /// Milliseconds since it began.
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Since when each waits for its peer, by the clock.
    waiting: Mutex<Vec<Weak<AtomicU64>>>,
}

impl std::fmt::Debug for Takings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Takings").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Default for Takings {
    fn default() -> Self {
        let began = Instant::now();
        Self::by(move || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX - 1))
    }
}

impl Takings {
    fn by(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), waiting: Mutex::default() }
    }

    fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// The body of an answer that begins now.
    pub fn body<B>(self: &Arc<Self>, body: B) -> Taking<B> {
        let since_ms = Arc::new(AtomicU64::new(self.now_ms()));
        let mut waiting = self.waiting.lock();
        waiting.retain(|since_ms| since_ms.strong_count() > 0);
        waiting.push(Arc::downgrade(&since_ms));
        Taking { body, since_ms, of: self.clone() }
    }

    /// Resolves once an answer has waited for longer than this.
    pub async fn stalled(self: Arc<Self>, within: Duration) {
        while self.longest() <= within {
            tokio::time::sleep(within / LOOKS).await;
        }
    }

    /// For how long the answer that waits longest has waited for its peer to take more.
    pub fn longest(&self) -> Duration {
        let mut waiting = self.waiting.lock();
        let since_ms =
            waiting.iter().filter_map(|since_ms| Some(since_ms.upgrade()?.load(Ordering::Relaxed)));
        let longest_ms = since_ms.min().map_or(0, |since_ms| self.now_ms().saturating_sub(since_ms));
        waiting.retain(|since_ms| since_ms.strong_count() > 0);
        Duration::from_millis(longest_ms)
    }
}

/// A body that notes since when nobody has asked for more of it although there may be more.
#[derive(Debug)]
pub struct Taking<B> {
    body: B,
    since_ms: Arc<AtomicU64>,
    of: Arc<Takings>,
}

impl<B: Body + Unpin> Body for Taking<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        // What has nothing to say now is followed, and not left lying.
        let since_ms = if polled.is_pending() { NOT_WAITING } else { self.of.now_ms() };
        self.since_ms.store(since_ms, Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::convert::Infallible;
    use std::task::Waker;

    /// Says what it is told to.
    struct Says(Vec<Poll<()>>);

    impl Body for Says {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let said = self.0.pop().unwrap_or(Poll::Pending);
            said.map(|()| Some(Ok(Frame::data(Bytes::from_static(b"piece")))))
        }
    }

    #[test]
    fn an_answer_waits_for_its_peer_while_it_has_more_to_say_and_nobody_asks() {
        let time_ms = Arc::new(AtomicU64::new(5));
        let clock = time_ms.clone();
        let takings = Arc::new(Takings::by(move || clock.load(Ordering::Relaxed)));
        let pass = |ms| time_ms.fetch_add(ms, Ordering::Relaxed);
        let longest_ms = || takings.longest().as_millis();
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(longest_ms(), 0);
        let mut body = takings.body(Says(vec![Poll::Pending, Poll::Ready(())]));
        pass(1_000);
        assert_eq!(longest_ms(), 1_000, "nobody has asked for its first piece");
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
        assert_eq!(longest_ms(), 0);
        pass(2_000);
        assert_eq!(longest_ms(), 2_000);
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_pending());
        pass(3_000);
        assert_eq!(longest_ms(), 0, "it has nothing to say");
        // Of several the one that waits longest counts, for as long as it is there.
        let other = takings.body(Says(Vec::new()));
        pass(1_000);
        assert_eq!(longest_ms(), 1_000);
        drop(other);
        assert_eq!(longest_ms(), 0);
    }
}
