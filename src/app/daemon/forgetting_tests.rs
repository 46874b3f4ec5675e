//! Names that come and go for two weeks of journal time, over crashes: memory and disk stay bounded, and nothing is
//! counted twice or left out.

use super::catching_up::counted;
use super::downstream::Downstream;
use crate::aggregate::{self, Accepted};
use crate::alert::Lifecycle;
use crate::app::Config;
use crate::app::counting::Counting;
use crate::app::judging::Judging;
use crate::app::totals::Totals;
use crate::confirm::{Confirm, Judge};
use crate::detect::Detectors;
use crate::journal::{Cut, Position, Step};
use crate::model::{Signal, Timestamp};
use crate::settings::ByteSize;
use crate::slo::Budgets;
use crate::store::{self, Level, Store};
use crate::window::Registry;
use arc_swap::ArcSwap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const HOURS: u64 = 14 * 24;
const BEGIN: u64 = 472_222 * 3_600;
/// Series that the shards may hold; names of series, and those of which only the service is known.
const SERIES: u64 = 1_000;
const NAMED: usize = 2_000;
const FOLDED: usize = 4_000;

/// One life of the counting and judging stages.
struct Life {
    store: Store,
    registry: Arc<Registry>,
    counting: Counting,
    downstream: Downstream,
    totals: Totals,
}

impl Life {
    fn begin(folder: &Path, config: &Config) -> Self {
        let store = Store::open(folder, config.store.clone()).unwrap();
        let checkpoint = store.checkpoint().unwrap();
        let registry = store.registry(config.aggregate.series).unwrap();
        let mut counting =
            Counting::new(2, &config.aggregate, config.window.clone(), registry.clone(), &Arc::default());
        let judge = Judge::new(
            Budgets::new(config.slo.clone(), Vec::new()),
            Detectors::new(config.detect.clone(), false),
            Confirm::new(config.confirm.clone()),
        );
        let lifecycle = Lifecycle::new(config.alert.clone());
        let mut judging = Judging::new(judge, lifecycle, store.ledger(), registry.clone());
        let totals = checkpoint.as_ref().map_or_else(Totals::default, Totals::from_checkpoint);
        if let Some(checkpoint) = &checkpoint {
            counting.restore(&checkpoint.parts).unwrap();
            judging.restore(&checkpoint.parts, &store.pieces().unwrap()).unwrap();
        }
        let indicators = judging.judge.budgets.indicators();
        counting.set_indicators(&indicators);
        let downstream = Downstream {
            store: store.clone(),
            indicators: Arc::new(ArcSwap::new(indicators)),
            false_pages: Arc::default(),
            judging: Arc::new(Mutex::new(judging)),
            topology: counting.windows.published(),
        };
        Self { store, registry, counting, downstream, totals }
    }

    fn step(&mut self, event: &Event) {
        let step = match event {
            Event::Sent { second, body } => Step::Work {
                at: Position(*second),
                arrived: Timestamp::from_secs(*second),
                request: crate::app::admitted(Signal::Traces, body.clone()).shared(),
            },
            Event::Cut(cut) => Step::Barrier(*cut),
        };
        counted(&mut self.counting, &self.downstream, &self.totals, step).unwrap();
    }
}

/// What the journal would hold.
enum Event {
    Sent { second: u64, body: bytes::Bytes },
    Cut(Cut),
}

