//! Recordings: OTLP as JSON lines, as the Collector's file exporter writes them.

use super::event_time::latest_event;
use crate::model::{Signal, Timestamp};
use crate::otlp::json_to_wire;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line that is read: memory is bounded by this times the number of files.
const MAX_LINE_BYTES: u64 = 256 << 20;
const BUFFER_BYTES: usize = 256 << 10;
const KEYS: [(Signal, &str); 3] = [
    (Signal::Traces, "\"resourceSpans\""),
    (Signal::Logs, "\"resourceLogs\""),
    (Signal::Metrics, "\"resourceMetrics\""),
];
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Why a recording cannot be read. Each names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot open: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: cannot read: {source}", path.display())]
    Read { path: PathBuf, line: u64, source: std::io::Error },
    #[error("{}:{line}: longer than {} MiB", path.display(), MAX_LINE_BYTES >> 20)]
    TooLong { path: PathBuf, line: u64 },
    /// No OTLP: the message names the path within the JSON.
    #[error("{}:{line}: {message}", path.display())]
    Line { path: PathBuf, line: u64, message: String },
}

/// One request of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub signal: Signal,
    /// An `Export…ServiceRequest` in protobuf, not compressed.
    pub body: Bytes,
    /// Recordings hold no arrival times: the running maximum of the event times of the merged stream.
    pub arrived: Timestamp,
}

/// Several recordings as one stream, merged by the time of their lines. Streams: of each file, one
/// line is held. After an error the stream ends.
pub struct Recordings {
    sources: Vec<Source>,
    /// Requests of the line in hand that are still to be handed out.
    ready: VecDeque<(Signal, Bytes)>,
    arrived: Timestamp,
    failed: bool,
}

impl Recordings {
    /// Opens the files; `.gz` and `.zst` are told by their first bytes, not by their names.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, Error> {
        let mut sources = Vec::with_capacity(paths.len());
        for path in paths {
            sources.push(Source::open(path.as_ref())?);
        }
        Ok(Self { sources, ready: VecDeque::new(), arrived: Timestamp::ZERO, failed: false })
    }

    /// Takes the line that is next in time; of equal ones, that of the file named first.
    fn take_line(&mut self) -> Result<Option<Line>, Error> {
        for source in &mut self.sources {
            if source.head.is_none() && !source.ended {
                source.advance()?;
            }
        }
        let next = self
            .sources
            .iter_mut()
            .filter(|source| source.head.is_some())
            .min_by_key(|source| source.head.as_ref().map(|line| line.latest));
        Ok(next.and_then(|source| source.head.take()))
    }
}

impl Iterator for Recordings {
    type Item = Result<Recorded, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        while self.ready.is_empty() {
            match self.take_line() {
                Ok(Some(line)) => {
                    self.arrived = self.arrived.max(line.latest);
                    self.ready.extend(line.requests);
                }
                Ok(None) => return None,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        let (signal, body) = self.ready.pop_front()?;
        Some(Ok(Recorded { signal, body, arrived: self.arrived }))
    }
}

/// The requests of a line: one for each signal that it holds something of.
fn convert(line: &[u8]) -> Result<Vec<(Signal, Bytes)>, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"))?;
    let mut requests = Vec::new();
    let mut read = false;
    for (signal, key) in KEYS {
        // A key that stands in a text only costs a look: the request is empty then.
        if text.contains(key) {
            read = true;
            let body = json_to_wire(signal, line).map_err(|error| error.to_string())?;
            if !body.is_empty() {
                requests.push((signal, Bytes::from(body)));
            }
        }
    }
    if !read {
        // Nothing of ours; but is it JSON at all?
        json_to_wire(Signal::Traces, line).map_err(|error| error.to_string())?;
    }
    Ok(requests)
}

/// A line, converted.
struct Line {
    latest: Timestamp,
    requests: Vec<(Signal, Bytes)>,
}

/// A file being read, and its next line.
struct Source {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    /// Number of the line last read, from 1.
    line: u64,
    head: Option<Line>,
    ended: bool,
    /// A line without any time stays where it is in its file.
    latest: Timestamp,
}

