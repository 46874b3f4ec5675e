//! What the daemon knows of services, for advice on their objectives.

use crate::aggregate::Source;
use crate::api::v1;
use crate::cli::connection::Daemon;
use crate::cli::failure::Failure;
use crate::cli::moment::Moment;
use crate::cli::services::query;
use crate::model::{Clock as _, ServiceKey, SystemClock, Timestamp};
use crate::slo::{Counting, Definition, Known, MetricName, Traffic};
use std::time::Duration;

/// How finely it is asked when the first of a service came.
const STEPS: u32 = 1_000;
/// Series that one answer holds at most.
const SERIES_TOLD: usize = 1_000;

const fn length_ns(since: Moment) -> Option<i64> {
    match since {
        Moment::AgoNs(ns) => Some(ns),
        Moment::At(_) => None,
    }
}

pub(super) fn range(since: Moment) -> Result<(v1::TimeRange, Duration), Failure> {
    let ns = length_ns(since).ok_or_else(|| Failure::usage("--since takes a length such as 7d here"))?;
    let length = Duration::from_nanos(u64::try_from(ns).unwrap_or(0));
    Ok((v1::TimeRange { from: Some(v1::time_range::From::SinceAgoNs(ns)), to: None }, length))
}

/// What operations did, and after those that serve, in a row without a name, what roots of other kinds a service
/// began itself.
pub(super) fn traffic(daemon: &Daemon, service: &str, range: v1::TimeRange) -> Result<Vec<Traffic>, Failure> {
    let (operations, services) = daemon.ask(async |channel| {
        let request = v1::ListOperationsRequest { range: Some(range), service: service.to_owned() };
        let answer = query(channel.clone()).list_operations(request).await;
        let operations = answer.map_err(|status| daemon.failure(&status))?.into_inner().operations;
        let request = v1::ListServicesRequest { range: Some(range), service: service.to_owned() };
        let answer = query(channel).list_services(request).await;
        Ok((operations, answer.map_err(|status| daemon.failure(&status))?.into_inner().services))
    })?;
    let mut traffic: Vec<Traffic> = operations.into_iter().map(of_operation).collect();
    let roots: Vec<Traffic> = services.into_iter().filter_map(|row| roots(row, &traffic)).collect();
    traffic.extend(roots);
    Ok(traffic)
}

fn key(service: Option<v1::Service>) -> ServiceKey {
    let service = service.unwrap_or_default();
    ServiceKey::new(&service.environment, &service.namespace, &service.name)
}

fn ns(value: Option<i64>) -> u64 {
    value.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0)
}

fn of_operation(row: v1::OperationSummary) -> Traffic {
    Traffic {
        entry: matches!(row.kind(), v1::SpanKind::Server | v1::SpanKind::Consumer),
        service: key(row.service),
        operation: row.operation,
        requests: row.requests,
        errors: row.errors,
        p50_ns: ns(row.p50_ns),
        p99_ns: ns(row.p99_ns),
        p999_ns: ns(row.p999_ns),
    }
}

/// Requests of a service that none of its operations serves: roots of other kinds. `None` if there are none.
fn roots(row: v1::ServiceSummary, operations: &[Traffic]) -> Option<Traffic> {
    let service = key(row.service);
    let served = operations.iter().filter(|of| of.entry && of.service == service);
    let (requests, errors) = served.fold((0u64, 0u64), |(requests, errors), of| {
        (requests.saturating_add(of.requests), errors.saturating_add(of.errors))
    });
    let requests = row.requests.checked_sub(requests).filter(|requests| *requests > 0)?;
    Some(Traffic {
        service,
        operation: String::new(),
        entry: true,
        requests,
        errors: row.errors.saturating_sub(errors),
        p50_ns: ns(row.p50_ns),
        p99_ns: ns(row.p99_ns),
        p999_ns: ns(row.p999_ns),
    })
}

