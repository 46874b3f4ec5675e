//! Clues in logs: lines that are new, that multiplied, that vanished.

use super::clue::{Clue, Mechanism, STRONGEST, weight};
use super::forest::{Forest, OperationId};
use super::rows::LogRow;
use super::span_clues::{Pair, percent, short};
use super::statistics::{Share, log_likelihood_ratio};
use super::templates::{TemplateId, Templates};
use crate::model::{ServiceKey, SpanId, TraceId};
use std::collections::{BTreeMap, BTreeSet};

/// A line that changed, as the evidence page shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedLine {
    pub service: ServiceKey,
    pub template: String,
    /// The first such line in the faulty period, else in the healthy one.
    pub example: String,
    pub severity: u8,
    /// Lines in the healthy and in the faulty period.
    pub before: u64,
    pub now: u64,
    pub weight: f64,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    lines: u64,
    example: Option<std::sync::Arc<str>>,
    severity: u8,
    /// Per operation of the span it was written in: how many of those spans wrote it.
    spans: BTreeMap<OperationId, BTreeSet<(TraceId, SpanId)>>,
}

type Lines = BTreeMap<(ServiceKey, TemplateId), Seen>;

/// Clues of all services, and the lines they rest on, strongest first.
#[must_use]
pub fn clues(
    pair: &Pair<'_>,
    good: &[LogRow],
    bad: &[LogRow],
    seconds: (f64, f64),
) -> (Vec<Clue>, Vec<ChangedLine>) {
    let mut templates: BTreeMap<ServiceKey, Templates> = BTreeMap::new();
    // Both are learned before either is counted: a template may widen with the last line.
    for row in good.iter().chain(bad) {
        templates.entry(row.service().clone()).or_default().learn(&row.body);
    }
    let seen_good = count(good, &pair.good, &mut templates);
    let seen_bad = count(bad, &pair.bad, &mut templates);
    let spans_good = spans(&pair.good);
    let spans_bad = spans(&pair.bad);
    let keys: BTreeSet<_> = seen_good.keys().chain(seen_bad.keys()).cloned().collect();
    let volume = (service_lines(&seen_good), service_lines(&seen_bad));
    let (mut clues, mut lines) = (Vec::new(), Vec::new());
    let nothing = Seen::default();
    for key in &keys {
        let (before, now) = (seen_good.get(key).unwrap_or(&nothing), seen_bad.get(key).unwrap_or(&nothing));
        let severity = before.severity.max(now.severity);
        let (evidence, change) = if before.spans.is_empty() && now.spans.is_empty() {
            let volume =
                (volume.0.get(&key.0).copied().unwrap_or(0), volume.1.get(&key.0).copied().unwrap_or(0));
            alone(before.lines, now.lines, volume, seconds, keys.len())
        } else {
            in_spans(before, now, (&spans_good, &spans_bad), keys.len())
        };
        if evidence <= 0.0 {
            continue;
        }
        let rises = change > 0.0;
        // Warnings and errors that are new say most; plain lines that come more often say little.
        let factor = match (rises, severity) {
            (true, 17..) => 1.2,
            (true, 13..) => 0.9,
            (true, _) if before.lines == 0 => 0.7,
            (true, _) => 0.3,
            (false, _) => 0.9,
        };
        let template = templates.get(&key.0).map(|templates| templates.text(key.1)).unwrap_or_default();
        let example =
            now.example.as_ref().or(before.example.as_ref()).map(ToString::to_string).unwrap_or_default();
        let weight = (evidence * factor).min(STRONGEST * 1.2);
        let rate = |lines: u64| if lines == 1 { "once".to_owned() } else { format!("{lines} times") };
        let text = match (rises, before.lines, now.lines) {
            (true, 0, lines) => format!("new line, {}: “{}”", rate(lines), short(&example)),
            (true, before, lines) => {
                format!("line comes {} instead of {}: “{}”", rate(lines), rate(before), short(&example))
            }
            (false, before, 0) => format!("line is gone ({} before): “{}”", rate(before), short(&example)),
            (false, ..) => format!(
                "line is missing in {} of the spans that used to write it: “{}”",
                percent(-change),
                short(&example)
            ),
        };
        let mechanism = if rises { Mechanism::NewLines } else { Mechanism::LostLines };
        clues.push(Clue { service: key.0.clone(), operation: None, mechanism, weight, text });
        lines.push(ChangedLine {
            service: key.0.clone(),
            template,
            example,
            severity,
            before: before.lines,
            now: now.lines,
            weight,
        });
    }
    lines.sort_by(|a, b| {
        b.weight.total_cmp(&a.weight).then_with(|| (&a.service, &a.template).cmp(&(&b.service, &b.template)))
    });
    (clues, lines)
}

