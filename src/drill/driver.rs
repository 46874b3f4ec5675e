//! Runs the shop at the pace of the wall clock and exports what it emits.

use super::batch::Batcher;
use super::exporter::{Exporters, Sent};
use super::fault::Fault;
use super::simulation::{Drawn, Simulation};
use crate::model::{Clock, SystemClock, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const TICK: Duration = Duration::from_millis(20);

enum Command {
    Inject(oneshot::Sender<Timestamp>),
    Heal(oneshot::Sender<Timestamp>),
    Stop,
}

/// A shop that is open.
pub struct Driver {
    drawn: Drawn,
    sent: Arc<Sent>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

impl Driver {
    /// Opens a shop whose telemetry goes to an OTLP/gRPC address. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// It is no address.
    pub fn start(
        fault: Fault,
        seed: u64,
        traffic: f64,
        address: &str,
    ) -> Result<Self, tonic::transport::Error> {
        let shop = Simulation::new(fault, seed, traffic, SystemClock.now());
        let exporters = Exporters::new(address)?;
        let (drawn, sent) = (shop.drawn().clone(), exporters.sent());
        let (commands, inbox) = mpsc::channel(8);
        let task = tokio::spawn(drive(shop, exporters, inbox));
        Ok(Self { drawn, sent, commands, task })
    }

    #[must_use]
    pub const fn drawn(&self) -> &Drawn {
        &self.drawn
    }

    #[must_use]
    pub fn sent(&self) -> &Sent {
        &self.sent
    }

    async fn order(&self, command: impl FnOnce(oneshot::Sender<Timestamp>) -> Command) -> Timestamp {
        let (sender, done) = oneshot::channel();
        let _ = self.commands.send(command(sender)).await;
        // The shop answers unless its task died, which would show as an unhealthy silence.
        done.await.unwrap_or_else(|_| SystemClock.now())
    }

    /// Breaks what the seed drew; when that was.
    pub async fn inject(&self) -> Timestamp {
        self.order(Command::Inject).await
    }

    /// Repairs it; when that was.
    pub async fn heal(&self) -> Timestamp {
        self.order(Command::Heal).await
    }

    /// Closes the shop and waits until its exporters have sent what they had; what they sent in all.
    pub async fn close(self) -> Arc<Sent> {
        let _ = self.commands.send(Command::Stop).await;
        let _ = self.task.await;
        self.sent
    }
}

async fn drive(mut shop: Simulation, mut exporters: Exporters, mut inbox: mpsc::Receiver<Command>) {
    let mut batcher = Batcher::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reached = Timestamp::ZERO;
    loop {
        let command = tokio::select! {
            command = inbox.recv() => Some(command.unwrap_or(Command::Stop)),
            _ = ticks.tick() => None,
        };
        // A wall clock that steps back stops the shop for as long.
        reached = reached.max(SystemClock.now());
        let emissions = shop.advance(reached);
        for outgoing in batcher.pass(shop.instances(), emissions, reached) {
            exporters.send(outgoing);
        }
        match command {
            Some(Command::Inject(done)) => {
                shop.inject(reached);
                let _ = done.send(reached);
            }
            Some(Command::Heal(done)) => {
                shop.heal(reached);
                let _ = done.send(reached);
            }
            Some(Command::Stop) => break,
            None => {}
        }
    }
    for outgoing in batcher.finish(shop.instances(), reached) {
        exporters.send(outgoing);
    }
    exporters.finish().await;
}
