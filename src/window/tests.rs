//! The window stage against a naive oracle, and its edges one by one.

use crate::aggregate::{
    Cell, EdgeCell, Facet, FacetKey, Partial, PeerKey, Requests, SpanHalf, Total, Weight,
};
use crate::journal::Cut;
use crate::limits::{LateReason, RejectedReason, UntimelyReason};
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanId, SpanKind, Timestamp, WindowId};
use crate::window::{Config, EdgeKey, Merged, Node, Registry, SealedWindow, Windows};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn cut(second: u64) -> Cut {
    Cut { number: second, arrived: Timestamp::from_secs(second), ..Cut::default() }
}

fn series(n: u8) -> SeriesId {
    SeriesId([n; 16])
}

fn total(delta: u32) -> Cell {
    Cell::Total(Total { delta: f64::from(delta), points: 1 })
}

fn requests(duration_ns: u64) -> Cell {
    let mut cell = Requests { seen: 1, weight: Weight::ONE, sum_ns: duration_ns, ..Requests::default() };
    cell.latency.record(duration_ns as f64);
    Cell::Requests(Box::new(cell))
}

fn windows() -> Windows {
    Windows::new(Config::default(), Arc::new(Registry::default()))
}

/// Something counted: series, second of event time, second of the cut that brings it, shard.
#[derive(Clone, Debug)]
struct Item {
    series: u8,
    event: u64,
    cut: u64,
    shard: u16,
    amount: u32,
}

impl Item {
    fn cell(&self) -> Cell {
        if self.series.is_multiple_of(2) { total(self.amount) } else { requests(u64::from(self.amount)) }
    }

    fn window(&self) -> WindowId {
        WindowId::of(Timestamp::from_secs(self.event))
    }
}

const START: u64 = 1_000;

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item =
        (0u8..5, 1u64..200, 0u64..60, 0u16..4, 1u32..1_000).prop_map(|(series, cut, age, shard, amount)| {
            Item { series, event: START + cut - age.min(START), cut: START + cut, shard, amount }
        });
    prop::collection::vec(item, 0..300)
}

type Sums = BTreeMap<(WindowId, SeriesId), Cell>;

fn add(sums: &mut Sums, window: WindowId, series: SeriesId, cell: &Cell) {
    match sums.get_mut(&(window, series)) {
        Some(sum) => sum.merge(cell),
        None => {
            sums.insert((window, series), cell.clone());
        }
    }
}

fn add_windows(sums: &mut Sums, windows: &[Arc<SealedWindow>]) {
    for window in windows {
        window.cells.iter().for_each(|(series, cell)| add(sums, window.id, series, &cell));
    }
}

