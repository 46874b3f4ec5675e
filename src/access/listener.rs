//! The listener of the query and the page port: TLS, bounded connections, an end for those that idle.

use super::{Access, Peer, Port, Stream};
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
    slots: Arc<Semaphore>,
    /// TLS handshakes under way; each holds a slot.
    shaking: FuturesUnordered<BoxFuture<'static, Option<Connection>>>,
}

impl Listener {
    /// Serves at most `connections` at a time; more are closed at once.
    #[must_use]
    pub fn new(tcp: TcpListener, port: Port, access: Arc<Access>, connections: usize) -> Self {
        let slots = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { tcp, port, access, slots, shaking: FuturesUnordered::new() }
    }

    /// The next connection, its handshake done.
    pub async fn next(&mut self) -> Connection {
        loop {
            let accepted = tokio::select! {
                Some(shaken) = self.shaking.next() => match shaken {
                    Some(connection) => return connection,
                    None => continue,
                },
                accepted = self.tcp.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let Ok(slot) = self.slots.clone().try_acquire_owned() else {
                        tracing::warn!(port = ?self.port, "too many connections: one is turned away");
                        continue;
                    };
                    self.shaking.push(Box::pin(shake(self.access.clone(), self.port, stream, address, slot)));
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
    slot: OwnedSemaphorePermit,
) -> Option<Connection> {
    let _ = stream.set_nodelay(true);
    match access.shake_hands(port, stream).await {
        Ok((stream, certificate)) => Some(Connection {
            stream,
            peer: Peer { address: Some(address), certificate },
            idle: Box::pin(tokio::time::sleep(IDLE_LIMIT)),
            _slot: slot,
        }),
        Err(error) => {
            tracing::debug!(?port, %error, "a TLS handshake failed");
            None
        }
    }
}

/// A connection that holds one of the listener's slots.
pub struct Connection {
    stream: Stream,
    peer: Peer,
    idle: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
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
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
        self.peer
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        let connection = self.next().await;
        let peer = connection.peer;
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: Some(self.tcp.local_addr()?), certificate: false })
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Listener>) -> Self {
        *stream.remote_addr()
    }
}
