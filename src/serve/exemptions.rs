//! What operators say need not be told.

use super::Error;
use super::api::Api;
use super::board::Board;
use super::convert::to_proto;
use crate::api::v1;
use crate::api::v1::exemption_service_server::ExemptionService;
use crate::confirm::Member;
use crate::context::{Ended, Exemption, LINE_BYTES, ToldExemption};
use crate::detect::Symptom;
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

/// The name of whoever does something; `operator` if it is empty.
pub(super) fn author(of: Option<v1::Author>) -> Result<String, Error> {
    let name = of.map(|author| author.name).unwrap_or_default();
    let name = if name.trim().is_empty() { "operator".to_owned() } else { name.trim().to_owned() };
    if name.len() > AUTHOR_BYTES {
        return Err(Error::Invalid(format!("the name of an author has at most {AUTHOR_BYTES} bytes")));
    }
    Ok(name)
}

/// How bad members may get and still be the same. Those of one symptom are told in one unit; what is not here
/// has several, or is worse when it is less.
fn no_worse(members: &[Member]) -> String {
    let limited = [Symptom::Errors, Symptom::Latency, Symptom::Saturation, Symptom::BudgetBurn];
    let limits = limited.into_iter().filter_map(|symptom| {
        let of_it = members.iter().filter(|member| member.symptom == symptom);
        let worst = of_it.map(|member| member.observed).max_by(f64::total_cmp)?;
        Some(format!("at_most={}:{} ", symptom.as_str(), NO_WORSE * worst))
    });
    limits.collect()
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
        let limits = no_worse(&anomaly.members);
        Ok(format!("fingerprint={} {limits}{line}", anomaly.fingerprint.0))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Band, Interval};
    use crate::model::ServiceKey;

    #[test]
    fn each_symptom_may_get_half_as_bad_again_in_its_own_unit() {
        let member = |symptom, observed, unit: &str| Member {
            service: ServiceKey::named("cart"),
            signal: "GET /".to_owned(),
            attributes: Vec::new(),
            symptom,
            series: None,
            observed,
            expected: Band { low: 0.0, high: 0.0 },
            unit: unit.to_owned(),
            tail: 0.0,
            log_evidence: 0.0,
            onset: Interval { earliest: Timestamp::ZERO, latest: Timestamp::ZERO },
            last_seen: Timestamp::ZERO,
            recovered: false,
        };
        let members = [
            member(Symptom::Errors, 0.2, "1"),
            member(Symptom::Latency, 2e9, "ns"),
            member(Symptom::Errors, 0.1, "1"),
            member(Symptom::TrafficDrop, 3.0, "1"),
            member(Symptom::Level, 5.0, "By"),
        ];
        let line = no_worse(&members);
        assert_eq!(line, "at_most=errors:0.30000000000000004 at_most=latency:3000000000 ");
        assert!(Exemption::parse(&format!("fingerprint=00 {line}because=known")).is_ok());
    }
}
