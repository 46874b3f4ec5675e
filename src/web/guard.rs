//! Access control in front of every page and path.

use crate::access::{Access, Credentials, Denial, DeniedReason, Need, Peer, Role, page_need};
use crate::serve::Api;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

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

    #[test]
    fn fields_of_forms_are_decoded() {
        let form = Bytes::from_static(b"a=1&csrf_token=x%2By+z&b");
        assert_eq!(field(&form, "csrf_token").as_deref(), Some("x+y z"));
        assert_eq!(field(&form, "token"), None);
        assert_eq!(field(&Bytes::from_static(b"a=%"), "a"), None);
        assert_eq!(field(&Bytes::from_static(b"a=%ff"), "a"), None);
    }
}
