//! How the signals of an anomaly went around its onset, beside the band in which healthy values lie.

use super::convert::to_proto;
use super::windows::Piece;
use super::{Error, Meter, Queries, Range};
use crate::aggregate::Cell;
use crate::api::v1;
use crate::confirm::{Anomaly, Member};
use crate::detect::{Band, Symptom, is_of_shape};
use crate::model::{SeriesId, ServiceKey, Signal, Timestamp};
use crate::sketch::Histogram;
use crate::window::Node;
use std::collections::BTreeMap;
use std::time::Duration;

/// Curves of one anomaly, and series that one of them adds up.
const CURVES: usize = 6;
const SERIES: usize = 500;
/// What is shown of before the onset and after the end, and at most of all.
const BEFORE: Duration = Duration::from_secs(900);
const AFTER: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(6 * 3_600);
/// Points of a curve, about.
const POINTS: u32 = 90;
/// What a point costs while a question is worked on: a histogram and its place.
const POINT_BYTES: u64 = 2_048;

/// What a value is of what was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// The share that failed.
    Errors,
    /// Above the band's upper end lies what is slower than nearly all healthy requests.
    Slowest,
    /// Items a second; none are none.
    Rate,
    /// The mean of a metric's points.
    Mean,
}

/// What is added up.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    Series(Vec<SeriesId>),
    /// Calls that clients of this name made of a service.
    Calls {
        client: String,
        server: ServiceKey,
    },
}

struct Drawn {
    signal: usize,
    measure: Measure,
    from: Of,
    unit: String,
    band: Option<Band>,
    steps: BTreeMap<Timestamp, Sum>,
}

#[derive(Default)]
struct Sum {
    items: u64,
    errors: u64,
    latency: Histogram,
    total: f64,
    points: u64,
}

impl Sum {
    fn add(&mut self, cell: &Cell) {
        match cell {
            Cell::Requests(of) => {
                self.items = self.items.saturating_add(of.seen);
                self.errors = self.errors.saturating_add(of.errors);
                self.latency.merge(&of.latency);
            }
            Cell::Level(of) => (self.total, self.points) = (self.total + of.sum, self.points + of.points),
            Cell::Total(of) => (self.total, self.points) = (self.total + of.delta, self.points + of.points),
            Cell::Distribution(of) => {
                self.latency.merge(&of.histogram);
                (self.total, self.points) = (self.total + of.sum, self.points + of.histogram.count());
            }
            Cell::Lines(_) => {}
        }
        if !matches!(cell, Cell::Requests(_)) {
            self.items = self.items.saturating_add(cell.items());
        }
    }

    fn merge(&mut self, other: &Self) {
        self.items = self.items.saturating_add(other.items);
        self.errors = self.errors.saturating_add(other.errors);
        self.latency.merge(&other.latency);
        (self.total, self.points) = (self.total + other.total, self.points + other.points);
    }

    fn value(&self, measure: Measure, step: Duration) -> Option<f64> {
        let value = match measure {
            Measure::Errors => (self.items > 0).then(|| self.errors as f64 / self.items as f64),
            Measure::Slowest => self.latency.quantile(0.99),
            Measure::Rate => Some(self.items as f64 / step.as_secs_f64().max(1.0)),
            Measure::Mean => (self.points > 0).then(|| self.total / self.points as f64),
        };
        value.filter(|value| value.is_finite())
    }
}

impl Measure {
    const fn what(self) -> &'static str {
        match self {
            Self::Errors => "share that failed",
            Self::Slowest => "99th percentile",
            Self::Rate => "a second",
            Self::Mean => "mean",
        }
    }
}

impl Queries {
    /// What can be drawn of a member; `None` where counts say nothing of it.
    fn drawn(&self, signal: usize, member: &Member) -> Option<Drawn> {
        let of_service = |wanted: &dyn Fn(&crate::model::SeriesKey) -> bool| {
            let keys = self.registry.of_service(&member.service);
            let mut ids: Vec<SeriesId> = keys.iter().filter(|key| wanted(key)).map(|key| key.id()).collect();
            ids.sort_unstable();
            ids.truncate(SERIES);
            Of::Series(ids)
        };
        let one = || member.series.map(|id| Of::Series(vec![id]));
        let entries = || of_service(&|key| key.signal == Signal::Traces && key.entry);
        let calls = member.signal.strip_prefix("calls from ").filter(|_| member.series.is_none());
        let (measure, from, band) = match member.symptom {
            Symptom::Errors => {
                let calls = calls
                    .map(|client| Of::Calls { client: client.to_owned(), server: member.service.clone() });
                (Measure::Errors, one().or(calls).unwrap_or_else(entries), Some(member.expected))
            }
            Symptom::Latency => (Measure::Slowest, one()?, Some(member.expected)),
            Symptom::TrafficDrop => (Measure::Rate, entries(), Some(member.expected)),
            Symptom::Silence => (Measure::Rate, of_service(&|_| true), None),
            Symptom::MissedJob => (Measure::Rate, one()?, None),
            Symptom::Level if is_of_shape(&member.attributes) => {
                (Measure::Slowest, one()?, Some(member.expected))
            }
            Symptom::Level => (Measure::Mean, one()?, Some(member.expected)),
            // What was judged is a share of a limit; the metric is in its own unit.
            Symptom::Saturation | Symptom::Exhaustion => (Measure::Mean, one()?, None),
            Symptom::BudgetBurn | Symptom::Data | Symptom::Rule => return None,
        };
        let unit = match measure {
            Measure::Errors => "1".to_owned(),
            Measure::Slowest if member.symptom == Symptom::Latency => "ns".to_owned(),
            Measure::Rate if member.symptom == Symptom::Silence => "{item}/s".to_owned(),
            Measure::Rate if member.symptom == Symptom::MissedJob => "{run}/s".to_owned(),
            Measure::Rate => member.unit.clone(),
            Measure::Slowest | Measure::Mean => self.registry.get(member.series?)?.unit.to_string(),
        };
        Some(Drawn { signal, measure, from, unit, band, steps: BTreeMap::new() })
    }

