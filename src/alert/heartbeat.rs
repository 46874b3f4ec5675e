//! The heartbeat: what tells a dead-man receiver that this daemon is alive, by staying away when it is not.

use super::alertmanager::Alertmanager;
use super::client::{Client, Posted};
use super::{Config, Error, Url};
use crate::model::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

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

    /// Beats until `stop` says so, as long as `is_alive` does: a daemon that runs but does not judge any
    /// more is as good as dead. Each receiver is told on its own, so that one that hangs holds up no other.
    pub async fn run(self, is_alive: Arc<dyn Fn() -> bool + Send + Sync>, stop: watch::Receiver<bool>) {
        let mut beating = JoinSet::new();
        for receiver in self.receivers {
            let (clock, is_alive, mut stop) = (self.clock.clone(), is_alive.clone(), stop.clone());
            beating.spawn(async move {
                let mut beats = tokio::time::interval(EVERY);
                beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        _ = beats.tick() => {}
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                    if is_alive() {
                        beat(&receiver, &*clock).await;
                    } else {
                        tracing::warn!("no heartbeat: what arrives is not judged any more");
                    }
                }
            });
        }
        while beating.join_next().await.is_some() {}
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