/// The partials of one cut, with `shards` shards, which come in an order of their own.
fn partials(items: &[Item], second: u64, shards: u16, reversed: bool) -> Vec<Partial> {
    let mut partials: Vec<Partial> = (0..shards)
        .map(|shard| {
            let mut partial = Partial { cut: cut(second), shard, ..Partial::default() };
            for item in items.iter().filter(|item| item.cut == second && item.shard % shards == shard) {
                partial.cells.push((series(item.series), item.window(), item.cell()));
                partial.accepted.metric_points += 1;
            }
            partial
        })
        .collect();
    if reversed {
        partials.reverse();
    }
    partials
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn windows_hold_what_a_naive_oracle_counts(items in items(), shards in 1u16..5, reversed: bool, crash in 0u64..230) {
        let (mut on_time, mut late) = (Sums::new(), Sums::new());
        for item in &items {
            // All of a cut arrived in the second before it.
            let is_late = item.cut > item.window().end().secs() + 15;
            add(if is_late { &mut late } else { &mut on_time }, item.window(), series(item.series), &item.cell());
        }

        let mut subject = windows();
        let mut other = windows();
        let (mut sealed, mut amended, mut amended_items) = (Sums::new(), Sums::new(), 0);
        let mut last = None;
        for second in START..START + 240 {
            let parts = |shards, reversed| partials(&items, second, shards, reversed);
            let stop = Cut { checkpoint: second == START + crash, ..cut(second) };
            let merged = subject.merge(stop, parts(shards, reversed));
            let again = other.merge(stop, parts(1, false));
            prop_assert_eq!(&merged.sealed, &again.sealed);
            prop_assert_eq!(&merged.amendments, &again.amendments);
            prop_assert_eq!(&merged.tick.changed, &again.tick.changed);
            if let Some(state) = merged.state {
                subject = windows();
                subject.restore(&state).unwrap();
            }

            let mut of_tick = Sums::new();
            items.iter().filter(|item| item.cut == second).for_each(|item| add(&mut of_tick, item.window(), series(item.series), &item.cell()));
            let mut changed: Vec<_> = of_tick.into_iter().map(|((window, series), cell)| (series, window, cell)).collect();
            changed.sort_by_key(|&(series, window, _)| (series, window));
            prop_assert_eq!(merged.tick.changed, changed);

            for window in &merged.sealed {
                prop_assert_eq!(window.sealed.number, window.id.end().secs() + 15);
                prop_assert!(last.is_none_or(|last: WindowId| last.next() == window.id));
                last = Some(window.id);
            }
            for amendment in &merged.amendments {
                prop_assert!(amendment.amendment && Some(amendment.id) <= last);
            }
            add_windows(&mut sealed, &merged.sealed);
            add_windows(&mut amended, &merged.amendments);
            amended_items += merged.late.get(&LateReason::Amended).copied().unwrap_or(0);
        }
        prop_assert_eq!(sealed, on_time);
        prop_assert_eq!(amended_items, late.values().map(Cell::items).sum::<u64>());
        prop_assert_eq!(amended, late);
    }
}

#[test]
fn a_window_takes_what_arrives_up_to_15_s_after_its_end() {
    let registry = Arc::new(Registry::default());
    let key = SeriesKey {
        service: ServiceKey::named("cart"),
        signal: Signal::Traces,
        operation: "GET /".into(),
        kind: SpanKind::Server,
        entry: true,
        unit: "".into(),
        attributes: vec![],
    };
    assert!(registry.add(series(2), Arc::new(key), 1_000));
    let mut windows = Windows::new(Config::default(), registry);
    let window = WindowId(100);
    let late = |second| {
        let cells = vec![(series(2), window, total(1))];
        vec![Partial { cut: cut(second), cells, ..Partial::default() }]
    };
    windows.merge(cut(1_005), late(1_005));
    // Window 100 ends at 1010; what comes with the cut at 1025 arrived by 1024.999999999.
    assert!(windows.merge(cut(1_024), Vec::new()).sealed.iter().all(|sealed| sealed.id < window));
    let merged = windows.merge(cut(1_025), late(1_025));
    let [sealed] = merged.sealed.as_slice() else { panic!("one window: {:?}", merged.sealed) };
    assert_eq!((sealed.id, sealed.cell(series(2)).unwrap().items()), (window, 2));
    assert!(merged.late.is_empty());

    let merged = windows.merge(cut(1_026), late(1_026));
    assert_eq!(merged.late, BTreeMap::from([(LateReason::Amended, 1)]));
    let of_cart = (Arc::new(ServiceKey::named("cart")), UntimelyReason::Amended);
    assert_eq!(merged.untimely, BTreeMap::from([(of_cart, 1)]));
    assert!(merged.amendments.is_empty());
    let merged = windows.merge(cut(1_035), Vec::new());
    let [amendment] = merged.amendments.as_slice() else { panic!("{:?}", merged.amendments) };
    assert_eq!((amendment.id, amendment.amendment, amendment.cells.len()), (window, true, 1));
    // The window in whose time it came knows of it.
    for second in 1_036..1_046 {
        windows.merge(cut(second), Vec::new());
    }
    let snapshot = windows.snapshot();
    let late: Vec<u64> = snapshot.sealed.iter().map(|window| window.quality.late).collect();
    assert_eq!((snapshot.sealed.last().unwrap().id, late.last()), (WindowId(102), Some(&1)));
    assert_eq!(late.iter().sum::<u64>(), 1);
}

