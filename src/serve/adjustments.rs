//! Times that operators take out of budgets, and give back.

use super::Error;
use super::api::Api;
use super::convert::{from_proto, to_proto};
use super::exemptions::author;
use crate::api::v1;
use crate::api::v1::adjustment_service_server::AdjustmentService;
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
use std::time::Duration;
use tonic::{Request, Status};

/// Most bytes of a text.
const TEXT_BYTES: usize = 512;

/// The judge counts a new adjustment with the next cut, a second later: so long whoever told it waits at most, and
/// how often is looked.
const COUNTED_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

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

fn checked(texts: &[(&str, &str)]) -> Result<(), Error> {
    match texts.iter().find(|(_, text)| text.trim().is_empty() || text.len() > TEXT_BYTES) {
        Some((name, _)) => Err(Error::Invalid(format!("{name} has 1 to {TEXT_BYTES} bytes"))),
        None => Ok(()),
    }
}

impl Api {
    /// Times that are taken out of an objective's budget, or of any if `slo` is empty, in the order in which they
    /// were told.
    fn adjustments(&self, slo: &str) -> Vec<Adjustment> {
        let mut all = self.sources.objectives.adjustments();
        all.retain(|of| slo.is_empty() || of.slo.is_empty() || of.slo == slo);
        all
    }

    /// Takes a time out of budgets.
    ///
    /// # Errors
    /// `Invalid`, `NotFound` when there is no such objective, `Storage`.
    fn adjust(&self, told: Told) -> Result<Adjustment, Error> {
        checked(&[("author", &told.author), ("reason", &told.reason)])?;
        if told.from >= told.until {
            return Err(Error::Invalid("until has to be later than from".to_owned()));
        }
        if told.slo.is_empty() && told.service.is_empty() {
            return Err(Error::Invalid("slo or service has to be named".to_owned()));
        }
        self.check_adjusted(&told.slo, &told.service)?;
        let told_at = self.now();
        let times = [told.from, told.until, told_at].map(|at| at.to_string());
        let parts = [&told.slo, &told.service].into_iter().chain(&times);
        let adjustment = name_of(parts.map(String::as_str));
        let Told { slo, service, from, until, author, reason, incident } = told;
        let undone = None;
        self.keep(Adjustment {
            adjustment,
            slo,
            service,
            from,
            until,
            author,
            reason,
            incident,
            told_at,
            undone,
        })
    }

    /// Lets a time count again.
    ///
    /// # Errors
    /// `Invalid`, `NotFound` when there is no such adjustment, `Storage`.
    fn undo(&self, id: &str, taken: Taken) -> Result<Adjustment, Error> {
        checked(&[("author", &taken.author), ("reason", &taken.reason)])?;
        let known = self.sources.objectives.adjustments();
        let Some(mut adjustment) = known.into_iter().find(|known| known.adjustment == id) else {
            let hint = "`barograph slo adjustments` lists them";
            return Err(Error::NotFound(format!("no adjustment {id:?}: {hint}")));
        };
        if adjustment.undone.is_none() {
            adjustment.undone = Some(Undone { author: taken.author, reason: taken.reason, at: self.now() });
        }
        self.keep(adjustment)
    }

    fn keep(&self, adjustment: Adjustment) -> Result<Adjustment, Error> {
        let payload = serde_json::to_value(&adjustment).map_err(|error| Error::Storage(error.to_string()))?;
        let id = &adjustment.adjustment;
        let key = format!("adjustment/{id}/{}", adjustment.undone.is_some());
        let records = &self.sources.records;
        records.append(self.now(), Stage::Context, id, &key, payload).map_err(Error::Storage)?;
        Ok(adjustment)
    }
}