fn count(rows: &[LogRow], forest: &Forest<'_>, templates: &mut BTreeMap<ServiceKey, Templates>) -> Lines {
    let mut lines = Lines::new();
    for row in rows {
        let id = templates.entry(row.service().clone()).or_default().learn(&row.body);
        let seen = lines.entry((row.service().clone(), id)).or_default();
        seen.lines += 1;
        seen.example.get_or_insert_with(|| row.body.clone());
        seen.severity = seen.severity.max(row.severity);
        if let Some(node) = forest.by_id.get(&(row.trace, row.span)).and_then(|&at| forest.nodes.get(at)) {
            seen.spans.entry(node.operation).or_default().insert((row.trace, row.span));
        }
    }
    lines
}

fn spans(forest: &Forest<'_>) -> BTreeMap<OperationId, u64> {
    let mut spans = BTreeMap::new();
    for node in &forest.nodes {
        *spans.entry(node.operation).or_default() += 1;
    }
    spans
}

fn service_lines(lines: &Lines) -> BTreeMap<ServiceKey, u64> {
    let mut sums = BTreeMap::new();
    for ((service, _), seen) in lines {
        *sums.entry(service.clone()).or_default() += seen.lines;
    }
    sums
}

/// The strongest change among the operations whose spans write the line: evidence and by how much
/// the share of spans that write it rose.
fn in_spans(
    before: &Seen,
    now: &Seen,
    spans: (&BTreeMap<OperationId, u64>, &BTreeMap<OperationId, u64>),
    tests: usize,
) -> (f64, f64) {
    let operations: BTreeSet<OperationId> = before.spans.keys().chain(now.spans.keys()).copied().collect();
    let mut strongest = (0.0, 0.0);
    for operation in operations {
        let share = |seen: &Seen, spans: &BTreeMap<OperationId, u64>| Share {
            hits: seen.spans.get(&operation).map_or(0, |spans| spans.len() as u64),
            of: spans.get(&operation).copied().unwrap_or(0),
        };
        let (before, now) = (share(before, spans.0), share(now, spans.1));
        if before.of == 0 || now.of == 0 {
            continue;
        }
        let change = now.ratio() - before.ratio();
        let effect = 0.25 + 0.75 * change.abs();
        let evidence = weight(log_likelihood_ratio(now, before), tests, effect);
        if evidence > strongest.0 {
            strongest = (evidence, change);
        }
    }
    strongest
}

/// Without spans: the line's share of what its service writes, and that it is more or less often
/// there at all, in proportion to the two periods' lengths.
#[expect(clippy::cast_precision_loss, reason = "counts of lines are far below 2^53")]
fn alone(before: u64, now: u64, volume: (u64, u64), seconds: (f64, f64), tests: usize) -> (f64, f64) {
    let (before_share, now_share) = (Share { hits: before, of: volume.0 }, Share { hits: now, of: volume.1 });
    let change = now_share.ratio() - before_share.ratio();
    if volume.0 == 0 || volume.1 == 0 {
        // A service that wrote nothing before: its lines are new if there are several.
        let rate = now as f64 / seconds.1.max(1.0);
        return if volume.0 == 0 && now >= 3 {
            (weight(5.0 + rate.ln_1p(), 1, 0.3), 1.0)
        } else {
            (0.0, 0.0)
        };
    }
    let fold = (now_share.ratio().max(1e-6) / before_share.ratio().max(1e-6)).ln().abs().min(2.0) / 2.0;
    (weight(log_likelihood_ratio(now_share, before_share) / 2.0, tests, fold * 0.7), change)
}