/// What services sent, of those whose metrics objectives count also which these are.
pub(super) fn known(
    daemon: &Daemon,
    range: v1::TimeRange,
    length: Duration,
    definitions: &[Definition],
) -> Result<Vec<Known>, Failure> {
    let services = daemon.ask(async |channel| {
        let request = v1::ListServicesRequest { range: Some(range), service: String::new() };
        let answer = query(channel).list_services(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().services)
    })?;
    let mut known = Vec::with_capacity(services.len());
    for row in services {
        let service = key(row.service);
        let of_metrics = |part: &Counting| matches!(part.source, Source::Metric { .. });
        let asks = |of: &Definition| service.is_meant_by(&of.service) && of.parts.iter().any(of_metrics);
        // Where that costs too much to be answered, they are not known.
        let metrics = definitions.iter().any(asks).then(|| metrics(daemon, &service, range, length).ok());
        let metrics = metrics.flatten().flatten();
        let signal = match (row.requests, row.log_records) {
            (1.., _) => v1::Signal::Traces,
            (0, 1..) => v1::Signal::Logs,
            (0, 0) => v1::Signal::Metrics,
        };
        // Of a service that no objective means, how long it was seen speaks for the daemon.
        let seen = seen(daemon, &service, signal, length)?;
        known.push(Known { service, seen, requests: row.requests, metrics });
    }
    Ok(known)
}

fn series(
    daemon: &Daemon,
    service: &ServiceKey,
    signal: v1::Signal,
    range: v1::TimeRange,
    step: Duration,
) -> Result<Vec<v1::TimeSeries>, Failure> {
    daemon.ask(async |channel| {
        let request = v1::GetTimeSeriesRequest {
            range: Some(range),
            service: service.to_string(),
            signal: signal as i32,
            name: String::new(),
            step_ns: i64::try_from(step.as_nanos()).unwrap_or(i64::MAX),
        };
        let answer = query(channel).get_time_series(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().series)
    })
}

/// How long ago the first came of what a service sent, at most `length`.
pub(super) fn seen(
    daemon: &Daemon,
    service: &ServiceKey,
    signal: v1::Signal,
    length: Duration,
) -> Result<Duration, Failure> {
    let mut seen = length;
    // Asked again of what the first answer left, it is known a thousand times as closely.
    for _ in 0..2 {
        let ago_ns = i64::try_from(seen.as_nanos()).unwrap_or(i64::MAX);
        let range = v1::TimeRange { from: Some(v1::time_range::From::SinceAgoNs(ago_ns)), to: None };
        let series = series(daemon, service, signal, range, seen / STEPS)?;
        let starts = series.iter().filter_map(|of| of.points.first()?.start);
        let Some(first) = starts.filter_map(|at| u64::try_from(at.seconds).ok()).min() else {
            return Ok(Duration::ZERO);
        };
        seen = SystemClock.now().since(Timestamp::from_secs(first)).min(seen);
    }
    Ok(seen)
}

/// The metrics of a service; `None` where they are more than are told.
fn metrics(
    daemon: &Daemon,
    service: &ServiceKey,
    range: v1::TimeRange,
    length: Duration,
) -> Result<Option<Vec<MetricName>>, Failure> {
    let series = series(daemon, service, v1::Signal::Metrics, range, length)?;
    let name = |of: v1::TimeSeries| MetricName {
        name: of.name,
        unit: of.unit,
        attributes: of
            .attributes
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect(),
    };
    Ok((series.len() < SERIES_TOLD).then(|| series.into_iter().map(name).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_that_nothing_serves_are_requests() {
        let service = |name: &str| Some(v1::Service { name: name.into(), ..v1::Service::default() });
        let of = |kind: v1::SpanKind, requests, errors| {
            let service = service("job");
            of_operation(v1::OperationSummary {
                service,
                kind: kind as i32,
                requests,
                errors,
                ..Default::default()
            })
        };
        let operations = [of(v1::SpanKind::Server, 10, 1), of(v1::SpanKind::Internal, 300, 9)];
        let row = |requests, errors| v1::ServiceSummary {
            service: service("job"),
            requests,
            errors,
            p99_ns: Some(7),
            ..v1::ServiceSummary::default()
        };
        let found = roots(row(110, 5), &operations).expect("a hundred of them");
        assert_eq!((found.entry, found.requests, found.errors, found.p99_ns), (true, 100, 4, 7));
        assert_eq!(roots(row(10, 1), &operations), None);
    }
}
