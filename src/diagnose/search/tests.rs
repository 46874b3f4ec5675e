//! Searches of more than fits.

use super::{Search, conditions, find, logs};
use crate::diagnose::{Memory, Redaction};
use crate::model::{Signal, Timestamp};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use std::ops::ControlFlow;

const AT_S: u64 = 1_700_000_000;

/// A request of so many log records, one in a hundred of which is looked for.
fn lines(records: u64) -> Bytes {
    let line = |number: u64| {
        let said = if number.is_multiple_of(100) { "needle" } else { "hay" };
        LogRecord {
            time_unix_nano: AT_S * 1_000_000_000 + number,
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(said.to_owned())) }),
            ..LogRecord::default()
        }
    };
    let scope_logs =
        vec![ScopeLogs { log_records: (0..records).map(line).collect(), ..ScopeLogs::default() }];
    let group = ResourceLogs { scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec().into()
}

fn needles(requests: Vec<Bytes>) -> usize {
    let at = Timestamp::from_secs(AT_S);
    let source = Memory { requests: requests.into_iter().map(|body| (Signal::Logs, body, at)).collect() };
    let (conditions, redaction) = (conditions("body=needle").unwrap(), Redaction::default());
    let search = Search {
        times: at..Timestamp::from_secs(AT_S + 1),
        conditions: &conditions,
        services: None,
        limit: 100_000,
        redaction: &redaction,
    };
    logs(&source, &search, &mut |_| ControlFlow::Continue(())).unwrap().items.len()
}

#[test]
fn nothing_is_left_out_of_large_requests() {
    // More together than is gathered at one time, and more by itself.
    let request = lines(2_000);
    assert_eq!(needles(vec![request; 210]), 210 * 20);
    let records = find::ROWS_TOGETHER as u64 * 2 + 100;
    assert_eq!(needles(vec![lines(300), lines(records), lines(300)]), 6 + find::ROWS_TOGETHER / 50 + 1);
}
