//! Following anomalies: each change as it happens, from any point of the ledger on.

use super::api::Api;
use super::board::BATCH;
use super::fold::Fold;
use super::{Error, Records};
use crate::api::v1;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages that wait for a follower, beside what its connection holds.
const WAITING: usize = 64;

type Messages = ReceiverStream<Result<v1::FollowAnomaliesResponse, Status>>;

/// Begins to follow.
///
/// # Errors
/// `TooMany` when all places are taken, `Invalid` for a token from the future.
pub(super) async fn follow(api: &Api, resume: Option<u64>) -> Result<Messages, Error> {
    let place = api.followers.clone().try_acquire_owned().map_err(|_| {
        Error::TooMany("as many follow as `serve.followers` allows: try again later".to_owned())
    })?;
    let (now, opening) = api
        .ask(move |api, _| {
            api.board.look(|fold| {
                let mut opening: Vec<v1::Anomaly> = fold
                    .anomalies
                    .values()
                    .filter_map(|whole| whole.message())
                    .filter(|message| {
                        matches!(message.state(), v1::AnomalyState::Pending | v1::AnomalyState::Firing)
                    })
                    .collect();
                opening.sort_by(|a, b| (from(a), &a.id).cmp(&(from(b), &b.id)));
                (fold.clone(), opening)
            })
        })
        .await?;
    // Without a token, the present state comes first and the fold goes on from it. With one, the ledger
    // is folded anew, silently up to the token: so a follower that comes back sees exactly what it missed.
    let (fold, opening, after) = match resume {
        None => {
            let sequence = now.sequence;
            (now, opening, sequence)
        }
        Some(token) if token > now.sequence => {
            return Err(Error::Invalid(format!(
                "resume token {token} is newer than the ledger, which ends at {}: is this another daemon's?",
                now.sequence
            )));
        }
        Some(token) if token == now.sequence => (now, Vec::new(), token),
        Some(token) => (Fold::default(), Vec::new(), token),
    };
    let (sender, receiver) = mpsc::channel(WAITING + 1);
    let Ok(last_word) = sender.clone().try_reserve_owned() else {
        return Err(Error::TooMany("no room for a follower".to_owned()));
    };
    let mut follower = Follower {
        records: api.sources.records.clone(),
        fold,
        sender,
        told: after,
        after,
        patience: api.sources.config.follower_patience.0,
    };
    let mut stopping = api.stopping.clone();
    tokio::spawn(async move {
        let _place = place;
        let ended = tokio::select! {
            ended = follower.run(opening) => ended,
            _ = stopping.wait_for(|stopping| *stopping) => {
                Some(Status::unavailable(format!("the daemon stops: go on with resume token {}", follower.told)))
            }
        };
        if let Some(status) = ended {
            last_word.send(Err(status));
        }
    });
    Ok(ReceiverStream::new(receiver))
}

fn from(of: &v1::Anomaly) -> Option<(i64, i32)> {
    of.onset.as_ref().map(|at| (at.seconds, at.nanos))
}

struct Follower {
    records: Arc<dyn Records>,
    fold: Fold,
    sender: mpsc::Sender<Result<v1::FollowAnomaliesResponse, Status>>,
    /// Token of the last message that was handed over.
    told: u64,
    /// Only what is after it is told.
    after: u64,
    patience: Duration,
}

impl Follower {
    /// Tells until the follower goes (`None`) or has to (`Some`).
    async fn run(&mut self, opening: Vec<v1::Anomaly>) -> Option<Status> {
        for anomaly in opening {
            if let Err(ended) = self.tell(anomaly, self.after).await {
                return ended;
            }
        }
        let mut newest = self.records.watch();
        loop {
            newest.mark_unchanged();
            let (records, after) = (self.records.clone(), self.fold.sequence);
            let read = tokio::task::spawn_blocking(move || records.read_after(after, BATCH)).await;
            let batch = match read {
                Ok(Ok(batch)) => batch,
                Ok(Err(error)) => return Some(Error::Storage(error).into()),
                Err(error) => return Some(Error::Storage(error.to_string()).into()),
            };
            for record in &batch {
                if let Some(anomaly) = self.fold.apply(record)
                    && record.sequence > self.after
                    && let Err(ended) = self.tell(anomaly, record.sequence).await
                {
                    return ended;
                }
            }
            if batch.is_empty() {
                tokio::select! {
                    () = self.sender.closed() => return None,
                    changed = newest.changed() => if changed.is_err() {
                        return Some(Status::unavailable("the ledger is closed"));
                    },
                }
            }
        }
    }

    async fn tell(&mut self, anomaly: v1::Anomaly, resume: u64) -> Result<(), Option<Status>> {
        let message = v1::FollowAnomaliesResponse { anomaly: Some(anomaly), resume };
        match tokio::time::timeout(self.patience, self.sender.send(Ok(message))).await {
            Ok(Ok(())) => {
                self.told = resume;
                Ok(())
            }
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some(Status::resource_exhausted(format!(
                "too slow: nothing was taken for {} s; go on with the last resume token received",
                self.patience.as_secs()
            )))),
        }
    }
}
