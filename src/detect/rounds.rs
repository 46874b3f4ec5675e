//! Judges the metrics of each service together, once a round of them is in, and says which take part.

use super::detectors::{Detected, Detectors};
use super::finding::{Finding, Gravity, Phase};
use super::together::{RoundSeen, Turn};
use crate::model::{SeriesId, Timestamp};

/// A metric below this (negative natural logarithm of probability) takes no part in an episode.
const TAKES_PART: f32 = 3.0;
/// Metrics named when an episode begins.
const NAMED_AT_MOST: usize = 30;

impl Detectors {
    /// After all points of a cut are in.
    pub(super) fn judge_rounds(&mut self, now: Timestamp, out: &mut Detected) {
        for number in self.touched.clone() {
            let Some(service) = self.state.services.get_mut(number as usize) else { continue };
            let Some(seen) = service.together.judge(now, service.metrics, self.config.level_tickets_per_week)
            else {
                continue;
            };
            let strongest = match seen.turn {
                Turn::Quiet => None,
                Turn::Begins => self.episode_begins(now, number, &seen, &mut out.findings),
                Turn::Goes => {
                    self.episode_goes(now, number, &mut out.findings);
                    None
                }
                Turn::Ends => {
                    self.episode_ends(now, number, &mut out.findings);
                    None
                }
            };
            if self.with_scores {
                self.score(number, &seen, strongest, &mut out.scores);
            }
        }
    }

    /// The metrics that take part, strongest first. Gives the strongest.
    fn episode_begins(
        &mut self,
        now: Timestamp,
        number: u32,
        seen: &RoundSeen,
        findings: &mut Vec<Finding>,
    ) -> Option<SeriesId> {
        let of_service = self.state.metrics.iter().filter(|(_, metric)| metric.service == number);
        let mut by_surprise: Vec<(f32, SeriesId)> =
            of_service.map(|(id, metric)| (metric.surprise, id)).collect();
        by_surprise.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (_, strongest) = *by_surprise.first()?;
        by_surprise.retain(|(surprise, id)| *surprise >= TAKES_PART || *id == strongest);
        by_surprise.truncate(NAMED_AT_MOST);
        for (_, id) in by_surprise {
            let Some(metric) = self.state.metrics.get(id) else { continue };
            let gravity = if id == strongest { Gravity::Ticket } else { Gravity::Support };
            let mut finding = metric.finding(now, id, Phase::Active, gravity);
            if id == strongest {
                // What the service as a whole is judged by.
                finding.tail = seen.log_p.exp();
                finding.log_evidence = finding.log_evidence.max(0.1);
            }
            findings.push(finding);
            if let Some(service) = self.state.services.get_mut(number as usize) {
                service.together.joins(id);
            }
        }
        Some(strongest)
    }

    fn episode_goes(&mut self, now: Timestamp, number: u32, findings: &mut Vec<Finding>) {
        let Some(service) = self.state.services.get(number as usize) else { return };
        for id in service.together.members() {
            if let Some(metric) = self.state.metrics.get(*id)
                && metric.surprise >= TAKES_PART
            {
                findings.push(metric.finding(now, *id, Phase::Active, Gravity::Support));
            }
        }
    }

    fn episode_ends(&mut self, now: Timestamp, number: u32, findings: &mut Vec<Finding>) {
        let Some(service) = self.state.services.get_mut(number as usize) else { return };
        for id in service.together.take_members() {
            if let Some(metric) = self.state.metrics.get(id) {
                findings.push(metric.finding(now, id, Phase::Cleared, Gravity::Support));
            }
        }
    }

    /// Scores the points of a round by what it says: only where an episode may begin they are high.
    fn score(
        &self,
        number: u32,
        seen: &RoundSeen,
        strongest: Option<SeriesId>,
        scores: &mut [super::score::Score],
    ) {
        let service = self.state.services.get(number as usize);
        let judged = service.is_some_and(|service| service.together.has_learned());
        let round_p_value = judged.then(|| seen.log_p.exp());
        for row in scores {
            let of_round = self.state.metrics.get(row.series).is_some_and(|metric| metric.service == number);
            if of_round {
                row.score = seen.score * (row.score / seen.strongest.max(1e-9)).clamp(0.0, 1.0);
                row.alarm = strongest == Some(row.series);
                row.round_p_value = round_p_value;
            }
        }
    }
}
