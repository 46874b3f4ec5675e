//! HTTP/2 connections of the gRPC port. Frames, streams and windows are h2's; the connection's task itself answers
//! the calls and watches whether the peer is still there.

use super::calls::Calls;
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

/// Looks within the time after which a silent peer is asked: its silence is noticed so much later at most.
const LOOKS: u32 = 4;

/// What the calls of a connection let it know.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Whether something came since the last look.
    is_heard: AtomicBool,
    /// Whether an answer was not taken in time.
    is_stalled: AtomicBool,
}

impl Pulse {
    fn hear(&self) {
        // Nearly always it is set: a look leaves the line to all who look.
        if !self.is_heard.load(Ordering::Relaxed) {
            self.is_heard.store(true, Ordering::Relaxed);
        }
    }

    fn take(&self) -> bool {
        self.is_heard.swap(false, Ordering::Relaxed)
    }

    /// The peer takes no answers: its connection is to be left. To be said from within a call.
    pub fn stall(&self) {
        self.is_stalled.store(true, Ordering::Relaxed);
    }
}

/// The body of a request as it arrives.
pub(super) struct Arriving {
    stream: RecvStream,
    pulse: Arc<Pulse>,
}

impl Arriving {
    /// The connection that it comes over.
    pub fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.stream.poll_data(context)?) {
            self.pulse.hear();
            // Whoever lets calls in holds the memory from now on.
            self.stream.flow_control().release_capacity(data.len())?;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(self.stream.poll_trailers(context)?);
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// What a connection may have, and how long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// What all streams together may send before it is read, and each of them.
    pub window_bytes: u32,
    pub stream_window_bytes: u32,
    pub frame_bytes: u32,
    pub headers_bytes: u32,
    pub streams: u32,
    /// After how long without a frame of a call a peer is asked whether it is still there.
    pub keep_alive: Duration,
    /// How long it may take to answer.
    pub answer_within: Duration,
}

/// A connection, which ends when the peer has left or the last call after [`Self::graceful_shutdown`] is answered.
pub(super) struct Http2<T, A, F> {
    connection: Connection<T, Bytes>,
    answer: A,
    calls: Calls<F>,
    pulse: Arc<Pulse>,
    pings: Option<PingPong>,
    /// When the peer is looked after next.
    look: Pin<Box<Sleep>>,
    is_asked: bool,
    /// Looks since something came.
    silent_looks: u32,
    limits: Limits,
}

impl<T, A, F> Http2<T, A, F>
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: FnMut(Request<Arriving>, SendResponse<Bytes>) -> F,
    F: Future<Output = ()>,
{
    /// Shakes hands. Each call is answered by the future that `answer` makes of it.
    ///
    /// # Errors
    /// The peer does not speak HTTP/2, or is gone.
    pub async fn shake_hands(stream: T, limits: Limits, answer: A) -> Result<Self, h2::Error> {
        let mut connection = Builder::new()
            .initial_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.window_bytes)
            .max_frame_size(limits.frame_bytes)
            .max_header_list_size(limits.headers_bytes)
            .max_concurrent_streams(limits.streams)
            .handshake(stream)
            .await?;
        Ok(Self {
            pings: connection.ping_pong(),
            connection,
            answer,
            calls: Calls::default(),
            pulse: Arc::default(),
            look: Box::pin(tokio::time::sleep(limits.keep_alive / LOOKS)),
            is_asked: false,
            silent_looks: 0,
            limits,
        })
    }

    /// Takes no new calls, and ends when those under way are answered.
    pub fn graceful_shutdown(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Asks a silent peer whether it is still there, and leaves one that does not answer.
    fn look_after_the_peer(&mut self, context: &mut Context<'_>) {
        let Some(pings) = &mut self.pings else { return };
        if self.is_asked && pings.poll_pong(context).is_ready() {
            self.pulse.hear();
        }
        while self.look.as_mut().poll(context).is_ready() {
            self.silent_looks = self.silent_looks.saturating_add(1);
            let next = if self.pulse.take() {
                (self.is_asked, self.silent_looks) = (false, 0);
                self.limits.keep_alive / LOOKS
            } else if self.is_asked {
                self.connection.abrupt_shutdown(Reason::NO_ERROR);
                self.limits.answer_within
            } else if self.silent_looks < LOOKS {
                self.limits.keep_alive / LOOKS
            } else {
                self.is_asked = pings.send_ping(Ping::opaque()).is_ok();
                self.limits.answer_within
            };
            self.look.as_mut().reset(Instant::now() + next);
        }
    }

    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.pulse.hear();
        let pulse = self.pulse.clone();
        let call = (self.answer)(request.map(|stream| Arriving { stream, pulse }), respond);
        self.calls.begin(call);
    }
}

