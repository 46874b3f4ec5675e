//! The accept loops and connections of both OTLP ports.

use super::callers::{Allowance, CallerKey};
use super::door::Door;
use super::http2::{self, Http2};
use super::retries::{Answered, Print};
use super::{CallerTag, Config, Counters, Intake, grpc, web};
use crate::access::{Access, Caller, Port, TAKEN_WITHIN, Takings};
use crate::limits::{self, RefusedReason, Seat, Sitting};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const FRAME_LIMIT_BYTES: u32 = 256 * 1024;
/// Streams of a connection at a time, and so the answers of which it may not be known whether they arrived.
pub(super) const STREAMS_LIMIT: u32 = 128;
const HEADERS_LIMIT_BYTES: u32 = 16 * 1024;

/// What is read of a connection before anything is let in, and so the longest head of a request (HTTP/1).
const READ_LIMIT_BYTES: usize = 64 * 1024;

/// How long a connection may take to send the head of a request (HTTP/1).
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// After how long without a frame a peer is asked whether it is still there, and how long it may take to answer
/// (HTTP/2).
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// After how long without an acknowledgement of what was sent a connection counts as broken. Else the system tries
/// for a quarter of an hour, and a sender that gives up meanwhile and sends again over another connection would be
/// counted twice. SDKs wait for 10 s.
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(5);

/// How long open requests may take once the server is told to stop: the whole stop is to take 10 s at most.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection that must give up its seat may take over what came meanwhile.
const LEAVE_LIMIT: Duration = Duration::from_millis(250);

/// Pause after a failed accept: what failed, usually file descriptors, needs time to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({protocol}): {source}")]
pub struct Error {
    pub address: SocketAddr,
    /// `OTLP/gRPC` or `OTLP/HTTP`.
    pub protocol: &'static str,
    pub source: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

/// The two OTLP ports.
pub struct Server {
    grpc: TcpListener,
    http: TcpListener,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    door: Arc<Door>,
}

impl Server {
    /// Opens both ports. Connections wait until [`Self::run`]. Callers have their tags by `key`. Must be called in a
    /// runtime.
    ///
    /// # Errors
    /// Which address cannot be listened on, and why.
    pub fn bind(
        grpc: SocketAddr,
        http: SocketAddr,
        intake: Arc<dyn Intake>,
        access: Arc<Access>,
        config: &Config,
        key: CallerKey,
    ) -> Result<Self, Error> {
        let (grpc, grpc_address) = listen(grpc, "OTLP/gRPC")?;
        let (http, http_address) = listen(http, "OTLP/HTTP")?;
        let door = Arc::new(Door::new(intake, access, config, key));
        Ok(Self { grpc, http, grpc_address, http_address, door })
    }

    /// Where OTLP/gRPC is listened on, with the real port.
    #[must_use]
    pub const fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where OTLP/HTTP is listened on, with the real port.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Requests that an earlier life recorded at these positions without being able to answer: when they
    /// come again, they are acknowledged and not counted again.
    pub fn expect_again(&self, unanswered: impl IntoIterator<Item = (Print, u64)>) {
        for (print, position) in unanswered {
            // Whose they were is not known any more.
            self.door.retries.remember_recorded(print, position, CallerTag::NOBODY);
        }
    }

    pub(super) fn door(&self) -> Arc<Door> {
        self.door.clone()
    }

    /// What the door counts, for `/metrics` and `status`.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.door.counters.clone()
    }

    /// Serves until `shutdown` resolves; then takes no new connections or streams (GOAWAY), and ends when the
    /// open requests are answered, after 5 s at the latest.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (stop, stopping) = watch::channel(false);
        let door = self.door.clone();
        let grpc = serve(self.grpc, Protocol::Grpc, self.door.clone(), stopping.clone());
        let http = serve(self.http, Protocol::Http, self.door, stopping);
        let mut both = pin!(futures_util::future::join(grpc, http));
        tokio::select! {
            _ = &mut both => return,
            () = shutdown => {}
            () = door.watch_memory() => {}
        }
        stop.send_replace(true);
        both.await;
    }
}

fn listen(address: SocketAddr, protocol: &'static str) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error { address, protocol, source };
    let listener = limits::listen(address).map_err(failed)?;
    let real = listener.local_addr().map_err(failed)?;
    Ok((listener, real))
}

