//! Admission: what happens to a request whatever protocol it came by.

use super::callers::{Allowance, CallerKey, Callers};
use super::drain::{Drain, not_before, whole_seconds};
use super::memory::{Watermark, own_bytes};
use super::problem::{Problem, ProblemKind};
use super::retries::{Answered, Print, Retries, Verdict, Waiting};
use super::server::STREAMS_LIMIT;
use super::{Admitted, Config, Counters, Intake, Outcome, Reply};
use crate::access::Access;
use crate::limits::{Budget, Permit, RefusedReason, Seats, give_back_free_memory};
use crate::model::Signal;
use crate::otlp::{Encoding, Inflater, json_to_wire_within, split_within, wire_bytes_at_most};
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Time between two looks at how fast memory is freed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a sender may pause within a request.
const PAUSE_LIMIT: Duration = Duration::from_secs(30);

/// JSON over this size is converted apart from the threads that serve connections.
const LONG_JSON_BYTES: usize = 256 * 1024;

/// Most resources of a request. An empty one takes two bytes and what is known of it six times as much, so what
/// inflates to the limit of a request would take that many times the memory it was let in with.
const RESOURCES_LIMIT: usize = 65_536;

/// Share of the ingest memory that is kept for the windows of HTTP/2 connections.
const WINDOWS_SHARE: u64 = 4;

/// The window of a connection.
const LEAST_WINDOW_BYTES: u64 = 64 << 10;
const MOST_WINDOW_BYTES: u64 = 2 << 20;

/// What a request's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Protobuf,
    Json,
}

/// What all connections share.
pub(super) struct Door {
    intake: Arc<dyn Intake>,
    pub access: Arc<Access>,
    pub retries: Retries,
    pub counters: Arc<Counters>,
    pub callers: Arc<Callers>,
    pub request_limit_bytes: usize,
    body_time: Duration,
    inflated_limit_bytes: usize,
    /// Of the windows of HTTP/2 connections.
    windows: Arc<Budget>,
    watermark: Watermark,
    started: Instant,
    drain: Mutex<Drain>,
}

impl Door {
    pub fn new(intake: Arc<dyn Intake>, access: Arc<Access>, config: &Config, key: CallerKey) -> Self {
        let windows_bytes = config.memory_bytes.0 / WINDOWS_SHARE;
        let budget = Budget::new(config.memory_bytes.0.saturating_sub(windows_bytes));
        let share_bytes = (budget.limit_bytes() as f64 * config.caller_share) as u64;
        let connections = usize::try_from(config.connections).unwrap_or(usize::MAX);
        let callers =
            Arc::new(Callers::new(share_bytes, config.caller_bytes_per_second.map(|bytes| bytes.0), key));
        Self {
            intake,
            access,
            retries: Retries::default(),
            counters: Arc::new(Counters::new(budget, Seats::new(connections), callers.clone())),
            callers,
            body_time: config.body_time.0,
            request_limit_bytes: usize::try_from(config.request_bytes.0).unwrap_or(usize::MAX),
            inflated_limit_bytes: usize::try_from(config.inflated_bytes.0).unwrap_or(usize::MAX),
            windows: Budget::new(windows_bytes),
            watermark: Watermark::new(config.process_bytes.0),
            started: Instant::now(),
            drain: Mutex::default(),
        }
    }

    /// The HTTP/2 window of one more connection, and its memory, which is to be held as long as it is open.
    pub fn window(&self) -> (u32, Permit) {
        window(&self.windows)
    }

