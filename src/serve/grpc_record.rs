//! gRPC: anomalies, evidence, incidents, changes.

use super::api::Api;
use super::board::rows;
use super::changes::{Told, service_as_written};
use super::incidents::Act;
use super::{Error, Range, from_proto};
use crate::api::v1;
use crate::api::v1::anomaly_service_server::AnomalyService;
use crate::api::v1::change_service_server::ChangeService;
use crate::api::v1::evidence_service_server::EvidenceService;
use crate::api::v1::incident_service_server::IncidentService;
use crate::context::ChangeKind;
use crate::diagnose::{Evidence, Pass};
use crate::model::Timestamp;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

const DAY: Duration = Duration::from_secs(86_400);

#[tonic::async_trait]
impl AnomalyService for Api {
    async fn list_anomalies(
        &self,
        request: Request<v1::ListAnomaliesRequest>,
    ) -> Result<Response<v1::ListAnomaliesResponse>, Status> {
        let request = request.into_inner();
        let anomalies = self
            .ask(move |api, _| {
                let range = Range::of(request.range.as_ref(), api.now(), DAY)?;
                let service = api.queries.service(&request.service)?;
                api.board.anomalies(Some(range), service.as_ref(), &request.states, request.limit)
            })
            .await?;
        Ok(Response::new(v1::ListAnomaliesResponse { anomalies }))
    }

    async fn get_anomaly(
        &self,
        request: Request<v1::GetAnomalyRequest>,
    ) -> Result<Response<v1::Anomaly>, Status> {
        let id = request.into_inner().id;
        let whole = self.ask(move |api, _| api.board.anomaly(&id)).await?;
        Ok(Response::new(whole.message().ok_or_else(|| Status::not_found("no such anomaly"))?))
    }

    async fn get_curves(
        &self,
        request: Request<v1::GetCurvesRequest>,
    ) -> Result<Response<v1::GetCurvesResponse>, Status> {
        let id = request.into_inner().id;
        let curves = self.ask(move |api, meter| api.curves(&id, meter)).await?;
        Ok(Response::new(v1::GetCurvesResponse { curves }))
    }

    type FollowAnomaliesStream = ReceiverStream<Result<v1::FollowAnomaliesResponse, Status>>;

    async fn follow_anomalies(
        &self,
        request: Request<v1::FollowAnomaliesRequest>,
    ) -> Result<Response<Self::FollowAnomaliesStream>, Status> {
        Ok(Response::new(super::follow::follow(self, request.into_inner().resume).await?))
    }
}

fn evidence_message(of: &Evidence) -> v1::Evidence {
    v1::Evidence {
        anomaly: of.anomaly.0.clone(),
        complete: of.pass == Pass::Complete,
        at: Some(super::to_proto(of.at)),
        causes: of.causes.iter().map(super::anomaly::cause).collect(),
        traces: of.bundle.traces,
        failed_traces: of.bundle.failed_traces,
        log_records: of.bundle.log_records,
        files: of
            .bundle
            .files
            .iter()
            .map(|(path, size_bytes, blake3)| v1::EvidenceFile {
                path: path.clone(),
                size_bytes: *size_bytes,
                blake3: blake3.clone(),
            })
            .collect(),
    }
}

#[tonic::async_trait]
impl EvidenceService for Api {
    async fn list_evidence(
        &self,
        request: Request<v1::ListEvidenceRequest>,
    ) -> Result<Response<v1::ListEvidenceResponse>, Status> {
        let limit = rows(request.into_inner().limit);
        let evidence = self
            .ask(move |api, _| {
                api.board.look(|fold| {
                    let mut all: Vec<&Evidence> =
                        fold.anomalies.values().filter_map(|whole| whole.evidence.as_ref()).collect();
                    all.sort_by(|a, b| (b.at, &b.anomaly).cmp(&(a.at, &a.anomaly)));
                    all.into_iter().take(limit).map(evidence_message).collect()
                })
            })
            .await?;
        Ok(Response::new(v1::ListEvidenceResponse { evidence }))
    }

    async fn get_evidence(
        &self,
        request: Request<v1::GetEvidenceRequest>,
    ) -> Result<Response<v1::Evidence>, Status> {
        let anomaly = request.into_inner().anomaly;
        let (_, evidence) = self.ask(move |api, _| api.bundle(&anomaly)).await?;
        Ok(Response::new(evidence_message(&evidence)))
    }

    type DownloadEvidenceStream = ReceiverStream<Result<v1::DownloadEvidenceResponse, Status>>;

