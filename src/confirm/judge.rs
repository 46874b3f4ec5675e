//! The whole judgement of a cut: budgets, changes, detectors, confirmation.

use super::anomaly::{Anomaly, Severity};
use super::confirm::Confirm;
use crate::context::{Change, Changes};
use crate::detect::{Detectors, Foreign, ForeignAlert, Score};
use crate::slo::Budgets;
use crate::store::PieceKey;
use crate::window::{Registry, SealedWindow, Tick, Topology};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// State that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the state of the judge cannot be read: {0}")]
pub struct JudgeRestoreError(String);

/// What a cut came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// Anomalies that changed, each whole.
    pub anomalies: Vec<Anomaly>,
    /// Deploys inferred from new versions.
    pub changes: Vec<Change>,
    /// A row a metric point, if asked for.
    pub scores: Vec<Score>,
}

/// All that judges, stepped once a cut.
#[derive(Debug)]
pub struct Judge {
    pub budgets: Budgets,
    pub changes: Changes,
    pub detectors: Detectors,
    pub foreign: Foreign,
    pub confirm: Confirm,
}

#[derive(Serialize, Deserialize)]
struct State {
    budgets: Vec<u8>,
    changes: Vec<u8>,
    detectors: Vec<u8>,
    foreign: Foreign,
    confirm: Vec<u8>,
}

impl Judge {
    #[must_use]
    pub fn new(budgets: Budgets, detectors: Detectors, confirm: Confirm) -> Self {
        Self { budgets, changes: Changes::new(), detectors, foreign: Foreign::default(), confirm }
    }

    /// Takes over an alert of somebody else's rule.
    pub fn tell_foreign(&mut self, alert: ForeignAlert) {
        self.foreign.tell(alert, self.detectors.census().tests.keys());
    }

    /// Judges what arrived with a cut, and the windows sealed with it.
    pub fn step(
        &mut self,
        tick: &Tick,
        sealed: &[Arc<SealedWindow>],
        registry: &Registry,
        topology: &Topology,
    ) -> Judged {
        let at = tick.cut.arrived;
        let burns = self.budgets.step(tick, registry);
        let changes = self.changes.step(tick);
        let mut detected = self.detectors.step(tick, sealed, registry, &burns);
        detected.findings.extend(self.foreign.step(at));
        self.confirm.see(at, &tick.facets);
        let alarmed: Vec<_> = detected.scores.iter().map(|score| score.alarm).collect();
        let anomalies =
            self.confirm.step(at, detected.findings, self.detectors.census(), topology, &self.changes);
        // A row alarms where an anomaly begins, not where a point joins one that is known.
        if alarmed.contains(&true) {
            let begins = anomalies
                .iter()
                .any(|anomaly| anomaly.opened_at == at && anomaly.severity >= Severity::Ticket);
            detected.scores.iter_mut().for_each(|score| score.alarm &= begins);
        }
        Judged { anomalies, changes, scores: detected.scores }
    }

    /// The whole state, for a checkpoint; of the budgets their head, for what they counted is kept in pieces.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        let state = State {
            budgets: self.budgets.head(),
            changes: self.changes.state(),
            detectors: self.detectors.state(),
            foreign: self.foreign.clone(),
            confirm: self.confirm.state(),
        };
        postcard::to_stdvec(&state).unwrap_or_default()
    }

    /// Takes back what [`Self::state`] gave, and the pieces of the budgets.
    ///
    /// # Errors
    /// The bytes are not such a state.
    pub fn restore(&mut self, bytes: &[u8], pieces: &[(PieceKey, Vec<u8>)]) -> Result<(), JudgeRestoreError> {
        let wrong = |error: &dyn std::fmt::Display| JudgeRestoreError(error.to_string());
        let state: State = postcard::from_bytes(bytes).map_err(|error| wrong(&error))?;
        let pieces = pieces.iter().map(|(key, bytes)| (*key, bytes.as_slice()));
        self.budgets.restore(&state.budgets, pieces).map_err(|error| wrong(&error))?;
        self.changes.restore(&state.changes).map_err(|error| wrong(&error))?;
        self.detectors.restore(&state.detectors).map_err(|error| wrong(&error))?;
        self.foreign = state.foreign;
        self.confirm.restore(&state.confirm).map_err(|error| wrong(&error))
    }
}
