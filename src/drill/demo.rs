//! The demo: a daemon, a shop, a fault, and whether all happened that should.

use super::children::{self, Addresses, Alertmanager, Daemon};
use super::driver::Driver;
use super::evidence;
use super::fault::Fault;
use super::interrupt::interrupted;
use super::receiver::{Inbox, Received, Receiver};
use super::report::{Blame, EvidenceReport, Report};
use super::screen::{Screen, Tone, seconds, services_table};
use super::view::{View, time};
use crate::api::v1;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// From the end of learning to the end.
const AFTER_LEARNING: Duration = Duration::from_secs(116);
/// An alert that is not there by then does not come.
const ALERT_TIMEOUT: Duration = Duration::from_secs(30);
const ABSENCE_ALERT_TIMEOUT: Duration = Duration::from_secs(60);
const EVIDENCE_TIMEOUT: Duration = Duration::from_secs(20);
const COUNT_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(500);
/// Traces of the service at fault that a bundle must hold with their logs.
const TRACES_WANTED: u64 = 20;

/// What the demo is to show.
#[derive(Clone, Debug)]
pub struct Options {
    pub fault: Fault,
    pub seed: u64,
    /// Factor on the rate of visits.
    pub traffic: f64,
    pub learn: Duration,
    /// With no fault: how long to watch after learning.
    pub duration: Duration,
    /// Leaves everything running at the end, until interrupted.
    pub keep: bool,
}

/// Why the demo could not be held.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Child(#[from] children::Error),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("not an address: {0}")]
    Address(#[from] tonic::transport::Error),
    #[error("interrupted")]
    Interrupted,
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// Holds the demo. `found` gets the report before the demo waits for an interruption with `keep`.
///
/// # Errors
/// It could not be held; what it showed is in the report instead.
pub async fn run(
    options: &Options,
    found: impl FnOnce(&Report) -> Result<(), Error>,
) -> Result<Report, Error> {
    let name = format!("barograph-demo-{}-{}", std::process::id(), options.seed);
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).map_err(io(directory.display().to_string()))?;
    let outcome = tokio::select! {
        outcome = held(options, &directory, found) => outcome,
        _ = interrupted() => Err(Error::Interrupted),
    };
    tidy(&directory, &outcome);
    outcome
}

/// Leaves of a demo that went well only its evidence, and nothing of one that has none.
fn tidy(directory: &Path, outcome: &Result<Report, Error>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let passed = outcome.as_ref().is_ok_and(|report| report.passed);
    if !passed && !matches!(outcome, Err(Error::Interrupted)) {
        return;
    }
    for entry in entries.flatten().filter(|entry| entry.file_name() != "evidence") {
        let path = entry.path();
        let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
    // Only succeeds when empty.
    let _ = std::fs::remove_dir(directory);
}

/// Everything that runs beside the daemon.
struct Stage {
    alertmanager: Option<Alertmanager>,
    receiver: Receiver,
    view: View,
    shop: Driver,
    directory: PathBuf,
}

async fn held(
    options: &Options,
    directory: &Path,
    found: impl FnOnce(&Report) -> Result<(), Error>,
) -> Result<Report, Error> {
    let mut screen = Screen::new();
    let mut report = Report { fault: options.fault.to_string(), seed: options.seed, ..Report::default() };
    let (stage, mut daemon) = set(options, directory, &mut screen, &mut report).await?;
    let played = async {
        if learn(options, &stage, &mut screen, &mut report).await {
            match options.fault {
                Fault::None => watch_nothing(options, &stage, &mut screen).await,
                _ => break_and_heal(options, &stage, &mut screen, &mut report).await,
            }
        }
    };
    tokio::select! {
        () = played => {}
        error = daemon.ended() => return Err(error.into()),
    }
    report.alerts = stage.receiver.inbox().borrow().len() as u64;
    check(options, &stage, &mut report);
    if options.keep {
        count(&stage, &mut report).await;
        conclude(&mut screen, &mut report);
        found(&report)?;
        keep(&stage, &daemon.addresses, &mut screen).await;
        return Ok(report);
    }
    let report = strike(stage, daemon, report, &mut screen).await;
    found(&report)?;
    Ok(report)
}

/// Starts everything.
async fn set(
    options: &Options,
    directory: &Path,
    screen: &mut Screen,
    report: &mut Report,
) -> Result<(Stage, Daemon), Error> {
    let receiver = Receiver::start().await.map_err(io("cannot listen for alerts"))?;
    let (alertmanager, url) = match Alertmanager::find() {
        Some(program) => {
            let webhook = format!("http://{}/webhook", receiver.address());
            let alertmanager = Alertmanager::start(&program, directory, &webhook).await?;
            let url = alertmanager.url.clone();
            report.receiver = "alertmanager";
            screen.say(
                Tone::Dim,
                &format!("alerts go to a real Alertmanager ({}) at {url}", program.display()),
            );
            (Some(alertmanager), url)
        }
        None => {
            report.receiver = "built-in";
            let url = format!("http://{}", receiver.address());
            screen.say(Tone::Dim, "alerts go to a built-in receiver: no Alertmanager is installed");
            (None, url)
        }
    };
    let daemon = Daemon::start(directory, &url).await?;
    let view = View::new(&daemon.addresses.query)?;
    screen.say(Tone::Dim, &format!("the daemon is ready; its page is http://{}", daemon.addresses.http));
    let shop = Driver::start(options.fault, options.seed, options.traffic, &daemon.addresses.otlp_grpc)?;
    screen.say(
        Tone::Plain,
        &format!(
            "a shop of ten services opens, {:.0} visits/s, over OTLP/gRPC (--seed {})",
            shop.drawn().rate,
            options.seed
        ),
    );
    let stage = Stage { alertmanager, receiver, view, shop, directory: directory.to_owned() };
    Ok((stage, daemon))
}

/// Lets the daemon learn; whether no alarm came before anything broke.
async fn learn(options: &Options, stage: &Stage, screen: &mut Screen, report: &mut Report) -> bool {
    screen.say(Tone::Plain, &format!("learning what is normal for {}", seconds(options.learn)));
    let end = Instant::now() + options.learn;
    while Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        screen.progress(&format!(
            "learning, {} left, {} spans sent",
            seconds(left),
            stage.shop.sent().spans.get()
        ));
        sleep(POLL.min(left)).await;
    }
    show_services(stage, screen).await;
    let early = stage.receiver.inbox().borrow().len();
    if early > 0 {
        report.failures.push("an alert came before anything broke".to_owned());
    }
    early == 0
}

