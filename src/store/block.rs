//! One block: sealed windows of one level as an Arrow IPC file, which any Arrow reader opens.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `start` | timestamp (ns, UTC) | start of the window; its width is the metadata key `barograph.level` |
//! | `window` | uint64 | the same as number of its first 10 s since the epoch |
//! | `amendment` | bool | a further part of a window that was sealed before; adds up with it |
//! | `row` | uint8 | what the row is: 0 the window itself, 1 a series, 2 a facet, 3 an edge |
//! | `series` | fixed-size binary (16) | id of the series; rows 1 only |
//! | `subject` | utf8 | rows 2: `[ENVIRONMENT/][NAMESPACE/]SERVICE NAME=VALUE`; rows 3: `CLIENT -> SERVER` |
//! | `items` | uint64 | rows 0: items that came late; rows 1 and 2: spans, log records, points; rows 3: requests |
//! | `errors` | uint64 | errors among them, where the row can have any |
//! | `sum` | float64 | sum of durations in ns, or of values, where the row has any |
//! | `body` | binary | the row exactly, in postcard: 0 `(Cut, Quality)`, 1 `Cell`, 2 `(FacetKey, Facet)`, 3 `(EdgeKey, EdgeCell)` |
//!
//! A window's rows follow its row 0. Readers of other tools use the plain columns; this daemon reads
//! `window`, `amendment`, `row`, `series` and `body`. The metadata key `barograph.schema` numbers
//! this layout and that of the bodies.

use super::checkpoint::{decode, encode};
use crate::aggregate::{Cell, EdgeCell, Facet, FacetKey};
use crate::journal::Cut;
use crate::model::{SeriesId, ServiceKey, WindowId};
use crate::store::{Error, Level};
use crate::window::{EdgeKey, Node, Packed, Quality, SealedWindow};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, FixedSizeBinaryArray,
    FixedSizeBinaryBuilder, Float64Builder, StringBuilder, TimestampNanosecondBuilder, UInt8Array,
    UInt8Builder, UInt64Array, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use std::collections::HashMap;
use std::io::{self, Cursor, Write};
use std::sync::Arc;

const SCHEMA: &str = "2";
/// Rows and bytes of bodies after which a record batch is closed and written: so much of a block is in memory at
/// a time, whatever its size.
const BATCH_ROWS: usize = 1_024;
const BATCH_BYTES: usize = 256 << 10;

const WINDOW_ROW: u8 = 0;
const CELL_ROW: u8 = 1;
const FACET_ROW: u8 = 2;
const EDGE_ROW: u8 = 3;

fn schema(level: Level) -> Arc<Schema> {
    let fields = vec![
        Field::new("start", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
        Field::new("window", DataType::UInt64, false),
        Field::new("amendment", DataType::Boolean, false),
        Field::new("row", DataType::UInt8, false),
        Field::new("series", DataType::FixedSizeBinary(16), true),
        Field::new("subject", DataType::Utf8, true),
        Field::new("items", DataType::UInt64, false),
        Field::new("errors", DataType::UInt64, true),
        Field::new("sum", DataType::Float64, true),
        Field::new("body", DataType::Binary, false),
    ];
    let metadata = HashMap::from([
        ("barograph.schema".to_owned(), SCHEMA.to_owned()),
        ("barograph.level".to_owned(), level.as_str().to_owned()),
    ]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// Writes the bytes of a block, piece by piece.
pub(super) fn write<'a>(
    level: Level,
    windows: impl IntoIterator<Item = &'a SealedWindow>,
    to: impl Write,
) -> io::Result<()> {
    let schema = schema(level);
    let mut writer = FileWriter::try_new(to, &schema).map_err(cannot_write)?;
    let mut rows = Rows::new();
    for window in windows {
        rows.window(window).map_err(io::Error::other)?;
        for (series, packed) in window.cells.packed() {
            rows.cell(window, series, packed).map_err(io::Error::other)?;
            rows.flush_if_full(&mut writer, &schema)?;
        }
        for (key, facet) in &window.facets {
            rows.facet(window, key, facet).map_err(io::Error::other)?;
            rows.flush_if_full(&mut writer, &schema)?;
        }
        for (key, cell) in &window.edges {
            rows.edge(window, key, cell).map_err(io::Error::other)?;
            rows.flush_if_full(&mut writer, &schema)?;
        }
    }
    rows.flush(&mut writer, &schema)?;
    writer.finish().map_err(cannot_write)
}

fn cannot_write(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, source) => source,
        other => io::Error::other(other),
    }
}

