//! A bundle diagnosed again, without the daemon: what its files hold is checked against its manifest,
//! read back into rows, and contrasted as it was when the alarm went off.
//!
//! A bundle holds the chosen traces and not every row of the two periods, so probabilities differ from
//! those told at the time; which suspect stands first should not.

use super::Error;
use super::archive::{Files, read};
use super::changes;
use super::context::Context;
use super::diagnosis::judge;
use super::evidence::Cause;
use super::explain::{Explanation, Known, compare_with};
use super::rows::{Attribute, Gather, Limits, LogRow, Resource, Rows, SpanRow, Status};
use crate::confirm::Anomaly;
use crate::detect::Interval;
use crate::model::{ServiceKey, SpanId, SpanKind, Timestamp, TraceId};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{TimestampNanosecondType, UInt8Type, UInt64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// A bundle, read.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub anomaly: Anomaly,
    /// Journal time at which it was written.
    pub at: Timestamp,
    /// Causes as they were told then.
    pub told: Vec<Cause>,
    since: Timestamp,
    past_s: f64,
    /// Of bundles of before there was such a file, nothing.
    context: Context,
    healthy: Rows,
    pub(super) faulty: Rows,
}

/// What a bundle says of itself.
#[derive(Deserialize)]
pub(super) struct Manifest {
    format: u32,
    at: Timestamp,
    anomaly: Anomaly,
    faulty: Range,
    healthy: Range,
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Range {
    from: Timestamp,
    to: Timestamp,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    blake3: String,
}

#[derive(Deserialize)]
struct Told {
    causes: Vec<Cause>,
}

impl Manifest {
    /// The manifest among the files of a bundle.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(files: &Files) -> Result<Self, String> {
        let bytes = files.get("manifest.json").ok_or("it is missing")?;
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match manifest.format {
            1 => Ok(manifest),
            other => Err(format!("its format is {other}, known is 1")),
        }
    }

    /// Files that are not what was written, and what is wrong with each.
    pub fn changed(&self, files: &Files) -> Vec<(String, &'static str)> {
        let wrong = |listed: &Listed| match files.get(&listed.name) {
            None => Some("it is missing"),
            Some(content) if *blake3::hash(content).to_hex() == *listed.blake3 => None,
            Some(_) => Some("it is not what was written"),
        };
        let found = self.files.iter().filter_map(|listed| Some((listed.name.clone(), wrong(listed)?)));
        found.collect()
    }
}

impl Bundle {
    /// Reads a bundle's directory, or the one file it was packed into.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read; [`Error::Bundle`] when it is none, or was changed.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::of(&read(path)?)
    }

    /// The same of its files.
    ///
    /// # Errors
    /// [`Error::Bundle`] when they are none, or were changed.
    pub(super) fn of(files: &Files) -> Result<Self, Error> {
        let manifest = Manifest::of(files).map_err(|what| Error::Bundle(format!("manifest.json: {what}")))?;
        if let Some((name, what)) = manifest.changed(files).first() {
            return Err(Error::Bundle(format!("{name}: {what}")));
        }
        let told: Told = json(files, "causes.json")?;
        let context = match files.contains_key("context.json") {
            true => json(files, "context.json")?,
            false => Context::default(),
        };
        let limits = Limits::default();
        let (mut healthy, mut faulty) = (Gather::new(limits), Gather::new(limits));
        for batch in batches(files, "spans.parquet")? {
            spans(&batch?, &mut healthy, &mut faulty)?;
        }
        for batch in batches(files, "logs.parquet")? {
            logs(&batch?, &mut healthy, &mut faulty)?;
        }
        Ok(Self {
            anomaly: manifest.anomaly,
            at: manifest.at,
            told: told.causes,
            since: manifest.faulty.from,
            past_s: manifest.healthy.to.since(manifest.healthy.from).as_secs_f64(),
            context,
            healthy: healthy.finish(),
            faulty: faulty.finish(),
        })
    }

    /// Traces it is diagnosed from, of both periods.
    #[must_use]
    pub fn traces(&self) -> usize {
        let spans = self.healthy.spans.iter().chain(&self.faulty.spans);
        spans.map(|span| span.trace).collect::<BTreeSet<TraceId>>().len()
    }

    /// The causes as this version of the program sees them.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        let known = Known {
            calls: self.context.edges(),
            metrics: self.context.metrics.clone(),
            past_s: self.past_s,
            ..Known::default()
        };
        let mut found = if self.anomaly.fired_at.is_none() {
            // Nobody was told: that nothing is wrong is an answer.
            compare_with(&self.healthy, &self.faulty, self.since, known)
        } else {
            judge(&self.anomaly, &self.healthy, &self.faulty, self.since, known)
        };
        let onset = match self.anomaly.fired_at {
            Some(_) => self.anomaly.onset,
            // What is looked at without an alarm may have begun at any time of it.
            None => Interval { latest: self.at, ..self.anomaly.onset },
        };
        changes::suspect(&mut found, &self.context.changes, &onset, [&self.healthy, &self.faulty]);
        found
    }
}