    /// The strongest signals of an anomaly that can be drawn, up to `now`.
    ///
    /// # Errors
    /// The question's cost.
    pub fn curves(
        &self,
        anomaly: &Anomaly,
        now: Timestamp,
        meter: &mut Meter,
    ) -> Result<Vec<v1::Curve>, Error> {
        let members = anomaly.members.iter().enumerate();
        let mut drawn: Vec<Drawn> =
            members.filter_map(|(signal, member)| self.drawn(signal, member)).take(CURVES).collect();
        let since = anomaly.onset.earliest.saturating_sub(BEFORE);
        let until = anomaly.ended_at.map_or(now, |ended| ended.saturating_add(AFTER).min(now));
        let until = until.min(since.saturating_add(LONGEST));
        if drawn.is_empty() || until <= since {
            return Ok(Vec::new());
        }
        let mut step = step_for(until.since(since) / POINTS);
        let since = super::query::step_of(since, step);
        let mut widest = Duration::ZERO;
        self.visit(Range { since, until }, meter, |piece, meter| {
            widest = widest.max(piece.end.since(piece.start));
            let at = super::query::step_of(piece.start, step);
            drawn.iter_mut().try_for_each(|curve| curve.take(piece, at, meter))
        })?;
        // Where only longer windows are left, a step is as long as they are: what they hold is of all of their time.
        if widest > step {
            step = step_for(widest);
            drawn.iter_mut().for_each(|curve| curve.widen(step));
        }
        Ok(drawn.into_iter().filter_map(|curve| curve.message(since, until, step)).collect())
    }
}

/// The least of the steps that is not shorter. Each divides the next, and all lengths of windows are among them, so that
/// a window lies within one step and a step within one that is longer.
fn step_for(length: Duration) -> Duration {
    let steps = [10, 30, 60, 300, 600, 1_800, 3_600].map(Duration::from_secs);
    steps.into_iter().find(|step| *step >= length).unwrap_or(Duration::from_secs(3_600))
}

impl Drawn {
    fn take(&mut self, piece: Piece<'_>, at: Timestamp, meter: &mut Meter) -> Result<(), Error> {
        let before = self.steps.len();
        match &self.from {
            Of::Series(ids) => {
                for cell in ids.iter().filter_map(|id| piece.cells.get(*id)) {
                    self.steps.entry(at).or_default().add(&cell);
                }
            }
            Of::Calls { client, server } => {
                for (key, cell) in piece.edges {
                    // A peer that sends nothing is named as its address.
                    let is_server = match &key.server {
                        Node::Service(service) => service == server,
                        Node::Peer { address, .. } => *address == server.name,
                    };
                    if is_server && *key.client.name == **client {
                        let sum = self.steps.entry(at).or_default();
                        sum.items = sum.items.saturating_add(cell.requests);
                        sum.errors = sum.errors.saturating_add(cell.errors);
                    }
                }
            }
        }
        if self.steps.len() > before { meter.take(POINT_BYTES) } else { Ok(()) }
    }

    fn widen(&mut self, step: Duration) {
        for (at, sum) in std::mem::take(&mut self.steps) {
            self.steps.entry(super::query::step_of(at, step)).or_default().merge(&sum);
        }
    }

    /// The curve; `None` if it has no line.
    fn message(mut self, since: Timestamp, until: Timestamp, step: Duration) -> Option<v1::Curve> {
        if self.measure == Measure::Rate
            && let Some(&first) = self.steps.keys().next()
        {
            // Of what stopped coming no cell is left.
            let mut at = first;
            while at < until {
                self.steps.entry(at).or_default();
                at = at.saturating_add(step);
            }
            // A step of which only a part is there would look like a drop.
            self.steps.retain(|at, _| *at >= since && at.saturating_add(step) <= until);
        }
        let points: Vec<v1::CurvePoint> = self
            .steps
            .iter()
            .filter_map(|(at, sum)| {
                let value = sum.value(self.measure, step)?;
                Some(v1::CurvePoint { start: Some(to_proto(*at)), value })
            })
            .collect();
        // What an end that is open became where infinities have no form.
        let closed = |end: f64| Some(end).filter(|end| end.is_finite() && end.abs() < f64::MAX);
        (points.len() >= 2).then(|| v1::Curve {
            signal: u32::try_from(self.signal).unwrap_or(u32::MAX),
            what: self.measure.what().to_owned(),
            unit: self.unit,
            expected_low: self.band.and_then(|band| closed(band.low)),
            expected_high: self.band.and_then(|band| closed(band.high)),
            step_ns: i64::try_from(step.as_nanos()).unwrap_or(i64::MAX),
            points,
        })
    }
}