fn cannot_encode(error: ArrowError) -> Error {
    Error::Encode(error.to_string())
}

struct Rows {
    start: TimestampNanosecondBuilder,
    window: UInt64Builder,
    amendment: BooleanBuilder,
    row: UInt8Builder,
    series: FixedSizeBinaryBuilder,
    subject: StringBuilder,
    items: UInt64Builder,
    errors: UInt64Builder,
    sum: Float64Builder,
    body: BinaryBuilder,
    rows: usize,
    bytes: usize,
}

/// The columns that depend on what a row is.
#[derive(Default)]
struct Row<'a> {
    row: u8,
    series: Option<SeriesId>,
    subject: Option<&'a str>,
    items: u64,
    errors: Option<u64>,
    sum: Option<f64>,
    body: &'a [u8],
}

impl Rows {
    fn new() -> Self {
        Self {
            start: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            window: UInt64Builder::new(),
            amendment: BooleanBuilder::new(),
            row: UInt8Builder::new(),
            series: FixedSizeBinaryBuilder::new(16),
            subject: StringBuilder::new(),
            items: UInt64Builder::new(),
            errors: UInt64Builder::new(),
            sum: Float64Builder::new(),
            body: BinaryBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    fn push(&mut self, of: &SealedWindow, row: &Row<'_>) -> Result<(), Error> {
        self.start.append_value(i64::try_from(of.id.start().ns()).unwrap_or(i64::MAX));
        self.window.append_value(of.id.0);
        self.amendment.append_value(of.amendment);
        self.row.append_value(row.row);
        match row.series {
            Some(series) => self.series.append_value(series.0).map_err(cannot_encode)?,
            None => self.series.append_null(),
        }
        self.subject.append_option(row.subject);
        self.items.append_value(row.items);
        self.errors.append_option(row.errors);
        self.sum.append_option(row.sum);
        self.body.append_value(row.body);
        self.rows += 1;
        self.bytes += row.body.len();
        Ok(())
    }

    fn window(&mut self, of: &SealedWindow) -> Result<(), Error> {
        let body = encode(&(of.sealed, of.quality))?;
        self.push(of, &Row { row: WINDOW_ROW, items: of.quality.late, body: &body, ..Row::default() })
    }

    fn cell(&mut self, of: &SealedWindow, series: SeriesId, packed: Packed<'_>) -> Result<(), Error> {
        let Some(cell) = packed.cell() else { return Ok(()) };
        let (errors, sum) = match &cell {
            Cell::Requests(cell) => (Some(cell.errors), Some(cell.sum_ns as f64)),
            Cell::Lines(_) => (None, None),
            Cell::Level(cell) => (None, Some(cell.sum)),
            Cell::Total(cell) => (None, Some(cell.delta)),
            Cell::Distribution(cell) => (None, Some(cell.sum)),
        };
        let (series, items, body) = (Some(series), cell.items(), packed.as_bytes());
        self.push(of, &Row { row: CELL_ROW, series, items, errors, sum, body, ..Row::default() })
    }

    fn facet(&mut self, of: &SealedWindow, key: &FacetKey, facet: &Facet) -> Result<(), Error> {
        let subject = format!("{} {}={}", service_path(&key.service), key.name, key.value);
        let body = encode(&(key, facet))?;
        self.push(
            of,
            &Row {
                row: FACET_ROW,
                subject: Some(&subject),
                items: facet.items,
                errors: Some(facet.errors),
                sum: Some(facet.sum_ns as f64),
                body: &body,
                ..Row::default()
            },
        )
    }

    fn edge(&mut self, of: &SealedWindow, key: &EdgeKey, cell: &EdgeCell) -> Result<(), Error> {
        let server = match &key.server {
            Node::Service(service) => service_path(service),
            Node::Peer { address, system } => format!("{system} {address}"),
        };
        let subject = format!("{} -> {server}", service_path(&key.client));
        let body = encode(&(key, cell))?;
        self.push(
            of,
            &Row {
                row: EDGE_ROW,
                subject: Some(&subject),
                items: cell.requests,
                errors: Some(cell.errors),
                body: &body,
                ..Row::default()
            },
        )
    }

    fn flush_if_full<W: Write>(
        &mut self,
        writer: &mut FileWriter<W>,
        schema: &Arc<Schema>,
    ) -> io::Result<()> {
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.flush(writer, schema) } else { Ok(()) }
    }

    fn flush<W: Write>(&mut self, writer: &mut FileWriter<W>, schema: &Arc<Schema>) -> io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.start.finish()),
            Arc::new(self.window.finish()),
            Arc::new(self.amendment.finish()),
            Arc::new(self.row.finish()),
            Arc::new(self.series.finish()),
            Arc::new(self.subject.finish()),
            Arc::new(self.items.finish()),
            Arc::new(self.errors.finish()),
            Arc::new(self.sum.finish()),
            Arc::new(self.body.finish()),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(cannot_write)?;
        (self.rows, self.bytes) = (0, 0);
        writer.write(&batch).map_err(cannot_write)
    }
}

