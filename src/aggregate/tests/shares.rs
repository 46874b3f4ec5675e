//! What one service or one caller may have of the series and services there are, and what of it is given back.

use super::*;

#[test]
fn beyond_its_share_a_service_is_counted_in_one_series() {
    let config = Config { series: 1_000, ..Config::default() };
    let mut shard = Shard::new(0, 1, &config);
    let mut sum = Merged::default();
    for round in 0..2 {
        for (service, count) in [("greedy", 500), ("modest", 100)] {
            let (request, pending) =
                admitted(Signal::Traces, named(service, (0..count).map(|n| format!("op{n}"))));
            shard.apply(Position(round), Timestamp::from_secs(NOW), &request);
            assert_eq!(outcome(pending), Outcome::default());
        }
        sum.take(shard.cut(cut(NOW + 1 + round, false)));
    }
    assert_eq!(sum.overflowed, 2 * 300);
    let of = |service: &str| -> (usize, u64, u64) {
        sum.cells.iter().filter(|((id, _), _)| &*sum.keys[id].service.name == service).fold(
            (0, 0, 0),
            |totals, ((id, _), cell)| {
                let other = if &*sum.keys[id].operation == "_other" { cell.items() } else { 0 };
                (totals.0 + 1, totals.1 + cell.items(), totals.2 + other)
            },
        )
    };
    assert_eq!(of("greedy"), (201, 1_000, 600));
    assert_eq!(of("modest"), (100, 200, 0));
}

#[test]
fn names_without_room_are_not_remembered() {
    let config = Config { series: 100, ..Config::default() };
    let mut shard = Shard::new(0, 1, &config);
    for round in 0..20 {
        let names = (0..500).map(|n| format!("op{}", 500 * round + n));
        let (request, _) = admitted(Signal::Traces, named("greedy", names));
        shard.apply(Position(round), Timestamp::from_secs(NOW), &request);
        let names: Vec<String> = (0..500).map(|n| format!("metric{}", 500 * round + n)).collect();
        let gauge = || {
            let value = Some(Value::AsInt(1));
            let point = NumberDataPoint { time_unix_nano: NOW * NS, value, ..NumberDataPoint::default() };
            Data::Gauge(Gauge { data_points: vec![point] })
        };
        let body = metrics("greedy", names.iter().map(|name| (name.as_str(), gauge())).collect());
        shard.apply(Position(round), Timestamp::from_secs(NOW), &admitted(Signal::Metrics, body).0);
        shard.cut(cut(NOW + 1 + round, false));
    }
    let texts = shard.series.texts();
    assert!(texts <= 2 * 100, "{texts} texts for a hundred series");
}

#[test]
fn services_that_want_all_series_there_are_leave_some_to_those_that_have_few() {
    let config = Config { series: 1_000, ..Config::default() };
    let mut shard = Shard::new(0, 1, &config);
    let mut send = |service: &str, names: std::ops::Range<u32>| {
        let body = named(service, names.map(|n| format!("op{n}")));
        shard.apply(Position(0), Timestamp::from_secs(NOW), &admitted(Signal::Traces, body).0);
    };
    for part in 0..10 {
        for noisy in 0..5 {
            send(&format!("noisy-{noisy}"), part * 50..(part + 1) * 50);
        }
    }
    for late in 0..15 {
        send(&format!("late-{late}"), 0..1);
    }
    let mut sum = Merged::default();
    sum.take(shard.cut(cut(NOW + 1, false)));
    let apart = |name: &str| {
        let own = sum.keys.values().filter(|key| key.service.name.starts_with(name));
        own.filter(|key| &*key.operation != "_other").count()
    };
    assert_eq!(apart("late-"), 15);
    assert!((900..980).contains(&apart("noisy-")), "{}", apart("noisy-"));
    assert_eq!(sum.cells.values().map(Cell::items).sum::<u64>(), 5 * 500 + 15);
}

#[test]
fn of_many_shards_no_service_takes_more_than_half_of_one() {
    let config = Config { series: 1_000, ..Config::default() };
    let mut sum = Merged::default();
    for mut shard in (0..10).map(|number| Shard::new(number, 10, &config)) {
        for (place, (service, count)) in [("greedy", 500), ("modest", 40)].into_iter().enumerate() {
            let (request, _pending) =
                admitted(Signal::Traces, named(service, (0..count).map(|n| format!("op{n}"))));
            shard.apply(Position(place as u64), Timestamp::from_secs(NOW), &request);
        }
        sum.take(shard.cut(cut(NOW + 1, false)));
    }
    let apart = |service: &str| {
        sum.keys.values().filter(|key| &*key.service.name == service && &*key.operation != "_other").count()
    };
    assert_eq!((apart("greedy"), apart("modest")), (50, 40));
}

