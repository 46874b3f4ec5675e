//! From clues to suspects: what speaks against each service, joined over spans, logs and metrics,
//! and what of it only passes on the fault of a service it calls.

use super::classify::classify;
use super::clue::{Clue, Mechanism};
use super::evidence::{Cause, CauseKind};
use crate::model::ServiceKey;
use std::collections::{BTreeMap, BTreeSet};

/// Who calls whom.
pub type Edges = BTreeSet<(ServiceKey, ServiceKey)>;

/// Summed evidence below which nothing is wrong, where metrics are looked at: they are many, and chance
/// adds up. Without them, and without either spans or logs beside, it takes so much less each time.
const NOTICEABLE: f64 = 3.0;
const LESS_A_SIGNAL: f64 = 0.4;
/// Evidence that stands for “something else”, in the division into probabilities.
const ELSE: f64 = 1.5;
/// No suspect is surer than this: evidence is never all there is.
const SUREST: f64 = 0.97;
/// Most causes told, and most reasons of each.
const CAUSES: usize = 10;
const REASONS: usize = 8;

/// Of a caller's symptoms, the share that its callee’s must reach to explain them, and the least; what is left of a
/// suspicion with each step away from where the walk ends, and the most steps.
const CREDIBLE: f64 = 0.35;
const CREDIBLE_AT_LEAST: f64 = 1.0;
const STEP: f64 = 0.85;
/// The share of its callers’ symptoms that is added to where the walk ends, at most, and what is left
/// of a suspicion when no caller notices.
const SUPPORT: f64 = 0.35;
const MOST_SUPPORT: f64 = 3.0;
const UNNOTICED: f64 = 0.5;
const DEEPEST: usize = 16;

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

/// Whether a clue is a metric of what requests see: what a caller's and a callee's metric both show is
/// the callee's.
pub const fn is_symptom(mechanism: Mechanism) -> bool {
    matches!(mechanism, Mechanism::SlowMetric | Mechanism::FailureMetric)
}

/// Whether a name is that of a host rather than of a service: what is called at an address is slow or
/// fails as what stands behind it does.
fn is_address(service: &ServiceKey) -> bool {
    let labels = || service.name.split(['.', '_', ':', '/']).filter(|label| !label.is_empty());
    let host = service.name.split(['_', ':', '/']).next().unwrap_or_default();
    let of_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    labels().count() > 2 && host.matches('.').count() >= 1 && host.chars().all(of_host)
}