fn service_path(service: &ServiceKey) -> String {
    let parts = [&service.environment, &service.namespace, &service.name];
    parts.into_iter().filter(|part| !part.is_empty()).map(|part| &**part).collect::<Vec<_>>().join("/")
}

/// The windows of a block, in the order in which they were written. `bytes` have been checked against
/// the sum that the database holds.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<SealedWindow>, String> {
    let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(|error| error.to_string())?;
    let schema = reader.schema();
    match schema.metadata().get("barograph.schema") {
        Some(version) if version == SCHEMA => {}
        other => return Err(format!("schema {other:?}, expected {SCHEMA}")),
    }
    let mut windows: Vec<SealedWindow> = Vec::new();
    for batch in reader {
        read_batch(&batch.map_err(|error| error.to_string())?, &mut windows)?;
    }
    Ok(windows)
}

fn read_batch(batch: &RecordBatch, windows: &mut Vec<SealedWindow>) -> Result<(), String> {
    let window: &UInt64Array = column(batch, "window")?;
    let amendment: &BooleanArray = column(batch, "amendment")?;
    let row: &UInt8Array = column(batch, "row")?;
    let series: &FixedSizeBinaryArray = column(batch, "series")?;
    let body: &BinaryArray = column(batch, "body")?;
    for at in 0..batch.num_rows() {
        let body = body.value(at);
        let wrong = |error: Error| format!("row {at}: {error}");
        if row.value(at) == WINDOW_ROW {
            let (sealed, quality): (Cut, Quality) = decode(body).map_err(wrong)?;
            windows.push(SealedWindow {
                id: WindowId(window.value(at)),
                sealed,
                amendment: amendment.value(at),
                quality,
                ..SealedWindow::default()
            });
            continue;
        }
        let into = windows.last_mut().ok_or("a row before that of its window")?;
        match row.value(at) {
            CELL_ROW => {
                let id = series.value(at).try_into().map_err(|_| format!("row {at}: no series id"))?;
                into.cells.push(SeriesId(id), &decode(body).map_err(wrong)?);
            }
            FACET_ROW => into.facets.push(decode(body).map_err(wrong)?),
            EDGE_ROW => into.edges.push(decode(body).map_err(wrong)?),
            other => return Err(format!("row {at}: unknown kind {other}")),
        }
    }
    Ok(())
}

fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, String> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref())
        .ok_or_else(|| format!("no column `{name}` of the type expected"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Lines, Total};
    use crate::model::SpanKind;

    #[test]
    fn windows_go_both_ways() {
        let client = ServiceKey::new("prod", "", "a");
        let facet = FacetKey { service: client.clone(), name: "service.version".into(), value: "1".into() };
        let edge = EdgeKey {
            client,
            server: Node::Peer { address: "db:1".into(), system: "mysql".into() },
            kind: SpanKind::Client,
        };
        let full = SealedWindow {
            id: WindowId(7),
            sealed: Cut { number: 95, ..Cut::default() },
            cells: (0..40_000u32)
                .map(|n| {
                    let mut id = [0; 16];
                    id[..4].copy_from_slice(&n.to_be_bytes());
                    (SeriesId(id), Cell::Total(Total { delta: f64::from(n), points: 1 }))
                })
                .collect(),
            facets: vec![(Arc::new(facet), Facet { items: 3, ..Facet::default() })],
            edges: vec![(Arc::new(edge), EdgeCell { requests: 5, ..EdgeCell::default() })],
            quality: Quality { late: 2, gap: true, ..Quality::default() },
            ..SealedWindow::default()
        };
        let empty = SealedWindow { id: WindowId(8), ..SealedWindow::default() };
        let late = SealedWindow {
            id: WindowId(3),
            amendment: true,
            cells: [(SeriesId([9; 16]), Cell::Lines(Lines { by_severity: [1; 7] }))].into_iter().collect(),
            ..SealedWindow::default()
        };
        let all = [full, empty, late];
        let mut bytes = Vec::new();
        write(Level::Seconds10, &all, &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap(), all);
        assert!(read(&bytes[..bytes.len() - 1]).is_err());
    }
}
