//! Which class of cause a suspect's clues speak for.

use super::blame::Suspect;
use super::clue::Mechanism;
use super::evidence::CauseKind;
use std::collections::BTreeMap;

/// The class with the most evidence, and the operation that its strongest clue names.
///
/// Log lines and missing calls follow from many causes: they decide only when nothing else does. A
/// used-up pool explains slow calls of what it pools, and a new version explains all that it does.
#[must_use]
pub fn classify(suspect: &Suspect) -> (CauseKind, Option<String>) {
    let mut votes: BTreeMap<CauseKind, f64> = BTreeMap::new();
    for clue in &suspect.clues {
        let factor = match clue.mechanism {
            Mechanism::Version | Mechanism::Job | Mechanism::Traffic | Mechanism::Data => 3.0,
            Mechanism::Pool => 2.0,
            Mechanism::Resource => 1.2,
            Mechanism::NewLines | Mechanism::LostLines | Mechanism::Calls => 0.5,
            Mechanism::SlowMetric | Mechanism::FailureMetric | Mechanism::Level => 0.3,
            _ => 1.0,
        };
        let vote = votes.entry(clue.mechanism.kind()).or_default();
        *vote = vote.max(clue.weight * factor);
    }
    let kind = votes
        .iter()
        .max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(a.0)))
        .map_or(CauseKind::Code, |(kind, _)| *kind);
    let of_kind = suspect.clues.iter().filter(|clue| clue.mechanism.kind() == kind);
    let operation = of_kind.chain(&suspect.clues).find_map(|clue| clue.operation.clone());
    (kind, operation)
}
