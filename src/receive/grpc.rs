//! OTLP/gRPC: the three Export methods, framed here over the HTTP body, so that a message is neither
//! inflated nor copied before it was let in.

use super::Outcome;
use super::callers::Allowance;
use super::door::{Door, Format, grow, next_data};
use super::http2::Arriving;
use super::problem::{Problem, ProblemKind};
use super::respond::{Answer, export_response, status};
use super::server::Connection;
use crate::access::{Credentials, Need, Role, TAKEN_WITHIN, rpc_need};
use crate::limits::Permit;
use crate::model::Signal;
use crate::otlp::{Encoding, write_base64};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use std::fmt::Write;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");
const APPLICATION_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// One byte that says whether the message is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Answers one call, unless whoever made it goes away meanwhile.
pub(super) async fn call(
    door: Arc<Door>,
    connection: Arc<Connection>,
    request: Request<Arriving>,
    mut respond: SendResponse<Bytes>,
) {
    let busy = connection.sitting.begin();
    let pulse = request.body().pulse();
    let mut answering = pin!(answer(&door, request, &connection));
    let answered = poll_fn(|context| match answering.as_mut().poll(context) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(context).map(|_| None),
    });
    let response = answered.await;
    drop(busy);
    let Some(response) = response else { return };
    let sent = send(&mut respond, response, TAKEN_WITHIN).await;
    if !matches!(sent, Ok(true)) {
        // The answer does not arrive, so that what it answers may come again.
        door.retries.connection_broke(&connection.answered);
    }
    match sent {
        Ok(true) => {}
        Ok(false) => pulse.stall(),
        Err(error) => tracing::debug!(%error, "a call could not be answered"),
    }
}

/// Whether the answer was taken in time.
async fn send(
    respond: &mut SendResponse<Bytes>,
    response: Response<Answer>,
    within: Duration,
) -> Result<bool, h2::Error> {
    let (head, Answer { data, trailers }) = response.into_parts();
    let is_all = data.is_none() && trailers.is_none();
    let mut stream = respond.send_response(Response::from_parts(head, ()), is_all)?;
    if let Some(mut data) = data {
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            // Nearly always there is room for all of it at once.
            if stream.capacity() == 0 {
                let has_room = poll_fn(|context| has_room(&mut stream, context));
                match tokio::time::timeout(within, has_room).await {
                    Ok(has_room) => has_room?,
                    Err(_) => return Ok(false),
                }
            }
            let piece = data.split_to(stream.capacity().min(data.len()));
            stream.send_data(piece, data.is_empty() && trailers.is_none())?;
        }
    }
    trailers.map_or(Ok(()), |trailers| stream.send_trailers(trailers))?;
    Ok(true)
}

fn has_room(stream: &mut SendStream<Bytes>, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(context)) {
            Some(room) => room?,
            // Nobody waits for it any more.
            None => return Poll::Ready(Err(Reason::CANCEL.into())),
        };
    }
    Poll::Ready(Ok(()))
}

async fn answer(door: &Door, request: Request<Arriving>, connection: &Connection) -> Response<Answer> {
    if !content_type(request.headers()).is_some_and(|kind| kind.starts_with("application/grpc")) {
        // As the gRPC specification asks.
        door.count(&Problem::new(ProblemKind::UnknownType, ""));
        let mut response = Response::new(Answer::default());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    match export(door, request, connection).await {
        Ok(outcome) => success(outcome),
        Err(problem) => {
            door.count(&problem);
            failure(door, &problem)
        }
    }
}

pub(super) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()
}

fn method(path: &str) -> Option<Signal> {
    match path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Signal::Traces),
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Signal::Logs),
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Some(Signal::Metrics),
        _ => None,
    }
}

async fn export(
    door: &Door,
    request: Request<Arriving>,
    connection: &Connection,
) -> Result<Outcome, Problem> {
    let path = request.uri().path();
    // Before anything else: a stranger is not told which methods there are. Whoever may send telemetry is.
    let need = rpc_need(path).or(Some(Need::Role(Role::Ingest)));
    let caller =
        door.access.admit(&Credentials::of(request.headers(), connection.certificate), need, path)?;
    let caller = connection.allowance(door, &caller);
    let signal = method(path)
        .ok_or_else(|| Problem::new(ProblemKind::UnknownPath, format!("no such method: {path}")))?;
    if request.method() != Method::POST {
        return Err(Problem::new(ProblemKind::WrongMethod, "calls are made with POST"));
    }
    let kind = content_type(request.headers()).unwrap_or_default();
    if !matches!(kind.split(';').next().map(str::trim), Some("application/grpc" | "application/grpc+proto")) {
        return Err(Problem::new(
            ProblemKind::UnknownType,
            format!("content-type {kind:?}, expected application/grpc or application/grpc+proto"),
        ));
    }
    let encoding = match request.headers().get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => None,
        Some(b"gzip") => Some(Encoding::Gzip),
        Some(b"zstd") => Some(Encoding::Zstd),
        Some(other) => {
            return Err(Problem::new(
                ProblemKind::UnknownEncoding,
                format!(
                    "grpc-encoding {:?}, expected identity, gzip or zstd",
                    String::from_utf8_lossy(other)
                ),
            ));
        }
    };
    let arriving = connection.sitting.arrive();
    let (compressed, message, permit) =
        door.in_time(read_message(door, &caller, request.into_body())).await?;
    drop(arriving);
    let encoding = match (compressed, encoding) {
        (false, _) => Encoding::Identity,
        (true, Some(encoding)) => encoding,
        (true, None) => {
            return Err(malformed("the message is flagged as compressed, but no grpc-encoding was given"));
        }
    };
    door.admit(signal, Format::Protobuf, encoding, message, permit, &caller, &connection.answered).await
}

