//! The diagnosis of an anomaly: capture, contrast, blame, bundle.

use super::blame;
use super::bundle::{self, Contents, Made};
use super::capture::{self, Capture, Chosen, Scope};
use super::changes;
use super::clue::{Clue, Mechanism};
use super::collect::Output;
use super::context::Context;
use super::contrast::{self, Contrast};
use super::evidence::{Cause, CauseKind, Evidence, Pass};
use super::explain::{self, Explanation, Known};
use super::keepsakes::Keepsakes;
use super::moment::{self, Inquiry};
use super::page::{self, Shown};
use super::rows::{Rows, SpanRow};
use super::series::Counted;
use super::source::Source;
use super::span_clues::{Pair, percent};
use super::twin;
use super::{Config, Error};
use crate::confirm::Anomaly;
use crate::context::Change;
use crate::detect::Symptom;
use crate::model::{ServiceKey, Timestamp, TraceId};
use crate::window::Topology;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// What is to be explained.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    pub anomaly: &'a Anomaly,
    /// Changes that are known; those long before the onset are ignored.
    pub changes: &'a [Change],
    pub topology: &'a Topology,
    pub pass: Pass,
    /// Journal time: nothing after it is used.
    pub now: Timestamp,
    /// What collectors said.
    pub collected: &'a [Output],
    /// What windows counted of what the anomaly is about since its onset, in their order: a chart goes on with it where
    /// the captured requests end.
    pub counted: &'a [Counted],
}

/// Runs diagnoses and writes their bundles. Blocking: belongs on a thread of its own.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    config: Config,
    directory: PathBuf,
    keepsakes: Option<Arc<Keepsakes>>,
}

/// Of one operation so many keepsakes are compared with, and of so many operations.
const KEEPSAKES: usize = 3;
const KEPT_OPERATIONS: usize = 10;

impl Diagnosis {
    /// Bundles are written below `directory`, one folder an anomaly.
    #[must_use]
    pub fn new(config: Config, directory: impl Into<PathBuf>) -> Self {
        Self { config, directory: directory.into(), keepsakes: None }
    }

