//! Replays recordings, or a daemon's journal, through the stages of the daemon at recorded time.

use super::counting::Counting;
use super::judging::{Job, Judging};
use super::{Config, Error};
use crate::alert::{Alert, Lifecycle};
use crate::confirm::{Anomaly, Confirm, Judge};

use crate::detect::{Detectors, Score};
use crate::diagnose::{Case, Diagnosis, Evidence, Gather, Limits, Redaction, TemplateId, Templates, decode};
use crate::journal::recording::{Recorded, Recordings};
use crate::journal::{self, Journal, Recorder, Sequencer, Step};
use crate::limits::Permit;
use crate::model::{ManualClock, Signal, Timestamp};
use crate::otlp::{self, Encoding};
use crate::receive::{Admitted, CallerTag, Reply};
use crate::serve;
use crate::slo::{Budgets, Counted};
use crate::store::{Checkpoint, Ledger, Stage, Store};
use crate::window::Registry;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long after the last record time goes on: until its window is sealed, and not long enough for
/// the end of the recording to look like silence.
const RUN_OUT: Duration = Duration::from_secs(26);
/// Disk that a backtest's own journal may take.
const JOURNAL: crate::settings::ByteSize = crate::settings::ByteSize(2 << 30);
/// How often what was sealed is moved from memory to disk.
const COMMIT_EVERY_S: u64 = 3_600;
/// The attribute that names a log record (OpenTelemetry semantic conventions).
const LOG_RECORD_UID: &str = "log.record.uid";

/// What is to be replayed, and what written.
#[derive(Clone, Debug)]
pub struct Backtest {
    /// OTLP JSON-lines recordings, or one data or journal directory of a daemon.
    pub inputs: Vec<PathBuf>,
    pub out: PathBuf,
    /// Write `scores.csv`.
    pub scores: bool,
    /// Write `templates.csv`.
    pub templates: bool,
}

/// What a backtest came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub requests: u64,
    pub anomalies: u64,
    /// What was counted for each objective from a file.
    pub counted: Vec<Counted>,
}

impl Backtest {
    /// Runs it. Equal input gives equal bytes.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn run(&self, config: &Config) -> Result<Outcome, Error> {
        std::fs::create_dir_all(&self.out)
            .map_err(Error::io(format!("cannot make {}", self.out.display())))?;
        let work = Work::new(&self.out)?;
        let mut bench = Bench::new(config, &work.0, self)?;
        let requests = bench.replay(&self.inputs, config)?;
        let counted = bench.stages.judging.judge.budgets.counted();
        Ok(Outcome { requests, anomalies: bench.finish(&self.out)?, counted })
    }
}

/// What is told of recordings under some settings, in the order in which it is. Nothing is diagnosed or kept;
/// what is needed meanwhile lies below `work` and goes again.
///
/// # Errors
/// When something cannot be read or written.
pub(super) fn told(inputs: &[PathBuf], config: &Config, work: &Path) -> Result<Vec<Anomaly>, Error> {
    let backtest = Backtest { inputs: Vec::new(), out: work.to_owned(), scores: false, templates: false };
    let work = Work::new(work)?;
    let mut bench = Bench::new(config, &work.0, &backtest)?;
    bench.stages.diagnosis = None;
    bench.replay(inputs, config)?;
    let anomalies: BTreeMap<String, Anomaly> = newest(&bench.stages.ledger, Stage::Confirm)?;
    let mut told: Vec<Anomaly> =
        anomalies.into_values().filter(|anomaly| anomaly.fired_at.is_some()).collect();
    told.sort_by(|a, b| (a.fired_at, &a.id).cmp(&(b.fired_at, &b.id)));
    Ok(told)
}

/// The recordings as one stream.
pub(super) fn recordings(files: &[PathBuf]) -> Result<Recordings, Error> {
    Ok(Recordings::open(files)?)
}