    /// What a stream of a connection with this window may send before it is let in: what is refused is read for
    /// nothing, and is to stay small beside the memory there is. All streams that a connection may have fill half of it
    /// at most.
    pub fn stream_window_bytes(&self, window_bytes: u32) -> u32 {
        let most = self.counters.budget.limit_bytes() / 2 / u64::from(STREAMS_LIMIT);
        let most = most.clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES);
        window_bytes.min(u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// Reads a body, which must not take longer than `limits.body_time`.
    pub async fn in_time<T>(&self, read: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        tokio::time::timeout(self.body_time, read).await.unwrap_or_else(|_| {
            let limit = self.body_time.as_secs_f64();
            Err(Problem::new(
                ProblemKind::TimedOut,
                format!("the body did not arrive within {limit} s (limits.body_time)"),
            ))
        })
    }

    /// Memory for a request of which `bytes` are announced.
    pub fn permit(&self, caller: &Allowance, bytes: usize) -> Result<Permit, Problem> {
        if let Some(delay) = caller.wait(Instant::now()) {
            return Err(Problem::too_fast(delay));
        }
        if self.watermark.is_over() {
            return Err(Problem::process());
        }
        let budget = &self.counters.budget;
        caller.try_take(budget, bytes as u64).ok_or_else(|| lacking(budget.has_room(bytes as u64)))
    }

    /// Inflates, splits and hands over a request that was read whole, and waits until it is recorded
    /// and counted. When the caller goes away meanwhile, it is counted all the same.
    pub async fn admit(
        &self,
        signal: Signal,
        format: Format,
        encoding: Encoding,
        wire: Bytes,
        mut permit: Permit,
        caller: &Allowance,
        answered: &Answered,
    ) -> Result<Outcome, Problem> {
        let wire_bytes = wire.len() as u64;
        caller.charge(wire.len(), Instant::now());
        let mut body = self.inflate(encoding, &wire, &mut permit).await?;
        let (mut encoding, mut wire) = (encoding, wire);
        if format == Format::Json {
            (body, permit) = self.convert(signal, body, permit).await?;
            (encoding, wire) = (Encoding::Identity, body.clone());
        }
        let slices = split_within(signal, &body, RESOURCES_LIMIT)?;
        self.counters.wire_bytes.add(wire_bytes);
        self.counters.body_bytes.add(body.len() as u64);
        let outcome = if slices.is_empty() {
            Outcome::default()
        } else {
            // One part is the journal's, the others those of the shards.
            let parts = u32::try_from(slices.len()).unwrap_or(u32::MAX).saturating_add(1);
            let print = Print::of(signal, encoding, &wire);
            match self.retries.judge(&print, encoding, &wire, &*self.intake) {
                Verdict::New => {}
                Verdict::Counted(position) => {
                    self.counters.retries.add(1);
                    answered.note(print, position, caller.tag);
                    return Ok(Outcome::default());
                }
                Verdict::UnderWay => {
                    return Err(Problem::new(
                        ProblemKind::Refused(RefusedReason::NotReady),
                        "the same request is still being recorded and counted, send it again later",
                    ));
                }
            }
            let (reply, pending) = Reply::new(parts);
            let caller = caller.tag;
            let waiting = Waiting::new(&self.retries, print, pending.receipt(), caller);
            let admitted = Admitted { signal, encoding, wire, body, slices, caller, permit, reply };
            if self.intake.try_push(admitted).is_err() {
                // It went nowhere: nothing of it is to be remembered.
                let _ = waiting.done();
                return Err(Problem::new(
                    ProblemKind::Refused(RefusedReason::NotReady),
                    "the daemon is starting or stopping, send it again later",
                ));
            }
            let outcome = pending.await;
            if let Some(position) = waiting.done() {
                answered.note(print, position, caller);
            }
            outcome
        };
        if let Some(reason) = outcome.refused {
            return Err(Problem::new(ProblemKind::Refused(reason), outcome.message));
        }
        Counters::add(&self.counters.requests, signal, 1);
        if outcome.rejected > 0 {
            Counters::add(&self.counters.rejected_items, signal, outcome.rejected);
        }
        Ok(outcome)
    }

    async fn inflate(&self, encoding: Encoding, wire: &Bytes, permit: &mut Permit) -> Result<Bytes, Problem> {
        let mut inflater = Inflater::new(encoding, wire.clone(), self.inflated_limit_bytes)?;
        loop {
            grow(permit, inflater.growth_bytes())?;
            if inflater.step()? {
                return Ok(inflater.finish());
            }
            self.intake.announce();
            tokio::task::yield_now().await;
        }
    }

    /// Puts JSON on the wire. The permit goes with the bytes: also when the caller goes away, it holds their memory as
    /// long as they are there.
    async fn convert(
        &self,
        signal: Signal,
        json: Bytes,
        mut permit: Permit,
    ) -> Result<(Bytes, Permit), Problem> {
        // A list of numbers takes four times as much on the wire: it is taken before, up to the limit, not after.
        let limit = self.inflated_limit_bytes;
        let reserved = wire_bytes_at_most(&json).min(limit);
        grow(&mut permit, reserved)?;
        let (converted, mut permit) = if json.len() > LONG_JSON_BYTES {
            let work = move || (json_to_wire_within(signal, &json, limit), permit);
            tokio::task::spawn_blocking(work).await.map_err(|_| {
                Problem::new(ProblemKind::Refused(RefusedReason::NotReady), "the daemon is stopping")
            })?
        } else {
            (json_to_wire_within(signal, &json, limit), permit)
        };
        let Some(converted) = converted? else {
            return Err(Problem::new(
                ProblemKind::TooLarge,
                format!("the request is larger than {limit} bytes (limits.inflated_bytes)"),
            ));
        };
        permit.shrink(reserved.saturating_sub(converted.capacity()) as u64);
        grow(&mut permit, converted.capacity().saturating_sub(reserved))?;
        Ok((converted.into(), permit))
    }

    /// Counts a request that is not taken.
    pub fn count(&self, problem: &Problem) {
        if let Some(reason) = problem.refused() {
            self.counters.refuse(reason);
        } else if let Some(reason) = problem.rejected() {
            self.counters.reject(reason);
        }
    }

    /// Looks once a second at how fast memory is freed, and at how much the process has, until it is dropped.
    pub async fn watch_memory(&self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let budget = &self.counters.budget;
            self.drain.lock().look(self.started.elapsed(), budget.freed_bytes(), budget.used_bytes());
            let was_over = self.watermark.is_over();
            let Some(own_bytes) = own_bytes() else { continue };
            if !self.watermark.look(own_bytes) {
                if was_over {
                    tracing::info!(own_bytes, "requests are let in again: there is memory");
                }
                continue;
            }
            if !was_over {
                tracing::warn!(
                    own_bytes,
                    "no more is let in: the process has more memory than limits.process_bytes"
                );
            }
            // What was freed may be held by the allocator alone.
            let _ = tokio::task::spawn_blocking(give_back_free_memory).await;
        }
    }

