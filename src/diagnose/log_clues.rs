//! Clues in logs: lines that are new, that multiplied, that vanished.
//!
//! Lines written within one span are a path through the code. So what is compared is what follows
//! what: of all places at which line A was written, in which share does line B follow next? That
//! does not depend on how many requests there are or on their mix, and it points at the region of
//! the code between two statements (after Nezha, Yu et al., ESEC/FSE 2023, which mines such patterns
//! over spans and lines). Lines outside any span are compared by their share of their service's lines.

use super::clue::{Clue, Mechanism, STRONGEST, weight};
use super::rows::LogRow;
use super::span_clues::{percent, short};
use super::statistics::{Share, log_likelihood_ratio, standardised};
use super::templates::{TemplateId, Templates};
use crate::model::{ServiceKey, SpanId, TraceId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Fewest times a line must be there in both periods before what follows it is compared.
const FEWEST: u64 = 4;
/// Characters of a line that are shown.
const LONGEST: usize = 400;

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
    /// About how many were written a minute, whatever of them was read: what periods of different length, and samples,
    /// are compared by.
    pub before_a_minute: f64,
    pub now_a_minute: f64,
    pub weight: f64,
}

/// Lines that are shown of an explanation.
pub const SHOWN: usize = 10;

/// The lines that are shown, as in `causes.json`.
#[must_use]
pub fn shown(lines: &[ChangedLine]) -> Vec<serde_json::Value> {
    let line = |line: &ChangedLine| {
        serde_json::json!({
            "service": line.service.name,
            "line": line.example.lines().next().unwrap_or_default().chars().take(LONGEST).collect::<String>(),
            "severity": line.severity,
            "before": line.before,
            "now": line.now,
        })
    };
    lines.iter().take(SHOWN).map(line).collect()
}

type Line = (ServiceKey, TemplateId);

#[derive(Clone, Debug, Default)]
struct Seen {
    lines: u64,
    /// Of them, those outside any span.
    alone: u64,
    example: Option<Arc<str>>,
    severity: u8,
}

/// The lines of a period, and what follows what; `None` is the begin or end of a span's lines. Apart
/// for each line of another service that the trace had written last when the span began to write:
/// who called, as far as lines tell.
#[derive(Default)]
struct Flow {
    lines: BTreeMap<Line, Seen>,
    next:
        BTreeMap<(ServiceKey, Option<TemplateId>), BTreeMap<Option<Line>, BTreeMap<Option<TemplateId>, u64>>>,
}

impl Flow {
    fn count(
        &mut self,
        service: &ServiceKey,
        from: Option<TemplateId>,
        caller: Option<Line>,
        to: Option<TemplateId>,
    ) {
        let after = self.next.entry((service.clone(), from)).or_default().entry(caller).or_default();
        *after.entry(to).or_default() += 1;
    }

    /// How many spans of the service wrote lines.
    fn spans(&self, service: &ServiceKey) -> u64 {
        let begun = self.next.get(&(service.clone(), None));
        begun.into_iter().flat_map(BTreeMap::values).flat_map(BTreeMap::values).sum()
    }

    fn seen(&self, service: &ServiceKey, template: TemplateId) -> Seen {
        self.lines.get(&(service.clone(), template)).cloned().unwrap_or_default()
    }
}

struct Change {
    rises: bool,
    weight: f64,
    text: String,
}

/// How much was read of both periods.
#[derive(Clone, Copy)]
struct Read {
    seconds: (f64, f64),
    /// A line stands for so many.
    one_in: (u64, u64),
}

impl Read {
    /// About how many a minute so many lines of the healthy and the faulty period are.
    #[expect(clippy::cast_precision_loss, reason = "counts of lines are far below 2^53")]
    fn a_minute(&self, before: u64, now: u64) -> (f64, f64) {
        let rate = |lines: u64, one_in: u64, seconds: f64| {
            lines as f64 * one_in.max(1) as f64 / seconds.max(1.0) * 60.0
        };
        (rate(before, self.one_in.0, self.seconds.0), rate(now, self.one_in.1, self.seconds.1))
    }

