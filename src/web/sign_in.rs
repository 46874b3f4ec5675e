//! Signing a browser in: the page takes a token once, and sets a cookie that stands for it.

use super::guard::field;
use super::router::{PAGE_POLICY, with_headers};
use crate::access::{Credentials, Denial};
use crate::serve::Api;
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};

const FORM_LIMIT_BYTES: usize = 4 << 10;

/// `/login` and `/logout`.
pub(super) fn routes(api: Api) -> Router {
    Router::new()
        .route("/login", get(|| async { form(None) }).post(sign_in))
        .route("/logout", post(sign_out))
        .route("/session", get(session))
        .layer(DefaultBodyLimit::max(FORM_LIMIT_BYTES))
        .with_state(api)
}

fn form(denied: Option<Denial>) -> Response {
    let told = denied.map_or("", Denial::message);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Sign in · Barograph</title><style>body{{font:1rem/1.5 \
         system-ui,sans-serif;max-width:24rem;margin:4rem auto;padding:0 1rem}}input,button{{font:inherit;\
         width:100%;box-sizing:border-box;padding:.5rem;margin:.5rem 0}}</style></head><body><main><h1>Barograph\
         </h1><form method=\"post\" action=\"/login\"><label for=\"token\">Access token</label><input \
         id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" required autofocus>\
         <button>Sign in</button></form><p role=\"alert\">{told}</p></main></body></html>"
    );
    let status = denied.map_or(StatusCode::OK, Denial::http_status);
    with_headers((status, Html(html)).into_response(), "text/html; charset=utf-8", PAGE_POLICY)
}

fn with_cookie(cookie: &str, to: &str) -> Response {
    let mut response = Redirect::to(to).into_response();
    match HeaderValue::from_str(cookie) {
        Ok(cookie) => {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            response
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn sign_in(State(api): State<Api>, body: Bytes) -> Response {
    let (access, _) = api.door();
    if access.is_open() {
        return Redirect::to("/").into_response();
    }
    match access.sign_in(&field(&body, "token").unwrap_or_default()) {
        Ok(cookie) => with_cookie(&cookie, "/"),
        Err(denied) => form(Some(denied)),
    }
}

/// The CSRF token that writes of this session carry in `x-csrf-token`.
async fn session(State(api): State<Api>, headers: HeaderMap) -> Response {
    let (access, _) = api.door();
    let session = Credentials::of(&headers, false).with_session(&headers).session;
    let token = session.map(|session| access.csrf_token(session));
    let mut response = Json(serde_json::json!({ "csrf_token": token })).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn sign_out(State(api): State<Api>, headers: HeaderMap) -> Response {
    let (access, _) = api.door();
    let session = Credentials::of(&headers, false).with_session(&headers).session;
    with_cookie(&access.sign_out(session), "/login")
}