async fn serve(
    listener: TcpListener,
    protocol: Protocol,
    door: Arc<Door>,
    mut stopping: watch::Receiver<bool>,
) {
    // As many as there are connections, and as many again that wait for one of them to leave.
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = newcomer(&listener, &door) => accepted,
            Some(_) = open.join_next() => continue,
            () = stopped(&mut stopping) => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let Some(claim) = door.counters.seats.claim(address.ip().to_canonical()) else {
                    door.counters.refuse(RefusedReason::Connections);
                    continue;
                };
                let (door, stopping) = (door.clone(), stopping.clone());
                open.spawn(async move {
                    match claim.await {
                        Some(seat) => connection(stream, address, protocol, door, seat, stopping).await,
                        None => door.counters.refuse(RefusedReason::Connections),
                    }
                });
                // All that is under way has its turn between two newcomers: a thousand that come at once cost more
                // than any of their requests may wait.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                door.counters.accept_failures.add(1);
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_LIMIT, all).await.is_err() {
        tracing::warn!(?protocol, "connections that did not end in time are cut off");
    }
}

/// The next connection, once there is a place for it to wait in.
async fn newcomer(listener: &TcpListener, door: &Door) -> io::Result<(TcpStream, SocketAddr)> {
    door.counters.seats.room().await;
    let (stream, address) = listener.accept().await?;
    // Answers are small: waiting to fill a segment would only delay them.
    let _ = stream.set_nodelay(true);
    limit_unacknowledged(&stream);
    Ok((stream, address))
}

/// Has the connection break when what was sent is not acknowledged in time. Where that cannot be set, it is found
/// broken later.
#[cfg(target_os = "linux")]
fn limit_unacknowledged(stream: &TcpStream) {
    let limit_ms = u32::try_from(UNACKNOWLEDGED_LIMIT.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, limit_ms);
}

/// Has the connection break when what was sent is not acknowledged in time: not on this system.
#[cfg(not(target_os = "linux"))]
const fn limit_unacknowledged(_: &TcpStream) {}

/// Resolves when the server is told to stop, or is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// What is known of a connection.
pub(super) struct Connection {
    /// The address it comes from: who calls, where no token says so.
    address: Arc<str>,
    /// Whose allowance was looked up last.
    allowance: OnceLock<(Arc<str>, Arc<Allowance>)>,
    /// Whether it showed a client certificate that is trusted.
    pub certificate: bool,
    pub answered: Answered,
    /// Its seat, for as long as it may keep it.
    pub sitting: Arc<Sitting>,
}

impl Connection {
    /// What whoever calls over it may have.
    pub fn allowance(&self, door: &Door, caller: &Caller) -> Arc<Allowance> {
        let name = if caller.has_token { &caller.name } else { &self.address };
        // Nearly always all calls of a connection are of one caller.
        let (of, allowance) = self.allowance.get_or_init(|| (name.clone(), door.callers.of(name)));
        if Arc::ptr_eq(of, name) { allowance.clone() } else { door.callers.of(name) }
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    protocol: Protocol,
    door: Arc<Door>,
    seat: Seat,
    mut stopping: watch::Receiver<bool>,
) {
    // A peer that says nothing at all must not hold one of the connections for ever.
    let mut first = [0];
    let spoke = tokio::select! {
        // Not `readable`: what was just accepted is taken to be.
        peeked = tokio::time::timeout(HEAD_LIMIT, stream.peek(&mut first)) => matches!(peeked, Ok(Ok(1..))),
        () = stopped(&mut stopping) => false,
        () = seat.sitting().to_leave() => false,
    };
    if !spoke {
        return;
    }
    let port = match protocol {
        Protocol::Grpc => Port::OtlpGrpc,
        Protocol::Http => Port::OtlpHttp,
    };
    let shaken = tokio::select! {
        shaken = door.access.shake_hands(port, stream) => shaken,
        () = seat.sitting().to_leave() => return,
    };
    let (stream, certificate) = match shaken {
        Ok(shaken) => shaken,
        Err(error) => {
            tracing::debug!(?protocol, %error, "a TLS handshake failed");
            return;
        }
    };
    let broken = stream.broken();
    let (window_bytes, _memory) = door.window();
    let stream_window_bytes = door.stream_window_bytes(window_bytes);
    let this = Arc::new(Connection {
        address: address.ip().to_canonical().to_string().into(),
        allowance: OnceLock::new(),
        certificate,
        answered: Answered::default(),
        sitting: seat.sitting().clone(),
    });
    let end = match protocol {
        Protocol::Grpc => {
            let (door, connection) = (door.clone(), this.clone());
            let answer =
                move |request, respond| grpc::call(door.clone(), connection.clone(), request, respond);
            let limits = http2::Limits {
                window_bytes,
                stream_window_bytes,
                frame_bytes: FRAME_LIMIT_BYTES,
                headers_bytes: HEADERS_LIMIT_BYTES,
                streams: STREAMS_LIMIT,
                keep_alive: KEEP_ALIVE,
                answer_within: ANSWER_LIMIT,
            };
            let shaking = Http2::shake_hands(stream, limits, answer);
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(HEAD_LIMIT, shaking) => shaken,
                () = stopped(&mut stopping) => return,
                () = seat.sitting().to_leave() => return,
            };
            match shaken {
                Ok(Ok(connection)) => {
                    until_it_ends(connection, |it| it.get_mut().graceful_shutdown(), &seat, &mut stopping)
                        .await
                }
                Ok(Err(error)) => End::Failed(error.to_string()),
                Err(_) => End::Failed(format!("no HTTP/2 within {} s", HEAD_LIMIT.as_secs())),
            }
        }
        Protocol::Http => {
            let takings = Arc::<Takings>::default();
            let stalled = takings.clone().stalled(TAKEN_WITHIN);
            let (door, connection) = (door.clone(), this.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (door, connection, takings) = (door.clone(), connection.clone(), takings.clone());
                let busy = connection.sitting.begin();
                async move {
                    let _busy = busy;
                    let answer = web::answer(&door, request, &connection).await;
                    Ok::<_, Infallible>(answer.map(|body| takings.body(body)))
                }
            });
            let builder = http_builder(window_bytes, stream_window_bytes);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let ending = until_it_ends(connection, |it| it.graceful_shutdown(), &seat, &mut stopping);
            tokio::select! {
                end = ending => end,
                () = stalled => End::CutOff,
            }
        }
    };
    if !matches!(end, End::Left) || broken.load(Ordering::Acquire) {
        door.retries.connection_broke(&this.answered);
    }
    if let End::Failed(error) = end {
        // Peers go away in many ways; none of them is ours to mend.
        tracing::debug!(?protocol, %error, "a connection ended with an error");
    }
}