    /// What is said of a line that was never there before, and now is so many times.
    fn new_line(&self, now: u64, example: &str) -> String {
        format!("new line, {} times a minute: “{example}”", number(self.a_minute(0, now).1))
    }

    /// So many lines of both periods, as many as if the one had been sampled as much as the other.
    fn alike(&self, before: u64, now: u64) -> (u64, u64) {
        let fewer = self.one_in.0.max(self.one_in.1).max(1);
        let of = |lines: u64, one_in: u64| lines.saturating_mul(one_in.max(1)) / fewer;
        (of(before, self.one_in.0), of(now, self.one_in.1))
    }
}

/// A number of lines a minute, as people write it.
#[must_use]
pub fn number(a_minute: f64) -> String {
    if a_minute > 0.0 && a_minute < 0.1 {
        "less than 0.1".to_owned()
    } else if a_minute >= 10.0 || a_minute.fract() == 0.0 {
        format!("{a_minute:.0}")
    } else {
        format!("{a_minute:.1}")
    }
}

/// Clues of all services, and the lines they rest on, strongest first. A line of each period stands for `one_in`.
#[must_use]
pub fn clues(
    good: &[LogRow],
    bad: &[LogRow],
    seconds: (f64, f64),
    one_in: (u64, u64),
) -> (Vec<Clue>, Vec<ChangedLine>) {
    let read = Read { seconds, one_in };
    let mut templates: BTreeMap<ServiceKey, Templates> = BTreeMap::new();
    // Both are learned before either is counted: a template may widen with the last line.
    for row in good.iter().chain(bad) {
        templates.entry(row.service().clone()).or_default().learn(&row.body);
    }
    let (before, now) = (flow(good, &mut templates), flow(bad, &mut templates));
    let mut changes: BTreeMap<Line, Change> = BTreeMap::new();
    followers(&before, &now, read, &mut changes);
    outside_spans(&before, &now, read, &mut changes);
    let (mut clues, mut lines) = (Vec::new(), Vec::new());
    for ((service, id), change) in changes {
        let (was, is) = (before.seen(&service, id), now.seen(&service, id));
        let template = templates.get(&service).map(|templates| templates.text(id)).unwrap_or_default();
        let example =
            is.example.as_ref().or(was.example.as_ref()).map(ToString::to_string).unwrap_or_default();
        let mechanism = if change.rises { Mechanism::NewLines } else { Mechanism::LostLines };
        let (weight, text) = (change.weight, change.text);
        clues.push(Clue { service: service.clone(), operation: None, mechanism, weight, text });
        let severity = was.severity.max(is.severity);
        let (before_a_minute, now_a_minute) = read.a_minute(was.lines, is.lines);
        lines.push(ChangedLine {
            service,
            template,
            example,
            severity,
            before: was.lines,
            now: is.lines,
            before_a_minute,
            now_a_minute,
            weight,
        });
    }
    lines.sort_by(|a, b| {
        b.weight.total_cmp(&a.weight).then_with(|| (&a.service, &a.template).cmp(&(&b.service, &b.template)))
    });
    (clues, lines)
}

