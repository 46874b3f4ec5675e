//! The evidence page: one HTML file without scripts or outside resources, for a person just woken.
//! askama escapes every text.

use super::Error;
use super::capture::{Capture, Chosen, Scope};
use super::collect::Output;
use super::contrast::Contrast;
use super::evidence::{Cause, CauseKind, Pass};
use super::forest::Forest;
use super::last_run::{LastRun, SoughtRun};
use super::log_clues::{ChangedLine, SHOWN, number};
use super::rows::{Rows, SpanRow};
use super::series::{Counted, series, step_of};
use super::span_clues::{Pair, duration, percent, short};
use super::twin::{self, Twin};
use crate::confirm::{Anomaly, Member, Silencer, Uncovering, silencers};
use crate::context::Change;
use crate::detect::Symptom;
use crate::model::{ServiceKey, Timestamp};
use askama::Template;
use std::collections::BTreeMap;

/// Rows of a waterfall, and members shown; the files hold the rest.
const TWIN_ROWS: usize = 40;
const MEMBERS: usize = 12;

/// What the page shows.
pub struct Shown<'a> {
    pub anomaly: &'a Anomaly,
    pub pass: Pass,
    pub at: Timestamp,
    pub causes: &'a [Cause],
    pub changes: &'a [Change],
    pub capture: &'a Capture,
    pub chosen: &'a Chosen,
    pub pair: &'a Pair<'a>,
    pub lines: &'a [ChangedLine],
    pub contrasts: &'a [Contrast],
    pub scope: &'a Scope,
    /// What collectors said.
    pub collected: &'a [Output],
    /// What windows counted since the onset.
    pub counted: &'a [Counted],
}

#[derive(Template)]
#[template(path = "diagnose/page.html")]
struct Page {
    title: String,
    severity: &'static str,
    since: String,
    since_full: String,
    at: String,
    /// The healthy period.
    healthy: String,
    what: String,
    anomaly: String,
    complete: bool,
    cause: Option<CauseView>,
    others: Vec<CauseView>,
    told: Option<ToldView>,
    affected: Vec<Affected>,
    more_affected: usize,
    changes: Vec<ChangeView>,
    charts: Vec<Chart>,
    twin: Option<TwinView>,
    lines: Vec<LineView>,
    contrasts: Vec<ContrastView>,
    collected: Vec<CollectedView>,
    /// Of a job that did not run: its last run, or that none was found.
    last_run: Option<String>,
    last_run_failed: bool,
    last_run_trace: Option<String>,
    traces: usize,
    failed_traces: u64,
    log_records: usize,
    seen: String,
    version: &'static str,
}

struct CauseView {
    service: String,
    kind: &'static str,
    meaning: &'static str,
    percent: String,
    operation: String,
    reason: String,
    reasons: Vec<String>,
    inconclusive: bool,
}

struct CollectedView {
    name: String,
    at: String,
    ended: String,
    is_good: bool,
    text: String,
    /// What of it is where, and what is not here.
    notes: Vec<String>,
}

/// Why it was told.
struct ToldView {
    p_value: String,
    budget: String,
    nearest: Vec<Uncovering>,
    examined: u64,
    silencers: Vec<Silencer>,
}

struct Affected {
    service: String,
    signal: String,
    symptom: &'static str,
    observed: String,
    expected: String,
    recovered: bool,
}

struct ChangeView {
    at: String,
    before: String,
    title: String,
}