/// How a connection ended.
enum End {
    /// The peer left, or was told to.
    Left,
    /// It had to give up its seat, or left an answer lying.
    CutOff,
    Failed(String),
}

/// Serves a connection until the peer leaves, or has to: because all stops, or another needs its seat.
async fn until_it_ends<C: Future<Output = Result<(), E>>, E: Display>(
    connection: C,
    graceful_shutdown: impl Fn(Pin<&mut C>),
    seat: &Seat,
    stopping: &mut watch::Receiver<bool>,
) -> End {
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(stopping) => {
            graceful_shutdown(connection.as_mut());
            connection.await
        }
        () = seat.sitting().to_leave() => {
            if seat.sitting().has_asked() {
                // A request may be on its way: whoever is polite has the time to send it elsewhere.
                graceful_shutdown(connection.as_mut());
                let _ = tokio::time::timeout(LEAVE_LIMIT, connection).await;
            }
            return End::CutOff;
        }
    };
    ended.map_or_else(|error| End::Failed(error.to_string()), |()| End::Left)
}

/// HTTP/1 and HTTP/2 for the HTTP port.
fn http_builder(window_bytes: u32, stream_window_bytes: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(READ_LIMIT_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(ANSWER_LIMIT)
        .max_frame_size(FRAME_LIMIT_BYTES)
        .initial_stream_window_size(stream_window_bytes)
        .initial_connection_window_size(window_bytes)
        .max_concurrent_streams(STREAMS_LIMIT)
        .max_header_list_size(HEADERS_LIMIT_BYTES);
    builder
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::model::SystemClock;
    use crate::receive::Admitted;

    struct Nowhere;

    impl Intake for Nowhere {
        fn try_push(&self, admitted: Admitted) -> Result<(), Admitted> {
            Err(admitted)
        }
    }

    #[tokio::test]
    async fn a_connection_breaks_when_what_was_sent_is_not_acknowledged_in_time() {
        let access = Access::open(&<_>::default(), &<_>::default(), Arc::new(SystemClock)).unwrap();
        let door = Door::new(Arc::new(Nowhere), access, &Config::default(), CallerKey::random());
        let (listener, address) = listen(([127, 0, 0, 1], 0).into(), "OTLP/HTTP").unwrap();
        let (accepted, client) = tokio::join!(newcomer(&listener, &door), TcpStream::connect(address));
        let (accepted, _) = accepted.unwrap();
        assert!(client.is_ok() && accepted.nodelay().unwrap());
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&accepted).unwrap(), 5_000);
    }
}