async fn show_services(stage: &Stage, screen: &mut Screen) {
    let over = Duration::from_secs(20);
    match stage.view.services(over).await {
        Ok(services) => screen.block(Tone::Dim, &services_table(&services)),
        Err(status) => screen.say(Tone::Bad, &format!("the daemon does not say what it sees: {status}")),
    }
}

async fn watch_nothing(options: &Options, stage: &Stage, screen: &mut Screen) {
    screen.say(Tone::Plain, &format!("nothing breaks for {}", seconds(options.duration)));
    let end = Instant::now() + options.duration;
    let mut inbox = stage.receiver.inbox();
    while Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        screen.progress(&format!("{} left, {} alerts", seconds(left), inbox.borrow().len()));
        sleep(POLL.min(left)).await;
    }
    for alert in inbox.borrow_and_update().iter() {
        show_alert(screen, alert);
    }
    show_services(stage, screen).await;
}

async fn break_and_heal(options: &Options, stage: &Stage, screen: &mut Screen, report: &mut Report) {
    let deadline = Instant::now() + AFTER_LEARNING;
    sleep(stage.shop.drawn().delay).await;
    let service = stage.shop.drawn().service;
    let injected_at = stage.shop.inject().await;
    report.injected_at = Some(injected_at);
    report.expected = options
        .fault
        .kinds()
        .first()
        .map(|kind| Blame { service: service.to_owned(), kind: (*kind).to_owned() });
    screen.say(Tone::Strong, &format!("FAULT: {}", options.fault.describe(service)));

    let wait = if options.fault.is_absence() { ABSENCE_ALERT_TIMEOUT } else { ALERT_TIMEOUT };
    let alert = match await_alert(stage, screen, deadline.min(Instant::now() + wait)).await {
        Some(alert) => alert,
        None => {
            report.failures.push(format!("no alert within {}", seconds(wait)));
            stage.shop.heal().await;
            return;
        }
    };
    report.alert_received_at = Some(alert.at);
    let detect = alert.at.since(injected_at);
    report.time_to_detect_ns = u64::try_from(detect.as_nanos()).ok();
    screen.say(Tone::Strong, &format!("ALERT received {} after the fault", seconds(detect)));
    show_alert(screen, &alert);

    await_evidence(stage, screen, report, &alert.anomaly, options.fault).await;
    let healed_at = stage.shop.heal().await;
    screen.say(Tone::Plain, "the fault is repaired");
    await_recovery(stage, screen, report, &alert.anomaly, deadline).await;
    if let Some(recovered_at) = report.recovered_at {
        let recover = recovered_at.since(injected_at);
        report.time_to_recover_ns = u64::try_from(recover.as_nanos()).ok();
        screen.say(
            Tone::Good,
            &format!(
                "RECOVERED {} after the repair, {} after the fault",
                seconds(recovered_at.since(healed_at)),
                seconds(recover)
            ),
        );
    }
}