struct Chart {
    title: String,
    top: String,
    /// Polylines in a box of 300 × 80, the newest shown boldest.
    lines: Vec<(&'static str, String)>,
    /// Upper edge and height of where healthy values lie, if that is known.
    band: Option<(String, String)>,
    usual: String,
    onset_x: String,
    /// How wide the faulty period is from there, and until when it was.
    faulty_width: String,
    faulty_until: String,
    from: String,
    to: String,
}

/// What a chart shows of one stretch of time.
#[derive(Clone, Copy, Default)]
struct Step {
    requests: u64,
    errors: u64,
    p50_ns: f64,
    p99_ns: f64,
    seconds: f64,
}

struct TwinView {
    headline: String,
    operation: String,
    bad_trace: String,
    good_trace: String,
    bad_took: String,
    good_took: String,
    /// When the healthy trace was, if it is a keepsake.
    keepsake: Option<String>,
    rows: Vec<TwinRow>,
    left_out: usize,
}

struct TwinRow {
    indent: usize,
    service: String,
    operation: String,
    bad: Option<Bar>,
    good: Option<Bar>,
    note: String,
    first: bool,
    differs: bool,
}

struct Bar {
    left: String,
    width: String,
    class: &'static str,
    took: String,
}

struct LineView {
    service: String,
    severity: &'static str,
    class: &'static str,
    text: String,
    change: String,
}

struct ContrastView {
    key: String,
    value: String,
    bad: String,
    good: String,
}

/// Renders the page.
///
/// # Errors
/// [`Error::Page`]
pub fn render(shown: &Shown<'_>) -> Result<String, Error> {
    let anomaly = shown.anomaly;
    let onset = anomaly.onset.earliest;
    let mut causes = shown.causes.iter().map(cause_view);
    let page = Page {
        title: anomaly.title.clone(),
        severity: anomaly.severity.as_str(),
        since: clock_seen_at(onset, shown.at),
        since_full: onset.to_string(),
        at: clock(shown.at),
        healthy: {
            let times = &shown.capture.healthy_times;
            format!("{} to {}", clock_seen_at(times.start, shown.at), clock_seen_at(times.end, shown.at))
        },
        what: match anomaly.fired_at {
            Some(_) => format!("{}: {}", anomaly.service, symptom(anomaly.symptom)),
            None => format!("{}, looked at without an alarm", anomaly.service),
        },
        anomaly: anomaly.id.to_string(),
        complete: shown.pass == Pass::Complete,
        cause: causes.next(),
        others: causes.take(4).collect(),
        told: told(anomaly),
        affected: anomaly.members.iter().take(MEMBERS).map(affected).collect(),
        more_affected: anomaly.members.len().saturating_sub(MEMBERS),
        changes: shown.changes.iter().map(|change| change_view(change, onset, shown.at)).collect(),
        charts: charts(shown, onset),
        twin: twin_view(shown),
        lines: shown.lines.iter().take(SHOWN).map(line_view).collect(),
        contrasts: shown.contrasts.iter().map(contrast_view).collect(),
        collected: shown.collected.iter().map(collected_view).collect(),
        last_run: shown.capture.last_run.as_ref().map(SoughtRun::in_words),
        last_run_failed: last_run(shown).is_some_and(|run| run.failed),
        last_run_trace: last_run(shown).map(|run| run.trace.to_string()),
        traces: shown.chosen.traces.len(),
        failed_traces: shown.chosen.failed_traces,
        log_records: shown.chosen.logs.len(),
        seen: match shown.capture.share() {
            share if share >= 0.995 => "every trace of both periods".to_owned(),
            share => format!("{} of what is recorded of both periods", percent(share)),
        },
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(page.render()?)
}

fn last_run<'a>(shown: &Shown<'a>) -> Option<&'a LastRun> {
    shown.capture.last_run.as_ref()?.run.as_ref()
}

/// Nothing where nobody was told.
fn told(anomaly: &Anomaly) -> Option<ToldView> {
    anomaly.fired_at?;
    let share = |of: f64| format!("{of:.2}");
    let budget = anomaly.budget_draw.map_or_else(
        || "It took nothing of the false-alarm budget.".to_owned(),
        |draw| {
            format!(
                "It took {} of a false page; the pages of this week come to {} of {} that are accepted.",
                share(draw.share),
                share(draw.in_week),
                share(draw.per_week)
            )
        },
    );
    Some(ToldView {
        p_value: format!("{:.1e}", anomaly.p_value),
        budget,
        nearest: anomaly.examined.nearest.clone(),
        examined: anomaly.examined.exemptions,
        silencers: silencers(anomaly),
    })
}

/// Stands on a page where what collectors say later is put before. askama escapes it in all that is shown.
pub const MORE_COLLECTED: &str = "<!-- what collectors say later -->";

