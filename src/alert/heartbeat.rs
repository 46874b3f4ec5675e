//! The heartbeat: what tells a dead-man receiver that this daemon is alive, by staying away when it is not.

use super::alertmanager::Alertmanager;
use super::client::{Client, Posted};
use super::{Config, Error, Url};
use crate::model::Clock;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// How often it beats. Three that are missing make 90 s.
const EVERY: Duration = Duration::from_secs(30);

/// Whom to tell.
enum Receiver {
    Url(String, Url, Client),
    Alertmanager(Alertmanager),
}

/// The heartbeat of the daemon.
pub struct Heartbeat {
    receivers: Vec<Receiver>,
    clock: Arc<dyn Clock>,
}

impl Heartbeat {
    /// # Errors
    /// When a URL or the credentials of one cannot be used.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut receivers = Vec::new();
        for url in &config.heartbeat_urls {
            let parsed = Url::parse(url).map_err(|why| Error::Target {
                key: "heartbeat_urls",
                url: url.clone(),
                why,
            })?;
            receivers.push(Receiver::Url(url.clone(), parsed, Client::new(config, url)?));
        }
        if config.heartbeat_alert {
            for url in &config.alertmanagers {
                receivers.push(Receiver::Alertmanager(Alertmanager::new(url, config)?));
            }
        }
        Ok(Self { receivers, clock })
    }

    /// Beats until `stop` says so, but not while `wrong` says that something is: a daemon that runs, but does
    /// not judge or tell any more, is as good as dead. Each receiver is told on its own, so that one that hangs
    /// holds up no other.
    ///
    /// # Panics
    /// When one that tells a receiver does.
    pub async fn run(
        self,
        wrong: Arc<dyn Fn() -> Option<String> + Send + Sync>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut beating = JoinSet::new();
        for receiver in self.receivers {
            let (clock, wrong) = (self.clock.clone(), wrong.clone());
            beating.spawn(async move {
                let mut beats = tokio::time::interval(EVERY);
                beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    beats.tick().await;
                    match wrong() {
                        None => beat(&receiver, &*clock).await,
                        Some(why) => tracing::warn!(why, "no heartbeat"),
                    }
                }
            });
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            // None of them ends otherwise, and who watches this one must know.
            Some(Err(fallen)) = beating.join_next() => resume_unwind(JoinError::into_panic(fallen)),
        }
    }
}

async fn beat(receiver: &Receiver, clock: &dyn Clock) {
    let (name, posted) = match receiver {
        Receiver::Url(name, url, client) => {
            (name.as_str(), client.post(url.uri(), "application/json", r#"{"alive":true}"#.into()).await)
        }
        Receiver::Alertmanager(alertmanager) => {
            ("alertmanager", alertmanager.beat(clock.now(), EVERY * 5 / 2).await)
        }
    };
    match posted {
        Posted::Accepted => {}
        Posted::Status(status, said) => {
            tracing::warn!(receiver = name, %status, said, "a heartbeat was refused");
        }
        Posted::Unreachable(why) => tracing::warn!(receiver = name, why, "a heartbeat did not arrive"),
    }
}