#[test]
fn a_series_without_an_item_for_an_hour_makes_room_for_others() {
    const BEGIN: u64 = 1_700_000_100;
    let config = Config { series: 1_000, ..Config::default() };
    let mut shard = Shard::new(0, 1, &config);
    let mut sum = Merged::default();
    let (mut at, mut last) = (0, BEGIN - 1);
    // Counts one span of each name; how many series there are then.
    let mut send = |second: u64, names: std::ops::Range<u64>| {
        // Each five minutes what was not used for an hour is let go of.
        for second in last + 1..=second {
            sum.take(shard.cut(cut(second, false)));
        }
        last = second + 1;
        let (request, pending) =
            admitted(Signal::Traces, named_at(second, "busy", names.map(|n| format!("op{n}"))));
        shard.apply(Position(at), Timestamp::from_secs(second), &request);
        at += 1;
        assert_eq!(outcome(pending), Outcome::default());
        let partial = shard.cut(cut(second + 1, false));
        let (live, overflowed) = (partial.series, partial.overflowed.first().map_or(0, |(_, items)| *items));
        sum.take(partial);
        (live, overflowed)
    };
    assert_eq!(send(BEGIN, 0..250), (201, 50), "200 apart, the rest together");
    for quarter in 1..4 {
        assert_eq!(send(BEGIN + quarter * 900, 0..20), (201, 0), "a series that is used stays");
    }
    assert_eq!(send(BEGIN + 3_600, 0..20), (201, 0), "not yet an hour");
    assert_eq!(send(BEGIN + 4_500, 300..400), (120, 0), "20 are in use, 100 are new");
    assert_eq!(
        send(BEGIN + 5_400, 0..250),
        (201, 150),
        "who comes back is counted apart while there is room"
    );
    let items: u64 = sum.cells.values().map(Cell::items).sum();
    assert_eq!(items, 250 + 4 * 20 + 100 + 250);
}

#[test]
fn services_that_send_no_more_make_room_for_others() {
    let mut shard = Shard::new(0, 1, &Config { series: 1_000, ..Config::default() });
    // A tenth as many services as series; how many there were by name of those sent.
    let mut send = |second: u64, services: std::ops::Range<u64>| {
        for service in services {
            let body = named_at(second, &format!("service-{service}"), std::iter::once("x".to_owned()));
            shard.apply(Position(service), Timestamp::from_secs(second), &admitted(Signal::Traces, body).0);
        }
        let partial = shard.cut(cut(second + 1, false));
        let keys = partial.new.into_iter().map(|(_, key)| key.service.name.clone());
        keys.filter(|name| &**name != "_other").count()
    };
    assert_eq!(send(NOW, 0..150), 100);
    assert_eq!(send(NOW + 600, 200..300), 0, "there is no room yet");
    assert_eq!(send(NOW + 7_200, 0..0), 0);
    assert_eq!(send(NOW + 7_201, 400..450), 50);
    assert_eq!(send(NOW + 7_202, 0..50), 50, "who comes back is told of as new");
}

/// Counts a span of each name for a caller.
fn send(shard: &mut Shard, caller: u16, body: Vec<u8>) {
    let (mut request, pending) = admitted(Signal::Traces, body);
    request.caller = CallerTag(caller);
    shard.apply(Position(0), Timestamp::from_secs(NOW), &request);
    assert_eq!(outcome(pending), Outcome::default());
}

const MODEST: u16 = 1;
const INVENTOR: u16 = 2;
const LATE: u16 = 3;

