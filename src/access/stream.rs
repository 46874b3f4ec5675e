//! A connection, with or without TLS.

use super::frames::FrameGuard;
use super::taking::Takings;
use crate::limits::Sitting;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// Whether it showed a client certificate that is trusted.
    pub certificate: bool,
    /// The seat of the connection, if it has one that it can be asked to give up.
    pub sitting: Option<Arc<Sitting>>,
    /// Its answers that are under way.
    pub takings: Arc<Takings>,
}

/// A connection, with or without TLS, that is ended when it floods, and remembers whether it broke: the
/// layers above take a reset between two requests for an ordinary end, but it says that the answer before it
/// may not have arrived.
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    frames: FrameGuard,
    broken: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self::new(Transport::Plain(stream))
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::new(Transport::Tls(Box::new(stream)))
    }

    fn new(transport: Transport) -> Self {
        Self { transport, frames: FrameGuard::new(Instant::now()), broken: Arc::default() }
    }

    /// Whether reading or writing failed, to be asked when the connection has ended.
    #[must_use]
    pub fn broken(&self) -> Arc<AtomicBool> {
        self.broken.clone()
    }

    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(polled, Poll::Ready(Err(_))) {
            self.broken.store(true, Ordering::Release);
        }
        polled
    }

    /// Whether a trusted client certificate was shown.
    pub(super) fn has_certificate(&self) -> bool {
        match &self.transport {
            Transport::Plain(_) => false,
            Transport::Tls(stream) => {
                stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty())
            }
        }
    }
}

macro_rules! either {
    ($this:expr, $stream:ident => $do:expr) => {{
        let this = $this.get_mut();
        let polled = match &mut this.transport {
            Transport::Plain(stream) => {
                let $stream = Pin::new(stream);
                $do
            }
            Transport::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $do
            }
        };
        this.noted(polled)
    }};
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = either!(self.as_mut(), stream => stream.poll_read(context, buffer));
        if let Poll::Ready(Ok(())) = polled
            && !self.frames.watch(buffer.filled().get(before..).unwrap_or_default(), Instant::now)
        {
            return self.noted(Poll::Ready(Err(io::Error::other("a flood of frames that ask for nothing"))));
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(context))
    }
}
