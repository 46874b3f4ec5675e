//! What the demo sees of the daemon: its query API, nothing else.

use super::evidence::{self, Error};
use crate::api::v1;
use crate::api::v1::anomaly_service_client::AnomalyServiceClient;
use crate::api::v1::evidence_service_client::EvidenceServiceClient;
use crate::api::v1::query_service_client::QueryServiceClient;
use crate::api::v1::status_service_client::StatusServiceClient;
use crate::model::Timestamp;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The query API of a daemon.
#[derive(Clone)]
pub struct View(Channel);

impl View {
    /// # Errors
    /// It is no address.
    pub fn new(address: &str) -> Result<Self, tonic::transport::Error> {
        Ok(Self(Endpoint::from_shared(format!("http://{address}"))?.timeout(TIMEOUT).connect_lazy()))
    }

    /// All services over the last `ago`.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn services(&self, ago: Duration) -> Result<Vec<v1::ServiceSummary>, Status> {
        let since_ago_ns = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
        let range = v1::TimeRange { from: Some(v1::time_range::From::SinceAgoNs(since_ago_ns)), to: None };
        let request = v1::ListServicesRequest { range: Some(range), service: String::new() };
        Ok(QueryServiceClient::new(self.0.clone()).list_services(request).await?.into_inner().services)
    }

    /// # Errors
    /// The daemon's.
    pub async fn status(&self) -> Result<v1::Status, Status> {
        let request = v1::GetStatusRequest {};
        Ok(StatusServiceClient::new(self.0.clone()).get_status(request).await?.into_inner())
    }

    /// # Errors
    /// The daemon's.
    pub async fn anomalies(&self) -> Result<Vec<v1::Anomaly>, Status> {
        let request = v1::ListAnomaliesRequest::default();
        let answer = AnomalyServiceClient::new(self.0.clone()).list_anomalies(request).await?;
        Ok(answer.into_inner().anomalies)
    }

    /// # Errors
    /// The daemon's.
    pub async fn anomaly(&self, id: &str) -> Result<v1::Anomaly, Status> {
        let request = v1::GetAnomalyRequest { id: id.to_owned() };
        Ok(AnomalyServiceClient::new(self.0.clone()).get_anomaly(request).await?.into_inner())
    }

    /// Downloads an anomaly's bundle to `directory`/its id; the bundle's directory.
    ///
    /// # Errors
    /// The daemon's, or a file cannot be written.
    pub async fn download(&self, anomaly: &str, directory: &Path) -> Result<PathBuf, Error> {
        let directory = evidence::place(directory, anomaly)?;
        let request = v1::DownloadEvidenceRequest { anomaly: anomaly.to_owned() };
        let mut parts =
            EvidenceServiceClient::new(self.0.clone()).download_evidence(request).await?.into_inner();
        let mut open: Option<(PathBuf, std::fs::File)> = None;
        while let Some(part) = parts.message().await? {
            match part.part {
                Some(v1::download_evidence_response::Part::File(file)) => {
                    let path = evidence::place(&directory, &file.path)?;
                    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
                    let file = made
                        .and_then(|()| std::fs::File::create(&path))
                        .map_err(|source| Error::File { path: path.clone(), source })?;
                    open = Some((path, file));
                }
                Some(v1::download_evidence_response::Part::Data(data)) => {
                    if let Some((path, file)) = &mut open {
                        file.write_all(&data).map_err(|source| Error::File { path: path.clone(), source })?;
                    }
                }
                None => {}
            }
        }
        Ok(directory)
    }
}

/// A time of the API; `None` if it is unset.
#[must_use]
pub fn time(at: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let at = at?;
    let (seconds, ns) = (u64::try_from(at.seconds).ok()?, u64::try_from(at.nanos).ok()?);
    Some(Timestamp(seconds.checked_mul(1_000_000_000)?.checked_add(ns)?))
}
