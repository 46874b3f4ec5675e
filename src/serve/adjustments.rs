//! Times that operators take out of budgets, and give back.

use super::api::Api;
use crate::model::{Timestamp, name_of};
use crate::slo::{Adjustment, Undone};
use crate::store::Stage;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;

/// Most bytes of a text.
const TEXT_BYTES: usize = 512;

/// An adjustment as it is told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    #[serde(default)]
    slo: String,
    #[serde(default)]
    service: String,
    from: Timestamp,
    until: Timestamp,
    author: String,
    reason: String,
    incident: Option<String>,
}

/// Who takes one back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    author: String,
    reason: String,
}

fn wrong(status: StatusCode, text: impl ToString) -> Response {
    (status, Json(json!({ "error": text.to_string() }))).into_response()
}

fn checked(texts: &[(&str, &str)]) -> Result<(), String> {
    match texts.iter().find(|(_, text)| text.trim().is_empty() || text.len() > TEXT_BYTES) {
        Some((name, _)) => Err(format!("{name} has 1 to {TEXT_BYTES} bytes")),
        None => Ok(()),
    }
}

/// `GET /v1/adjustments`
pub(super) async fn list(State(api): State<Api>) -> Response {
    Json(api.sources.objectives.adjustments()).into_response()
}

/// `POST /v1/adjustments`
pub(super) async fn tell(State(api): State<Api>, body: Bytes) -> Response {
    let told: Told = match serde_json::from_slice(&body) {
        Ok(told) => told,
        Err(error) => return wrong(StatusCode::BAD_REQUEST, error),
    };
    if let Err(error) = checked(&[("author", &told.author), ("reason", &told.reason)]) {
        return wrong(StatusCode::BAD_REQUEST, error);
    }
    if told.from >= told.until {
        return wrong(StatusCode::BAD_REQUEST, "until has to be later than from");
    }
    if told.slo.is_empty() && told.service.is_empty() {
        return wrong(StatusCode::BAD_REQUEST, "slo or service has to be named");
    }
    if let Err(error) = api.check_adjusted(&told.slo, &told.service) {
        return wrong(error.http_status(), error);
    }
    let told_at = api.now();
    let times = [told.from, told.until, told_at].map(|at| at.to_string());
    let parts = [&told.slo, &told.service].into_iter().chain(&times);
    let adjustment = name_of(parts.map(String::as_str));
    let Told { slo, service, from, until, author, reason, incident } = told;
    let undone = None;
    keep(api, Adjustment { adjustment, slo, service, from, until, author, reason, incident, told_at, undone })
        .await
}

/// `POST /v1/adjustments/{id}/undo`
pub(super) async fn undo(State(api): State<Api>, Path(id): Path<String>, body: Bytes) -> Response {
    let taken: Taken = match serde_json::from_slice(&body) {
        Ok(taken) => taken,
        Err(error) => return wrong(StatusCode::BAD_REQUEST, error),
    };
    if let Err(error) = checked(&[("author", &taken.author), ("reason", &taken.reason)]) {
        return wrong(StatusCode::BAD_REQUEST, error);
    }
    let known = api.sources.objectives.adjustments();
    let Some(mut adjustment) = known.iter().find(|known| known.adjustment == id).cloned() else {
        return wrong(StatusCode::NOT_FOUND, "no such adjustment");
    };
    if adjustment.undone.is_none() {
        adjustment.undone = Some(Undone { author: taken.author, reason: taken.reason, at: api.now() });
    }
    keep(api, adjustment).await
}

async fn keep(api: Api, adjustment: Adjustment) -> Response {
    let kept = adjustment.clone();
    let written = api
        .ask(move |api, _| {
            let payload =
                serde_json::to_value(&kept).map_err(|error| super::Error::Storage(error.to_string()))?;
            let key = format!("adjustment/{}/{}", kept.adjustment, kept.undone.is_some());
            api.sources
                .records
                .append(api.now(), Stage::Context, &kept.adjustment, &key, payload)
                .map_err(super::Error::Storage)
        })
        .await;
    match written {
        Ok(_) => (StatusCode::CREATED, Json(adjustment)).into_response(),
        Err(error) => wrong(error.http_status(), error),
    }
}