fn flow(rows: &[LogRow], templates: &mut BTreeMap<ServiceKey, Templates>) -> Flow {
    let mut flow = Flow::default();
    let mut last: HashMap<(TraceId, SpanId, &ServiceKey), (TemplateId, Option<Line>)> = HashMap::new();
    let mut latest: HashMap<TraceId, [Option<Line>; 2]> = HashMap::new();
    for row in rows {
        let service = row.service();
        let id = templates.entry(service.clone()).or_default().learn(&row.body);
        let seen = flow.lines.entry((service.clone(), id)).or_default();
        seen.lines += 1;
        seen.example.get_or_insert_with(|| row.body.clone());
        seen.severity = seen.severity.max(row.severity);
        if row.span.is_none() {
            seen.alone += 1;
            continue;
        }
        let before = latest.entry(row.trace).or_default();
        let known = last.get(&(row.trace, row.span, service)).cloned();
        let (previous, caller) = match known {
            Some((previous, caller)) => (Some(previous), caller),
            None => (None, before.iter().flatten().find(|(other, _)| other != service).cloned()),
        };
        // The latest line, and the latest one of another service than that.
        match before {
            [Some(newest), _] if newest.0 == *service => newest.1 = id,
            [newest, older] => *older = newest.replace((service.clone(), id)),
        }
        last.insert((row.trace, row.span, service), (id, caller.clone()));
        flow.count(service, previous, caller, Some(id));
    }
    for ((_, _, service), (id, caller)) in last {
        flow.count(service, Some(id), caller, None);
    }
    flow
}

/// Warnings and errors that are new say most; plain lines that come more often say little.
fn factor(rises: bool, severity: u8, before: u64) -> f64 {
    match (rises, severity) {
        (true, 17..) => 1.2,
        (true, 13..) => 1.0,
        (true, _) if before == 0 => 0.6,
        (true, _) => 0.5,
        (false, _) => 0.9,
    }
}

fn note(changes: &mut BTreeMap<Line, Change>, line: Line, change: Change) {
    if changes.get(&line).is_none_or(|known| known.weight < change.weight) {
        changes.insert(line, change);
    }
}

fn followers(before: &Flow, now: &Flow, read: Read, changes: &mut BTreeMap<Line, Change>) {
    let nothing = BTreeMap::new();
    let followers = |callers: &BTreeMap<Option<Line>, BTreeMap<Option<TemplateId>, u64>>| {
        callers.values().flat_map(BTreeMap::keys).copied().collect::<BTreeSet<_>>()
    };
    let tests = before.next.values().map(|callers| followers(callers).len()).sum::<usize>();
    for ((service, from), after_now) in &now.next {
        let Some(after_before) = before.next.get(&(service.clone(), *from)) else { continue };
        let mut all = followers(after_before);
        all.extend(followers(after_now));
        for to in all {
            let share = |after: &BTreeMap<Option<TemplateId>, u64>| Share {
                hits: after.get(&to).copied().unwrap_or(0),
                of: after.values().sum(),
            };
            let callers: BTreeSet<&Option<Line>> = after_before.keys().chain(after_now.keys()).collect();
            let of = |after: &BTreeMap<Option<Line>, BTreeMap<Option<TemplateId>, u64>>, caller| {
                share(after.get(caller).unwrap_or(&nothing))
            };
            let (was, is, worth) = standardised(
                callers.into_iter().map(|caller| (of(after_before, caller), of(after_now, caller))),
            );
            if was.of < FEWEST || is.of < FEWEST {
                continue;
            }
            let change = is.ratio() - was.ratio();
            // A span's first line tells which requests come, not what the code does with them.
            let Some(about) = to.or(from.filter(|_| change > 0.0)).filter(|_| from.is_some()) else {
                continue;
            };
            let (seen_before, seen_now) = (before.seen(service, about), now.seen(service, about));
            let rises = change > 0.0 && to.is_some();
            let evidence = weight(log_likelihood_ratio(is, was), tests, 0.3 + 0.7 * change.abs());
            if evidence <= 0.0 {
                continue;
            }
            let severity = seen_before.severity.max(seen_now.severity);
            let weight = (evidence * worth * factor(rises, severity, seen_before.lines)).min(STRONGEST * 1.2);
            let example = |id: Option<TemplateId>| {
                let seen = |flow: &Flow| id.and_then(|id| flow.seen(service, id).example);
                short(&seen(now).or(seen(before)).unwrap_or_default())
            };
            let shares = format!("in {} of cases instead of {}", percent(is.ratio()), percent(was.ratio()));
            let text = match to {
                Some(_) if rises && seen_before.lines == 0 => read.new_line(seen_now.lines, &example(to)),
                Some(_) => format!("after “{}” comes “{}” {shares}", example(*from), example(to)),
                None => format!("“{}” is the last line of its span {shares}", example(*from)),
            };
            note(changes, (service.clone(), about), Change { rises, weight, text });
        }
    }
    // Lines that were never there, whatever they follow.
    for ((service, id), seen) in &now.lines {
        let spans = now.spans(service);
        let inside = seen.lines - seen.alone;
        if inside < 3 || before.lines.contains_key(&(service.clone(), *id)) || seen.severity < 13 {
            continue;
        }
        let spans_before = before.spans(service);
        let is = Share { hits: inside.min(spans), of: spans };
        let was = Share { hits: 0, of: spans_before };
        let weight = weight(log_likelihood_ratio(is, was), tests, 0.5) * factor(true, seen.severity, 0);
        let text = read.new_line(seen.lines, &short(seen.example.as_deref().unwrap_or_default()));
        if weight > 0.0 {
            note(changes, (service.clone(), *id), Change { rises: true, weight, text });
        }
    }
}

