//! Shards, the window stage and the judge's mailbox, composed as the daemon's threads compose them, under schedules drawn
//! at random: whoever runs when, what comes out is what one thread makes of the same steps.

use super::downstream::{Batch, counted_parts};
use super::threads::{Gathering, merge};
use crate::aggregate::{Cell, Partial};
use crate::app::Config;
use crate::app::counting::Counting;
use crate::app::mailbox::Mailbox;
use crate::app::totals::{Sums, Totals};
use crate::journal::{Cut, Position, Step};
use crate::model::{SeriesId, Signal, Timestamp, WindowId};
use crate::otlp::split;
use crate::window::SealedWindow;
use fastrand::Rng;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const SHARDS: u16 = 3;
const BEGIN: u64 = 1_700_000_000;
const SCHEDULES: u64 = 200;
/// Steps that may wait for a shard, and partials for the window stage: few, so that each waits for the others.
const STEPS: usize = 4;
const PARTIALS: usize = 5;

/// What came out of a run.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    sealed: Vec<Arc<SealedWindow>>,
    amendments: Vec<Arc<SealedWindow>>,
    /// What arrived, over all ticks: a judge that is late gets fewer of them.
    cells: BTreeMap<(SeriesId, WindowId), Cell>,
    new: BTreeSet<SeriesId>,
    sums: Sums,
    /// States by the number of the checkpoint's cut.
    states: BTreeMap<u64, BTreeMap<String, Vec<u8>>>,
}

impl Outcome {
    fn take(&mut self, batch: Batch) {
        let Batch { merged, sums, parts } = batch;
        self.sealed.extend(merged.sealed);
        self.amendments.extend(merged.amendments);
        for (series, window, cell) in merged.tick.changed {
            self.cells.entry((series, window)).and_modify(|sum| sum.merge(&cell)).or_insert(cell);
        }
        self.new.extend(merged.tick.new.into_iter().map(|(id, _)| id));
        self.sums = sums;
        if let Some(parts) = parts {
            self.states.insert(merged.tick.cut.number, parts);
        }
    }
}

fn body(random: &mut Rng, second: u64) -> bytes::Bytes {
    let resource_spans = (0..random.usize(1..4)).map(|_| {
        let name = KeyValue {
            key: "service.name".into(),
            value: Some(AnyValue {
                value: Some(any_value::Value::StringValue(format!("service-{}", random.u8(..8)))),
            }),
            ..KeyValue::default()
        };
        let spans = (0..random.usize(1..4)).map(|_| {
            // Some are late for windows that are sealed by then.
            let end = (second - random.u64(..60)) * 1_000_000_000 + random.u64(..1_000_000_000);
            Span {
                name: format!("GET /{}", random.u8(..4)),
                kind: 2,
                trace_id: random.u128(1..).to_be_bytes().to_vec(),
                span_id: random.u64(1..).to_be_bytes().to_vec(),
                start_time_unix_nano: end - random.u64(1..1_000_000),
                end_time_unix_nano: end,
                ..Span::default()
            }
        });
        ResourceSpans {
            scope_spans: vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }],
            resource: Some(Resource { attributes: vec![name], ..Resource::default() }),
            ..ResourceSpans::default()
        }
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec().into()
}

/// Requests of a minute or so, and the cuts between them.
fn steps(random: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut position = 0;
    for second in BEGIN..BEGIN + random.u64(40..90) {
        for _ in 0..random.usize(..3) {
            let body = body(random, second);
            assert!(split(Signal::Traces, &body).is_ok());
            let request = crate::app::admitted(Signal::Traces, body).shared();
            steps.push(Step::Work { at: Position(position), arrived: Timestamp::from_secs(second), request });
            position += 1;
        }
        let number = second + 1;
        let (arrived, checkpoint) = (Timestamp::from_secs(number), random.u8(..15) == 0);
        steps.push(Step::Barrier(Cut { number, arrived, through: Position(position), checkpoint }));
    }
    steps
}

fn counting() -> Counting {
    let config = Config::default();
    Counting::new(SHARDS, &config.aggregate, config.window, Arc::default(), &Arc::default())
}

/// One thread takes all steps.
fn alone(steps: &[Step]) -> Outcome {
    let (mut counting, totals, mut outcome) = (counting(), Totals::default(), Outcome::default());
    for step in steps {
        if let Some(mut merged) = counting.step(step.clone()) {
            let sums = totals.add(&merged);
            let parts = counted_parts(&mut merged);
            outcome.take(Batch { merged, sums, parts });
        }
    }
    outcome
}

/// Whoever can do something does it, in an order drawn at random; gives how many batches the judge got.
fn scheduled(steps: &[Step], random: &mut Rng) -> (Outcome, usize) {
    let Counting { mut shards, mut windows } = counting();
    let (totals, mailbox, mut outcome) = (Totals::default(), Mailbox::<Batch>::default(), Outcome::default());
    let mut gathering = Gathering::new(shards.len());
    let mut coming: VecDeque<Step> = steps.iter().cloned().collect();
    let mut queues: Vec<VecDeque<Step>> = vec![VecDeque::new(); shards.len()];
    let mut partials: VecDeque<Partial> = VecDeque::new();
    let mut batches = 0;
    loop {
        let mut able: Vec<usize> = (0..shards.len())
            .filter(|&shard| match queues[shard].front() {
                Some(Step::Barrier(_)) => partials.len() < PARTIALS,
                Some(Step::Work { .. }) => true,
                None => false,
            })
            .collect();
        let [sequencer, window, judge] = [0, 1, 2].map(|actor| shards.len() + actor);
        if !coming.is_empty() && queues.iter().all(|queue| queue.len() < STEPS) {
            able.push(sequencer);
        }
        if !partials.is_empty() {
            able.push(window);
        }
        if mailbox.len() > 0 {
            able.push(judge);
        }
        if able.is_empty() {
            return (outcome, batches);
        }
        let actor = able[random.usize(..able.len())];
        if let Some(shard) = shards.get_mut(actor) {
            match queues[actor].pop_front().expect("it is able") {
                Step::Work { at, arrived, request } => shard.apply(at, arrived, &request),
                Step::Barrier(cut) => partials.push_back(shard.cut(cut)),
            }
        } else if actor == sequencer {
            let step = coming.pop_front().expect("it is able");
            queues.iter_mut().for_each(|queue| queue.push_back(step.clone()));
        } else if actor == window {
            let partial = partials.pop_front().expect("it is able");
            if let Some((cut, partials)) = gathering.take(partial) {
                mailbox.post(merge(&mut windows, cut, partials, &totals));
            }
        } else {
            outcome.take(mailbox.take().expect("something was posted"));
            batches += 1;
        }
    }
}

#[test]
fn under_any_schedule_the_stages_make_what_one_thread_makes() {
    let mut merged = 0;
    for seed in 0..SCHEDULES {
        let mut random = Rng::with_seed(seed);
        let steps = steps(&mut random);
        let expected = alone(&steps);
        let (outcome, batches) = scheduled(&steps, &mut random);
        assert_eq!(outcome, expected, "schedule {seed}");
        let cuts = steps.iter().filter(|step| matches!(step, Step::Barrier(_))).count();
        merged += cuts - batches;
        assert!(expected.states.is_empty() || !outcome.sealed.is_empty());
    }
    assert!(merged > 1_000, "the judge was hardly ever late: {merged}");
}