#[derive(Template)]
#[template(path = "diagnose/collected.html")]
struct CollectedPart {
    collected: Vec<CollectedView>,
}

/// What a page shows of a collector.
///
/// # Errors
/// [`Error::Page`]
pub fn collected(output: &Output) -> Result<String, Error> {
    Ok(CollectedPart { collected: vec![collected_view(output)] }.render()?)
}

/// Of the text that a collector said, so much is on the page.
const COLLECTED_BYTES: usize = 16 << 10;

/// A number of bytes, as people write it.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size(bytes: usize) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn collected_view(output: &Output) -> CollectedView {
    let text = String::from_utf8_lossy(&output.bytes);
    let mut end = COLLECTED_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let shown = text.get(..end).unwrap_or_default();
    let mut notes = Vec::new();
    if end < text.len() {
        let (shown, all) = (size(shown.len()), size(text.len()));
        notes.push(format!("These are the first {shown} of {all}; all is in {}.", output.file));
    }
    if let Some((file, bytes)) = &output.binary {
        let size = size(bytes.len());
        notes.push(format!("{size} that are no text, as they came and not redacted, are in {file}."));
    }
    if output.told.is_cut {
        notes.push("It said more than is kept of it (max_bytes).".to_owned());
    }
    CollectedView {
        name: output.told.name.clone(),
        at: clock(output.told.at),
        ended: output.told.ended.clone(),
        is_good: output.told.is_good,
        text: shown.trim_end().to_owned(),
        notes,
    }
}

fn cause_view(cause: &Cause) -> CauseView {
    CauseView {
        service: cause.service.clone(),
        kind: kind(cause.kind),
        meaning: meaning(cause.kind),
        percent: format!("{:.0} %", cause.score * 100.0),
        operation: cause.operation.clone().unwrap_or_default(),
        reason: cause.reason.clone(),
        reasons: cause.reasons.iter().skip(1).cloned().collect(),
        inconclusive: cause.kind == CauseKind::Inconclusive,
    }
}

const fn kind(kind: CauseKind) -> &'static str {
    match kind {
        CauseKind::Code => "its own code",
        CauseKind::Database => "its database",
        CauseKind::Dependency => "something it depends on",
        CauseKind::Saturation => "a resource is used up",
        CauseKind::Traffic => "requests stopped coming",
        CauseKind::Deploy => "its new version",
        CauseKind::Data => "its telemetry",
        CauseKind::Job => "the job did not run",
        CauseKind::Inconclusive => "not clear",
    }
}

const fn meaning(kind: CauseKind) -> &'static str {
    match kind {
        CauseKind::Code => "Errors or lost time begin in the service itself.",
        CauseKind::Database => {
            "The service's calls of its database are slow or fail; the service waits for them."
        }
        CauseKind::Dependency => "Calls of something outside, or the way there, are slow or fail.",
        CauseKind::Saturation => "A pool, CPU or memory is at its limit, and requests wait.",
        CauseKind::Traffic => {
            "Fewer requests reach the entry. Look at what is in front of it: DNS, load balancer, clients."
        }
        CauseKind::Deploy => {
            "Only what the new version handles is worse. Rolling back is the first thing to consider."
        }
        CauseKind::Data => {
            "Telemetry is missing, late or refused: what is seen of the service is not what it does."
        }
        CauseKind::Job => "A run was due and did not come.",
        CauseKind::Inconclusive => "Nothing stands out enough to name a cause. This is the best guess.",
    }
}

const fn symptom(symptom: Symptom) -> &'static str {
    match symptom {
        Symptom::Errors => "requests fail",
        Symptom::Latency => "requests are slow",
        Symptom::TrafficDrop => "requests stopped coming",
        Symptom::Silence => "sends no telemetry",
        Symptom::MissedJob => "a job did not run",
        Symptom::Saturation => "a resource is used up",
        Symptom::BudgetBurn => "error budget burns too fast",
        Symptom::Level => "a metric left its range",
        Symptom::Data => "the telemetry is incomplete",
        Symptom::Rule => "a rule fires",
        Symptom::Exhaustion => "a resource fills up",
    }
}

