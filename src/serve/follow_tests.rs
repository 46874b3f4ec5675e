//! Many followers of the event stream, killed and resumed at random, and one that never reads.

use super::tests::{alert, anomaly, record, sources};
use super::*;
use crate::alert::AlertState;
use crate::api::v1;
use crate::confirm::AnomalyState;
use crate::store::{Ledger, Stage};
use std::time::Duration;
use tokio::sync::watch;
use tonic::Code;
use v1::anomaly_service_client::AnomalyServiceClient;

const FOLLOWERS: u64 = 20;
const ANOMALIES: u32 = 20;
const REVISIONS: u32 = 15;
/// Longer than what connection and channel hold together, so that who never reads is met.
const TITLE_BYTES: usize = 6_000;

/// What a follower was told: token, and the message's revision in its title.
type Told = Vec<(u64, String)>;

struct Follower {
    url: String,
    told: Told,
}

impl Follower {
    async fn open(
        &self,
        resume: u64,
    ) -> Result<tonic::Streaming<v1::FollowAnomaliesResponse>, tonic::Status> {
        // A connection of its own, as that of another process is.
        // Its windows are small: what is on the way must not be all there is.
        let endpoint = tonic::transport::Endpoint::from_shared(self.url.clone()).unwrap();
        let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        let channel = endpoint.connect().await.unwrap();
        let request = v1::FollowAnomaliesRequest { resume: Some(resume) };
        Ok(AnomalyServiceClient::new(channel).follow_anomalies(request).await?.into_inner())
    }

    fn take(&mut self, message: v1::FollowAnomaliesResponse) {
        let anomaly = message.anomaly.unwrap();
        let state = super::json::anomaly_state_name(anomaly.state());
        let title = anomaly.title.split(' ').take(2).collect::<Vec<_>>().join(" ");
        self.told.push((message.resume, format!("{} {state} {title}", anomaly.id)));
    }

    fn resume(&self) -> u64 {
        self.told.last().map_or(0, |(resume, _)| *resume)
    }

    /// Follows until `last`, killed after so many messages each time.
    async fn follow(
        mut self,
        mut killed_after: impl FnMut() -> usize,
        mut last: watch::Receiver<u64>,
    ) -> Told {
        loop {
            let mut stream = self.open(self.resume()).await.unwrap();
            for _ in 0..killed_after() {
                let end = *last.borrow();
                if end > 0 && self.resume() >= end {
                    return self.told;
                }
                tokio::select! {
                    message = stream.message() => self.take(message.unwrap().unwrap()),
                    _ = last.changed() => {}
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_followers_miss_nothing_and_who_never_reads_is_cut_off_and_can_resume() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::in_memory().unwrap();
    let mut sources = sources(ledger.clone(), folder.path());
    sources.config.follower_patience.0 = Duration::from_millis(500);
    let places = sources.config.followers as usize;
    let (_stop, stopping) = watch::channel(false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let api = Api::new(sources, stopping);
    tokio::spawn(serve_grpc(listener, api.clone()));

    let mut slow = Follower { url: url.clone(), told: Told::new() };
    let mut unread = slow.open(0).await.unwrap();
    let (last, ended) = watch::channel(0);
    let followers: Vec<_> = (0..FOLLOWERS)
        .map(|seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let follower = Follower { url: url.clone(), told: Told::new() };
            tokio::spawn(follower.follow(move || random.usize(1..60), ended.clone()))
        })
        .collect();

    // Anomalies change in turn; now and then the writer lets the others catch up.
    let mut random = fastrand::Rng::with_seed(99);
    let mut sequence = 0;
    for revision in 1..=REVISIONS {
        for number in 0..ANOMALIES {
            let id = format!("a{number}");
            let mut state = anomaly(&id, AnomalyState::Confirmed, revision);
            state.title = format!("revision {revision} {}", "x".repeat(TITLE_BYTES));
            record(&ledger, Stage::Confirm, &format!("{id}/confirm"), revision, &state);
            let ends = revision == REVISIONS;
            let state = if ends { AlertState::Resolved } else { AlertState::Firing };
            sequence =
                record(&ledger, Stage::Alert, &format!("{id}/alert"), revision, &alert(&id, state, revision));
            if random.u8(..) < 16 {
                tokio::task::yield_now().await;
            }
        }
    }
    last.send(sequence).unwrap();

    let mut all = Vec::new();
    for follower in followers {
        all.push(tokio::time::timeout(Duration::from_secs(120), follower).await.unwrap().unwrap());
    }
    let whole = Follower { url: url.clone(), told: Told::new() };
    let whole = whole.follow(|| usize::MAX, ended.clone()).await;
    assert!(whole.len() >= (ANOMALIES * REVISIONS) as usize, "{} messages", whole.len());
    assert!(whole.windows(2).all(|pair| pair[0].0 < pair[1].0), "tokens ascend");
    for (number, told) in all.iter().enumerate() {
        assert!(*told == whole, "follower {number} was told {} of {} messages", told.len(), whole.len());
    }

    // The slow one loses its place without having read anything.
    let is_cut_off = async {
        while api.followers.available_permits() < places {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_cut_off).await.expect("its place is free again");
    let cut_off = loop {
        match unread.message().await {
            Ok(message) => slow.take(message.unwrap()),
            Err(status) => break status,
        }
    };
    assert_eq!(cut_off.code(), Code::ResourceExhausted, "{cut_off}");
    assert!(!slow.told.is_empty() && slow.told.len() < whole.len(), "{} were on the way", slow.told.len());
    let told = slow.follow(|| usize::MAX, ended).await;
    assert!(told == whole, "the slow one was told {} of {} messages", told.len(), whole.len());
}
