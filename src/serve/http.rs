//! HTTP beside the pages: metrics, health, telling of changes, and times that do not count.

use super::adjustments;
use super::api::Api;
use super::change_json;
use super::foreign;
use super::told::{Heard, read_change};
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::json;

/// `/metrics`, `/healthz`, `/readyz`, `POST /v1/changes`, `POST /api/v2/alerts` and `/v1/adjustments`.
pub fn routes(api: Api) -> Router {
    let limit = usize::try_from(api.sources.config.request_bytes.0).unwrap_or(usize::MAX);
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/v1/changes", post(change))
        .route("/api/v2/alerts", post(foreign::take))
        .route("/v1/adjustments", get(adjustments::list).post(adjustments::tell))
        .route("/v1/adjustments/{id}/undo", post(adjustments::undo))
        .layer(DefaultBodyLimit::max(limit))
        .with_state(api)
}

async fn metrics(State(api): State<Api>) -> Response {
    match api.ask(|api, _| Ok(api.metrics())).await {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(error) => (error.http_status(), format!("{error}\n")).into_response(),
    }
}

async fn ready(State(api): State<Api>) -> Response {
    match api.unready() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn change(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let heard = match read_change(&named, &body) {
        Ok(Heard::Change(heard)) => heard,
        Ok(Heard::Nothing(why)) => {
            return (StatusCode::ACCEPTED, Json(json!({ "ignored": why }))).into_response();
        }
        Err(wrong) => return (StatusCode::BAD_REQUEST, Json(json!({ "error": wrong }))).into_response(),
    };
    let told = api
        .ask(move |api, _| api.tell(heard.at, &heard.service, heard.kind, heard.title, heard.version))
        .await;
    match told {
        Ok(change) => (StatusCode::CREATED, Json(change_json(&change))).into_response(),
        Err(error) => (error.http_status(), Json(json!({ "error": error.to_string() }))).into_response(),
    }
}