/// The walk along the call graph: from a service whose metrics are worse to those of its callees that
/// are worse, too, until none is (as in Kim et al., MonitorRank, 2013, and Hardt et al., PetShop, 2024).
/// What is left of a service's metric clues: all where the walk ends, less with every step away from
/// there, so that a caller never outranks the callee it waits for.
fn walk(of: &BTreeMap<ServiceKey, Vec<Clue>>, edges: &Edges) -> BTreeMap<ServiceKey, f64> {
    let of_kind = |kind: fn(Mechanism) -> bool| -> BTreeMap<&ServiceKey, f64> {
        of.iter()
            .map(|(service, clues)| {
                (service, joined(clues, |mechanism| f64::from(u8::from(kind(mechanism)))))
            })
            .filter(|(_, evidence)| *evidence > 0.0)
            .collect()
    };
    let symptoms = of_kind(is_symptom);
    let failures = of_kind(|mechanism| mechanism == Mechanism::FailureMetric);
    let fails = |service: &ServiceKey| failures.get(service).copied().unwrap_or(0.0);
    // Who fails waits for one that fails, or for one that is very slow.
    let credible = |caller: &ServiceKey, own: f64, callee: &ServiceKey| {
        fails(caller) < own / 2.0
            || fails(callee) > 0.0
            || symptoms.get(callee).is_some_and(|slow| *slow >= NOTICEABLE)
    };
    let mut callees: BTreeMap<&ServiceKey, Vec<&ServiceKey>> = BTreeMap::new();
    for (client, server) in edges.iter().filter(|(client, server)| client != server) {
        callees.entry(client).or_default().push(server);
    }
    let mut left: BTreeMap<&ServiceKey, f64> = symptoms.clone();
    // Each round carries the bound one call up; call graphs are shallow, and cycles end with the rounds.
    for _ in 0..DEEPEST {
        let mut changed = false;
        for (service, own) in &symptoms {
            let mut below = callees.get(service).into_iter().flatten().filter(|callee| {
                !edges.contains(&((**callee).clone(), (*service).clone()))
                    && !is_address(callee)
                    && credible(service, *own, callee)
            });
            let most = below
                .by_ref()
                .fold(0.0f64, |most, callee| most.max(left.get(*callee).copied().unwrap_or(0.0)));
            let behind = if is_address(service) { beside(service, &left, edges) } else { 0.0 };
            let bound = [most, behind]
                .into_iter()
                .filter(|below| *below >= (own * CREDIBLE).max(CREDIBLE_AT_LEAST))
                .fold(*own, |bound, below| bound.min(below * STEP));
            if let Some(known) = left.get_mut(service)
                && (*known - bound).abs() > 1e-9
            {
                *known = bound;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    symptoms
        .iter()
        .map(|(service, own)| {
            let rest = left.get(service).copied().unwrap_or(*own);
            // Where the walk ends, those it came from speak for it; where it passes, they do not.
            let support = if rest < *own { 0.0 } else { support(service, &symptoms, edges) };
            let called = edges.iter().any(|(client, server)| server == *service && client != *service);
            let noticed = if called && support <= 0.0 && rest >= *own { UNNOTICED } else { 1.0 };
            ((*service).clone(), (rest * noticed + support) / own)
        })
        .collect()
}

/// What the symptoms of those who call a service, directly or through others that show some, add to
/// the suspicion against it.
fn support(service: &ServiceKey, symptoms: &BTreeMap<&ServiceKey, f64>, edges: &Edges) -> f64 {
    let mut reached: BTreeSet<&ServiceKey> = [service].into();
    for _ in 0..DEEPEST {
        let more: Vec<&ServiceKey> = edges
            .iter()
            .filter(|(client, server)| reached.contains(server) && !reached.contains(client))
            .filter(|(client, _)| symptoms.contains_key(client))
            .map(|(client, _)| client)
            .collect();
        if more.is_empty() {
            break;
        }
        reached.extend(more);
    }
    let sum: f64 = reached
        .iter()
        .filter(|reached| ***reached != *service)
        .filter_map(|reached| symptoms.get(*reached))
        .sum();
    (sum * SUPPORT).min(MOST_SUPPORT)
}

/// The strongest symptoms of a service that a caller of this address calls, too.
fn beside(address: &ServiceKey, left: &BTreeMap<&ServiceKey, f64>, edges: &Edges) -> f64 {
    let callers: BTreeSet<&ServiceKey> =
        edges.iter().filter(|(_, server)| server == address).map(|(client, _)| client).collect();
    edges
        .iter()
        .filter(|(client, server)| callers.contains(client) && !is_address(server))
        .filter_map(|(_, server)| left.get(server))
        .fold(0.0f64, |most, evidence| most.max(*evidence))
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
    let factors = walk(&of, edges);
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
            let walked = factors.get(service).copied().unwrap_or(1.0);
            let evidence = joined(clues, |mechanism| {
                if is_symptom(mechanism) {
                    walked
                } else if echoes(mechanism) {
                    1.0 - explained
                } else {
                    1.0
                }
            });
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

/// The causes told: none when nothing is noticeable. `absent` says how many signals less there are to
/// look at: 0 with metrics, else 1 or 2.
#[must_use]
pub fn causes(suspects: &[Suspect], absent: u8) -> Vec<Cause> {
    let enough = NOTICEABLE - LESS_A_SIGNAL * f64::from(absent);
    let noticeable: Vec<&Suspect> = suspects.iter().filter(|suspect| suspect.evidence >= enough).collect();
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