/// Carries out what was told, and answers when budgets go by it: who looks next finds it there.
async fn carry_out(
    api: Api,
    told: impl FnOnce(&Api) -> Result<Adjustment, Error> + Send + 'static,
) -> Result<Adjustment, Error> {
    let kept = api.ask(move |api, _| told(api)).await?;
    let is_counted = || {
        let known = api.sources.objectives.adjustments();
        known.iter().any(|known| {
            known.adjustment == kept.adjustment && known.undone.is_some() == kept.undone.is_some()
        })
    };
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let _too_late = tokio::time::timeout(COUNTED_WITHIN, async {
        while !is_counted() {
            looks.tick().await;
        }
    })
    .await;
    Ok(kept)
}

/// `GET /v1/adjustments`
pub(super) async fn list(State(api): State<Api>) -> Response {
    Json(api.adjustments("")).into_response()
}

/// `POST /v1/adjustments`
pub(super) async fn tell(State(api): State<Api>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(told) => answer(carry_out(api, move |api| api.adjust(told)).await),
        Err(error) => answer(Err(Error::Invalid(error.to_string()))),
    }
}

/// `POST /v1/adjustments/{id}/undo`
pub(super) async fn undo(State(api): State<Api>, Path(id): Path<String>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(taken) => answer(carry_out(api, move |api| api.undo(&id, taken)).await),
        Err(error) => answer(Err(Error::Invalid(error.to_string()))),
    }
}

fn answer(of: Result<Adjustment, Error>) -> Response {
    match of {
        Ok(adjustment) => (StatusCode::CREATED, Json(adjustment)).into_response(),
        Err(error) => (error.http_status(), Json(json!({ "error": error.to_string() }))).into_response(),
    }
}

fn message(of: Adjustment) -> v1::Adjustment {
    let (undone_at, undone) = of.undone.map(|undone| (to_proto(undone.at), undone)).unzip();
    let (undone_by, undone_because) = undone.map(|undone| (undone.author, undone.reason)).unwrap_or_default();
    v1::Adjustment {
        id: of.adjustment,
        slo: of.slo,
        service: of.service,
        from: Some(to_proto(of.from)),
        until: Some(to_proto(of.until)),
        author: of.author,
        reason: of.reason,
        incident: of.incident.unwrap_or_default(),
        told_at: Some(to_proto(of.told_at)),
        undone_at,
        undone_by,
        undone_because,
    }
}

#[tonic::async_trait]
impl AdjustmentService for Api {
    async fn list_adjustments(
        &self,
        request: Request<v1::ListAdjustmentsRequest>,
    ) -> Result<tonic::Response<v1::ListAdjustmentsResponse>, Status> {
        let all = self.adjustments(&request.into_inner().slo);
        let adjustments = all.into_iter().map(message).collect();
        Ok(tonic::Response::new(v1::ListAdjustmentsResponse { adjustments }))
    }

    async fn add_adjustment(
        &self,
        request: Request<v1::AddAdjustmentRequest>,
    ) -> Result<tonic::Response<v1::Adjustment>, Status> {
        let v1::AddAdjustmentRequest { slo, service, from, until, reason, incident, author: of } =
            request.into_inner();
        let (Some(from), Some(until)) = (from, until) else {
            return Err(Error::Invalid("from and until have to be given".to_owned()).into());
        };
        let (from, until, author) = (from_proto(&from), from_proto(&until), author(of)?);
        let incident = Some(incident).filter(|id| !id.is_empty());
        let told = Told { slo, service, from, until, author, reason, incident };
        let told = carry_out(self.clone(), move |api| api.adjust(told)).await?;
        Ok(tonic::Response::new(message(told)))
    }

    async fn undo_adjustment(
        &self,
        request: Request<v1::UndoAdjustmentRequest>,
    ) -> Result<tonic::Response<v1::Adjustment>, Status> {
        let v1::UndoAdjustmentRequest { id, reason, author: of } = request.into_inner();
        let taken = Taken { author: author(of)?, reason };
        let undone = carry_out(self.clone(), move |api| api.undo(&id, taken)).await?;
        Ok(tonic::Response::new(message(undone)))
    }
}