/// A value in its unit, as people write it.
#[must_use]
pub fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "ns" => duration(value),
        "s" => duration(value * 1e9),
        "ms" => duration(value * 1e6),
        "1" => percent(value),
        _ => {
            let unit = unit.trim_matches(['{', '}']).replace("{request}", "requests").replace('}', "");
            let number = if value.abs() >= 100.0 || value.fract() == 0.0 {
                format!("{value:.0}")
            } else {
                format!("{value:.2}")
            };
            if unit.is_empty() { number } else { format!("{number} {unit}") }
        }
    }
}

/// Where healthy values lie, in words.
fn usual(member: &Member) -> String {
    let (low, high) = (member.expected.low, member.expected.high);
    if !high.is_finite() {
        format!("at least {}", quantity(low, &member.unit))
    } else if low > 0.0 && low < high {
        format!("{} to {}", quantity(low, &member.unit), quantity(high, &member.unit))
    } else {
        format!("up to {}", quantity(high, &member.unit))
    }
}

fn affected(member: &Member) -> Affected {
    Affected {
        service: member.service.to_string(),
        signal: member.signal.clone(),
        symptom: symptom(member.symptom),
        observed: quantity(member.observed, &member.unit),
        expected: usual(member),
        recovered: member.recovered,
    }
}

/// The time of day, UTC.
fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(11..19).map_or(text.clone(), ToOwned::to_owned)
}

/// The same, with the date where that is another than today's.
fn clock_seen_at(at: Timestamp, now: Timestamp) -> String {
    let date = |of: Timestamp| of.to_string().get(..10).map(ToOwned::to_owned);
    match date(at) {
        Some(day) if date(now).as_ref() != Some(&day) => format!("{day} {}", clock(at)),
        _ => clock(at),
    }
}

fn change_view(change: &Change, onset: Timestamp, now: Timestamp) -> ChangeView {
    #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
    let apart = |ns: u128| duration(ns as f64);
    let before = if change.at <= onset {
        format!("{} before", apart(onset.since(change.at).as_nanos()))
    } else {
        format!("{} after", apart(change.at.since(onset).as_nanos()))
    };
    let service = change.service.as_ref().map(|service| format!("{service}: ")).unwrap_or_default();
    ChangeView { at: clock_seen_at(change.at, now), before, title: format!("{service}{}", change.title) }
}

fn contrast_view(contrast: &Contrast) -> ContrastView {
    ContrastView {
        key: contrast.key.to_string(),
        value: short(&contrast.value),
        bad: percent(contrast.bad.ratio()),
        good: percent(contrast.good.ratio()),
    }
}

fn line_view(line: &ChangedLine) -> LineView {
    let severity = match line.severity {
        21.. => "FATAL",
        17.. => "ERROR",
        13.. => "WARN",
        9.. => "INFO",
        5.. => "DEBUG",
        1.. => "TRACE",
        0 => "",
    };
    let change = match (line.before, line.now) {
        (0, _) => format!("new, {} a minute", number(line.now_a_minute)),
        (_, 0) => format!("gone, {} a minute before", number(line.before_a_minute)),
        _ => format!("{} → {} a minute", number(line.before_a_minute), number(line.now_a_minute)),
    };
    let class = if line.severity >= 17 {
        "bad"
    } else if line.severity >= 13 {
        "warn"
    } else {
        ""
    };
    let text = line.example.lines().next().unwrap_or_default().chars().take(400).collect();
    LineView { service: line.service.to_string(), severity, class, text, change }
}