/// Lines outside spans: their share of what their service writes.
fn outside_spans(before: &Flow, now: &Flow, read: Read, changes: &mut BTreeMap<Line, Change>) {
    let volume = |flow: &Flow| {
        let mut sums: BTreeMap<ServiceKey, u64> = BTreeMap::new();
        flow.lines
            .iter()
            .for_each(|((service, _), seen)| *sums.entry(service.clone()).or_default() += seen.alone);
        sums
    };
    let (volume_before, volume_now) = (volume(before), volume(now));
    let keys: BTreeSet<Line> = before.lines.keys().chain(now.lines.keys()).cloned().collect();
    for (service, id) in &keys {
        let (was_seen, is_seen) = (before.seen(service, *id), now.seen(service, *id));
        let of = |volume: &BTreeMap<ServiceKey, u64>| volume.get(service).copied().unwrap_or(0);
        let (of_before, of_now) = (of(&volume_before), of(&volume_now));
        if was_seen.alone + is_seen.alone == 0 || of_now == 0 {
            continue;
        }
        let severity = was_seen.severity.max(is_seen.severity);
        // More warnings and errors a second are a change whatever else is written; plain lines are
        // compared by their share, and said to be lost only where something still is written.
        let (was, is) = if severity >= 13 || of_before == 0 {
            let slots =
                |seconds: f64, lines: u64| Share { hits: lines.min(seconds as u64), of: seconds as u64 };
            let (was, is) = read.alike(was_seen.alone, is_seen.alone);
            (slots(read.seconds.0, was), slots(read.seconds.1, is))
        } else {
            (Share { hits: was_seen.alone, of: of_before }, Share { hits: is_seen.alone, of: of_now })
        };
        let change = is.ratio() - was.ratio();
        let fold = (is.ratio().max(1e-4) / was.ratio().max(1e-4)).ln().abs().min(3.0) / 3.0;
        let evidence = weight(log_likelihood_ratio(is, was), keys.len(), fold * 0.6);
        let weight = evidence * factor(change > 0.0, severity, was_seen.alone);
        if weight <= 0.0 {
            continue;
        }
        let example = short(is_seen.example.as_ref().or(was_seen.example.as_ref()).map_or("", |line| line));
        let text = match (was_seen.lines, is_seen.lines) {
            (0, now) => read.new_line(now, &example),
            (before, 0) => {
                let before = number(read.a_minute(before, 0).0);
                format!("line is gone, {before} times a minute before: “{example}”")
            }
            (before, now) => {
                let (before, now) = read.a_minute(before, now);
                let (before, now) = (number(before), number(now));
                format!("line comes {now} times a minute instead of {before}: “{example}”")
            }
        };
        note(changes, (service.clone(), *id), Change { rises: change > 0.0, weight, text });
    }
}