fn file<'a>(files: &'a Files, name: &str) -> Result<&'a Vec<u8>, Error> {
    files.get(name).ok_or_else(|| Error::Bundle(format!("{name} is missing")))
}

fn json<T: serde::de::DeserializeOwned>(files: &Files, name: &str) -> Result<T, Error> {
    serde_json::from_slice(file(files, name)?).map_err(|error| Error::Bundle(format!("{name}: {error}")))
}

fn batches(
    files: &Files,
    name: &str,
) -> Result<impl Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>>, Error> {
    let content = Bytes::from(file(files, name)?.clone());
    Ok(ParquetRecordBatchReaderBuilder::try_new(content)?.build()?)
}

/// The columns of a batch by their names.
struct Columns<'a>(&'a RecordBatch);

impl<'a> Columns<'a> {
    fn array(&self, name: &str) -> Result<&'a dyn Array, Error> {
        let found = self.0.column_by_name(name).map(|array| &**array);
        found.ok_or_else(|| Error::Bundle(format!("the column {name} is missing")))
    }

    fn texts(&self, name: &str) -> Result<impl Fn(usize) -> &'a str + use<'a>, Error> {
        let array = self.array(name)?.as_string_opt::<i32>();
        let array = array.ok_or_else(|| Error::Bundle(format!("the column {name} holds no texts")))?;
        Ok(move |row| if row < array.len() { array.value(row) } else { "" })
    }

    fn times(&self, name: &str) -> Result<impl Fn(usize) -> Timestamp + use<'a>, Error> {
        let array = self.array(name)?.as_primitive_opt::<TimestampNanosecondType>();
        let array = array.ok_or_else(|| Error::Bundle(format!("the column {name} holds no times")))?;
        Ok(move |row| {
            let ns = if row < array.len() { array.value(row) } else { 0 };
            Timestamp(u64::try_from(ns).unwrap_or(0))
        })
    }

    fn numbers(&self, name: &str) -> Result<impl Fn(usize) -> u64 + use<'a>, Error> {
        let array = self.array(name)?;
        let (wide, narrow) = (array.as_primitive_opt::<UInt64Type>(), array.as_primitive_opt::<UInt8Type>());
        if wide.is_none() && narrow.is_none() {
            return Err(Error::Bundle(format!("the column {name} holds no numbers")));
        }
        Ok(move |row| {
            let wide = wide.filter(|array| row < array.len()).map(|array| array.value(row));
            let narrow = || narrow.filter(|array| row < array.len()).map(|array| u64::from(array.value(row)));
            wide.or_else(narrow).unwrap_or(0)
        })
    }
}

fn attributes(text: &str, into: &mut Gather) -> Vec<Attribute> {
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    let mut all: Vec<Attribute> = map
        .iter()
        .map(|(key, value)| {
            (into.interner.intern(key), into.interner.intern(value.as_str().unwrap_or_default()))
        })
        .collect();
    all.sort();
    all
}