impl Source {
    fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mut plain = BufReader::with_capacity(BUFFER_BYTES, file);
        let magic = plain.fill_buf().map_err(failed)?;
        let reader: Box<dyn BufRead + Send> = if magic.starts_with(GZIP_MAGIC) {
            let inflated = flate2::bufread::MultiGzDecoder::new(plain);
            Box::new(BufReader::with_capacity(BUFFER_BYTES, inflated))
        } else if magic.starts_with(ZSTD_MAGIC) {
            let inflated = zstd::stream::read::Decoder::with_buffer(plain).map_err(failed)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, inflated))
        } else {
            Box::new(plain)
        };
        Ok(Self {
            path: path.to_owned(),
            reader,
            buffer: Vec::new(),
            line: 0,
            head: None,
            ended: false,
            latest: Timestamp::ZERO,
        })
    }

    /// Reads lines until one holds a request.
    fn advance(&mut self) -> Result<(), Error> {
        while self.read_line()? {
            let (path, line) = (&self.path, self.line);
            let failed = |message| Error::Line { path: path.clone(), line, message };
            let text = self.buffer.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.buffer).trim_ascii();
            if text.is_empty() {
                continue;
            }
            let requests = convert(text).map_err(failed)?;
            if requests.is_empty() {
                continue;
            }
            for (signal, body) in &requests {
                self.latest = self.latest.max(latest_event(*signal, body).unwrap_or_default());
            }
            self.head = Some(Line { latest: self.latest, requests });
            return Ok(());
        }
        self.ended = true;
        Ok(())
    }

    /// Reads the next line into the buffer; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, Error> {
        self.buffer.clear();
        self.line = self.line.saturating_add(1);
        let read = (&mut self.reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|source| Error::Read { path: self.path.clone(), line: self.line, source })?;
        if read as u64 == MAX_LINE_BYTES && self.buffer.last() != Some(&b'\n') {
            return Err(Error::TooLong { path: self.path.clone(), line: self.line });
        }
        Ok(read > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A line with one span that ends then.
    fn line(end: u64) -> String {
        format!(
            "{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{{\"name\":\"a\",\"endTimeUnixNano\":\"{end}\"}}]}}]}}]}}\n"
        )
    }

    fn write(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn read(paths: &[PathBuf]) -> Vec<(Signal, u64)> {
        Recordings::open(paths)
            .unwrap()
            .map(|recorded| recorded.map(|recorded| (recorded.signal, recorded.arrived.0)).unwrap())
            .collect()
    }

    #[test]
    fn files_of_any_compression_merge_by_time() {
        let dir = tempfile::tempdir().unwrap();
        let two_members = [gzip(&line(10)), gzip(&line(40))].concat();
        let plain = write(&dir, "a.jsonl", format!("\u{feff}{}\n\r\n{}", line(20), line(50)).as_bytes());
        let gz = write(&dir, "b.jsonl.gz", &two_members);
        let zst = write(&dir, "c", &zstd::encode_all(line(30).trim_end().as_bytes(), 1).unwrap());
        let ends: Vec<u64> = read(&[plain, gz, zst]).iter().map(|&(_, at)| at).collect();
        assert_eq!(ends, [10, 20, 30, 40, 50]);
    }

    #[test]
    fn arrival_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "a.jsonl", [line(5), line(3), line(9)].concat().as_bytes());
        let ends: Vec<u64> = read(&[path]).iter().map(|&(_, at)| at).collect();
        assert_eq!(ends, [5, 5, 9]);
    }

    #[test]
    fn a_line_may_hold_several_signals_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(
            &dir,
            "a.jsonl",
            b"{}\n{\"resourceLogs\":[{}],\"resourceSpans\":[{}],\"resourceMetrics\":[{}]}\n{\"x\":\"resourceSpans\"}\n",
        );
        let signals: Vec<Signal> = read(&[path]).iter().map(|&(signal, _)| signal).collect();
        assert_eq!(signals, [Signal::Traces, Signal::Logs, Signal::Metrics]);
    }

    #[test]
    fn errors_name_file_and_line_and_end_the_stream() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "bad.jsonl", (line(5) + "\n{\"resourceSpans\":\"x\"}\n{}\n").as_bytes());
        let mut recordings = Recordings::open(std::slice::from_ref(&path)).unwrap();
        assert!(recordings.next().unwrap().is_ok());
        let error = recordings.next().unwrap().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:3: resourceSpans: ", path.display())), "{error}");
        assert!(recordings.next().is_none());

        let text = write(&dir, "text.jsonl", b"hello\n");
        let error = Recordings::open(&[text]).unwrap().next().unwrap().unwrap_err().to_string();
        assert!(error.contains("text.jsonl:1: "), "{error}");
        let error = Recordings::open(&[dir.path().join("none")]).err().unwrap().to_string();
        assert!(error.contains("none: cannot open: "), "{error}");
    }

    #[test]
    fn a_truncated_gzip_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let whole = gzip(&(0..5_000).map(line).collect::<String>());
        let path = write(&dir, "a.jsonl.gz", &whole[..whole.len() / 2]);
        let outcome = Recordings::open(&[path]).and_then(|all| all.collect::<Result<Vec<_>, _>>());
        assert!(matches!(outcome, Err(Error::Read { .. })));
    }
}