/// Error ratio, latency and rate of what the anomaly is about.
fn charts(shown: &Shown<'_>, onset: Timestamp) -> Vec<Chart> {
    let margin = std::time::Duration::from_secs(180);
    let from = shown.capture.healthy_times.start.max(onset.saturating_sub(margin));
    let times = from..shown.capture.faulty_times.end;
    let step = step_of(&times);
    let spans = || {
        shown
            .capture
            .healthy
            .spans
            .iter()
            .chain(&shown.capture.faulty.spans)
            .filter(|span| times.contains(&span.end))
    };
    let members = &shown.scope.operations;
    let named =
        |service: &ServiceKey, operation: &str| members.contains(&(service.clone(), operation.to_owned()));
    let any_named = spans().any(|span| named(span.service(), &span.operation));
    let wanted = |span: &&SpanRow| {
        if !times.contains(&span.end) {
            false
        } else if any_named {
            named(span.service(), &span.operation)
        } else {
            *span.service() == shown.scope.service && (span.kind.is_entry() || span.parent.is_none())
        }
    };
    let of_period = |rows: &Rows| series(rows.spans.iter().filter(wanted), step, rows.one_in);
    // One line over the operations together: the page asks how bad, the files say which.
    let mut steps: BTreeMap<Timestamp, Step> = BTreeMap::new();
    for point in of_period(&shown.capture.healthy).into_iter().chain(of_period(&shown.capture.faulty)) {
        let cell = steps.entry(point.start).or_default();
        cell.requests += point.requests;
        cell.errors += point.errors;
        cell.p50_ns = cell.p50_ns.max(point.p50_ns);
        cell.p99_ns = cell.p99_ns.max(point.p99_ns);
        cell.seconds = step.as_secs_f64();
    }
    // What came after what was captured is known from windows alone: whether it got better, for instance.
    // The end of what was captured is not part of it, and a nanosecond after the last moment that is.
    let captured_until = Timestamp(times.end.0.saturating_sub(1));
    let later = shown.counted.iter().filter(|counted| counted.start >= captured_until);
    for counted in later.clone() {
        let &Counted { requests, errors, p50_ns, p99_ns, .. } = counted;
        let seconds = counted.end.since(counted.start).as_secs_f64().max(1.0);
        steps.insert(counted.start, Step { requests, errors, p50_ns, p99_ns, seconds });
    }
    let faulty_until = match shown.anomaly.fired_at {
        Some(_) => times.end.max(shown.anomaly.seen_until(shown.at)),
        None => times.end,
    };
    let times = times.start..later.map(|counted| counted.end).max().unwrap_or(times.end);
    if steps.len() < 2 {
        return Vec::new();
    }
    let (start, end) = (times.start.0 as f64, times.end.0.max(times.start.0 + 1) as f64);
    let x = |at: Timestamp| ((at.0 as f64 - start) / (end - start) * 300.0).clamp(0.0, 300.0);
    let line = |value: &dyn Fn(&Step) -> f64, top: f64| {
        let points = steps.iter().map(|(at, cell)| {
            format!("{:.1},{:.1}", x(*at), 78.0 - 74.0 * (value(cell) / top).clamp(0.0, 1.0))
        });
        points.collect::<Vec<_>>().join(" ")
    };
    let most = |value: &dyn Fn(&Step) -> f64| steps.values().map(value).fold(0.0f64, f64::max);
    let chart = |title: &str, top: String, lines, usual: Option<(f64, f64, String)>| Chart {
        title: title.to_owned(),
        top,
        lines,
        band: usual.as_ref().map(|(low, high, _)| {
            let [upper, lower] = [high, low].map(|end| 78.0 - 74.0 * end.clamp(0.0, 1.0));
            (format!("{upper:.1}"), format!("{:.1}", (lower - upper).max(1.5)))
        }),
        usual: usual.map(|(.., words)| words).unwrap_or_default(),
        onset_x: format!("{:.1}", x(onset)),
        faulty_width: format!("{:.1}", x(faulty_until) - x(onset)),
        faulty_until: clock(faulty_until),
        from: clock(times.start),
        to: clock(times.end),
    };
    let ratio = |of: &Step| if of.requests == 0 { 0.0 } else { of.errors as f64 / of.requests as f64 };
    let rate = |of: &Step| of.requests as f64 / of.seconds;
    let (p50, p99) = (|of: &Step| of.p50_ns, |of: &Step| of.p99_ns);
    let judged = |symptom| judged(shown, symptom);
    let (errors, slow, drop) =
        (judged(Symptom::Errors), judged(Symptom::Latency), judged(Symptom::TrafficDrop));
    // What is usual is on the chart, too.
    let high = |member: Option<&Member>| member.map_or(0.0, |member| finite(member.expected.high));
    let least_rate = drop.map_or(0.0, |member| finite(member.expected.low));
    let (errors_top, slow_top, rate_top) = (
        most(&ratio).max(0.01).max(high(errors)),
        most(&p99).max(1.0).max(high(slow)),
        most(&rate).max(1e-9).max(least_rate),
    );
    vec![
        chart(
            "Requests that fail",
            percent(errors_top),
            vec![("bad", line(&ratio, errors_top))],
            band(errors, errors_top),
        ),
        chart(
            "Latency, median and 99th percentile",
            duration(slow_top),
            vec![("soft", line(&p50, slow_top)), ("bold", line(&p99, slow_top))],
            band(slow, slow_top),
        ),
        chart(
            "Requests a second",
            quantity(rate_top, ""),
            vec![("bold", line(&rate, rate_top))],
            band(drop, rate_top),
        ),
    ]
}

