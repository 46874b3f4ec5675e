//! The little HTTP that tests ask with.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::convert::Infallible;

/// Status and body of `GET url`; `None` if nobody answers.
pub async fn get(url: &str) -> Option<(u16, Bytes)> {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.get(url.parse().expect("a URL")).await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.into_body().collect().await.ok()?.to_bytes()))
}

/// The body of `GET url` as JSON; `None` unless the status is 200.
pub async fn get_json(url: &str) -> Option<Value> {
    let (status, body) = get(url).await?;
    (status == 200).then(|| serde_json::from_slice(&body).expect("JSON"))
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The status of gRPC, from the trailers or, when nothing else is answered, from the headers.
    pub grpc_status: Option<i32>,
}

/// What is sent: known in length, or in chunks of this size.
pub enum Sent {
    Whole(Bytes),
    Chunks { bytes: Bytes, each: usize },
}

/// Sends over a connection of its own. Fails if the connection ends without an answer.
pub async fn send(
    url: &str,
    (method, http2): (Method, bool),
    headers: &[(&str, &str)],
    sent: Sent,
) -> Result<Answer, String> {
    let body = match sent {
        Sent::Whole(bytes) => Full::new(bytes).boxed(),
        Sent::Chunks { bytes, each } => {
            let chunks: Vec<_> = bytes.chunks(each).map(|chunk| bytes.slice_ref(chunk)).collect();
            let frames = chunks.into_iter().map(|chunk| Ok(Frame::data(chunk)));
            StreamBody::new(futures_util::stream::iter(frames)).boxed()
        }
    };
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body).expect("a request");
    let client: Client<HttpConnector, BoxBody<Bytes, Infallible>> =
        Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    let response = client.request(request).await.map_err(|error| format!("{error:?}"))?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| format!("{error:?}"))?;
    let code = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    let grpc_status = body.trailers().and_then(code).or_else(|| code(&head.headers));
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), grpc_status })
}