#[test]
fn a_caller_that_invents_services_leaves_room_for_the_services_of_others() {
    let mut shard = Shard::new(0, 1, &Config { series: 1_000, ..Config::default() });
    let names = |of: std::ops::Range<u32>| of.map(|n| format!("op{n}"));
    send(&mut shard, MODEST, named("known", names(0..3)));
    // Of services, of which there may be a hundred, and then of series.
    for number in 0..2_000 {
        send(&mut shard, INVENTOR, named(&format!("svc-{number}"), names(number * 3..number * 3 + 3)));
    }
    for number in 0..100 {
        send(&mut shard, INVENTOR, named(&format!("svc-{number}"), names(0..20)));
    }
    send(&mut shard, MODEST, named("known", names(0..10)));
    for number in 0..3 {
        send(&mut shard, MODEST, named(&format!("new-{number}"), names(0..5)));
    }
    let partial = shard.cut(cut(NOW + 1, false));
    let turned_away = partial.turned_away.clone();
    let mut sum = Merged::default();
    sum.take(partial);
    let apart = |name: &str| {
        let own = sum.keys.values().filter(|key| key.service.name.starts_with(name));
        own.filter(|key| &*key.operation != "_other").count()
    };
    assert_eq!((apart("known"), apart("new-")), (10, 15));
    let invented: std::collections::BTreeSet<&str> =
        sum.keys.values().map(|key| &*key.service.name).collect();
    let invented = invented.iter().filter(|name| name.starts_with("svc-")).count();
    assert!((85..96).contains(&invented), "{invented} of a hundred services");
    assert!((850..=942).contains(&(apart("svc-") + apart("_other"))), "{}", apart("svc-"));
    let items: u64 = sum.cells.values().map(Cell::items).sum();
    assert_eq!(items, 3 + 2_000 * 3 + 100 * 20 + 10 + 15, "all is counted");
    let [(caller, items)] = turned_away[..] else { panic!("{turned_away:?}") };
    assert_eq!(caller, CallerTag(INVENTOR), "whoever makes it so is named");
    assert!(items > 5_000, "{items}");
}

/// However many series others have: its objectives go by what is counted for it.
#[test]
fn a_known_service_keeps_its_totals_when_all_series_are_taken() {
    let mut shard = Shard::new(0, 1, &Config { series: 1_000, ..Config::default() });
    let names = |of: std::ops::Range<u32>| of.map(|n| format!("op{n}"));
    send(&mut shard, INVENTOR, named("known", names(0..1)));
    for service in 0..5 {
        send(&mut shard, INVENTOR, named(&format!("busy-{service}"), names(0..200)));
    }
    shard.set_indicators(vec![indicator("known")].into());
    // From the one that has all it may have, and from others.
    for caller in [INVENTOR, MODEST, LATE] {
        send(&mut shard, caller, named("known", names(1_000..1_010)));
    }
    let mut sum = Merged::default();
    sum.take(shard.cut(cut(NOW + 1, false)));
    assert_eq!(sum.seconds.values().map(|(_, all)| all).sum::<u64>(), 30, "its objective counts all");
    assert!(sum.keys.values().all(|key| &*key.service.name != "_other"), "each is counted for its service");
    let together = |key: &SeriesKey| &*key.service.name == "known" && &*key.operation == "_other";
    assert_eq!(sum.keys.values().filter(|key| together(key)).count(), 1, "which has no room for more apart");
    let of_known = sum.cells.iter().filter(|((id, _), _)| &*sum.keys[id].service.name == "known");
    assert_eq!(of_known.map(|(_, cell)| cell.items()).sum::<u64>(), 31);
}

/// What one caller may not bring another may, in the same bytes.
#[test]
fn a_service_that_was_refused_to_one_caller_is_taken_from_another() {
    let mut shard = Shard::new(0, 1, &Config { series: 1_000, ..Config::default() });
    let one = |name: &str| named(name, std::iter::once("x".to_owned()));
    for number in 0..200 {
        send(&mut shard, INVENTOR, one(&format!("svc-{number}")));
    }
    let turns = [(INVENTOR, false), (MODEST, true), (INVENTOR, true)];
    for (round, (caller, apart)) in (0u64..).zip(turns) {
        send(&mut shard, caller, one("wanted"));
        let partial = shard.cut(cut(NOW + 1 + round, false));
        assert_eq!(partial.turned_away.is_empty(), apart, "of {caller}");
        let is_new = partial.new.iter().any(|(_, key)| &*key.service.name == "wanted");
        assert_eq!(is_new, caller == MODEST, "of {caller}");
    }
}

