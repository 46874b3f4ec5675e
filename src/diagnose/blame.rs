//! From clues to suspects: what speaks against each service, joined over spans, logs and metrics,
//! and what of it only passes on the fault of a service it calls.

use super::classify::classify;
use super::clue::{Clue, Mechanism};
use super::evidence::{Cause, CauseKind};
use crate::model::ServiceKey;
use std::collections::{BTreeMap, BTreeSet};

/// Who calls whom.
pub type Edges = BTreeSet<(ServiceKey, ServiceKey)>;

/// Summed evidence below which nothing is wrong.
pub const NOTICEABLE: f64 = 3.0;
/// Evidence that stands for “something else”, in the division into probabilities.
const ELSE: f64 = 1.5;
/// No suspect is surer than this: evidence is never all there is.
const SUREST: f64 = 0.97;
/// Most causes told, and most reasons of each.
const CAUSES: usize = 10;
const REASONS: usize = 8;

/// A service and what speaks against it.
#[derive(Clone, Debug)]
pub struct Suspect {
    pub service: ServiceKey,
    /// Strongest first.
    pub clues: Vec<Clue>,
    pub evidence: f64,
}

/// Whether a clue of this kind may be the echo of a fault further down: a service whose callee is
/// slow or fails is slow, fails, and writes of it, too.
const fn echoes(mechanism: Mechanism) -> bool {
    matches!(
        mechanism,
        Mechanism::SlowMetric
            | Mechanism::FailureMetric
            | Mechanism::Level
            | Mechanism::Calls
            | Mechanism::NewLines
            | Mechanism::LostLines
            | Mechanism::Errors
            | Mechanism::Pool
    )
}

/// The suspects, most suspect first; those with no evidence left out.
#[must_use]
pub fn suspects(clues: Vec<Clue>, edges: &Edges) -> Vec<Suspect> {
    let mut of: BTreeMap<ServiceKey, Vec<Clue>> = BTreeMap::new();
    for clue in clues.into_iter().filter(|clue| clue.weight > 0.0) {
        of.entry(clue.service.clone()).or_default().push(clue);
    }
    for clues in of.values_mut() {
        clues.sort_by(|a, b| {
            b.weight.total_cmp(&a.weight).then_with(|| (a.mechanism, &a.text).cmp(&(b.mechanism, &b.text)))
        });
    }
    let alone: BTreeMap<&ServiceKey, f64> =
        of.iter().map(|(service, clues)| (service, joined(clues, |_| 1.0))).collect();
    let mut suspects: Vec<Suspect> = of
        .iter()
        .map(|(service, clues)| {
            let own = alone.get(service).copied().unwrap_or(0.0);
            let below = edges
                .iter()
                .filter(|(client, server)| client == service && server != service)
                .filter(|(_, server)| !edges.contains(&(server.clone(), service.clone())))
                .filter_map(|(_, server)| alone.get(server))
                .fold(0.0f64, |most, evidence| most.max(*evidence));
            let explained = if own > 0.0 { (below / own).min(1.0) * 0.6 } else { 0.0 };
            let evidence = joined(clues, |mechanism| if echoes(mechanism) { 1.0 - explained } else { 1.0 });
            Suspect { service: service.clone(), clues: clues.clone(), evidence }
        })
        .collect();
    suspects.sort_by(|a, b| b.evidence.total_cmp(&a.evidence).then_with(|| a.service.cmp(&b.service)));
    suspects
}

/// Evidence of clues together: of each kind the strongest counts whole and each further one a
/// quarter of the one before, because they are not independent.
fn joined(clues: &[Clue], factor: impl Fn(Mechanism) -> f64) -> f64 {
    let mut share: BTreeMap<Mechanism, f64> = BTreeMap::new();
    let mut sum = 0.0;
    for clue in clues {
        let share = share.entry(clue.mechanism).or_insert(1.0);
        sum += clue.weight * *share * factor(clue.mechanism);
        *share *= 0.25;
    }
    sum
}

/// The causes told: none when nothing is noticeable.
#[must_use]
pub fn causes(suspects: &[Suspect]) -> Vec<Cause> {
    let noticeable: Vec<&Suspect> =
        suspects.iter().filter(|suspect| suspect.evidence >= NOTICEABLE).collect();
    let Some(top) = noticeable.first() else { return Vec::new() };
    // Beside a strong suspect a weak one is no longer worth a person's time.
    let told: Vec<&Suspect> = noticeable
        .iter()
        .copied()
        .filter(|suspect| suspect.evidence >= top.evidence * 0.1)
        .take(CAUSES)
        .collect();
    // Squares, so that twice the evidence is four times as likely.
    let whole: f64 =
        suspects.iter().map(|suspect| suspect.evidence.powi(2)).sum::<f64>() + ELSE.powi(2) * 2.0;
    told.into_iter()
        .zip(1u32..)
        .map(|(suspect, rank)| {
            let (kind, operation) = classify(suspect);
            let reasons: Vec<String> =
                suspect.clues.iter().take(REASONS).map(|clue| clue.text.clone()).collect();
            Cause {
                rank,
                service: suspect.service.name.to_string(),
                environment: suspect.service.environment.to_string(),
                namespace: suspect.service.namespace.to_string(),
                kind,
                operation,
                score: (suspect.evidence.powi(2) / whole).clamp(0.0, SUREST),
                reason: reasons.first().cloned().unwrap_or_default(),
                reasons,
            }
        })
        .collect()
}

/// The one cause told when something is wrong and nothing says why.
#[must_use]
pub fn inconclusive(
    service: &ServiceKey,
    operation: Option<String>,
    reason: String,
    reasons: Vec<String>,
) -> Cause {
    Cause {
        rank: 1,
        service: service.name.to_string(),
        environment: service.environment.to_string(),
        namespace: service.namespace.to_string(),
        kind: CauseKind::Inconclusive,
        operation,
        score: 0.0,
        reason,
        reasons,
    }
}
