//! Access control in front of every RPC of the query port.

use crate::access::{Access, Credentials, Peer, rpc_need};
use futures_util::future::Either;
use std::future::{Ready, ready};
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
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
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
