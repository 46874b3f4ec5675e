//! Opens an evidence bundle and counts what it holds of the service at fault.

use arrow::array::{Array, AsArray, RecordBatch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot download the evidence: {0}")]
    Download(#[from] tonic::Status),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the bundle names a file outside of itself: {0:?}")]
    Outside(String),
    #[error("{}: {why}", path.display())]
    Parquet { path: PathBuf, why: String },
    #[error("{}: no text column {column}", path.display())]
    Column { path: PathBuf, column: &'static str },
}

/// What a bundle holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Traces with a span of the service, those of the fault's time and those before it.
    pub traces: u64,
    /// Of them, those with at least one of their log records.
    pub traces_with_logs: u64,
    pub log_records: u64,
}

/// A file's place within `directory`.
pub(super) fn place(directory: &Path, name: &str) -> Result<PathBuf, Error> {
    let relative = Path::new(name);
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !inside {
        return Err(Error::Outside(name.to_owned()));
    }
    Ok(directory.join(relative))
}

/// Opens `spans.parquet` and `logs.parquet` in a bundle.
///
/// # Errors
/// A file is missing or not as it should be.
pub fn open(directory: &Path, service: &str) -> Result<Opened, Error> {
    let (mut traces, mut logged) = (BTreeSet::new(), BTreeSet::new());
    let mut opened = Opened::default();
    rows(&directory.join("spans.parquet"), ["service", "trace_id"], |[of, trace]| {
        if of == service {
            traces.insert(trace.to_owned());
        }
    })?;
    rows(&directory.join("logs.parquet"), ["service", "trace_id"], |[_, trace]| {
        opened.log_records += 1;
        logged.insert(trace.to_owned());
    })?;
    opened.traces = traces.len() as u64;
    opened.traces_with_logs = traces.intersection(&logged).count() as u64;
    Ok(opened)
}

/// Calls back with two text columns of each row.
fn rows(path: &Path, columns: [&'static str; 2], mut visit: impl FnMut([&str; 2])) -> Result<(), Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let wrong = |why: String| Error::Parquet { path: path.to_owned(), why };
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| wrong(error.to_string()))?;
    for batch in reader {
        let batch: RecordBatch = batch.map_err(|error| wrong(error.to_string()))?;
        let missing = |column| Error::Column { path: path.to_owned(), column };
        let [first, second] = columns.map(|column| {
            batch.column_by_name(column).and_then(|array| array.as_string_opt::<i32>()).ok_or(missing(column))
        });
        let (first, second) = (first?, second?);
        for row in 0..batch.num_rows() {
            if first.is_valid(row) && second.is_valid(row) {
                visit([first.value(row), second.value(row)]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field, Schema};
    use parquet::arrow::ArrowWriter;
    use std::sync::Arc;

    fn write(path: &Path, rows: &[(&str, &str)]) {
        let fields = ["service", "trace_id"].map(|name| Field::new(name, DataType::Utf8, false)).to_vec();
        let schema = Arc::new(Schema::new(fields));
        let services = StringArray::from_iter_values(rows.iter().map(|row| row.0));
        let traces = StringArray::from_iter_values(rows.iter().map(|row| row.1));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(services), Arc::new(traces)]).unwrap();
        let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn traces_of_the_service_are_counted_with_their_logs() {
        let dir = tempfile::tempdir().unwrap();
        write(
            &dir.path().join("spans.parquet"),
            &[("payment", "t1"), ("payment", "t1"), ("cart", "t1"), ("payment", "t2"), ("cart", "t3")],
        );
        write(&dir.path().join("logs.parquet"), &[("cart", "t1"), ("cart", "t3"), ("payment", "")]);
        let opened = open(dir.path(), "payment").unwrap();
        assert_eq!(opened, Opened { traces: 2, traces_with_logs: 1, log_records: 3 });
        assert!(open(&dir.path().join("none"), "payment").is_err());
    }

    #[test]
    fn files_stay_inside() {
        for bad in ["../x", "/etc/passwd", "a/../../b", "", "./x"] {
            let outcome = place(Path::new("/bundle"), bad);
            assert!(bad == "./x" || matches!(outcome, Err(Error::Outside(_))), "{bad}");
        }
        assert_eq!(place(Path::new("/bundle"), "a/b").unwrap(), Path::new("/bundle/a/b"));
    }
}