impl<T, A, F> Future for Http2<T, A, F>
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: FnMut(Request<Arriving>, SendResponse<Bytes>) -> F + Unpin,
    F: Future<Output = ()>,
{
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let this = self.get_mut();
        this.look_after_the_peer(context);
        loop {
            // While all places are taken, streams wait with h2, which bounds them.
            while !this.calls.is_full() {
                match this.connection.poll_accept(context)? {
                    Poll::Ready(Some((request, respond))) => this.begin(request, respond),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => break,
                }
            }
            if this.calls.is_full() && this.connection.poll_closed(context)?.is_ready() {
                return Poll::Ready(Ok(()));
            }
            // What calls have to say is sent by the next round.
            if !this.calls.poll(context) {
                return Poll::Pending;
            }
            if this.pulse.is_stalled.swap(false, Ordering::Relaxed) {
                this.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use h2::client::SendRequest;
    use http::Response;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    const LIMITS: Limits = Limits {
        window_bytes: 1 << 20,
        stream_window_bytes: 1 << 16,
        frame_bytes: 1 << 18,
        headers_bytes: 1 << 14,
        streams: 128,
        keep_alive: LONG,
        answer_within: LONG,
    };

    /// A connection whose calls are answered after `x-take` milliseconds, and the peer's end.
    fn serve(limits: Limits) -> (JoinHandle<Result<(), h2::Error>>, DuplexStream) {
        let (ours, theirs) = duplex(1 << 20);
        let serving = tokio::spawn(async move {
            let answer = move |request: Request<Arriving>, mut respond: SendResponse<Bytes>| async move {
                let take = request
                    .headers()
                    .get("x-take")
                    .map_or(0, |value| value.to_str().ok().and_then(|value| value.parse().ok()).unwrap_or(0));
                tokio::time::sleep(Duration::from_millis(take)).await;
                let _ = respond.send_response(Response::new(()), true);
            };
            Http2::shake_hands(ours, limits, answer).await?.await
        });
        (serving, theirs)
    }

    async fn client(theirs: DuplexStream) -> SendRequest<Bytes> {
        let (client, connection) = h2::client::handshake(theirs).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn request(take_ms: u64) -> Request<()> {
        Request::builder().uri("http://here/").header("x-take", take_ms).body(()).unwrap()
    }

    async fn call(client: &mut SendRequest<Bytes>, take_ms: u64) {
        poll_fn(|context| client.poll_ready(context)).await.unwrap();
        let (response, _) = client.send_request(request(take_ms), true).unwrap();
        response.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_is_there_stays_and_one_that_says_nothing_more_is_left() {
        let (serving, theirs) = serve(Limits { keep_alive: SHORT, ..LIMITS });
        let mut client = self::client(theirs).await;
        call(&mut client, 0).await;
        let (keep_alive, answer_within) = (10 * SHORT, 20 * SHORT);
        // Asked ten times meanwhile.
        call(&mut client, keep_alive.as_millis() as u64).await;
        assert!(!serving.is_finished());

        let (serving, mut theirs) = serve(Limits { keep_alive, answer_within, ..LIMITS });
        let began = Instant::now();
        // The preface, SETTINGS, and SETTINGS acknowledged; then nothing, and PING is not answered.
        theirs.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]).await.unwrap();
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        serving.await.unwrap().unwrap();
        assert!(began.elapsed() >= keep_alive + answer_within);
        // SETTINGS and their acknowledgement, PING, GOAWAY.
        let mut kinds = Vec::new();
        while let Some((head, rest)) = said.split_at_checked(9) {
            kinds.push(head[3]);
            said = rest[usize::from(head[1]) << 8 | usize::from(head[2])..].to_vec();
        }
        kinds.retain(|kind| [6, 7].contains(kind));
        assert_eq!(kinds, [6, 7]);
    }

    #[tokio::test]
    async fn of_more_calls_than_there_are_places_all_are_answered_whenever_they_are() {
        let (serving, theirs) = serve(LIMITS);
        let client = self::client(theirs).await;
        let calls: Vec<_> = (0..1_000u64)
            .map(|number| {
                let mut client = client.clone();
                tokio::spawn(async move { call(&mut client, number * 7_919 % 200).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        drop(client);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn calls_under_way_are_answered_before_it_ends_and_those_that_are_given_up_are_forgotten() {
        let (ours, theirs) = duplex(1 << 20);
        let under_way = Arc::new(());
        let of_calls = under_way.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let answer = move |_: Request<Arriving>, mut respond: SendResponse<Bytes>| {
                let held = of_calls.clone();
                async move {
                    let waits = std::pin::pin!(tokio::time::sleep(10 * SHORT));
                    tokio::select! {
                        () = waits => drop(respond.send_response(Response::new(()), true)),
                        _ = poll_fn(|context| respond.poll_reset(context)) => {}
                    }
                    drop(held);
                }
            };
            let mut connection = Http2::shake_hands(ours, LIMITS, answer).await?;
            tokio::select! {
                ended = &mut connection => return ended,
                _ = stopped => connection.graceful_shutdown(),
            }
            connection.await
        });
        let mut client = self::client(theirs).await;
        let (answered, _) = client.send_request(request(0), true).unwrap();
        let (given_up, _) = client.send_request(request(0), true).unwrap();
        while Arc::strong_count(&under_way) < 4 {
            tokio::task::yield_now().await;
        }
        drop(given_up);
        while Arc::strong_count(&under_way) > 3 {
            tokio::task::yield_now().await;
        }
        stop.send(()).unwrap();
        assert!(answered.await.unwrap().status().is_success());
        serving.await.unwrap().unwrap();
        assert_eq!(Arc::strong_count(&under_way), 1);
    }

    #[tokio::test]
    async fn a_connection_of_which_a_call_says_that_it_stalls_is_left() {
        let (ours, theirs) = duplex(1 << 20);
        let serving = tokio::spawn(async move {
            let answer = |request: Request<Arriving>, _: SendResponse<Bytes>| async move {
                request.body().pulse().stall();
            };
            Http2::shake_hands(ours, LIMITS, answer).await?.await
        });
        let mut client = self::client(theirs).await;
        let (response, _) = client.send_request(request(0), true).unwrap();
        assert!(response.await.is_err());
        serving.await.unwrap().unwrap();
    }
}
