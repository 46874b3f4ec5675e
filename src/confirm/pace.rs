//! How much evidence a page asks for, learned from how high evidence rises in health.
//!
//! The run length that e-values promise holds under any dependence and for any baseline, so it is far too long
//! for most telemetry, and too short where a null is wrong. Both show in the peaks of the evidence: those above
//! the suspicion come at a rate, and what is above is taken to be exponential (peaks over threshold, as in
//! SPOT: Siffer et al., KDD 2017). The threshold is where as many peaks are to be expected as the budget allows.
//! Each kind of symptom has a tail, and an even share of the budget, of its own. Until a day is known, the
//! promise of the e-values is what is asked for.

use crate::detect::{Finding, Gravity, SUSPICION, Symptom};
use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

const WEEK_S: f64 = 604_800.0;
/// Kinds of symptoms whose evidence accumulates.
const KINDS: usize = 3;
/// What is aimed at, as a share of the budget, which is an upper bound.
const AIM: f64 = 0.6;
/// Evidence that was not renewed for so long has had its peak.
const PEAK_ENDS: Duration = Duration::from_secs(120);
/// Peaks are remembered for about so long.
const MEMORY_S: f64 = 4.0 * WEEK_S;
/// From when on, and until when, what was learned takes over from what e-values promise.
const LEARN_FROM_S: f64 = 21_600.0;
const LEARN_UNTIL_S: f64 = 86_400.0;
/// What a peak may add to the mean excess, in units of it: a fault says little about health.
const CLIP: f64 = 4.0;
/// Excess of a calibrated e-value, which is the least that is believed; and how far above the promise of the
/// e-values the threshold may rise.
const EXCESS_AT_LEAST: f64 = 1.0;
const ABOVE_PROMISE: f64 = 20.0;
/// Services whose peaks are followed at once.
const PEAKS_AT_MOST: usize = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pace {
    since: Timestamp,
    at: Timestamp,
    /// Service-seconds that were watched, fading.
    exposure_s: f64,
    tails: [Tail; KINDS],
    /// Peaks that are not over.
    peaks: BTreeMap<(ServiceKey, u8), Peak>,
}

/// Peaks of one kind of symptom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tail {
    /// How many there were, fading, and how far they rose above the suspicion on average.
    count: f64,
    excess: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Peak {
    log_evidence: f64,
    last: Timestamp,
}

fn kind(symptom: Symptom) -> Option<u8> {
    match symptom {
        Symptom::Errors => Some(0),
        Symptom::Latency => Some(1),
        Symptom::TrafficDrop => Some(2),
        _ => None,
    }
}

impl Tail {
    fn learn(&mut self, log_evidence: f64) {
        let excess = log_evidence - SUSPICION;
        let clipped =
            if self.count < 1.0 { excess.min(CLIP) } else { excess.min(CLIP * self.excess.max(1.0)) };
        self.count += 1.0;
        self.excess += (clipped - self.excess) / self.count.min(200.0);
    }
}

impl Pace {
    /// Time passes, with so many services watched.
    pub fn pass(&mut self, at: Timestamp, services: usize) {
        if self.since == Timestamp::ZERO {
            (self.since, self.at) = (at, at);
        }
        // What nobody watched is no health.
        let elapsed_s = at.since(self.at).as_secs_f64().min(10.0);
        self.at = self.at.max(at);
        let keep = 1.0 - elapsed_s / MEMORY_S;
        self.exposure_s = self.exposure_s * keep + elapsed_s * services as f64;
        self.tails.iter_mut().for_each(|tail| tail.count *= keep);
        if self.peaks.is_empty() {
            return;
        }
        let tails = &mut self.tails;
        self.peaks.retain(|(_, kind), peak| {
            let over = at.since(peak.last) > PEAK_ENDS;
            if let (true, Some(tail)) = (over, tails.get_mut(usize::from(*kind))) {
                tail.learn(peak.log_evidence);
            }
            !over
        });
    }

    /// Takes note of how high the evidence of a finding stands.
    pub fn note(&mut self, finding: &Finding) {
        let Some(kind) = kind(finding.symptom) else { return };
        let log_evidence = f64::from(finding.log_evidence);
        if finding.decided || finding.gravity != Gravity::Page || log_evidence < SUSPICION {
            return;
        }
        let key = (finding.service.clone(), kind);
        if let Some(peak) = self.peaks.get_mut(&key) {
            peak.log_evidence = peak.log_evidence.max(log_evidence);
            peak.last = finding.at;
        } else if self.peaks.len() < PEAKS_AT_MOST {
            self.peaks.insert(key, Peak { log_evidence, last: finding.at });
        }
    }

    /// Natural logarithm of the evidence that a page about a symptom asks for. `promised`: the run length that
    /// e-values promise.
    pub fn threshold(&self, symptom: Symptom, promised: f64, services: usize, pages_per_week: f64) -> f64 {
        let Some(tail) = kind(symptom).and_then(|kind| self.tails.get(usize::from(kind))) else {
            return promised;
        };
        let known_s = self.at.since(self.since).as_secs_f64();
        let weight = ((known_s - LEARN_FROM_S) / (LEARN_UNTIL_S - LEARN_FROM_S)).clamp(0.0, 1.0);
        if weight == 0.0 {
            return promised;
        }
        // Upper bounds while few peaks are known.
        let rate = (tail.count + 1.0) / (self.exposure_s / WEEK_S).max(1e-9) * services as f64;
        let excess = tail.excess.max(EXCESS_AT_LEAST) * (1.0 + 1.0 / (tail.count + 1.0).sqrt());
        let allowed = AIM * pages_per_week / KINDS as f64;
        let learned = SUSPICION + excess * (rate / allowed).ln().max(0.0);
        let learned = learned.min(promised + ABOVE_PROMISE);
        promised + weight * (learned - promised)
    }
}