/// However it was told of: here by another instance.
#[test]
fn a_service_that_another_brought_is_counted_for_itself_from_then_on() {
    let mut shard = Shard::new(0, 1, &Config { series: 1_000, ..Config::default() });
    let of = |service: &str, instance: &str| {
        let body = named(service, std::iter::once("x".to_owned()));
        let mut request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        request.resource_spans[0].resource = resource(service, instance);
        request.encode_to_vec()
    };
    for number in 0..200 {
        send(&mut shard, INVENTOR, of(&format!("svc-{number}"), "1"));
    }
    send(&mut shard, INVENTOR, of("wanted", "1"));
    send(&mut shard, MODEST, of("wanted", "2"));
    send(&mut shard, INVENTOR, of("wanted", "1"));
    let mut sum = Merged::default();
    sum.take(shard.cut(cut(NOW + 1, false)));
    let of_wanted = sum.cells.iter().filter(|((id, _), _)| &*sum.keys[id].service.name == "wanted");
    assert_eq!(of_wanted.map(|(_, cell)| cell.items()).sum::<u64>(), 2, "all but the first");
}

/// The table is full of what others brought.
#[test]
fn who_brought_little_is_not_named_when_there_is_no_room() {
    let mut shard = Shard::new(0, 1, &Config { series: 1_000, ..Config::default() });
    let names = |of: std::ops::Range<u32>| of.map(|n| format!("op{n}"));
    send(&mut shard, MODEST, named("modest", names(0..3)));
    for caller in 10..18 {
        for part in 0..20 {
            let body = named(&format!("svc-{caller}-{part}"), names(0..20));
            send(&mut shard, caller, body);
        }
    }
    send(&mut shard, MODEST, named("modest", names(0..50)));
    let turned_away = shard.cut(cut(NOW + 1, false)).turned_away;
    assert!(!turned_away.is_empty());
    assert!(turned_away.iter().all(|(caller, _)| *caller != CallerTag(MODEST)), "{turned_away:?}");
}

/// As behind a collector, which brings what many send.
#[test]
fn one_caller_alone_has_nearly_all_there_is() {
    let mut shard = Shard::new(0, 1, &Config { series: 1_000, ..Config::default() });
    for number in 0..90 {
        let names = (0..10).map(|n| format!("op{n}"));
        send(&mut shard, INVENTOR, named(&format!("svc-{number}"), names));
    }
    let partial = shard.cut(cut(NOW + 1, false));
    assert_eq!((partial.series, partial.overflowed, partial.turned_away), (900, Vec::new(), Vec::new()));
}

#[test]
fn what_a_caller_brought_is_given_back_when_it_sends_no_more() {
    let mut shard = Shard::new(0, 1, &Config { series: 1_000, ..Config::default() });
    let mut round = |second: u64, round: u32| {
        for number in 0..200 {
            let body = named_at(second, &format!("svc-{round}-{number}"), std::iter::once("x".to_owned()));
            let (mut request, _pending) = admitted(Signal::Traces, body);
            request.caller = CallerTag(INVENTOR);
            shard.apply(Position(0), Timestamp::from_secs(second), &request);
        }
        let new = shard.cut(cut(second + 1, false)).new;
        new.iter().filter(|(_, key)| &*key.service.name != "_other").count()
    };
    let first = round(NOW, 0);
    assert!((85..96).contains(&first), "{first}");
    assert!(round(NOW + 60, 1) <= 1);
    // Each five minutes what was not used for an hour is let go of.
    assert_eq!(round(NOW + 7_200, 2), 0);
    let again = round(NOW + 7_201, 3);
    assert!((85..96).contains(&again), "{again}");
}

/// What stands for all others is one service; those that only share its name are bounded as any.
#[test]
fn services_that_are_named_like_the_rest_are_bounded_as_others_are() {
    let mut shard = Shard::new(0, 1, &Config { series: 1_000, ..Config::default() });
    for number in 0..300 {
        let body = named("_other", ["x".to_owned(), "y".to_owned()].into_iter());
        let mut request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        let of = request.resource_spans[0].resource.as_mut().unwrap();
        of.attributes.push(pair("service.namespace", &number.to_string()));
        send(&mut shard, MODEST, request.encode_to_vec());
    }
    let services: std::collections::BTreeSet<ServiceKey> =
        shard.cut(cut(NOW + 1, false)).new.iter().map(|(_, key)| key.service.clone()).collect();
    assert!((90..=101).contains(&services.len()), "{}", services.len());
}
