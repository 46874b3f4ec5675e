//! What operators say need not be told.

use super::Error;
use super::api::Api;
use super::board::Board;
use super::convert::to_proto;
use crate::api::v1;
use crate::api::v1::exemption_service_server::ExemptionService;
use crate::context::{Ended, Exemption, LINE_BYTES, ToldExemption};
use crate::model::{Timestamp, name_of};
use crate::store::Stage;
use tonic::{Request, Response, Status};

/// How much worse than it is a known issue may get and still be the same.
const NO_WORSE: f64 = 1.5;
const AUTHOR_BYTES: usize = 128;
/// Anomalies named of one exemption.
const NAMED_AT_MOST: usize = 100;

fn message(board: &Board, told: &ToldExemption) -> Result<v1::Exemption, Error> {
    let because = Exemption::parse(&told.line).map(|of| of.because().to_owned()).unwrap_or_default();
    let ended = told.ended.as_ref();
    let mut covered: Vec<(Timestamp, String)> = board.look(|fold| {
        let in_time = |at: Timestamp| at >= told.told_at && ended.is_none_or(|ended| at <= ended.at);
        let anomalies = fold.anomalies.values().filter_map(|whole| whole.anomaly.as_ref());
        let covered =
            anomalies.filter(|of| of.suppressed_by.as_ref() == Some(&because) && in_time(of.opened_at));
        covered.map(|anomaly| (anomaly.opened_at, anomaly.id.0.clone())).collect()
    })?;
    covered.sort_by(|a, b| b.cmp(a));
    covered.truncate(NAMED_AT_MOST);
    Ok(v1::Exemption {
        id: told.exemption.clone(),
        line: told.line.clone(),
        author: told.author.clone(),
        told_at: Some(to_proto(told.told_at)),
        ended_at: ended.map(|ended| to_proto(ended.at)),
        ended_by: ended.map(|ended| ended.author.clone()).unwrap_or_default(),
        anomalies: covered.into_iter().map(|(_, id)| id).collect(),
    })
}

fn author(of: Option<v1::Author>) -> Result<String, Error> {
    let name = of.map(|author| author.name).unwrap_or_default();
    let name = if name.trim().is_empty() { "operator".to_owned() } else { name.trim().to_owned() };
    if name.len() > AUTHOR_BYTES {
        return Err(Error::Invalid(format!("the name of an author has at most {AUTHOR_BYTES} bytes")));
    }
    Ok(name)
}

impl Board {
    /// Exemptions that were told: those that hold first, latest first.
    ///
    /// # Errors
    /// `Storage` when the ledger cannot be read.
    pub fn exemptions(&self, all: bool) -> Result<Vec<v1::Exemption>, Error> {
        let mut found: Vec<ToldExemption> = self.look(|fold| {
            fold.exemptions.values().filter(|told| all || told.ended.is_none()).cloned().collect()
        })?;
        found.sort_by_key(|told| (told.ended.is_some(), std::cmp::Reverse(told.told_at)));
        found.truncate(super::board::MOST_ROWS);
        found.iter().map(|told| message(self, told)).collect()
    }

    fn keep_exemption(&self, told: &ToldExemption, now: Timestamp) -> Result<v1::Exemption, Error> {
        let payload = serde_json::to_value(told).map_err(|error| Error::Storage(error.to_string()))?;
        let id = &told.exemption;
        let key =
            if told.ended.is_some() { format!("exemption/{id}/ended") } else { format!("exemption/{id}") };
        self.records().append(now, Stage::Context, id, &key, payload).map_err(Error::Storage)?;
        message(self, told)
    }

    /// The line that makes an anomaly a known issue.
    fn known_issue(&self, id: &str, line: &str) -> Result<String, Error> {
        let whole = self.anomaly(id)?;
        let anomaly = whole.anomaly.ok_or_else(|| Error::NotFound(format!("no anomaly {id:?}")))?;
        let worst = anomaly.members.iter().map(|member| member.observed).fold(0.0, f64::max);
        let at_most = NO_WORSE * worst;
        Ok(format!("fingerprint={} at_most={at_most} {line}", anomaly.fingerprint.0))
    }

    /// Records an exemption.
    ///
    /// # Errors
    /// `Invalid` when the line cannot be read, `NotFound` when there is no such anomaly, `Storage`.
    pub fn exempt(
        &self,
        line: &str,
        anomaly: &str,
        of: Option<v1::Author>,
        now: Timestamp,
    ) -> Result<v1::Exemption, Error> {
        let author = author(of)?;
        let line = line.trim();
        let line = if anomaly.is_empty() { line.to_owned() } else { self.known_issue(anomaly, line)? };
        if line.len() > LINE_BYTES || line.chars().any(char::is_control) {
            return Err(Error::Invalid(format!("an exemption is one line of at most {LINE_BYTES} bytes")));
        }
        let exemption = Exemption::parse(&line).map_err(Error::Invalid)?;
        if exemption.because().is_empty() {
            return Err(Error::Invalid("`because=` says nothing".to_owned()));
        }
        if exemption.is_over(now) {
            return Err(Error::Invalid("`until` lies in the past".to_owned()));
        }
        let id = name_of([line.as_str(), &author, &now.to_string()]);
        let told = ToldExemption { exemption: id, line, author, told_at: now, ended: None };
        self.keep_exemption(&told, now)
    }

    /// Ends an exemption.
    ///
    /// # Errors
    /// `NotFound` when there is none of this id, `Storage`.
    pub fn end_exemption(
        &self,
        id: &str,
        of: Option<v1::Author>,
        now: Timestamp,
    ) -> Result<v1::Exemption, Error> {
        let author = author(of)?;
        let mut told = self
            .look(|fold| fold.exemptions.get(id).cloned())?
            .ok_or_else(|| Error::NotFound(format!("no exemption {id:?}: `barograph exempt` lists them")))?;
        if told.ended.is_none() {
            told.ended = Some(Ended { author, at: now });
        }
        self.keep_exemption(&told, now)
    }
}

#[tonic::async_trait]
impl ExemptionService for Api {
    async fn list_exemptions(
        &self,
        request: Request<v1::ListExemptionsRequest>,
    ) -> Result<Response<v1::ListExemptionsResponse>, Status> {
        let all = request.into_inner().all;
        let exemptions = self.ask(move |api, _| api.board().exemptions(all)).await?;
        Ok(Response::new(v1::ListExemptionsResponse { exemptions }))
    }

    async fn add_exemption(
        &self,
        request: Request<v1::AddExemptionRequest>,
    ) -> Result<Response<v1::Exemption>, Status> {
        let v1::AddExemptionRequest { line, anomaly, author } = request.into_inner();
        let told = self.ask(move |api, _| api.board().exempt(&line, &anomaly, author, api.now())).await?;
        Ok(Response::new(told))
    }

    async fn end_exemption(
        &self,
        request: Request<v1::EndExemptionRequest>,
    ) -> Result<Response<v1::Exemption>, Status> {
        let v1::EndExemptionRequest { id, author } = request.into_inner();
        let told = self.ask(move |api, _| api.board().end_exemption(&id, author, api.now())).await?;
        Ok(Response::new(told))
    }
}
