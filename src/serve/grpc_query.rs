//! gRPC: what services did, and the daemon itself.

use super::api::Api;
use super::{DEFAULT_RANGE, Range};
use crate::api::v1;
use crate::api::v1::query_service_server::QueryService;
use crate::api::v1::status_service_server::StatusService;
use crate::serve::Error;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl QueryService for Api {
    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let request = request.into_inner();
        let services = self
            .ask(move |api, meter| {
                let range = Range::of(request.range.as_ref(), api.now(), DEFAULT_RANGE)?;
                let only = api.queries.service(&request.service)?;
                api.queries.services(range, only.as_ref(), meter)
            })
            .await?;
        Ok(Response::new(v1::ListServicesResponse { services }))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let operations = self
            .ask(move |api, meter| {
                let range = Range::of(request.range.as_ref(), api.now(), DEFAULT_RANGE)?;
                let only = api.queries.service(&request.service)?;
                api.queries.operations(range, only.as_ref(), meter)
            })
            .await?;
        Ok(Response::new(v1::ListOperationsResponse { operations }))
    }

    async fn get_latency(
        &self,
        request: Request<v1::GetLatencyRequest>,
    ) -> Result<Response<v1::GetLatencyResponse>, Status> {
        let request = request.into_inner();
        let answer = self
            .ask(move |api, meter| {
                let range = Range::of(request.range.as_ref(), api.now(), DEFAULT_RANGE)?;
                let service = named(api.queries.service(&request.service)?)?;
                let rows = api.queries.latency(&request, range, &service, meter)?;
                Ok(v1::GetLatencyResponse { service: Some(super::convert::service(&service)), rows })
            })
            .await?;
        Ok(Response::new(answer))
    }

    async fn get_time_series(
        &self,
        request: Request<v1::GetTimeSeriesRequest>,
    ) -> Result<Response<v1::GetTimeSeriesResponse>, Status> {
        let request = request.into_inner();
        let series = self
            .ask(move |api, meter| {
                let range = Range::of(request.range.as_ref(), api.now(), DEFAULT_RANGE)?;
                let service = named(api.queries.service(&request.service)?)?;
                api.queries.time_series(&request, range, &service, meter)
            })
            .await?;
        Ok(Response::new(v1::GetTimeSeriesResponse { series }))
    }

    async fn get_graph(
        &self,
        request: Request<v1::GetGraphRequest>,
    ) -> Result<Response<v1::GetGraphResponse>, Status> {
        let request = request.into_inner();
        let edges = self
            .ask(move |api, meter| {
                let range = Range::of(request.range.as_ref(), api.now(), DEFAULT_RANGE)?;
                let only = api.queries.service(&request.service)?;
                api.queries.graph(range, only.as_ref(), meter)
            })
            .await?;
        Ok(Response::new(v1::GetGraphResponse { edges }))
    }

    async fn list_slos(
        &self,
        request: Request<v1::ListSlosRequest>,
    ) -> Result<Response<v1::ListSlosResponse>, Status> {
        let request = request.into_inner();
        let answer = self
            .ask(move |api, _| {
                let slos = api.slos_of(&request.slo, &request.service)?;
                Ok(v1::ListSlosResponse { slos, refused_files: api.refused_files() })
            })
            .await?;
        Ok(Response::new(answer))
    }

    async fn list_checks(
        &self,
        _: Request<v1::ListChecksRequest>,
    ) -> Result<Response<v1::ListChecksResponse>, Status> {
        let checks = self.ask(|api, _| Ok(api.checks())).await?;
        Ok(Response::new(v1::ListChecksResponse { checks }))
    }
}

fn named<T>(service: Option<T>) -> Result<T, Error> {
    service.ok_or_else(|| Error::Invalid("`service` must name a service".to_owned()))
}

#[tonic::async_trait]
impl StatusService for Api {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::Status>, Status> {
        Ok(Response::new(self.ask(|api, _| Ok(api.status())).await?))
    }
}