fn spans(service: &str, second: u64, names: impl Iterator<Item = String>) -> bytes::Bytes {
    let end_time_unix_nano = second * 1_000_000_000;
    let spans = names.map(|name| Span {
        name,
        kind: 2,
        trace_id: vec![1; 16],
        end_time_unix_nano,
        start_time_unix_nano: end_time_unix_nano - 5_000,
        ..Span::default()
    });
    let name = KeyValue {
        key: "service.name".into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(service.into())) }),
        ..KeyValue::default()
    };
    let of_service = ResourceSpans {
        resource: Some(Resource { attributes: vec![name], ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![of_service] }.encode_to_vec().into()
}

/// What is sent in a minute: of which service, and the names of its spans.
fn sent(hour: u64, minute: u64) -> Vec<(String, Vec<String>)> {
    if !minute.is_multiple_of(10) {
        return Vec::new();
    }
    let greedy = (0..60).map(|n| format!("op-{hour}-{minute}-{n}")).collect();
    let steady = ["GET /", "GET /cart", "POST /cart"].map(str::to_owned).to_vec();
    vec![
        ("greedy".to_owned(), greedy),
        ("steady".to_owned(), steady),
        (format!("job-{hour}"), vec!["run".to_owned()]),
    ]
}

#[test]
fn names_that_come_and_go_for_two_weeks_stay_bounded_and_totals_exact() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        aggregate: aggregate::Config {
            series: SERIES,
            template_names: false,
            ..aggregate::Config::default()
        },
        store: store::Config { max_bytes: ByteSize(6 << 20), ..store::Config::default() },
        ..Config::default()
    };
    let mut life = Life::begin(folder.path(), &config);
    let mut replayed: Vec<Event> = Vec::new();
    let mut counts: BTreeMap<(u64, String), u64> = BTreeMap::new();
    let mut spans_sent = 0;
    let (mut most_named, mut most_folded, mut names_ever) = (0, 0, 0u64);
    for hour in 0..HOURS {
        for minute in 0..60 {
            let second = BEGIN + hour * 3_600 + minute * 60;
            let mut events = Vec::new();
            for (service, names) in sent(hour, minute) {
                spans_sent += names.len() as u64;
                names_ever += names.len() as u64;
                *counts.entry((hour, service.clone())).or_default() += names.len() as u64;
                events.push(Event::Sent { second, body: spans(&service, second, names.into_iter()) });
            }
            let checkpoint = minute % 30 == 29;
            let (number, arrived) = (second + 30, Timestamp::from_secs(second + 30));
            events.push(Event::Cut(Cut { number, arrived, through: Position(number), checkpoint }));
            events.iter().for_each(|event| life.step(event));
            if checkpoint {
                replayed.clear();
                let (named, folded) = (life.registry.len(), life.registry.folded());
                assert!(
                    named <= NAMED && folded <= FOLDED,
                    "{named} named and {folded} folded in hour {hour}"
                );
                (most_named, most_folded) = (named.max(most_named), folded.max(most_folded));
            } else {
                replayed.extend(events);
            }
            if hour % 100 == 50 && minute == 45 {
                drop(life);
                life = Life::begin(folder.path(), &config);
                assert!(life.registry.len() + life.registry.folded() <= NAMED + FOLDED);
                replayed.iter().for_each(|event| life.step(event));
            }
        }
    }
    assert_eq!(life.totals.get().accepted, Accepted { spans: spans_sent, ..Accepted::default() });
    let usage = life.store.usage();
    println!(
        "{names_ever} names: {most_named} known and {most_folded} folded at most; {} bytes in {} blocks",
        usage.bytes, usage.blocks
    );
    assert!(most_named > NAMED / 2 && most_folded > FOLDED / 2, "nothing was forgotten for want of room");

    let mut seen: BTreeMap<(u64, String), u64> = BTreeMap::new();
    let mut first = u64::MAX;
    for stored in life.store.windows(Timestamp::ZERO, Timestamp::MAX, Level::Hour1) {
        let hour = (stored.window.id.start().secs() - BEGIN) / 3_600;
        first = first.min(hour);
        for (id, packed) in stored.window.cells.packed() {
            let Some(key) = life.registry.get(id) else { continue };
            *seen.entry((hour, key.service.name.to_string())).or_default() += packed.cell().unwrap().items();
        }
    }
    // What is shown by service is exact: of everybody lately, of who is not to blame as far back as windows reach.
    for ((hour, service), count) in &counts {
        let shown = seen.get(&(*hour, service.clone())).copied().unwrap_or(0);
        let is_exact = *hour >= first && (service == "steady" || *hour + 12 >= HOURS);
        assert!(shown == *count || !is_exact && shown < *count, "{service}, hour {hour}: {shown} of {count}");
    }
    assert!(HOURS - first > 24, "windows of {} hours are left", HOURS - first);
}