    /// When to send a refused request again: the time in which half of the memory in use is freed at the rate
    /// of the last seconds, unless the problem says when. Not the same for all.
    pub fn retry_delay(&self, problem: &Problem) -> Duration {
        let random = fastrand::f64();
        if let Some(delay) = problem.delay {
            return not_before(delay, random);
        }
        let budget = &self.counters.budget;
        let (freed, used) = (budget.freed_bytes(), budget.used_bytes());
        self.drain.lock().delay(self.started.elapsed(), freed, used, random)
    }

    /// The same in whole seconds.
    pub fn retry_seconds(&self, problem: &Problem) -> u64 {
        whole_seconds(self.retry_delay(problem), fastrand::f64())
    }
}

/// An eighth of what is left, within bounds: 2 MiB, less when they are many. However many there are, all together
/// have no more than there is, but for the least that each has.
fn window(of_all: &Arc<Budget>) -> (u32, Permit) {
    let left = of_all.limit_bytes().saturating_sub(of_all.used_bytes());
    let bytes = (left / 8).clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES);
    // Others may have taken what was left meanwhile.
    let (bytes, permit) =
        of_all.try_take(bytes).map_or((LEAST_WINDOW_BYTES, Permit::free()), |permit| (bytes, permit));
    (u32::try_from(bytes).unwrap_or(u32::MAX), permit)
}

/// Takes more memory into a permit.
pub(super) fn grow(permit: &mut Permit, bytes: usize) -> Result<(), Problem> {
    if bytes == 0 || permit.try_grow(bytes as u64) {
        return Ok(());
    }
    Err(lacking(permit.is_held_back(bytes as u64)))
}

/// Why there is no memory: because the caller has its share, or because there is none for anybody.
fn lacking(has_room_for_others: bool) -> Problem {
    if has_room_for_others { Problem::share() } else { Problem::memory() }
}

/// The next bytes of a body; `None` at its end. Trailers are skipped.
pub(super) async fn next_data<B>(body: &mut B) -> Result<Option<Bytes>, Problem>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    loop {
        if body.is_end_stream() {
            return Ok(None);
        }
        let frame = tokio::time::timeout(PAUSE_LIMIT, body.frame())
            .await
            .map_err(|_| Problem::new(ProblemKind::TimedOut, "nothing came for 30 s"))?;
        match frame.transpose() {
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => {
                if let Ok(data) = Frame::into_data(frame) {
                    return Ok(Some(data));
                }
            }
            Err(error) => {
                return Err(Problem::new(
                    ProblemKind::Malformed,
                    format!("the body ends too early: {error}"),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemClock;
    use std::task::Poll;

    struct Nowhere;

    impl Intake for Nowhere {
        fn try_push(&self, admitted: Admitted) -> Result<(), Admitted> {
            Err(admitted)
        }
    }

    #[test]
    fn json_of_a_caller_that_went_away_holds_its_memory_until_it_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let access = Access::open(&<_>::default(), &<_>::default(), Arc::new(SystemClock)).unwrap();
            let door = Door::new(Arc::new(Nowhere), access, &Config::default(), CallerKey::random());
            let (go_on, waits) = std::sync::mpsc::channel();
            let before = tokio::task::spawn_blocking(move || waits.recv());
            let json = Bytes::from(vec![b' '; LONG_JSON_BYTES + 1]);
            let budget = door.counters.budget.clone();
            let permit = budget.try_take(json.len() as u64).unwrap();
            let mut converting = Box::pin(door.convert(Signal::Logs, json, permit));
            let look =
                std::future::poll_fn(|context| Poll::Ready(converting.as_mut().poll(context).is_pending()));
            assert!(look.await, "another is before it");
            drop(converting);
            assert!(budget.used_bytes() > LONG_JSON_BYTES as u64, "{}", budget.used_bytes());
            go_on.send(()).unwrap();
            before.await.unwrap().unwrap();
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            assert_eq!(budget.used_bytes(), 0);
        });
    }

    #[test]
    fn windows_of_many_connections_fit_into_the_memory_that_is_kept_for_them() {
        let of_all = Budget::new(64 << 20);
        let open: Vec<_> = (0..1_024).map(|_| window(&of_all)).collect();
        assert_eq!(open.first().map(|(bytes, _)| *bytes), Some(2 << 20));
        assert_eq!(open.last().map(|(bytes, _)| *bytes), Some(64 << 10));
        let beyond_the_least =
            open.iter().map(|(bytes, _)| u64::from(*bytes) - LEAST_WINDOW_BYTES).sum::<u64>();
        assert!(beyond_the_least <= 64 << 20, "{beyond_the_least}");
        drop(open);
        assert_eq!((of_all.used_bytes(), window(&of_all).0), (0, 2 << 20), "what they had is given back");
    }
}
