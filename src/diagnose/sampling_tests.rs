//! More rows than are kept: what is told of a sample is told of all.

use super::tests::{END_S, Fault, ONSET_S, START_S, rows, shop_until};
use super::*;
use crate::model::Timestamp;

#[test]
fn too_many_rows_are_sampled_by_whole_traces() {
    let source = shop_until(Fault::None, 1, END_S);
    let all = rows(&source);
    let mut gather = Gather::new(Limits { spans: 2_000, log_records: 2_000, points: 1 });
    for (signal, body, _) in &source.requests {
        decode(*signal, body, &Redaction::default(), &|_| true, &mut gather).unwrap();
    }
    let few = gather.finish();
    assert!(few.one_in > 1 && few.spans.len() <= 2_000 && few.spans.len() > 200);
    for kept in &few.spans {
        let of = |rows: &Rows| rows.spans.iter().filter(|span| span.trace == kept.trace).count();
        assert_eq!(of(&few), of(&all));
    }
}

/// The rows of two periods, of which of the later one at most so many spans and log records are kept.
fn sampled(fault: Fault, spans: usize, log_records: usize) -> (Rows, Rows) {
    let source = shop_until(fault, 1, ONSET_S + 60);
    let split = Timestamp::from_secs(ONSET_S);
    let mut gather = Gather::new(Limits { spans, log_records, points: 1 });
    for (signal, body, _) in &source.requests {
        decode(*signal, body, &Redaction::default(), &|at| at >= split, &mut gather).unwrap();
    }
    (rows(&source).between(Timestamp::from_secs(START_S), split), gather.finish())
}

#[test]
fn however_many_log_records_there_are_no_span_is_left_out_for_them() {
    let (_, all) = sampled(Fault::None, 1_000_000, 1_000_000);
    let (_, few) = sampled(Fault::None, 1_000_000, 100);
    assert_eq!((few.one_in, &few.spans), (1, &all.spans));
    assert!(few.logs_one_in > 1 && few.logs.len() <= 100 && few.logs.len() > 10);
    let (_, few) = sampled(Fault::None, 500, 1_000_000);
    assert_eq!((few.logs_one_in, &few.logs), (1, &all.logs));
    assert!(few.one_in > 1);
}

#[test]
fn a_sample_of_one_period_is_no_drop_of_traffic() {
    let (healthy, all) = sampled(Fault::None, 1_000_000, 1_000_000);
    let (_, few) = sampled(Fault::None, 500, 1_000_000);
    assert!(few.one_in >= 8, "{}", few.one_in);
    let seconds = (explain::covered_s(&healthy), explain::covered_s(&few));
    let pair = span_clues::Pair::new(&healthy.spans, &few.spans);
    let clues = |one_in| other_clues::traffic(&pair, seconds, one_in);
    assert!(!clues((1, 1)).is_empty(), "as if all had been kept");
    assert_eq!(clues((healthy.one_in, few.one_in)), []);
    // On a chart there are about as many, too.
    let step = std::time::Duration::from_secs(10);
    let requests = |rows: &Rows| {
        let points = series::series(rows.spans.iter(), step, rows.one_in);
        points.iter().map(|point| point.requests).sum::<u64>()
    };
    let (of_all, of_few) = (requests(&all), requests(&few));
    assert!(of_few > of_all / 2 && of_few < of_all * 2, "{of_few} of {of_all}");
}

#[test]
fn changed_lines_are_told_by_the_minute_whatever_is_read_of_a_period() {
    let cannot_bill = |log_records| {
        let (healthy, faulty) = sampled(Fault::Code, 1_000_000, log_records);
        let lines = compare(&healthy, &faulty, Timestamp::from_secs(ONSET_S)).lines;
        let line = lines.into_iter().find(|line| line.example.contains("cannot bill")).unwrap();
        (line.now, line.now_a_minute)
    };
    let ((of_all, all), (of_few, few)) = (cannot_bill(1_000_000), cannot_bill(400));
    // A minute of it is there.
    assert!((all - of_all as f64).abs() < of_all as f64 / 5.0, "{all} of {of_all}");
    assert!(of_few * 2 < of_all && few > all / 2.0 && few < all * 2.0, "{few} and {all} a minute");
}
