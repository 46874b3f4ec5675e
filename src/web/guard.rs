//! Access control in front of every page and path.

use crate::access::{Access, Credentials, Denial, DeniedReason, Holding, Need, Peer, Role, page_need};
use crate::serve::Api;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use http_body::Body as _;

/// Largest form that is looked into for its CSRF token.
const FORM_LIMIT_BYTES: usize = 64 << 10;

/// Lets a request through if its caller may make it. People whose browser is not signed in are led to the
/// page where they can.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (access, _) = api.door();
    let (request, denied) = match check(&access, request).await {
        Ok(request) => return next.run(request).await,
        Err(denied) => denied,
    };
    let wants_page = request.method() == Method::GET
        && text(request.headers(), &header::ACCEPT).is_some_and(|kinds| kinds.contains("text/html"));
    if denied.is_unauthenticated() && wants_page {
        return Redirect::to("/login").into_response();
    }
    let mut response = (denied.http_status(), format!("{}\n", denied.message())).into_response();
    if denied.is_unauthenticated() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Notes on the connection's seat that a request is under way: from when its head is there, so that heads that do not
/// come to their end keep nobody out, until its answer is gone. A body that arrives slowly can lose the seat, too.
pub(super) async fn keep_seat(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let of_seat = peer.and_then(|ConnectInfo(peer)| Some((peer.sitting.clone()?, peer.takings.clone())));
    let Some((sitting, takings)) = of_seat else {
        return next.run(request).await;
    };
    let busy = sitting.begin();
    let arriving = (!request.body().is_end_stream()).then(|| sitting.arrive());
    let response = next.run(request).await;
    drop(arriving);
    response.map(|body| Body::new(Holding::new(takings.body(body), busy)))
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

async fn check(access: &Access, request: Request) -> Result<Request, (Request, Denial)> {
    let call = format!("{} {}", request.method(), request.uri().path());
    let is_write = !request.method().is_safe();
    if let Err(denied) = access.check_origin(request.headers(), is_write, &call) {
        return Err((request, denied));
    }
    let need = match request.extensions().get::<MatchedPath>() {
        Some(route) => page_need(request.method().as_str(), route.as_str()),
        // No route: whoever may read is told that there is no such page.
        None => Some(Need::Role(Role::Read)),
    };
    let certificate =
        request.extensions().get::<ConnectInfo<Peer>>().is_some_and(|ConnectInfo(peer)| peer.certificate);
    let credentials = Credentials::of(request.headers(), certificate).with_session(request.headers());
    if let Err(denied) = access.admit(&credentials, need, &call) {
        return Err((request, denied));
    }
    let by_session = credentials.bearer.is_none() && !access.is_open();
    match (credentials.session, need) {
        (Some(session), Some(Need::Role(_))) if by_session && is_write => {
            let wanted = access.csrf_token(session);
            with_csrf_token(access, request, &wanted, &call).await
        }
        _ => Ok(request),
    }
}

/// Lets a write of a signed-in browser through if it carries the token that only our own pages know, as
/// the header `x-csrf-token` or as the field `csrf_token` of a form.
async fn with_csrf_token(
    access: &Access,
    request: Request,
    wanted: &str,
    call: &str,
) -> Result<Request, (Request, Denial)> {
    let shown = request.headers().get("x-csrf-token").map(|value| value.as_bytes() == wanted.as_bytes());
    let is_form = text(request.headers(), &header::CONTENT_TYPE)
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let (head, body) = request.into_parts();
    let (shown, body) = match shown {
        Some(shown) => (shown, body),
        None if is_form => match to_bytes(body, FORM_LIMIT_BYTES).await {
            Ok(form) => (field(&form, "csrf_token").is_some_and(|token| token == wanted), Body::from(form)),
            Err(_) => (false, Body::empty()),
        },
        None => (false, body),
    };
    let request = Request::from_parts(head, body);
    if shown { Ok(request) } else { Err((request, access.deny(DeniedReason::Origin, call, None))) }
}

/// A field of a form.
pub(super) fn field(form: &Bytes, name: &str) -> Option<String> {
    let text = std::str::from_utf8(form).ok()?;
    let value = text.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
    let mut bytes = value.bytes();
    let mut out = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Listener, Port};
    use crate::model::SystemClock;
    use axum::Router;
    use axum::routing::{get, post};
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A page port of so many connections, whose answer to `/listen` does not end.
    async fn page_port(connections: usize) -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let access = Access::open(&<_>::default(), &<_>::default(), Arc::new(SystemClock)).unwrap();
        let listener = Listener::new(tcp, Port::Page, access, connections);
        let listen = || async {
            let first = futures_util::stream::iter([Ok::<_, std::io::Error>("hello")]);
            Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
        };
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/", post(|body: String| async move { body }))
            .route("/listen", get(listen))
            .layer(axum::middleware::from_fn(keep_seat));
        tokio::spawn(async move {
            axum::serve(listener, router.into_make_service_with_connect_info::<Peer>()).await
        });
        address
    }

    async fn say(to: SocketAddr, from: [u8; 4], words: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        stream
    }

    /// What comes until it ends with this, or the other side closes.
    async fn hear(stream: &mut TcpStream, end: &str) -> String {
        let (mut heard, mut byte) = (String::new(), [0]);
        let hear = async {
            while !heard.ends_with(end)
                && let Ok(1) = stream.read(&mut byte).await
            {
                heard.push(char::from(byte[0]));
            }
        };
        tokio::time::timeout(PATIENCE, hear).await.expect("an answer or an end");
        heard
    }

    const LOCAL: [u8; 4] = [127, 0, 0, 1];
    const OTHER: [u8; 4] = [127, 0, 0, 2];
    const ASK: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    #[tokio::test]
    async fn heads_that_do_not_come_to_their_end_keep_no_newcomer_out_and_who_listens_stays() {
        let address = page_port(3).await;
        let mut listens = say(address, LOCAL, "GET /listen HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(hear(&mut listens, "hello").await.starts_with("HTTP/1.1 200"));
        let mut slow = Vec::new();
        for words in ["GET / HTTP/1.1\r\nhost: a\r\nx: ", "G"] {
            slow.push(say(address, LOCAL, words).await);
        }
        for _ in 0..4 {
            let mut newcomer = say(address, LOCAL, ASK).await;
            let heard = hear(&mut newcomer, "hello").await;
            assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("content-length: 5"), "{heard}");
            // It stays, and idles.
            slow.push(newcomer);
        }
        for stream in slow.iter_mut().take(2) {
            assert_eq!(hear(stream, "hello").await, "", "it was closed");
        }
        let mut byte = [0];
        let closed = tokio::time::timeout(Duration::from_millis(100), async {
            while let Ok(1) = listens.read(&mut byte).await {}
        });
        assert!(closed.await.is_err(), "the one that listens is not closed");
    }

    #[tokio::test]
    async fn bodies_that_trickle_from_one_address_keep_no_other_out() {
        let address = page_port(3).await;
        let mut slow = Vec::new();
        for number in 0..3 {
            let mut stream =
                say(address, LOCAL, "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n").await;
            stream.write_all(b"content-type: text/plain\r\ncontent-length: 9\r\n\r\n").await.unwrap();
            // It is asked for: so the request is under way.
            assert!(hear(&mut stream, "\r\n\r\n").await.contains("100"), "{number}");
            stream.write_all(b"1").await.unwrap();
            slow.push(stream);
        }
        let mut newcomer = say(address, OTHER, ASK).await;
        assert!(hear(&mut newcomer, "hello").await.starts_with("HTTP/1.1 200"));
        let closed = hear(&mut slow[0], "nothing").await;
        assert!(closed.starts_with("HTTP/1.1 400"), "the oldest is told, and closed: {closed}");
    }

    #[test]
    fn fields_of_forms_are_decoded() {
        let form = Bytes::from_static(b"a=1&csrf_token=x%2By+z&b");
        assert_eq!(field(&form, "csrf_token").as_deref(), Some("x+y z"));
        assert_eq!(field(&form, "token"), None);
        assert_eq!(field(&Bytes::from_static(b"a=%"), "a"), None);
        assert_eq!(field(&Bytes::from_static(b"a=%ff"), "a"), None);
    }
}