fn spans(batch: &RecordBatch, healthy: &mut Gather, faulty: &mut Gather) -> Result<(), Error> {
    let columns = Columns(batch);
    let (period, trace, span) =
        (columns.texts("period")?, columns.texts("trace_id")?, columns.texts("span_id")?);
    let (parent, operation, kind) =
        (columns.texts("parent_span_id")?, columns.texts("operation")?, columns.texts("kind")?);
    let (start, duration) = (columns.times("start")?, columns.numbers("duration_ns")?);
    let (status, message) = (columns.texts("status")?, columns.texts("message")?);
    let (own, host) = (columns.texts("attributes")?, columns.texts("host")?);
    let resource = resource_of(&columns)?;
    let resource_attributes = columns.texts("resource")?;
    for row in 0..batch.num_rows() {
        let into = match period(row) {
            "healthy" => &mut *healthy,
            // They are there to be shown; what is compared is of one time.
            "keepsake" | "last_run" => continue,
            _ => &mut *faulty,
        };
        let attributes_of_resource = attributes(resource_attributes(row), into);
        let made = resource(row, host(row), attributes_of_resource);
        let shared = into.resource(made);
        let span = SpanRow {
            trace: TraceId::from_hex(trace(row)).unwrap_or(TraceId::NONE),
            span: SpanId::from_hex(span(row)).unwrap_or(SpanId::NONE),
            parent: SpanId::from_hex(parent(row)).unwrap_or(SpanId::NONE),
            resource: shared,
            operation: into.interner.intern(operation(row)),
            kind: (0..6)
                .map(SpanKind::from_wire)
                .find(|known| known.as_str() == kind(row))
                .unwrap_or_default(),
            start: start(row),
            end: Timestamp(start(row).0.saturating_add(duration(row))),
            status: match status(row) {
                "error" => Status::Error,
                "ok" => Status::Ok,
                _ => Status::Unset,
            },
            message: into.interner.intern(message(row)),
            attributes: attributes(own(row), into),
        };
        into.span(span);
    }
    Ok(())
}

fn logs(batch: &RecordBatch, healthy: &mut Gather, faulty: &mut Gather) -> Result<(), Error> {
    let columns = Columns(batch);
    let (period, trace, span) =
        (columns.texts("period")?, columns.texts("trace_id")?, columns.texts("span_id")?);
    let (time, severity) = (columns.times("time")?, columns.numbers("severity")?);
    let (body, own) = (columns.texts("body")?, columns.texts("attributes")?);
    let resource = resource_of(&columns)?;
    for row in 0..batch.num_rows() {
        let into = match period(row) {
            "healthy" => &mut *healthy,
            // They are there to be shown; what is compared is of one time.
            "keepsake" | "last_run" => continue,
            _ => &mut *faulty,
        };
        let log = LogRow {
            time: time(row),
            resource: into.resource(resource(row, "", Vec::new())),
            severity: u8::try_from(severity(row)).unwrap_or(0),
            body: into.interner.intern(body(row)),
            trace: TraceId::from_hex(trace(row)).unwrap_or(TraceId::NONE),
            span: SpanId::from_hex(span(row)).unwrap_or(SpanId::NONE),
            attributes: attributes(own(row), into),
        };
        into.log(log);
    }
    Ok(())
}

/// Who sent a row.
fn resource_of<'a>(
    columns: &Columns<'a>,
) -> Result<impl Fn(usize, &str, Vec<Attribute>) -> Resource + use<'a>, Error> {
    let (environment, namespace, name) =
        (columns.texts("environment")?, columns.texts("namespace")?, columns.texts("service")?);
    let (instance, version) = (columns.texts("instance")?, columns.texts("version")?);
    Ok(move |row: usize, host: &str, attributes: Vec<Attribute>| Resource {
        service: ServiceKey {
            environment: environment(row).into(),
            namespace: namespace(row).into(),
            name: name(row).into(),
        },
        instance: Arc::from(instance(row)),
        version: Arc::from(version(row)),
        host: Arc::from(host),
        attributes,
    })
}