/// The strongest member of this symptom among those that are drawn.
fn judged<'a>(shown: &'a Shown<'_>, symptom: Symptom) -> Option<&'a Member> {
    let is_drawn = |member: &&Member| {
        let operation = (member.service.clone(), member.signal.clone());
        member.service == shown.scope.service || shown.scope.operations.contains(&operation)
    };
    shown.anomaly.members.iter().filter(is_drawn).find(|member| member.symptom == symptom)
}

/// An end of a band that may be open; zero if it is.
fn finite(end: f64) -> f64 {
    if end.is_finite() && end < f64::MAX { end.max(0.0) } else { 0.0 }
}

/// Where healthy values lie, as shares of the chart's height, and in words.
fn band(member: Option<&Member>, top: f64) -> Option<(f64, f64, String)> {
    let member = member?;
    let (low, high) = (member.expected.low, member.expected.high);
    let low = finite(low) / top;
    let high = if high.is_finite() && high < f64::MAX { high / top } else { 1.0 };
    (high > low).then(|| (low, high, usual(member)))
}

/// None where requests or runs stay away: a bad request that came all the same is another matter.
fn twin_view(shown: &Shown<'_>) -> Option<TwinView> {
    if matches!(shown.anomaly.symptom, Symptom::MissedJob | Symptom::TrafficDrop | Symptom::Silence) {
        return None;
    }
    let twin = twin::telling(shown.pair, shown.chosen, shown.causes)?;
    let keepsakes = shown.chosen.keepsakes();
    let good = shown.pair.good.span(twin.good_top);
    let kept = good.filter(|span| keepsakes.contains(&span.trace));
    let keepsake = kept.map(|span| Timestamp::from_secs(span.end.secs()).to_string());
    Some(TwinView { keepsake, ..waterfall(&twin, &shown.pair.bad, &shown.pair.good) })
}

