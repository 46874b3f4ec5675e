//! gRPC: what the journal still holds.

use super::api::Api;
use crate::api::v1;
use crate::api::v1::journal_service_server::JournalService;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl JournalService for Api {
    async fn search_traces(
        &self,
        request: Request<v1::SearchTracesRequest>,
    ) -> Result<Response<v1::SearchTracesResponse>, Status> {
        let request = request.into_inner();
        let found = self.ask(move |api, meter| api.search_traces(&request, meter)).await?;
        Ok(Response::new(found))
    }

    async fn search_logs(
        &self,
        request: Request<v1::SearchLogsRequest>,
    ) -> Result<Response<v1::SearchLogsResponse>, Status> {
        let request = request.into_inner();
        let found = self.ask(move |api, meter| api.search_logs(&request, meter)).await?;
        Ok(Response::new(found))
    }

    async fn get_trace(
        &self,
        request: Request<v1::GetTraceRequest>,
    ) -> Result<Response<v1::GetTraceResponse>, Status> {
        let id = request.into_inner().trace_id;
        Ok(Response::new(self.ask(move |api, meter| api.trace(&id, meter)).await?))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.ask(move |api, meter| Api::explain(api, &request, meter)).await?))
    }

    type DownloadExplanationStream = ReceiverStream<Result<v1::DownloadEvidenceResponse, Status>>;

    async fn download_explanation(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<Self::DownloadExplanationStream>, Status> {
        let request = request.into_inner();
        let (made, memory) = self.ask_and_hold(move |api, meter| api.explain_whole(&request, meter)).await?;
        Ok(Response::new(super::download::send(made, memory)))
    }
}