/// The first alert that is received; shows what the daemon notices before.
async fn await_alert(stage: &Stage, screen: &mut Screen, deadline: Instant) -> Option<Received> {
    let mut inbox: Inbox = stage.receiver.inbox();
    let mut told = Vec::new();
    while Instant::now() < deadline {
        let tick = deadline.min(Instant::now() + POLL);
        if let Ok(Ok(received)) = timeout_at(tick, inbox.wait_for(|received| !received.is_empty())).await {
            return received.first().cloned();
        }
        for anomaly in stage.view.anomalies().await.unwrap_or_default() {
            if !told.contains(&anomaly.id) {
                screen.say(Tone::Plain, &format!("noticed: {}", anomaly.title));
                told.push(anomaly.id);
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        screen.progress(&format!("waiting for an alert, {} left", seconds(left)));
    }
    None
}

fn show_alert(screen: &mut Screen, alert: &Received) {
    let find = |key: &str| alert.annotations.get(key).map(String::as_str).unwrap_or_default();
    let name = alert.labels.get("alertname").map(String::as_str).unwrap_or_default();
    let severity = alert.labels.get("severity").map(String::as_str).unwrap_or_default();
    screen.block(Tone::Bad, &format!("[{severity}] {name}: {}", find("summary")));
    screen.block(Tone::Plain, find("description"));
}

/// Waits until the bundle names a cause and holds enough, and opens it.
async fn await_evidence(stage: &Stage, screen: &mut Screen, report: &mut Report, id: &str, fault: Fault) {
    let wanted = if fault == Fault::MissedJob { 1 } else { TRACES_WANTED };
    let deadline = Instant::now() + EVIDENCE_TIMEOUT;
    let mut trouble = "the daemon has none".to_owned();
    while Instant::now() < deadline {
        match stage.view.anomaly(id).await {
            Ok(anomaly) => {
                note(report, &anomaly);
                if anomaly.evidence.is_some() {
                    match open(stage, id).await {
                        Ok(found) => {
                            let enough = found.traces_with_logs >= wanted;
                            report.evidence = Some(found);
                            if enough && report.cause.is_some() {
                                break;
                            }
                        }
                        Err(error) => trouble = error.to_string(),
                    }
                }
            }
            Err(status) => trouble = format!("the daemon does not know the anomaly: {status}"),
        }
        screen.progress("waiting for cause and evidence");
        sleep(POLL).await;
    }
    if let Some(cause) = &report.cause {
        screen.say(Tone::Strong, &format!("CAUSE named: {} in {}", cause.kind, cause.service));
    }
    match &report.evidence {
        Some(found) => screen.say(
            Tone::Plain,
            &format!(
                "evidence opened: {} traces of {}, {} log records: {}",
                found.traces,
                stage.shop.drawn().service,
                found.log_records,
                found.path.join("index.html").display()
            ),
        ),
        None => report.failures.push(format!("no evidence: {trouble}")),
    }
    if report.evidence.as_ref().is_some_and(|found| found.traces_with_logs < wanted) {
        report.failures.push(format!("fewer than {wanted} traces of the service at fault with their logs"));
    }
}

async fn open(stage: &Stage, id: &str) -> Result<EvidenceReport, evidence::Error> {
    let path = stage.view.download(id, &stage.directory.join("evidence")).await?;
    let opened = evidence::open(&path, stage.shop.drawn().service)?;
    Ok(EvidenceReport {
        path,
        traces: opened.traces,
        log_records: opened.log_records,
        traces_with_logs: opened.traces_with_logs,
    })
}

fn note(report: &mut Report, anomaly: &v1::Anomaly) {
    report.onset = time(anomaly.onset);
    report.fired_at = time(anomaly.fired_at);
    if let Some(cause) = anomaly.causes.first() {
        let service = cause.service.as_ref().map_or_else(String::new, |service| service.name.clone());
        report.cause = Some(Blame { service, kind: cause.kind.clone() });
    }
}

/// Waits until the daemon says that it is over, and the receiver was told.
async fn await_recovery(
    stage: &Stage,
    screen: &mut Screen,
    report: &mut Report,
    id: &str,
    deadline: Instant,
) {
    let inbox = stage.receiver.inbox();
    while Instant::now() < deadline {
        let told = inbox.borrow().iter().any(|alert| alert.anomaly == id && alert.resolved_at.is_some());
        if let Ok(anomaly) = stage.view.anomaly(id).await
            && anomaly.state() == v1::AnomalyState::Resolved
            && told
        {
            report.recovered_at = time(anomaly.resolved_at);
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        screen.progress(&format!("waiting for the recovery, {} left", seconds(left)));
        sleep(POLL).await;
    }
    report.failures.push("no recovery in time".to_owned());
}

/// Whether what was found is what should have been found.
fn check(options: &Options, stage: &Stage, report: &mut Report) {
    let wanted = u64::from(options.fault != Fault::None);
    if report.alerts != wanted {
        report.failures.push(format!("{} alerts instead of {wanted}", report.alerts));
    }
    if options.fault == Fault::None {
        return;
    }
    let service = stage.shop.drawn().service;
    let right = report.cause.as_ref().is_some_and(|cause| {
        cause.service == service && options.fault.kinds().contains(&cause.kind.as_str())
    });
    if !right {
        let named =
            report.cause.as_ref().map_or("none".to_owned(), |c| format!("{} in {}", c.kind, c.service));
        let kinds = options.fault.kinds().join(" or ");
        report.failures.push(format!("the cause is {kinds} in {service}, named was {named}"));
    }
}

/// What was sent so far, and what the daemon counted.
async fn count(stage: &Stage, report: &mut Report) {
    let sent = stage.shop.sent();
    report.sent = sent.spans.get() + sent.log_records.get() + sent.metric_points.get();
    compare(&stage.view, report).await;
}

/// Waits for the cut with the last item that was sent, which comes within a second or two.
async fn compare(view: &View, report: &mut Report) {
    let deadline = Instant::now() + COUNT_TIMEOUT;
    loop {
        match view.status().await {
            Ok(status) => {
                let accepted = status.accepted.unwrap_or_default();
                report.counted = accepted.spans + accepted.log_records + accepted.metric_points;
                if report.counted >= report.sent {
                    return;
                }
                if Instant::now() >= deadline {
                    report.failures.push(format!("{} items sent, {} counted", report.sent, report.counted));
                    return;
                }
            }
            Err(status) => {
                report.failures.push(format!("the daemon does not say its status: {status}"));
                return;
            }
        }
        sleep(POLL).await;
    }
}

fn conclude(screen: &mut Screen, report: &mut Report) {
    report.passed = report.failures.is_empty();
    let of = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| seconds(Duration::from_nanos(ns)));
    screen.say(
        Tone::Dim,
        &format!("{} items acknowledged, {} counted by the daemon", report.sent, report.counted),
    );
    for failure in &report.failures {
        screen.say(Tone::Bad, &format!("did not happen: {failure}"));
    }
    if report.passed {
        let times = match report.injected_at {
            Some(_) => format!(
                ": time to detect {}, time to recover {}",
                of(report.time_to_detect_ns),
                of(report.time_to_recover_ns)
            ),
            None => String::new(),
        };
        screen.say(Tone::Good, &format!("PASSED, {} alert(s){times}", report.alerts));
    } else {
        screen.say(Tone::Bad, &format!("FAILED ({} --seed {})", report.fault, report.seed));
    }
}

/// Leaves everything running until interrupted.
async fn keep(stage: &Stage, addresses: &Addresses, screen: &mut Screen) {
    let mut lines = format!(
        "page         http://{}\nquery        http://{}\nOTLP/gRPC    http://{}\nOTLP/HTTP    http://{}\ndata         {}\n",
        addresses.http,
        addresses.query,
        addresses.otlp_grpc,
        addresses.otlp_http,
        stage.directory.display()
    );
    if let Some(alertmanager) = &stage.alertmanager {
        lines += &format!("Alertmanager {}\n", alertmanager.url);
    }
    lines += &format!("try          barograph services --endpoint http://{}\n", addresses.query);
    screen.say(Tone::Strong, "everything keeps running until Ctrl-C:");
    screen.block(Tone::Plain, &lines);
    interrupted().await;
}

/// Closes the shop, counts, and stops the children.
async fn strike(stage: Stage, daemon: Daemon, mut report: Report, screen: &mut Screen) -> Report {
    let Stage { alertmanager, receiver, view, shop, .. } = stage;
    let sent = shop.close().await;
    report.sent = sent.spans.get() + sent.log_records.get() + sent.metric_points.get();
    compare(&view, &mut report).await;
    if sent.dropped.get() > 0 {
        report.failures.push(format!("{} items could not be sent", sent.dropped.get()));
    }
    if !daemon.stop().await {
        report.failures.push("the daemon did not stop in good order".to_owned());
    }
    if let Some(alertmanager) = alertmanager {
        alertmanager.stop().await;
    }
    drop(receiver);
    conclude(screen, &mut report);
    report
}
