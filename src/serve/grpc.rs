//! The gRPC server: all services, reflection and health, on one address.

use super::api::Api;
use super::guarded::Guarding;
use crate::access::{Listener, Port};
use crate::api::v1::adjustment_service_server::AdjustmentServiceServer;
use crate::api::v1::anomaly_service_server::AnomalyServiceServer;
use crate::api::v1::change_service_server::ChangeServiceServer;
use crate::api::v1::evidence_service_server::EvidenceServiceServer;
use crate::api::v1::exemption_service_server::ExemptionServiceServer;
use crate::api::v1::incident_service_server::IncidentServiceServer;
use crate::api::v1::journal_service_server::JournalServiceServer;
use crate::api::v1::query_service_server::QueryServiceServer;
use crate::api::v1::status_service_server::StatusServiceServer;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;

/// Serves queries until `api` is told to stop, then lets answers under way end.
///
/// # Errors
/// When the server cannot run on this listener.
pub async fn serve_grpc(listener: TcpListener, api: Api) -> Result<(), tonic::transport::Error> {
    let config = api.sources.config.clone();
    let access = api.sources.access.clone();
    let connections = usize::try_from(config.connections).unwrap_or(usize::MAX);
    let listener = Listener::new(listener, Port::Query, access.clone(), connections);
    let streams = u32::try_from(config.streams).unwrap_or(u32::MAX);
    let limit = usize::try_from(config.request_bytes.0).unwrap_or(usize::MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    macro_rules! service {
        ($server:ident) => {{
            health.set_serving::<$server<Api>>().await;
            $server::new(api.clone())
                .max_decoding_message_size(limit)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip)
        }};
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::api::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let mut stopping = api.stopping.clone();
    let mut router = tonic::transport::Server::builder()
        .max_concurrent_streams(streams)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .layer(Guarding(access))
        .add_service(health_service)
        .add_service(service!(QueryServiceServer))
        .add_service(service!(AnomalyServiceServer))
        .add_service(service!(EvidenceServiceServer))
        .add_service(service!(IncidentServiceServer))
        .add_service(service!(JournalServiceServer))
        .add_service(service!(ChangeServiceServer))
        .add_service(service!(ExemptionServiceServer))
        .add_service(service!(AdjustmentServiceServer))
        .add_service(service!(StatusServiceServer));
    match reflection {
        Ok(reflection) => router = router.add_service(reflection),
        // The descriptors are checked in and tested; a server without reflection still answers.
        Err(error) => tracing::warn!(%error, "no server reflection"),
    }
    router
        .serve_with_incoming_shutdown(listener.connections(), async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        })
        .await
}
