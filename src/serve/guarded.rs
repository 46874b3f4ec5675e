//! What stands in front of every RPC of the query port: access control, and who keeps a seat.

use crate::access::{Access, Credentials, Holding, Peer, rpc_need};
use futures_util::future::{BoxFuture, Either};
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Puts the guard in front of a service.
#[derive(Clone)]
pub(super) struct Guarding(pub Arc<Access>);

impl<S> Layer<S> for Guarding {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { access: self.0.clone(), inner }
    }
}

/// A service that only those reach who may call it.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    access: Arc<Access>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let of_seat = peer.and_then(|peer| Some((peer.sitting.clone()?, peer.takings.clone())));
        let Some((sitting, takings)) = of_seat else { return Box::pin(self.answer(request)) };
        // From when its head is there, so that heads that do not come to their end keep nobody out, until the answer is
        // gone. While what is asked arrives, the seat can be lost all the same: that takes as long as its sender likes.
        let (busy, arriving) = (sitting.begin(), sitting.arrive());
        let answer = self.answer(request.map(|body| Body::new(Holding::new(body, arriving))));
        Box::pin(
            async move { Ok(answer.await?.map(|body| Body::new(Holding::new(takings.body(body), busy)))) },
        )
    }
}

impl<S> Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    /// The answer of whom it asks for, if the caller may.
    fn answer(
        &mut self,
        request: http::Request<Body>,
    ) -> impl Future<Output = Result<S::Response, S::Error>> + use<S> {
        let certificate = request.extensions().get::<Peer>().is_some_and(|peer| peer.certificate);
        let credentials = Credentials::of(request.headers(), certificate);
        let path = request.uri().path();
        match self.access.admit(&credentials, rpc_need(path), path) {
            Ok(_) => Either::Left(self.inner.call(request)),
            Err(denial) => {
                let status = if denial.is_unauthenticated() {
                    Status::unauthenticated(denial.message())
                } else {
                    Status::permission_denied(denial.message())
                };
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::api::v1;
    use crate::serve::tests::sources;
    use crate::serve::{Api, serve_grpc};
    use crate::store::Ledger;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tonic::transport::{Channel, Endpoint};
    use v1::anomaly_service_client::AnomalyServiceClient;
    use v1::status_service_client::StatusServiceClient;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    async fn connect(url: &str) -> Channel {
        Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap()
    }

    async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("in time: {what}"))
    }

    #[tokio::test]
    async fn who_has_asked_and_idles_makes_way_and_who_follows_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut sources = sources(Ledger::in_memory().unwrap(), folder.path());
        sources.config.connections = 3;
        let (stop, stopping) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}");
        let server = tokio::spawn(serve_grpc(listener, Api::new(sources, stopping)));
        let mut follower = AnomalyServiceClient::new(connect(&url).await);
        let mut followed =
            follower.follow_anomalies(v1::FollowAnomaliesRequest::default()).await.unwrap().into_inner();
        // The head of a request that has no end: a frame of HEADERS after which others would have to come.
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        slow.write_all(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).await.unwrap();
        let mut idle = Vec::new();
        for number in 0..6 {
            let mut client = StatusServiceClient::new(soon("a connection", connect(&url)).await);
            let answer = soon("an answer", client.get_status(v1::GetStatusRequest::default())).await;
            assert!(answer.is_ok(), "{number}: {answer:?}");
            // It stays, and idles.
            idle.push(client);
        }
        let mut sent = Vec::new();
        let ended = soon("the end of whose head does not end", slow.read_to_end(&mut sent)).await;
        assert!(
            ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        );
        // The follower hears the end of the daemon: it was never closed.
        stop.send(true).unwrap();
        let status = soon("the stop", followed.message()).await.unwrap_err();
        assert!(status.message().starts_with("the daemon stops"), "{status}");
        drop(idle);
        soon("the server's end", server).await.unwrap().unwrap();
    }
}