    /// The same, which looks for healthy twins here when the journal has none.
    #[must_use]
    pub fn with_keepsakes(self, keepsakes: Arc<Keepsakes>) -> Self {
        Self { keepsakes: Some(keepsakes), ..self }
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Captures, contrasts, names causes and writes the bundle.
    ///
    /// # Errors
    /// When the journal cannot be read or the bundle cannot be written.
    pub fn run(&self, case: &Case<'_>, source: &dyn Source) -> Result<Evidence, Error> {
        let redaction = self.config.redaction();
        // Before all else: what is compared with rows and what is told quote the same names.
        let anomaly = &redaction.anomaly(case.anomaly);
        let case = &Case { anomaly, ..*case };
        let scope = Scope::of(anomaly);
        let onset = anomaly.onset.earliest.min(case.now);
        let until = anomaly.seen_until(case.now);
        let capture =
            capture::capture(source, &scope, onset, until, &self.config.effort(case.pass), &self.config)?;
        let changes = changes::recent(case.changes, &anomaly.onset, &redaction);
        let since = capture.faulty_times.start;
        let past_s = explain::covered_s(&capture.healthy) * capture.past_factor;
        let calls = edges(case.topology);
        let known = Known { calls, past_s, ..Known::default() };
        let mut found = judge(anomaly, &capture.healthy, &capture.faulty, since, known);
        changes::suspect(&mut found, &changes, &anomaly.onset, [&capture.healthy, &capture.faulty]);
        if let Some(sought) = &capture.last_run {
            let of_job = |cause: &&mut Cause| cause.kind == CauseKind::Job;
            found
                .causes
                .iter_mut()
                .filter(of_job)
                .take(1)
                .for_each(|cause| cause.reasons.push(sought.in_words()));
        }
        let bundle = self.shown(case, &capture, &scope, &found, &changes, |contents| {
            bundle::write(&self.directory, contents)
        })?;
        Ok(Evidence {
            anomaly: anomaly.id.clone(),
            pass: case.pass,
            at: case.now,
            causes: found.causes,
            bundle,
        })
    }

    /// What broke at a moment of which no alarm told, with its evidence as an alarm's, which is not written
    /// anywhere. See [`moment::at_moment`].
    ///
    /// # Errors
    /// When what is recorded cannot be read, or the evidence not made.
    pub fn of_moment(
        &self,
        inquiry: &Inquiry<'_>,
        changes: &[Change],
        source: &dyn Source,
    ) -> Result<Made, Error> {
        let (capture, found) = moment::look(source, inquiry, changes, &self.config)?;
        let changes = changes::recent(changes, &inquiry.onset(), &self.config.redaction());
        let anomaly = moment::unalarmed(inquiry, &capture, &found);
        let scope = Scope::of(&anomaly);
        let case = Case {
            anomaly: &anomaly,
            changes: &changes,
            topology: &Topology::default(),
            pass: Pass::Complete,
            now: inquiry.at,
            collected: &[],
            counted: &[],
        };
        self.shown(&case, &capture, &scope, &found, &changes, bundle::make)
    }

    /// Chooses what is shown of a capture, draws the page, and does something with all of it.
    fn shown<T>(
        &self,
        case: &Case<'_>,
        capture: &Capture,
        scope: &Scope,
        found: &Explanation,
        changes: &[Change],
        with: impl FnOnce(&Contents<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let suspect = found.suspects.first().map(|suspect| &suspect.service);
        let mut chosen =
            capture::choose(capture, scope, suspect, usize::try_from(self.config.max_traces).unwrap_or(200));
        let journal_pair = Pair::new(&capture.healthy.spans, &capture.faulty.spans);
        let kept = self.kept_twins(&journal_pair, &chosen, capture.faulty_times.start);
        chosen.add_keepsakes(&kept);
        // For twins alone: what is compared otherwise is of one time.
        let healthy: Vec<SpanRow>;
        let pair = if kept.spans.is_empty() {
            journal_pair
        } else {
            healthy = capture.healthy.spans.iter().chain(&kept.spans).cloned().collect();
            Pair::new(&healthy, &capture.faulty.spans)
        };
        let contrasts = contrasts(capture, scope);
        let page = page::render(&Shown {
            anomaly: case.anomaly,
            pass: case.pass,
            at: case.now,
            causes: &found.causes,
            changes,
            capture,
            chosen: &chosen,
            pair: &pair,
            lines: &found.lines,
            contrasts: &contrasts,
            scope,
            collected: case.collected,
            counted: case.counted,
        })?;
        with(&Contents {
            anomaly: case.anomaly,
            pass: case.pass,
            at: case.now,
            causes: &found.causes,
            divergence: twin::first(&pair, &chosen, &found.causes),
            lines: &found.lines,
            context: &Context::of(changes, &found.calls, found.metrics.as_deref()),
            capture,
            chosen: &chosen,
            config: &self.config.hash(),
            page: &page,
            collected: case.collected,
        })
    }

    /// Adds what a collector said after the complete pass to a bundle that is there.
    ///
    /// # Errors
    /// When the bundle cannot be read or written.
    pub fn add_collected(&self, evidence: &Evidence, output: &Output) -> Result<Evidence, Error> {
        Ok(Evidence { bundle: bundle::add(evidence, output)?, ..evidence.clone() })
    }

    /// Keepsakes of before the onset for those bad traces that have no twin in the journal.
    fn kept_twins(&self, pair: &Pair<'_>, chosen: &Chosen, onset: Timestamp) -> Rows {
        let Some(keepsakes) = &self.keepsakes else { return Rows::default() };
        let routes = twin::without_twin(pair, chosen);
        let traces: BTreeSet<TraceId> = routes
            .iter()
            .take(KEPT_OPERATIONS)
            .flat_map(|route| keepsakes.healthy(route, onset, KEEPSAKES))
            .map(|keepsake| keepsake.trace)
            .collect();
        keepsakes.rows(&traces, &self.config.redaction())
    }
}

/// What the rows of both periods, what is known beside them and the alarm itself say; a best guess when nothing stands
/// out.
#[must_use]
pub fn judge(
    anomaly: &Anomaly,
    healthy: &Rows,
    faulty: &Rows,
    since: Timestamp,
    known: Known,
) -> Explanation {
    // That requests fail or are slow beyond chance has been judged: a short past leaves that in no doubt.
    let is_judged = matches!(anomaly.symptom, Symptom::Errors | Symptom::Latency);
    let past_s = if is_judged { known.past_s.max(explain::ENOUGH_PAST_S) } else { known.past_s };
    if is_unknown(anomaly, [healthy, faulty], &known.calls) {
        let reason = "a rule outside says so; nothing that it is about sends telemetry".to_owned();
        let operation = anomaly.members.first().map(|member| member.signal.clone());
        let cause = blame::inconclusive(&anomaly.service, operation, reason.clone(), vec![reason]);
        let (calls, metrics) = (known.calls, known.metrics);
        return Explanation { causes: vec![cause], calls, metrics, ..Explanation::default() };
    }
    let known = Known { told: alarm(anomaly), past_s, ..known };
    let mut found = explain::compare_with(healthy, faulty, since, known);
    if found.causes.is_empty() {
        found.causes.push(best_guess(anomaly, &found));
    }
    found
}

/// Whether rules of others alone speak, of services that neither send anything nor are called: what goes on elsewhere
/// at that time has nothing to do with it, as far as anybody can tell.
fn is_unknown(anomaly: &Anomaly, rows: [&Rows; 2], calls: &blame::Edges) -> bool {
    let services: BTreeSet<&ServiceKey> = anomaly.members.iter().map(|member| &member.service).collect();
    anomaly.members.iter().all(|member| member.symptom == Symptom::Rule)
        && !rows.iter().any(|rows| {
            rows.spans.iter().any(|span| services.contains(span.service()))
                || rows.logs.iter().any(|log| services.contains(log.service()))
                || rows.points.iter().any(|point| services.contains(&point.resource.service))
        })
        && !calls.iter().any(|(client, server)| services.contains(client) || services.contains(server))
}

/// One line for the alert: the most likely cause and what speaks for it.
#[must_use]
pub fn summary(causes: &[Cause]) -> String {
    let Some(cause) = causes.first() else { return "no cause stands out".to_owned() };
    let kind = match cause.kind {
        CauseKind::Code => "code",
        CauseKind::Database => "database",
        CauseKind::Dependency => "dependency",
        CauseKind::Saturation => "saturation",
        CauseKind::Traffic => "traffic",
        CauseKind::Deploy => "deploy",
        CauseKind::Data => "data",
        CauseKind::Job => "job",
        CauseKind::Inconclusive => {
            return format!("inconclusive, best guess {}: {}", cause.service, cause.reason);
        }
    };
    format!("{} ({kind}, {}): {}", cause.service, percent(cause.score), cause.reason)
}

/// What the alarm itself says. Absence is known from it alone: what is not there leaves no spans.
pub(super) fn alarm(anomaly: &Anomaly) -> Vec<Clue> {
    let mut clues: Vec<Clue> = anomaly
        .members
        .iter()
        .take(64)
        .filter_map(|member| {
            let (mechanism, weight) = match member.symptom {
                Symptom::MissedJob => (Mechanism::Job, 12.0),
                Symptom::TrafficDrop | Symptom::Silence => (Mechanism::Traffic, 5.0),
                Symptom::Saturation => (Mechanism::Pool, 7.0),
                Symptom::Exhaustion => (Mechanism::Pool, 4.0),
                // Where requests fail or stay away, data that are odd somewhere are not the reason.
                Symptom::Data => (Mechanism::Data, if anomaly.symptom.is_blindness() { 9.0 } else { 2.0 }),
                Symptom::Errors | Symptom::Latency | Symptom::Level | Symptom::BudgetBurn | Symptom::Rule => {
                    return None;
                }
            };
            let (observed, low) = (
                page::quantity(member.observed, &member.unit),
                page::quantity(member.expected.low, &member.unit),
            );
            let text = match member.symptom {
                Symptom::MissedJob => format!("“{}” did not run when it was due", member.signal),
                Symptom::Saturation => {
                    format!(
                        "{} is at {observed}, usual is up to {}",
                        member.signal,
                        page::quantity(member.expected.high, &member.unit)
                    )
                }
                Symptom::Exhaustion => format!("{} fills up, and is full in {observed}", member.signal),
                Symptom::Data => format!("the telemetry of “{}” is incomplete: {observed}", member.signal),
                Symptom::Silence => "sends no telemetry any more".to_owned(),
                _ => format!("“{}” gets {observed} instead of {low} or more", member.signal),
            };
            Some(Clue {
                service: member.service.clone(),
                operation: Some(member.signal.clone()),
                mechanism,
                weight,
                text,
            })
        })
        .collect();
    // Where several report the absence, the anomaly's own service is where it was seen first.
    if matches!(anomaly.symptom, Symptom::TrafficDrop | Symptom::Silence) {
        for clue in clues.iter_mut().filter(|clue| clue.service == anomaly.service) {
            clue.weight += 3.0;
        }
    }
    clues
}

fn edges(topology: &Topology) -> blame::Edges {
    let pairs = topology
        .edges
        .iter()
        .filter_map(|edge| Some((edge.key.client.clone(), edge.key.server.service()?.clone())));
    pairs.collect()
}

fn best_guess(anomaly: &Anomaly, found: &Explanation) -> Cause {
    let guess = found.suspects.first().filter(|suspect| suspect.evidence > 0.0);
    match guess {
        Some(suspect) => {
            let reasons: Vec<String> = suspect.clues.iter().take(3).map(|clue| clue.text.clone()).collect();
            let operation = suspect.clues.first().and_then(|clue| clue.operation.clone());
            blame::inconclusive(
                &suspect.service,
                operation,
                reasons.first().cloned().unwrap_or_default(),
                reasons,
            )
        }
        None => {
            let operation = anomaly.members.first().map(|member| member.signal.clone());
            blame::inconclusive(
                &anomaly.service,
                operation,
                "this is where it shows first".to_owned(),
                Vec::new(),
            )
        }
    }
}

/// Bad spans of the anomaly's operations against good ones: where any failed, the failed ones; else
/// all since the onset against all before.
fn contrasts(capture: &Capture, scope: &Scope) -> Vec<Contrast> {
    let in_scope = |span: &&super::rows::SpanRow| scope.services.contains(span.service());
    let faulty = || capture.faulty.spans.iter().filter(in_scope);
    let healthy = || capture.healthy.spans.iter().filter(in_scope);
    if faulty().filter(|span| span.failed()).count() >= 5 {
        contrast::contrast(
            faulty().filter(|span| span.failed()),
            healthy().chain(faulty()).filter(|span| !span.failed()),
        )
    } else {
        contrast::contrast(faulty(), healthy())
    }
}