/// The journal below a daemon's data directory, or the directory itself. The daemon must have stopped.
fn open_journal(directory: &Path, config: &Config) -> Result<(Sequencer, Recorder), Error> {
    let inner = directory.join("journal");
    let directory = if inner.is_dir() { inner } else { directory.to_owned() };
    let clock = Arc::new(ManualClock::default());
    let (writer, _, recorder) = Journal::open(&directory, &config.journal, clock, None)?;
    Ok((writer, recorder))
}

/// A request as if it had just been let in. What cannot be split is counted as a whole without slices.
pub(crate) fn admitted(signal: Signal, body: bytes::Bytes) -> Admitted {
    Admitted {
        signal,
        encoding: Encoding::Identity,
        wire: body.clone(),
        slices: otlp::split(signal, &body).unwrap_or_default(),
        body,
        caller: CallerTag::NOBODY,
        permit: Permit::free(),
        reply: Reply::nobody(),
    }
}

/// A directory of the backtest's own that goes with it.
struct Work(PathBuf);

impl Work {
    fn new(out: &Path) -> Result<Self, Error> {
        let path = out.join(".backtest");
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).map_err(Error::io(format!("cannot make {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The stages on one thread, and the files that are written as they go.
pub(crate) struct Bench {
    sequencer: Sequencer,
    recorder: Recorder,
    stages: Stages,
    templates: Option<LogTemplates>,
}

/// All but the sequencer, so that its steps can be taken while it is borrowed.
struct Stages {
    counting: Counting,
    judging: Judging,
    store: Store,
    ledger: Ledger,
    registry: Arc<Registry>,
    /// Nothing where nobody asks for evidence.
    diagnosis: Option<Diagnosis>,
    recorder: Recorder,
    scores: Option<Scores>,
    /// Second of the last commit.
    committed: u64,
}

impl Bench {
    /// Stages that work below `work`.
    pub(crate) fn new(config: &Config, work: &Path, backtest: &Backtest) -> Result<Self, Error> {
        let mut journal_config = config.journal.clone();
        journal_config.durability = journal::Durability::Os;
        journal_config.max_bytes = Some(JOURNAL);
        let clock = Arc::new(ManualClock::default());
        let (sequencer, _, recorder) = Journal::open(&work.join("journal"), &journal_config, clock, None)?;
        let store = Store::scratch(work, config.store.clone())?;
        let ledger = Ledger::in_memory()?;
        let registry = store.registry(config.aggregate.series)?;
        let mut counting =
            Counting::new(1, &config.aggregate, config.window.clone(), registry.clone(), &recorder.index());
        let judge = Judge::new(
            Budgets::open(config.slo.clone())?,
            Detectors::new(config.detect.clone(), backtest.scores),
            Confirm::new(config.confirm.clone()),
        );
        counting.set_indicators(&judge.budgets.indicators());
        let mut judging =
            Judging::new(judge, Lifecycle::new(config.alert.clone()), ledger.clone(), registry.clone());
        judging.complete_after(config.diagnose.complete_after.0);
        let evidence = backtest.out.join("evidence");
        let _ = std::fs::remove_dir_all(&evidence);
        let stages = Stages {
            counting,
            judging,
            store,
            ledger,
            registry,
            diagnosis: Some(Diagnosis::new(config.diagnose.clone(), evidence)),
            recorder: recorder.clone(),
            scores: backtest.scores.then(|| Scores::new(&backtest.out)).transpose()?,
            committed: 0,
        };
        let templates = backtest.templates.then(LogTemplates::default);
        Ok(Self { sequencer: sequencer.without_checkpoints(), recorder, stages, templates })
    }

    /// Takes in all that was recorded, until its end; gives the number of requests.
    fn replay(&mut self, inputs: &[PathBuf], config: &Config) -> Result<u64, Error> {
        let (mut requests, mut last) = (0u64, Timestamp::ZERO);
        match inputs {
            [one] if one.is_dir() => {
                // Kept while it is read: it holds the directory's lock.
                let (_writer, recorder) = open_journal(one, config)?;
                for record in recorder.records(journal::Position(0)) {
                    let Ok(request) = record.admitted() else { continue };
                    last = last.max(record.arrived);
                    self.take(request, record.arrived)?;
                    requests += 1;
                }
            }
            files => {
                for recorded in recordings(files)? {
                    let Recorded { signal, body, arrived } = recorded?;
                    last = last.max(arrived);
                    self.take(admitted(signal, body), arrived)?;
                    requests += 1;
                }
            }
        }
        if last > Timestamp::ZERO {
            self.stages.judging.judge.detectors.end_of_recording();
            self.run_out(last.saturating_add(RUN_OUT))?;
        }
        Ok(requests)
    }

    /// A request that arrives then.
    pub(crate) fn take(&mut self, request: Admitted, arrived: Timestamp) -> Result<(), Error> {
        if let Some(templates) = &mut self.templates
            && request.signal == Signal::Logs
        {
            templates.learn(&request.body);
        }
        for step in self.sequencer.append_at(request, arrived)? {
            self.stages.step(step)?;
        }
        Ok(())
    }

    /// Nothing more comes until then.
    pub(crate) fn run_out(&mut self, until: Timestamp) -> Result<(), Error> {
        for step in self.sequencer.idle_until(until) {
            self.stages.step(step)?;
        }
        Ok(())
    }

    /// All that was judged, said and found out.
    #[cfg(test)]
    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.stages.ledger
    }

    /// Writes what is known at the end; gives the number of anomalies.
    fn finish(self, out: &Path) -> Result<u64, Error> {
        drop(self.recorder);
        let Stages { ledger, scores, .. } = self.stages;
        if let Some(scores) = scores {
            scores.finish()?;
        }
        if let Some(templates) = &self.templates {
            templates.write(out)?;
        }
        write_anomalies(&ledger, out)
    }
}

impl Stages {
    fn step(&mut self, step: Step) -> Result<(), Error> {
        let Some(merged) = self.counting.step(step) else { return Ok(()) };
        let cut = merged.tick.cut;
        self.store.keep(&merged);
        if cut.number.saturating_sub(self.committed) >= COMMIT_EVERY_S {
            self.committed = cut.number;
            self.store.commit(&Checkpoint { cut, ..Checkpoint::default() })?;
        }
        let before = self.judging.judge.budgets.indicators();
        let topology = self.counting.windows.topology();
        let scored = self.judging.step(&merged.tick, &merged.sealed, &topology)?;
        let indicators = self.judging.judge.budgets.indicators();
        if !Arc::ptr_eq(&before, &indicators) {
            self.counting.set_indicators(&indicators);
        }
        if let Some(scores) = &mut self.scores {
            scores.note_instances(&merged.tick);
            scores.write(&scored, &self.registry)?;
        }
        let due = self.judging.take_jobs(&topology, |_| usize::MAX);
        due.iter().try_for_each(|job| self.diagnose(job))
    }

    fn diagnose(&mut self, job: &Job) -> Result<(), Error> {
        let Some(diagnosis) = &self.diagnosis else { return Ok(()) };
        let case = Case {
            anomaly: &job.anomaly,
            changes: &job.suspects,
            topology: &job.topology,
            pass: job.pass,
            now: job.at,
            collected: &[],
            counted: &[],
        };
        let evidence = diagnosis.run(&case, &self.recorder)?;
        self.judging.attach(job, &evidence)
    }
}

/// `scores.csv`.
struct Scores {
    path: PathBuf,
    file: BufWriter<File>,
    /// The instance a service's telemetry came from last.
    instances: BTreeMap<Arc<str>, Arc<str>>,
}

impl Scores {
    fn new(out: &Path) -> Result<Self, Error> {
        let path = out.join("scores.csv");
        let file = File::create(&path).map_err(Error::io(format!("cannot write {}", path.display())))?;
        let mut scores = Self { path, file: BufWriter::new(file), instances: BTreeMap::new() };
        scores.line(format_args!("service,instance,metric,time,value,score,alarm,p_value,round_p_value"))?;
        Ok(scores)
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<(), Error> {
        writeln!(self.file, "{line}").map_err(Error::io(format!("cannot write {}", self.path.display())))
    }

    fn note_instances(&mut self, tick: &crate::window::Tick) {
        for (key, _) in &tick.facets {
            if matches!(&*key.name, "service.instance.id" | "k8s.pod.name") {
                self.instances.insert(key.service.name.clone(), key.value.clone());
            }
        }
    }

    fn write(&mut self, scores: &[Score], registry: &Registry) -> Result<(), Error> {
        for row in scores {
            let Some(key) = registry.get(row.series) else { continue };
            let service = field(&key.service.name);
            let instance =
                self.instances.get(&key.service.name).map(|instance| field(instance)).unwrap_or_default();
            let metric = field(&key.operation);
            let Score { time, value, score, .. } = row;
            let alarm = u8::from(row.alarm);
            let (p_value, round) = (probability(row.p_value), probability(row.round_p_value));
            self.line(format_args!(
                "{service},{instance},{metric},{time},{value},{score},{alarm},{p_value},{round}"
            ))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        self.file.flush().map_err(Error::io(format!("cannot write {}", self.path.display())))
    }
}

/// A probability as it is written: nothing while there is none.
fn probability(p: Option<f64>) -> String {
    p.map(|p| format!("{p:.3e}")).unwrap_or_default()
}

/// A field of a CSV file (RFC 4180).
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The templates of all log records that have a uid.
#[derive(Default)]
struct LogTemplates {
    miner: Templates,
    rows: Vec<(Arc<str>, TemplateId)>,
}

impl LogTemplates {
    fn learn(&mut self, body: &[u8]) {
        let mut gather = Gather::new(Limits::default());
        if decode(Signal::Logs, body, &Redaction::new(&[]), &|_| true, &mut gather).is_err() {
            return;
        }
        for row in gather.finish().logs {
            let uid = row.attributes.iter().find(|attribute| &*attribute.0 == LOG_RECORD_UID);
            if let Some((_, uid)) = uid {
                self.rows.push((uid.clone(), self.miner.learn(&row.body)));
            }
        }
    }

    fn write(&self, out: &Path) -> Result<(), Error> {
        let path = out.join("templates.csv");
        let mut text = String::from("uid,template_id,template\n");
        for (uid, id) in &self.rows {
            let now = self.miner.current(*id);
            text.push_str(&format!("{},{},{}\n", field(uid), now.0, field(&self.miner.text(now))));
        }
        std::fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display())))
    }
}

/// The newest state of every object of a stage.
fn newest<T: DeserializeOwned>(ledger: &Ledger, stage: Stage) -> Result<BTreeMap<String, T>, Error> {
    let records = ledger.latest(stage)?;
    let read = |record: crate::store::LedgerRecord| {
        Some((record.object, serde_json::from_value(record.payload).ok()?))
    };
    Ok(records.into_iter().filter_map(read).collect())
}

fn write_anomalies(ledger: &Ledger, out: &Path) -> Result<u64, Error> {
    let anomalies: BTreeMap<String, Anomaly> = newest(ledger, Stage::Confirm)?;
    let alerts: BTreeMap<String, Alert> = newest(ledger, Stage::Alert)?;
    let evidence: BTreeMap<String, Evidence> = newest(ledger, Stage::Diagnose)?;
    let mut fired: Vec<(Timestamp, &String, &Anomaly)> =
        anomalies.iter().filter_map(|(id, anomaly)| Some((anomaly.fired_at?, id, anomaly))).collect();
    fired.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut text = String::new();
    for (_, id, anomaly) in &fired {
        let object = serve::anomaly_object(anomaly, alerts.get(*id), evidence.get(*id));
        text.push_str(&object.to_string());
        text.push('\n');
    }
    let path = out.join("anomalies.jsonl");
    std::fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display())))?;
    Ok(fired.len() as u64)
}