fn malformed(message: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Malformed, message)
}

/// Reads the one message of a call. A message that comes in one piece is not copied.
async fn read_message(
    door: &Door,
    caller: &Allowance,
    mut body: Arriving,
) -> Result<(bool, Bytes, Permit), Problem> {
    let mut permit = door.permit(caller, 0)?;
    let mut piece = Bytes::new();
    while piece.len() < PREFIX_BYTES {
        let Some(next) = next_data(&mut body).await? else {
            return Err(malformed(match piece.len() {
                0 => "the call has no message".to_owned(),
                got => format!("the call ends within the prefix of its message, after {got} bytes"),
            }));
        };
        grow(&mut permit, next.len())?;
        piece = if piece.is_empty() { next } else { [piece, next].concat().into() };
    }
    let prefix = piece.split_to(PREFIX_BYTES);
    let (compressed, length) = match *prefix {
        [flag @ (0 | 1), a, b, c, d] => (flag == 1, u32::from_be_bytes([a, b, c, d]) as usize),
        _ => return Err(malformed("the message's compressed flag is neither 0 nor 1")),
    };
    if length > door.request_limit_bytes {
        return Err(Problem::request_too_large(door.request_limit_bytes));
    }
    let mut message = if piece.len() >= length {
        piece.split_to(length)
    } else {
        // The pieces that come are freed as they are copied; so this is what is held.
        grow(&mut permit, length.saturating_sub(piece.len()))?;
        let mut whole = BytesMut::with_capacity(length);
        whole.extend_from_slice(&piece);
        loop {
            let Some(mut next) = next_data(&mut body).await? else {
                return Err(malformed(format!(
                    "the message announces {length} bytes, but ends after {}",
                    whole.len()
                )));
            };
            let missing = length.saturating_sub(whole.len());
            whole.extend_from_slice(&next.split_to(missing.min(next.len())));
            if whole.len() == length {
                piece = next;
                break whole.freeze();
            }
        }
    };
    while piece.is_empty() {
        match next_data(&mut body).await? {
            None => {
                if message.is_empty() {
                    message = Bytes::new();
                }
                return Ok((compressed, message, permit));
            }
            Some(next) => piece = next,
        }
    }
    Err(malformed("the call has more than one message"))
}

fn success(outcome: Outcome) -> Response<Answer> {
    let data = match export_response(outcome) {
        None => Bytes::from_static(&[0; PREFIX_BYTES]),
        Some(message) => {
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
            [&[0], length.as_slice(), &message].concat().into()
        }
    };
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let mut response = Response::new(Answer { data: Some(data), trailers: Some(trailers) });
    response.headers_mut().insert(CONTENT_TYPE, APPLICATION_GRPC);
    response
}

/// An answer that consists of headers alone.
fn failure(door: &Door, problem: &Problem) -> Response<Answer> {
    let retry = problem.refused().map(|_| door.retry_delay(problem));
    let mut response = Response::new(Answer::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, APPLICATION_GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(problem.grpc_code())));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&problem.message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if problem.kind == ProblemKind::UnknownEncoding {
        headers.insert(GRPC_ACCEPT_ENCODING, ENCODINGS);
    }
    let mut details = String::new();
    if retry.is_some()
        && write_base64(&status(problem, retry), &mut details).is_ok()
        && let Ok(details) = HeaderValue::from_str(details.trim_end_matches('='))
    {
        headers.insert(GRPC_DETAILS, details);
    }
    response
}

/// As `grpc-message` is written: printable ASCII but `%` as it is, all else as `%XX`.
fn percent_encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("100 % näh\n"), "100 %25 n%C3%A4h%0A");
    }

    /// Answers one call of a client with this window, and says whether that was taken in time.
    async fn is_taken(window_bytes: u32, opens: bool) -> bool {
        const WITHIN: Duration = Duration::from_millis(200);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(ours).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let answer =
                Answer { data: Some(Bytes::from_static(b"12345")), trailers: Some(HeaderMap::new()) };
            tokio::select! {
                taken = send(&mut respond, Response::new(answer), WITHIN) => tell.send(taken.unwrap()).unwrap(),
                _ = poll_fn(|context| connection.poll_closed(context)) => panic!("closed"),
            }
            let _ = poll_fn(|context| connection.poll_closed(context)).await;
        });
        let handshake =
            h2::client::Builder::new().initial_window_size(window_bytes).handshake::<_, Bytes>(theirs);
        let (mut client, mut connection) = handshake.await.unwrap();
        let request = Request::builder().uri("http://here/").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let head = tokio::select! {
            head = response => head.unwrap(),
            _ = poll_fn(|context| Pin::new(&mut connection).poll(context)) => panic!("closed"),
        };
        assert_eq!(head.status(), StatusCode::OK);
        if opens {
            connection.set_initial_window_size(5).unwrap();
        }
        tokio::select! {
            taken = told => taken.unwrap(),
            _ = poll_fn(|context| Pin::new(&mut connection).poll(context)) => panic!("closed"),
        }
    }

    #[tokio::test]
    async fn an_answer_waits_for_its_window_and_not_for_ever() {
        assert!(is_taken(5, false).await);
        // In pieces, as the window opens.
        assert!(is_taken(2, true).await);
        assert!(!is_taken(2, false).await);
        assert!(is_taken(0, true).await);
        assert!(!is_taken(0, false).await);
    }
}
