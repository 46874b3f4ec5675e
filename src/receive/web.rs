//! OTLP/HTTP: `POST /v1/traces`, `/v1/logs`, `/v1/metrics` in protobuf or JSON.

use super::Outcome;
use super::callers::Allowance;
use super::door::{Door, Format, grow, next_data};
use super::grpc::content_type;
use super::problem::{Problem, ProblemKind};
use super::respond::{Answer, export_response, export_response_json, status, status_json};
use super::server::Connection;
use crate::access::{Credentials, DeniedReason, Need, Role, page_need};
use crate::limits::Permit;
use crate::model::Signal;
use crate::otlp::Encoding;
use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, ORIGIN, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use std::time::Duration;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How much of a refused body is read and thrown away, and for how long. Without that the connection
/// is reset, and a sender that still writes never reads the answer.
const DRAIN_LIMIT_BYTES: usize = 256 << 20;
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Answers one request.
pub(super) async fn answer(
    door: &Door,
    request: Request<Incoming>,
    connection: &Connection,
) -> Response<Answer> {
    let (mut head, mut body) = request.into_parts();
    let expects_continue = expects_continue(&head.headers);
    let origin = match permitted_origin(door, &head) {
        Ok(origin) => origin,
        Err(problem) => {
            door.count(&problem);
            return failure(door, Format::Json, &problem);
        }
    };
    let mut response = match &origin {
        Some(_) if head.method == Method::OPTIONS => preflight(),
        _ => respond(door, &mut head, &mut body, connection).await.unwrap_or_else(|refused| {
            let (format, problem) = *refused;
            door.count(&problem);
            // HTTP/2 can end one stream and keep the others.
            if head.version < Version::HTTP_2 && !body.is_end_stream() && !expects_continue {
                tokio::spawn(drain(body));
            }
            failure(door, format, &problem)
        }),
    };
    if let Some(origin) = origin {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// The origin of the page that sends this, if it is a page. Browsers say where a page comes from with
/// every POST; only those of `access.cors_origins` are listened to.
fn permitted_origin(door: &Door, head: &Parts) -> Result<Option<HeaderValue>, Problem> {
    match head.headers.get(ORIGIN) {
        None => Ok(None),
        Some(origin) if door.access.allows_origin(origin.as_bytes()) => Ok(Some(origin.clone())),
        Some(_) => Err(door.access.deny(DeniedReason::Origin, head.uri.path(), None).into()),
    }
}

/// What a browser is told that asks before it sends.
fn preflight() -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-encoding, content-type, traceparent, tracestate"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

async fn respond(
    door: &Door,
    head: &mut Parts,
    body: &mut Incoming,
    connection: &Connection,
) -> Result<Response<Answer>, Box<(Format, Problem)>> {
    let format = match content_type(&head.headers).and_then(|kind| kind.split(';').next()).map(str::trim) {
        Some(kind) if kind.eq_ignore_ascii_case("application/x-protobuf") => Ok(Format::Protobuf),
        Some(kind) if kind.eq_ignore_ascii_case("application/json") => Ok(Format::Json),
        kind => Err(Problem::new(
            ProblemKind::UnknownType,
            format!(
                "content-type {:?}, expected application/x-protobuf or application/json",
                kind.unwrap_or_default()
            ),
        )),
    };
    let signal = match head.uri.path() {
        "/v1/traces" => Ok(Signal::Traces),
        "/v1/logs" => Ok(Signal::Logs),
        "/v1/metrics" => Ok(Signal::Metrics),
        path => Err(Problem::new(ProblemKind::UnknownPath, format!("no such path: {path}"))),
    };
    let answer_format = *format.as_ref().unwrap_or(&Format::Json);
    let refused = |problem| Box::new((answer_format, problem));
    // Before anything else: a stranger is not told which paths there are. Whoever may send telemetry is.
    let path = head.uri.path();
    let need = page_need("POST", path).or(Some(Need::Role(Role::Ingest)));
    let caller = door
        .access
        .admit(&Credentials::of(&head.headers, connection.certificate), need, path)
        .map_err(|denial| refused(denial.into()))?;
    let caller = connection.allowance(door, &caller);
    let signal = signal.map_err(refused)?;
    if head.method != Method::POST {
        return Err(refused(Problem::new(ProblemKind::WrongMethod, "telemetry is sent with POST")));
    }
    let format = format.map_err(refused)?;
    let encoding = encoding(&head.headers).map_err(refused)?;
    // Many streams may wait for their bodies: their heads are not to take memory meanwhile.
    (head.headers, head.uri) = (HeaderMap::new(), http::Uri::default());
    match export(door, signal, format, encoding, body, &caller, connection).await {
        Ok(outcome) => Ok(success(signal, answer_format, outcome)),
        Err(problem) => Err(refused(problem)),
    }
}

/// Whether the sender waits with the body until it is asked for.
fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

async fn drain(mut body: Incoming) {
    let read = async {
        let mut bytes = 0usize;
        while bytes < DRAIN_LIMIT_BYTES {
            match next_data(&mut body).await {
                Ok(Some(data)) => bytes = bytes.saturating_add(data.len()),
                Ok(None) | Err(_) => return,
            }
        }
    };
    // Whoever is slower than that is cut off.
    let _ = tokio::time::timeout(DRAIN_LIMIT, read).await;
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(Encoding::Identity),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(b"zstd") => Ok(Encoding::Zstd),
        Some(other) => Err(Problem::new(
            ProblemKind::UnknownEncoding,
            format!("content-encoding {:?}, expected gzip or zstd", String::from_utf8_lossy(other)),
        )),
    }
}

async fn export(
    door: &Door,
    signal: Signal,
    format: Format,
    encoding: Encoding,
    body: &mut Incoming,
    caller: &Allowance,
    connection: &Connection,
) -> Result<Outcome, Problem> {
    let arriving = connection.sitting.arrive();
    let (wire, permit) = door.in_time(read_body(door, caller, body)).await?;
    drop(arriving);
    door.admit(signal, format, encoding, wire, permit, caller, &connection.answered).await
}

/// Reads a body whole. One that comes in one piece is not copied.
async fn read_body(door: &Door, caller: &Allowance, body: &mut Incoming) -> Result<(Bytes, Permit), Problem> {
    let limit = door.request_limit_bytes;
    let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > limit) {
        return Err(Problem::request_too_large(limit));
    }
    let mut permit = door.permit(caller, announced.unwrap_or(0))?;
    let Some(first) = next_data(body).await? else { return Ok((Bytes::new(), permit)) };
    if announced.is_none() {
        grow(&mut permit, first.len())?;
    }
    if announced == Some(first.len()) {
        return Ok((first, permit));
    }
    let mut whole = BytesMut::with_capacity(announced.unwrap_or(first.len()));
    whole.extend_from_slice(&first);
    while let Some(next) = next_data(body).await? {
        let length = whole.len().saturating_add(next.len());
        if length > limit {
            return Err(Problem::request_too_large(limit));
        }
        if length > whole.capacity() {
            // Doubling keeps the copying linear.
            let capacity = whole.capacity().saturating_mul(2).clamp(length, limit);
            grow(&mut permit, capacity.saturating_sub(whole.capacity()))?;
            whole.reserve(capacity.saturating_sub(whole.len()));
        }
        whole.extend_from_slice(&next);
    }
    Ok((whole.freeze(), permit))
}

fn success(signal: Signal, format: Format, outcome: Outcome) -> Response<Answer> {
    let (kind, data) = match format {
        Format::Protobuf => (PROTOBUF, export_response(outcome).unwrap_or_default().into()),
        Format::Json => (JSON, Bytes::from(export_response_json(signal, &outcome))),
    };
    let mut response = Response::new(Answer { data: Some(data), trailers: None });
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn failure(door: &Door, format: Format, problem: &Problem) -> Response<Answer> {
    let (kind, data) = match format {
        Format::Protobuf => (PROTOBUF, status(problem, None).into()),
        Format::Json => (JSON, Bytes::from(status_json(problem))),
    };
    let mut response = Response::new(Answer { data: Some(data), trailers: None });
    *response.status_mut() = problem.http_status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    match problem.kind {
        ProblemKind::Refused(_) | ProblemKind::TimedOut => {
            headers.insert(RETRY_AFTER, HeaderValue::from(door.retry_seconds(problem)));
        }
        ProblemKind::Denied(denial) if denial.is_unauthenticated() => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        ProblemKind::WrongMethod => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        ProblemKind::UnknownEncoding => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        }
        _ => {}
    }
    response
}