#[test]
fn windows_without_anything_are_sealed_too_and_show_gaps_and_refusals() {
    let mut windows = windows();
    windows.merge(cut(1_000), Vec::new());
    windows.note_gap(Timestamp::from_secs(1_005), Timestamp::from_secs(1_012));
    windows.note_refused(Timestamp::from_secs(1_021), 3);
    let rejected = BTreeMap::from([(RejectedReason::TooOld, 4)]);
    windows.merge(cut(1_031), vec![Partial { rejected, ..Partial::default() }]);
    let sealed: Vec<Arc<SealedWindow>> =
        (1_032..1_060).flat_map(|second| windows.merge(cut(second), Vec::new()).sealed).collect();
    let all = windows.snapshot().sealed.to_vec();
    assert!(all.ends_with(&sealed));
    let by_id = |id: u64| all.iter().find(|window| window.id.0 == id).unwrap().quality;
    assert_eq!([99, 100, 101, 102].map(|id| by_id(id).gap), [false, true, true, false]);
    assert_eq!((by_id(102).refused, by_id(103).rejected), (3, 4));
}

#[test]
fn a_jump_of_time_does_not_seal_more_than_an_hour_of_empty_windows_at_once() {
    let mut windows = windows();
    windows.merge(
        cut(1_005),
        vec![Partial { cells: vec![(series(2), WindowId(100), total(1))], ..Partial::default() }],
    );
    let sealed = windows.merge(cut(1_000_000), Vec::new()).sealed;
    assert_eq!(sealed.iter().filter(|window| window.id == WindowId(100)).count(), 1);
    assert!((360..400).contains(&sealed.len()), "{}", sealed.len());
    assert!(sealed.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(sealed.last().unwrap().id.end().secs() + 15, 1_000_000 - 5);
}

#[test]
fn the_snapshot_shows_open_windows_as_of_each_cut() {
    let mut windows = windows();
    let part = |n| vec![Partial { cells: vec![(series(2), WindowId(100), total(n))], ..Partial::default() }];
    windows.merge(cut(1_002), part(1));
    let first = windows.snapshot();
    windows.merge(cut(1_003), part(2));
    let second = windows.snapshot();
    let open = |snapshot: &crate::window::Snapshot| {
        let open = snapshot.open.iter().find(|open| open.id == WindowId(100)).unwrap();
        (open.cell(series(2)).unwrap().clone(), open.as_sealed(snapshot.cut).cells.len())
    };
    assert_eq!(open(&first), (total(1), 1));
    assert_eq!(open(&second), (Cell::Total(Total { delta: 3.0, points: 2 }), 1));

    // And after a restart also when nothing comes any more.
    let state = windows.merge(Cut { checkpoint: true, ..cut(1_004) }, Vec::new()).state.unwrap();
    let mut windows = self::windows();
    windows.restore(&state).unwrap();
    windows.merge(cut(1_005), Vec::new());
    assert_eq!(open(&windows.snapshot()), open(&second));
}

fn half(trace: u64, span: u8, parent: u8, service: &str, kind: SpanKind) -> SpanHalf {
    let id = |n| SpanId([0, 0, 0, 0, 0, 0, 0, n]);
    SpanHalf {
        trace,
        span: id(span),
        parent: id(parent),
        service: Arc::new(ServiceKey::named(service)),
        kind,
        duration_ns: 1_000_000,
        error: service == "payment",
        peer: (kind == SpanKind::Client).then(|| Arc::new(peer(service, "10.0.0.7:80"))),
        weight: Weight(Weight::ONE.0 * 4),
        window: WindowId(100),
    }
}

fn peer(client: &str, address: &str) -> PeerKey {
    PeerKey {
        client: ServiceKey::named(client),
        address: address.into(),
        system: "http".into(),
        kind: SpanKind::Client,
    }
}

fn edges(merged: &[(Arc<EdgeKey>, EdgeCell)]) -> Vec<(String, String, u64, u64)> {
    merged
        .iter()
        .map(|(key, cell)| {
            (key.client.name.to_string(), key.server.name().to_owned(), cell.requests, cell.errors)
        })
        .collect()
}

fn row(client: &str, server: &str, requests: u64, errors: u64) -> (String, String, u64, u64) {
    (client.to_owned(), server.to_owned(), requests, errors)
}

fn drive(windows: &mut Windows, second: u64, partial: Partial) -> Merged {
    windows.merge(cut(second), vec![partial])
}

#[test]
fn halves_join_whichever_comes_first_and_teach_whose_an_address_is() {
    let mut windows = windows();
    let call = |address: &str| {
        (Arc::new(peer("front", address)), WindowId(100), EdgeCell { requests: 9, ..EdgeCell::default() })
    };
    // Before anything is joined, the address is all there is.
    let merged = drive(
        &mut windows,
        1_001,
        Partial { peers: vec![call("10.0.0.7:80"), call("mysql:3306")], ..Partial::default() },
    );
    let unknown = [row("front", "10.0.0.7:80", 9, 0), row("front", "mysql:3306", 9, 0)];
    assert_eq!(edges(&merged.tick.edges), unknown);
    assert_eq!(windows.topology().edges.len(), 2);

    let (client, server) =
        (half(1, 1, 0, "front", SpanKind::Client), half(1, 2, 1, "payment", SpanKind::Server));
    drive(&mut windows, 1_002, Partial { halves: vec![server.clone()], ..Partial::default() });
    // A checkpoint between the two ends loses neither.
    let state = windows.merge(Cut { checkpoint: true, ..cut(1_003) }, Vec::new()).state.unwrap();
    let mut windows = self::windows();
    windows.restore(&state).unwrap();
    let merged = drive(&mut windows, 1_004, Partial { halves: vec![client], ..Partial::default() });
    assert_eq!(edges(&merged.tick.edges), [row("front", "payment", 4, 4)]);
    let topology = windows.topology();
    let known: Vec<_> =
        topology.edges.iter().map(|edge| (edge.key.server.name(), edge.requests, edge.errors)).collect();
    assert_eq!(known, [("payment", 4, 4), ("mysql:3306", 9, 0)]);

    // Another client's calls to the address go to the service, this one's are not listed twice.
    let mut others = call("10.0.0.7:80");
    others.0 = Arc::new(peer("batch", "10.0.0.7:80"));
    let merged = drive(
        &mut windows,
        1_005,
        Partial { peers: vec![call("10.0.0.7:80"), others], ..Partial::default() },
    );
    assert_eq!(edges(&merged.tick.edges), [row("batch", "payment", 9, 0)]);
    let sealed = windows.merge(cut(1_025), Vec::new()).sealed;
    let window = sealed.iter().find(|window| window.id == WindowId(100)).unwrap();
    let all =
        [row("batch", "payment", 9, 0), row("front", "payment", 4, 4), row("front", "mysql:3306", 9, 0)];
    assert_eq!(edges(&window.edges), all);
    // The graph forgets after ten minutes.
    windows.merge(cut(1_005 + 601), Vec::new());
    windows.merge(cut(1_005 + 661), Vec::new());
    assert!(windows.topology().edges.is_empty());
}

#[test]
fn halves_of_one_service_or_a_minute_apart_do_not_join() {
    let mut windows = windows();
    let halves = vec![half(1, 1, 0, "a", SpanKind::Client), half(1, 2, 1, "a", SpanKind::Server)];
    assert!(drive(&mut windows, 1_001, Partial { halves, ..Partial::default() }).tick.edges.is_empty());
    let halves = vec![half(2, 1, 0, "a", SpanKind::Client)];
    drive(&mut windows, 1_002, Partial { halves, ..Partial::default() });
    let halves = vec![half(2, 2, 1, "b", SpanKind::Server)];
    assert!(drive(&mut windows, 1_062, Partial { halves, ..Partial::default() }).tick.edges.is_empty());
    // The oldest are let go when there are too many.
    let mut small = Config::default();
    small.set("span_halves", &toml::Value::Integer(1_000)).unwrap();
    let mut windows = Windows::new(small, Arc::new(Registry::default()));
    let halves = (0..1_001).map(|trace| half(trace, 1, 0, "a", SpanKind::Client)).collect();
    drive(&mut windows, 1_001, Partial { halves, ..Partial::default() });
    assert_eq!(windows.dropped(), (1, 0));
    let halves = vec![half(0, 2, 1, "b", SpanKind::Server), half(1, 2, 1, "b", SpanKind::Server)];
    let merged = drive(&mut windows, 1_002, Partial { halves, ..Partial::default() });
    assert_eq!(edges(&merged.tick.edges).len(), 0, "each new half let the next oldest go");
}

#[test]
fn service_graph_metrics_are_edges() {
    let key = |name: &str, client: &str| SeriesKey {
        service: ServiceKey::named("collector"),
        signal: Signal::Metrics,
        operation: name.into(),
        kind: SpanKind::Unspecified,
        entry: false,
        unit: "".into(),
        attributes: vec![("client".into(), client.into()), ("server".into(), "ledger".into())],
    };
    let new: Vec<(SeriesId, Arc<SeriesKey>)> = [
        key("traces_service_graph_request_total", "web"),
        key("traces_service_graph_request_failed_total", "web"),
    ]
    .map(|key| (key.id(), Arc::new(key)))
    .to_vec();
    let cells = [total(12), total(2)]
        .into_iter()
        .zip(&new)
        .map(|(cell, (id, _))| (*id, WindowId(100), cell))
        .collect();
    let registry = Arc::new(Registry::default());
    let mut windows = Windows::new(Config::default(), registry.clone());
    let merged = drive(&mut windows, 1_001, Partial { new: new.clone(), cells, ..Partial::default() });
    assert_eq!(edges(&merged.tick.edges), [row("web", "ledger", 12, 2)]);
    assert_eq!((merged.tick.new.len(), registry.len()), (2, 2));
    let edge = windows.topology().edges[0].key.clone();
    assert_eq!(
        (&*edge.client.name, edge.server.clone()),
        ("web", Node::Service(ServiceKey::named("ledger")))
    );
    // A series that is known is not new again.
    assert!(drive(&mut windows, 1_002, Partial { new, ..Partial::default() }).tick.new.is_empty());
}

#[test]
fn facets_are_in_the_tick_and_in_the_window() {
    let key = Arc::new(FacetKey {
        service: ServiceKey::named("a"),
        name: "service.instance.id".into(),
        value: "1".into(),
    });
    let facets = |window| vec![(key.clone(), WindowId(window), Facet { items: 1, ..Facet::default() })];
    let mut windows = windows();
    let both = vec![
        Partial { shard: 1, facets: facets(100), ..Partial::default() },
        Partial { shard: 0, facets: facets(99), ..Partial::default() },
    ];
    let merged = windows.merge(cut(1_001), both);
    assert_eq!(merged.tick.facets, [(key.clone(), Facet { items: 2, ..Facet::default() })]);
    let sealed: Vec<_> =
        (1_002..1_036).flat_map(|second| windows.merge(cut(second), Vec::new()).sealed).collect();
    let seen: Vec<_> = sealed
        .iter()
        .map(|window| {
            (
                window.id.0,
                window.facets.len(),
                window.quality.instances_seen,
                window.quality.instances_expected,
            )
        })
        .collect();
    assert_eq!(seen, [(98, 0, 0, 0), (99, 1, 1, 1), (100, 1, 1, 1), (101, 0, 0, 1)]);
}