fn waterfall(twin: &Twin, bad: &Forest<'_>, good: &Forest<'_>) -> TwinView {
    let top = |forest: &Forest<'_>, at: usize| {
        forest.span(at).map(|span| (span.start.0, span.duration_ns())).unwrap_or_default()
    };
    let ((bad_start, bad_ns), (good_start, good_ns)) = (top(bad, twin.bad_top), top(good, twin.good_top));
    #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
    let whole = bad_ns.max(good_ns).max(1) as f64;
    #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
    let bar = |forest: &Forest<'_>, at: Option<usize>, start: u64, class: &'static str| {
        let span = forest.span(at?)?;
        let left = (span.start.0.saturating_sub(start) as f64 / whole * 100.0).clamp(0.0, 99.5);
        let width = (span.duration_ns() as f64 / whole * 100.0).clamp(0.5, 100.0 - left);
        let class = if span.failed() { "failed" } else { class };
        Some(Bar {
            left: format!("{left:.2}"),
            width: format!("{width:.2}"),
            class,
            took: duration(span.duration_ns() as f64),
        })
    };
    // Where a trace is long, what differs is shown first of all, with what leads to it.
    let keep: Vec<bool> = {
        let mut keep: Vec<bool> =
            twin.rows.iter().map(|row| row.difference.is_some() || row.depth <= 1).collect();
        if let Some(first) = twin.first_divergence {
            let mut depth = usize::MAX;
            for at in (0..=first).rev() {
                if let (Some(row), Some(keep)) = (twin.rows.get(at), keep.get_mut(at))
                    && row.depth < depth
                {
                    (*keep, depth) = (true, row.depth);
                }
            }
        }
        if twin.rows.len() <= TWIN_ROWS { vec![true; twin.rows.len()] } else { keep }
    };
    let mut rows = Vec::new();
    for (at, row) in twin.rows.iter().enumerate() {
        let first = twin.first_divergence == Some(at);
        if !first && (rows.len() >= TWIN_ROWS || !keep.get(at).copied().unwrap_or(false)) {
            continue;
        }
        let Some(span) = row.bad.and_then(|at| bad.span(at)).or_else(|| good.span(row.good?)) else {
            continue;
        };
        rows.push(TwinRow {
            indent: row.depth.min(12),
            service: span.service().name.to_string(),
            operation: short(&span.operation),
            bad: bar(bad, row.bad, bad_start, "now"),
            good: bar(good, row.good, good_start, "then"),
            note: twin::in_words(bad, good, row),
            first,
            differs: row.difference.is_some(),
        });
    }
    let headline = twin
        .first_divergence
        .and_then(|first| twin.rows.get(first))
        .and_then(|row| {
            let span = row.bad.and_then(|at| bad.span(at)).or_else(|| good.span(row.good?))?;
            Some(format!(
                "{}: “{}” {}",
                span.service().name,
                short(&span.operation),
                twin::in_words(bad, good, row)
            ))
        })
        .unwrap_or_default();
    let trace = |forest: &Forest<'_>, at: usize| {
        forest.span(at).map(|span| span.trace.to_string()).unwrap_or_default()
    };
    #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
    let took = |ns: u64| duration(ns as f64);
    TwinView {
        headline,
        operation: bad
            .span(twin.bad_top)
            .map(|span| format!("{} “{}”", span.service().name, short(&span.operation)))
            .unwrap_or_default(),
        bad_trace: trace(bad, twin.bad_top),
        good_trace: trace(good, twin.good_top),
        bad_took: took(bad_ns),
        good_took: took(good_ns),
        keepsake: None,
        left_out: twin.rows.len().saturating_sub(rows.len()),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_collector_said_the_page_shows_the_first_and_says_where_all_is() {
        let output = |text: String, binary: Option<Vec<u8>>| {
            let told = super::super::evidence::Collected {
                name: "dump".to_owned(),
                at: Timestamp::from_secs(1),
                took_ns: 1,
                ended: "exit status: 0".to_owned(),
                is_good: true,
                bytes: text.len() as u64,
                binary_bytes: 0,
                is_cut: false,
            };
            let binary = binary.map(|bytes| ("collected-dump.bin".to_owned(), bytes));
            Output { told, file: "collected-dump.txt".to_owned(), bytes: text.into_bytes(), binary }
        };
        // One byte, then characters of two: none is cut in the middle.
        let long = collected(&output(format!("x{}", "ü".repeat(20_000)), None)).unwrap();
        assert_eq!(long.matches('ü').count(), (COLLECTED_BYTES - 1) / 2);
        let note = "These are the first 16.0 KiB of 39.1 KiB; all is in collected-dump.txt.";
        assert!(long.contains(note), "{}", long.replace('ü', ""));
        let heap = collected(&output(String::new(), Some(vec![0; 3_500_000]))).unwrap();
        assert!(heap.contains("3.3 MiB that are no text") && heap.contains("collected-dump.bin"), "{heap}");
        assert!(!heap.contains("<pre>"), "{heap}");
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let now = Timestamp::from_secs(1_700_000_000);
        assert_eq!(clock_seen_at(Timestamp::from_secs(1_699_999_990), now), "22:13:10");
        assert_eq!(clock_seen_at(Timestamp::from_secs(1_699_900_000), now), "2023-11-13 18:26:40");
    }
}
