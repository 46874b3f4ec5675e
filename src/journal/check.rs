//! Reads a journal without changing it, and says what is in it and what is damaged.

use super::segment::Segment;
use super::{Damage, Error, Position};
use crate::model::Timestamp;
use std::path::{Path, PathBuf};

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Oldest first.
    pub segments: Vec<SegmentReport>,
    pub damage: Vec<Damage>,
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    pub file: PathBuf,
    pub size_bytes: u64,
    /// Whole records, their bytes, and the first and last arrival.
    pub records: u64,
    pub record_bytes: u64,
    pub first: Option<(Position, Timestamp)>,
    pub last: Option<(Position, Timestamp)>,
}

/// Reads every record of the journal in `dir`. A daemon may be writing to it: what follows the last whole
/// record of the newest segment is not taken for damage.
///
/// # Errors
/// What the file system says, or [`Error::Version`].
pub fn check(dir: &Path) -> Result<Report, Error> {
    let (segments, _) = Segment::look(dir)?;
    let mut report = Report::default();
    let count = segments.len();
    for (number, segment) in segments.iter().enumerate() {
        let of = read(segment, number + 1 == count, &mut report.damage);
        report.segments.push(of);
    }
    Ok(report)
}

fn read(segment: &Segment, is_newest: bool, damage: &mut Vec<Damage>) -> SegmentReport {
    let mut report = SegmentReport {
        file: segment.path.clone(),
        size_bytes: segment.size,
        records: 0,
        record_bytes: 0,
        first: None,
        last: None,
    };
    if segment.is_headless {
        damage.push(Damage { what: "no readable header", ..segment.damage(segment.start, segment.first()) });
    }
    let mut at = segment.first();
    loop {
        let header = segment.header(at);
        if let Some(record) = header.and_then(|header| segment.record(&header)) {
            if let Err(error) = record.admitted() {
                tracing::debug!(%error, "a whole record that cannot be read back");
                damage.push(Damage {
                    what: "a record that is no request",
                    ..segment.damage(at, record.end().0)
                });
            }
            report.records += 1;
            report.record_bytes += record.end().0.saturating_sub(at);
            report.first.get_or_insert((record.at, record.arrived));
            report.last = Some((record.at, record.arrived));
            at = record.end().0;
            continue;
        }
        let next = match &header {
            Some(header) => segment.after_damaged(header, segment.end()),
            None => segment.next_whole(at, segment.end()),
        };
        match (next, header) {
            (Some(next), _) => {
                damage.push(segment.damage(at, next));
                at = next;
            }
            // A header whose record is not whole: torn while it was written, unless others followed.
            (None, Some(header)) if !is_newest => {
                damage.push(segment.damage(at, at.saturating_add(header.whole())));
                return report;
            }
            (None, _) => return report,
        }
    }
}