    async fn download_evidence(
        &self,
        request: Request<v1::DownloadEvidenceRequest>,
    ) -> Result<Response<Self::DownloadEvidenceStream>, Status> {
        let anomaly = request.into_inner().anomaly;
        let (path, evidence) = self.ask(move |api, _| api.bundle(&anomaly)).await?;
        Ok(Response::new(super::download::download(path, evidence_message(&evidence).files)))
    }
}

impl Api {
    async fn act(
        &self,
        id: String,
        author: Option<v1::Author>,
        act: Act,
    ) -> Result<Response<v1::Incident>, Status> {
        let who = author.map(|author| author.name).unwrap_or_default();
        let incident = self.ask(move |api, _| api.board.act(&id, &who, &act, api.now())).await?;
        Ok(Response::new(incident))
    }
}

#[tonic::async_trait]
impl IncidentService for Api {
    async fn list_incidents(
        &self,
        request: Request<v1::ListIncidentsRequest>,
    ) -> Result<Response<v1::ListIncidentsResponse>, Status> {
        let request = request.into_inner();
        let incidents = self
            .ask(move |api, _| {
                let all = Duration::from_nanos(u64::MAX);
                let range = Range::of(request.range.as_ref(), api.now(), all)?;
                api.board.incidents(Some(range), rows(request.limit))
            })
            .await?;
        Ok(Response::new(v1::ListIncidentsResponse { incidents }))
    }

    async fn get_incident(
        &self,
        request: Request<v1::GetIncidentRequest>,
    ) -> Result<Response<v1::Incident>, Status> {
        let id = request.into_inner().id;
        Ok(Response::new(self.ask(move |api, _| api.incident(&id)).await?))
    }

    async fn acknowledge_incident(
        &self,
        request: Request<v1::AcknowledgeIncidentRequest>,
    ) -> Result<Response<v1::Incident>, Status> {
        let v1::AcknowledgeIncidentRequest { id, author } = request.into_inner();
        self.act(id, author, Act::Acknowledge).await
    }

    async fn add_note(&self, request: Request<v1::AddNoteRequest>) -> Result<Response<v1::Incident>, Status> {
        let v1::AddNoteRequest { id, author, text } = request.into_inner();
        self.act(id, author, Act::Note(text)).await
    }

    async fn resolve_incident(
        &self,
        request: Request<v1::ResolveIncidentRequest>,
    ) -> Result<Response<v1::Incident>, Status> {
        let v1::ResolveIncidentRequest { id, author, text } = request.into_inner();
        self.act(id, author, Act::Resolve(text)).await
    }
}

#[tonic::async_trait]
impl ChangeService for Api {
    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Result<Response<v1::ListChangesResponse>, Status> {
        let request = request.into_inner();
        let changes = self
            .ask(move |api, _| {
                let range = Range::of(request.range.as_ref(), api.now(), DAY)?;
                let service = api.queries.service(&request.service)?;
                api.board.changes(range, service.as_ref(), request.limit)
            })
            .await?;
        Ok(Response::new(v1::ListChangesResponse { changes }))
    }

    async fn tell_change(
        &self,
        request: Request<v1::TellChangeRequest>,
    ) -> Result<Response<v1::Change>, Status> {
        let request = request.into_inner();
        let kind = match request.kind() {
            v1::ChangeKind::Deploy => ChangeKind::Deploy,
            v1::ChangeKind::Flag => ChangeKind::Flag,
            v1::ChangeKind::Configuration => ChangeKind::Configuration,
            v1::ChangeKind::Unspecified | v1::ChangeKind::Other => ChangeKind::Other,
        };
        let at = request.at.as_ref().map(from_proto);
        let change = self
            .ask(move |api, _| api.tell(at, &request.service, kind, request.title, Some(request.version)))
            .await?;
        Ok(Response::new(change))
    }
}

impl Api {
    /// Records a change of a service as people write it; of any service if that is empty.
    ///
    /// # Errors
    /// `Invalid` when the service is ambiguous or the title is no line.
    pub fn tell(
        &self,
        at: Option<Timestamp>,
        service: &str,
        kind: ChangeKind,
        title: String,
        version: Option<String>,
    ) -> Result<v1::Change, Error> {
        let now = self.now();
        let service = match self.queries.service(service) {
            // A first deploy is told before the service sends anything.
            Err(Error::NotFound(_)) => Some(service_as_written(service).ok_or_else(|| {
                Error::Invalid(format!("{service:?} is not [ENVIRONMENT/][NAMESPACE/]NAME"))
            })?),
            found => found?,
        };
        self.board.tell(Told { at: at.unwrap_or(now), service, kind, title, version }, now)
    }
}
