//! Whether an anomaly is explained by what people said beforehand.

use super::anomaly::Anomaly;
use super::config::Config;
use crate::context::{Exemption, Subject};
use crate::detect::Symptom;
use crate::model::Timestamp;

/// The exemptions of the configuration.
#[derive(Debug)]
pub(super) struct Exemptions(Vec<Exemption>);

impl Exemptions {
    /// Lines that cannot be read were refused with the configuration.
    pub fn new(config: &Config) -> Self {
        Self(config.exemptions.iter().filter_map(|line| Exemption::parse(line).ok()).collect())
    }

    /// Why an anomaly need not be told now: one exemption covers all that is still wrong. A member
    /// elsewhere, of another shape, or worse than what is known is news, and so is the whole.
    pub fn explain(&self, at: Timestamp, anomaly: &Anomaly) -> Option<&str> {
        // A budget that burns because of the rest is no news of its own.
        let burns = |symptom| symptom == Symptom::BudgetBurn && anomaly.symptom != Symptom::BudgetBurn;
        let wrong = || anomaly.members.iter().filter(|member| !member.recovered && !burns(member.symptom));
        let covers = |exemption: &&Exemption| {
            exemption.holds(at)
                && wrong().all(|member| {
                    exemption.covers(&Subject {
                        service: &member.service,
                        symptom: member.symptom.as_str(),
                        signal: &member.signal,
                        fingerprint: &anomaly.fingerprint.0,
                        attributes: &member.attributes,
                        observed: member.observed,
                    })
                })
        };
        self.0.iter().find(covers).map(Exemption::because)
    }
}
