//! The listener of the query and the page port: TLS, bounded connections, an end for those that idle.

use super::taking::{TAKEN_WITHIN, Takings};
use super::{Access, Peer, Port, Stream};
use crate::limits::{Seat, Seats};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

/// After how long without a byte in either direction a connection is ended.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// Pause after a failed accept: what failed, usually file descriptors, needs time to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The listener of the query or the page port.
pub struct Listener {
    tcp: TcpListener,
    port: Port,
    access: Arc<Access>,
    seats: Arc<Seats>,
    taken_within: Duration,
    /// TLS handshakes under way, and those that wait for a seat.
    shaking: FuturesUnordered<BoxFuture<'static, Option<Connection>>>,
}

impl Listener {
    /// Serves at most `connections` at a time. One more takes the seat of one that has no request under way; if
    /// there is none it is closed. Whoever serves them notes on the peer's seat when a request is under way.
    #[must_use]
    pub fn new(tcp: TcpListener, port: Port, access: Arc<Access>, connections: usize) -> Self {
        let seats = Seats::new(connections);
        Self { tcp, port, access, seats, taken_within: TAKEN_WITHIN, shaking: FuturesUnordered::new() }
    }

    /// The next connection, its handshake done.
    pub async fn next(&mut self) -> Connection {
        loop {
            let accepted = tokio::select! {
                Some(shaken) = self.shaking.next() => match shaken {
                    Some(connection) => return connection,
                    None => continue,
                },
                accepted = async {
                    self.seats.room().await;
                    self.tcp.accept().await
                } => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let Some(claim) = self.seats.claim(address.ip().to_canonical()) else {
                        tracing::warn!(port = ?self.port, "too many connections: one is turned away");
                        continue;
                    };
                    let (access, port, taken_within) = (self.access.clone(), self.port, self.taken_within);
                    self.shaking.push(Box::pin(async move {
                        let seat = claim.await?;
                        shake(access, port, stream, address, seat, taken_within).await
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Its connections one after the other.
    pub fn connections(self) -> impl futures_util::Stream<Item = io::Result<Connection>> {
        futures_util::stream::unfold(self, |mut listener| async move {
            let connection = listener.next().await;
            Some((Ok(connection), listener))
        })
    }
}

async fn shake(
    access: Arc<Access>,
    port: Port,
    stream: TcpStream,
    address: SocketAddr,
    seat: Seat,
    taken_within: Duration,
) -> Option<Connection> {
    let _ = stream.set_nodelay(true);
    let shaken = tokio::select! {
        shaken = access.shake_hands(port, stream) => shaken,
        () = seat.sitting().to_leave() => return None,
    };
    match shaken {
        Ok((stream, certificate)) => {
            let sitting = seat.sitting().clone();
            let takings = Arc::<Takings>::default();
            Some(Connection {
                stream,
                peer: Peer {
                    address: Some(address),
                    certificate,
                    sitting: Some(sitting.clone()),
                    takings: takings.clone(),
                },
                stalled: Some(Box::pin(takings.stalled(taken_within))),
                idle: Box::pin(tokio::time::sleep(IDLE_LIMIT)),
                told: Some(Box::pin(async move { sitting.to_leave().await })),
                seat,
            })
        }
        Err(error) => {
            tracing::debug!(?port, %error, "a TLS handshake failed");
            None
        }
    }
}

/// A connection that holds one of the listener's seats.
pub struct Connection {
    stream: Stream,
    peer: Peer,
    idle: Pin<Box<Sleep>>,
    /// Resolves when its peer has left an answer lying for too long; `None` once it has.
    stalled: Option<BoxFuture<'static, ()>>,
    /// Resolves when it is told to make way; `None` once it was.
    told: Option<BoxFuture<'static, ()>>,
    seat: Seat,
}

impl Connection {
    /// Notes that something was transferred, or ends the wait for it.
    fn noted<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE_LIMIT);
        } else if self.idle.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }

    /// Whether an answer has been left lying for too long.
    fn is_stalled(&mut self, context: &mut Context<'_>) -> bool {
        if let Some(stalled) = &mut self.stalled
            && stalled.as_mut().poll(context).is_ready()
        {
            self.stalled = None;
        }
        self.stalled.is_none()
    }

    /// Whether it has to make way now.
    fn has_to_leave(&mut self, context: &mut Context<'_>) -> bool {
        if let Some(told) = &mut self.told
            && told.as_mut().poll(context).is_ready()
        {
            self.told = None;
        }
        let sitting = self.seat.sitting();
        self.told.is_none() && (sitting.must_leave() || !sitting.is_busy())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // First of all: who was told to go does not begin to speak.
        if self.has_to_leave(context) || self.is_stalled(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.noted(context, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.noted(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        let connection = self.next().await;
        let peer = connection.peer.clone();
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: Some(self.tcp.local_addr()?), ..Peer::default() })
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Listener>) -> Self {
        stream.remote_addr().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemClock;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn who_idles_makes_way_although_it_has_asked_and_who_is_answered_does_not() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let access = Access::open(&<_>::default(), &<_>::default(), Arc::new(SystemClock)).unwrap();
        let mut listener = Listener::new(tcp, Port::Query, access, 2);
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"ask").await.unwrap();
            let mut connection = listener.next().await;
            let mut read = [0; 3];
            connection.read_exact(&mut read).await.unwrap();
            let request = connection.peer.sitting.clone().unwrap().begin();
            held.push((client, connection, request));
        }
        let (mut idles, mut listens) = (held.pop().unwrap(), held.pop().unwrap());
        drop(idles.2);
        let (idles_ends, listens_ends) = (
            tokio::spawn(async move { idles.1.read(&mut [0]).await.map_err(|error| error.kind()) }),
            tokio::spawn(async move { listens.1.read(&mut [0]).await.map_err(|error| error.kind()) }),
        );
        let _newcomer = TcpStream::connect(address).await.unwrap();
        let newcomer = listener.next().await;
        assert_eq!(idles_ends.await.unwrap(), Err(io::ErrorKind::TimedOut));
        assert!(!listens_ends.is_finished() && !newcomer.seat.sitting().has_asked());
        listens_ends.abort();
    }

    #[tokio::test]
    async fn who_leaves_an_answer_lying_is_left_however_much_else_it_says() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let access = Access::open(&<_>::default(), &<_>::default(), Arc::new(SystemClock)).unwrap();
        let mut listener = Listener::new(tcp, Port::Query, access, 2);
        listener.taken_within = Duration::from_millis(300);
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut connection = listener.next().await;
        let _left_lying = connection.peer.takings.body(tonic::body::Body::empty());
        let began = Instant::now();
        let saying = tokio::spawn(async move {
            while client.write_all(b"ping").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let error = loop {
            match connection.read(&mut [0; 64]).await {
                Ok(bytes) => assert!(bytes > 0 && began.elapsed() < Duration::from_secs(30)),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= Duration::from_millis(300));
        let again = connection.read(&mut [0; 64]).await.map_err(|error| error.kind());
        assert_eq!(again, Err(io::ErrorKind::TimedOut), "it stays so, whoever reads once more");
        drop(connection);
        saying.await.unwrap();
    }
}
