//! One request's way through the shop: a whole trace with its logs.

use super::fault::Fault;
use super::instance::{number, text};
use super::random::Random;
use super::shop::{self, Entry, Operation, Query, SERVICES, Step};
use super::simulation::{Item, Simulation};
use super::spans::{self, Failure, Level};
use crate::model::Timestamp;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use std::time::Duration;

const SIGMA: f64 = 0.35;
/// After this the database gives a statement up.
const STATEMENT_TIMEOUT: Duration = Duration::from_millis(2_000);
/// After this a request gives up waiting for a connection.
const POOL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// The database logs statements that take longer.
const SLOW_STATEMENT: Duration = Duration::from_millis(250);
const WORDS: [&str; 8] = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron"];

/// How an operation ended.
struct Outcome {
    end: Timestamp,
    failure: Option<Failure>,
}

/// Where in a service a trace is.
#[derive(Clone, Copy)]
struct Place {
    instance: usize,
    service: usize,
    span: [u8; 8],
}

/// A trace being made.
pub struct Walk<'a> {
    shop: &'a mut Simulation,
    random: Random,
    trace: [u8; 16],
}

impl<'a> Walk<'a> {
    /// Runs a request that nobody in the shop called.
    pub fn begin(shop: &'a mut Simulation, mut random: Random, operation: &str, at: Timestamp) {
        let trace = random.bytes();
        let mut walk = Self { shop, random, trace };
        walk.serve(operation, None, at);
    }

    fn latency(&mut self, median_ms: f64, pace: f64) -> Duration {
        self.random.latency(Duration::from_secs_f64(median_ms * pace / 1e3), SIGMA)
    }

    fn serve(&mut self, name: &str, parent: Option<[u8; 8]>, start: Timestamp) -> Outcome {
        let Some((operation_number, operation)) = shop::operation(name) else {
            return Outcome { end: start, failure: None };
        };
        let service = shop::service_number(operation.service).unwrap_or_default();
        let slots = SERVICES.get(service).map_or(1, |service| service.instances);
        let slot = self.random.below(slots);
        // Only what is left of it answers.
        let halved = self.shop.is_faulty(Fault::HalfDown, operation.service, start);
        let slot = if halved { slots.saturating_sub(1) } else { slot };
        let instance = self.shop.instance_at(service, slot, start);
        let place = Place { instance, service, span: self.random.bytes() };
        let (end, failure) = self.run(operation, place, start);
        let failure = failure.or_else(|| self.own_failure(operation, place, end));

        let status =
            failure.as_ref().map_or(if operation.name == "POST /orders" { 201 } else { 200 }, |f| f.status);
        let mut span = self.entry_span(operation, parent, place, start, end);
        if let Entry::Http(..) = operation.entry {
            span.attributes.push(number("http.response.status_code", i64::from(status)));
        }
        if let Some(failure) = &failure {
            spans::fail(&mut span, failure, end);
        }
        self.log_end(operation, place, end, failure.as_ref());
        if let Some(meters) = self.shop.meters.get_mut(instance) {
            meters.request(operation_number, operation, status, end.since(start).as_secs_f64());
        }
        self.shop.emit(end, instance, Item::Span(Box::new(span)));
        Outcome { end, failure }
    }

    fn entry_span(
        &mut self,
        operation: &Operation,
        parent: Option<[u8; 8]>,
        place: Place,
        start: Timestamp,
        end: Timestamp,
    ) -> Span {
        let (kind, attributes) = match operation.entry {
            Entry::Http(method, route) => {
                let path = route
                    .replace("{sku}", &format!("SKU-{}", 1000 + self.random.below(9000)))
                    .replace("{user}", WORDS[self.random.below(WORDS.len())]);
                let attributes = vec![
                    text("http.request.method", method),
                    text("http.route", route),
                    text("url.path", &path),
                    text("url.scheme", "http"),
                    text("server.address", operation.service),
                    number("server.port", 8080),
                    text("network.protocol.version", "1.1"),
                ];
                (SpanKind::Server, attributes)
            }
            Entry::Message => (SpanKind::Consumer, messaging("process")),
            Entry::Schedule => (SpanKind::Internal, Vec::new()),
        };
        let mut span = spans::span(self.trace, place.span, parent, operation.name, kind, start, end);
        span.attributes = attributes;
        span
    }

    /// Runs the steps one after the other, up to the first that fails.
    fn run(&mut self, operation: &Operation, place: Place, start: Timestamp) -> (Timestamp, Option<Failure>) {
        let mut pace = self.shop.drawn.pace.get(place.service).copied().unwrap_or(1.0);
        if self.shop.is_bad_version(place.instance) {
            pace *= 3.0;
        }
        let mut now = start;
        for step in operation.steps {
            let (end, failure) = match *step {
                Step::Work(median_ms) => (now.saturating_add(self.latency(median_ms, pace)), None),
                Step::Inner(name, median_ms) => {
                    let end = now.saturating_add(self.latency(median_ms, pace));
                    self.emit_child(place, name, SpanKind::Internal, now, end, Vec::new(), None);
                    (end, None)
                }
                Step::Query(query) => self.query(operation, place, query, now),
                Step::Call(callee) => self.call(callee, place, now),
                Step::Try(callee) => {
                    let (end, failure) = self.call(callee, place, now);
                    if let Some(failure) = failure {
                        let line = format!("going on without {callee}: {}", failure.message);
                        self.log(place, end, Level::Warn, &line);
                    }
                    (end, None)
                }
                Step::Publish(consumer) => (self.publish(consumer, place, now), None),
            };
            now = end;
            if failure.is_some() {
                return (now, failure);
            }
        }
        (now, None)
    }

    /// What goes wrong in the service's own code.
    fn own_failure(&mut self, operation: &Operation, place: Place, at: Timestamp) -> Option<Failure> {
        let failing = self.shop.drawn.failing;
        if self.shop.is_bad_version(place.instance) && self.random.chance(failing) {
            return Some(Failure::exception(
                "NullReferenceError",
                format!("{}: field 'discount' is missing in response model", operation.name),
            ));
        }
        if self.shop.is_faulty(Fault::FailingDependency, operation.service, at) && self.random.chance(failing)
        {
            return Some(Failure::exception(
                "IllegalStateError",
                format!("{}: upstream certificate bundle could not be loaded", operation.name),
            ));
        }
        let natural = self.shop.drawn.natural_failures.get(place.service).copied().unwrap_or_default();
        self.random
            .chance(natural)
            .then(|| Failure::exception("ConnectionResetError", "connection reset by peer".to_owned()))
    }

    fn call(&mut self, callee: &str, place: Place, start: Timestamp) -> (Timestamp, Option<Failure>) {
        let Some((_, operation)) = shop::operation(callee) else { return (start, None) };
        let span_id = self.random.bytes();
        let there = start.saturating_add(self.latency(0.4, 1.0));
        let down = self.shop.is_faulty(Fault::ServiceDown, operation.service, start)
            || (self.shop.is_faulty(Fault::HalfDown, operation.service, start) && self.random.chance(0.5));
        let outcome = if down {
            Outcome { end: there, failure: Some(Failure::refused(operation.service)) }
        } else {
            self.serve(callee, Some(span_id), there)
        };
        let end = outcome.end.saturating_add(self.latency(0.4, 1.0));
        let (method, route) = match operation.entry {
            Entry::Http(method, route) => (method, route),
            Entry::Message | Entry::Schedule => ("", ""),
        };
        let status = outcome.failure.as_ref().map_or(200, |failure| failure.status);
        let mut span =
            spans::span(self.trace, span_id, Some(place.span), method, SpanKind::Client, start, end);
        span.attributes = vec![
            text("http.request.method", method),
            text("url.full", &format!("http://{}:8080{route}", operation.service)),
            text("url.template", route),
            text("server.address", operation.service),
            number("server.port", 8080),
            number("http.response.status_code", i64::from(status)),
        ];
        let failure = outcome.failure.map(|failure| Failure {
            status: 502,
            kind: failure.status.to_string(),
            message: format!("{} answered {callee} with {}", operation.service, failure.status),
            own: false,
        });
        if let Some(failure) = &failure {
            spans::fail(&mut span, failure, end);
        }
        self.shop.emit(end, place.instance, Item::Span(Box::new(span)));
        (end, failure)
    }

    fn query(
        &mut self,
        operation: &Operation,
        place: Place,
        query: Query,
        start: Timestamp,
    ) -> (Timestamp, Option<Failure>) {
        let mut start = start;
        if self.shop.is_faulty(Fault::SaturatedPool, operation.service, start) {
            let waited = self.latency(650.0, 1.0).min(POOL_TIMEOUT);
            let end = start.saturating_add(waited);
            let failure = (waited == POOL_TIMEOUT || self.random.chance(0.25)).then(|| Failure {
                status: 503,
                kind: "ConnectionPoolTimeout".into(),
                message: "no connection available in pool postgres-primary: all in use".into(),
                own: true,
            });
            if let Some(waiting) = self.shop.waiting.get_mut(place.instance) {
                waiting.push(end);
            }
            self.emit_child(
                place,
                "pool.acquire",
                SpanKind::Internal,
                start,
                end,
                Vec::new(),
                failure.as_ref(),
            );
            if failure.is_some() {
                return (end, failure);
            }
            start = end;
        }
        let gone = self.shop.is_faulty(Fault::DatabaseDown, shop::DATABASE, start);
        let pace = self.database_pace();
        let mut duration = self.latency(query.median_ms, pace);
        let mut failure = None;
        if self.shop.is_faulty(Fault::SlowDatabase, operation.service, start) {
            duration = duration.mul_f64(self.shop.drawn.slowdown);
            if duration > STATEMENT_TIMEOUT || self.random.chance(0.2) {
                duration = STATEMENT_TIMEOUT;
                failure = Some(Failure {
                    status: 500,
                    kind: "57014".into(),
                    message: "canceling statement due to statement timeout".into(),
                    own: true,
                });
            }
        }
        if gone {
            duration = Duration::from_millis(1);
            failure = Some(Failure::refused(shop::DATABASE));
        }
        let end = start.saturating_add(duration);
        let name = format!("{} {}", query.verb, query.table);
        let mut attributes = vec![
            text("db.system.name", "postgresql"),
            text("db.namespace", "shop"),
            text("db.operation.name", query.verb),
            text("db.collection.name", query.table),
            text("db.query.text", query.text),
            text("server.address", shop::DATABASE),
            number("server.port", 5432),
        ];
        if let Some(failure) = &failure {
            attributes.push(text("db.response.status_code", &failure.kind));
        }
        self.emit_child(place, &name, SpanKind::Client, start, end, attributes, failure.as_ref());
        if !gone {
            self.database_line(query, end, duration, failure.as_ref());
        }
        (end, failure)
    }

    fn database_pace(&self) -> f64 {
        let database = shop::service_number(shop::DATABASE).unwrap_or_default();
        self.shop.drawn.pace.get(database).copied().unwrap_or(1.0)
    }

    /// What the database itself writes about a statement: it knows no traces.
    fn database_line(&mut self, query: Query, at: Timestamp, duration: Duration, failure: Option<&Failure>) {
        let database = shop::service_number(shop::DATABASE).unwrap_or_default();
        let instance = self.shop.instance_at(database, 0, at);
        if let Some(meters) = self.shop.meters.get_mut(instance) {
            meters.add(if failure.is_some() { "postgresql.rollbacks" } else { "postgresql.commits" }, 1);
        }
        let (level, line) = match failure {
            Some(failure) => (Level::Error, format!("{}: STATEMENT: {}", failure.message, query.text)),
            None if duration >= SLOW_STATEMENT => {
                let ms = duration.as_secs_f64() * 1e3;
                (Level::Warn, format!("duration: {ms:.3} ms  statement: {}", query.text))
            }
            None => return,
        };
        let record = spans::log(at, level, &line, None);
        self.shop.emit(at, instance, Item::Log(Box::new(record)));
    }

    fn publish(&mut self, consumer: &str, place: Place, start: Timestamp) -> Timestamp {
        let span_id = self.random.bytes();
        let end = start.saturating_add(self.latency(1.5, 1.0));
        let mut span =
            spans::span(self.trace, span_id, Some(place.span), "send orders", SpanKind::Producer, start, end);
        span.attributes = messaging("send");
        self.shop.emit(end, place.instance, Item::Span(Box::new(span)));
        let queue = shop::service_number(shop::QUEUE).unwrap_or_default();
        let broker = self.shop.instance_at(queue, 0, end);
        if let Some(meters) = self.shop.meters.get_mut(broker) {
            meters.add("rabbitmq.message.published", 1);
        }
        let taken = end.saturating_add(self.latency(15.0, 1.0));
        let consumes = shop::operation(consumer).map_or("", |(_, operation)| operation.service);
        if !self.shop.is_faulty(Fault::ServiceDown, consumes, taken) {
            self.serve(consumer, Some(span_id), taken);
        }
        end
    }

    #[allow(clippy::too_many_arguments, reason = "a span has this many properties")]
    fn emit_child(
        &mut self,
        place: Place,
        name: &str,
        kind: SpanKind,
        start: Timestamp,
        end: Timestamp,
        attributes: Vec<KeyValue>,
        failure: Option<&Failure>,
    ) {
        let id = self.random.bytes();
        let mut span = spans::span(self.trace, id, Some(place.span), name, kind, start, end);
        span.attributes = attributes;
        if let Some(failure) = failure {
            spans::fail(&mut span, failure, end);
        }
        self.shop.emit(end, place.instance, Item::Span(Box::new(span)));
    }

    fn log_end(&mut self, operation: &Operation, place: Place, at: Timestamp, failure: Option<&Failure>) {
        match failure {
            Some(failure) => {
                let line = format!("{} failed: {}: {}", operation.name, failure.kind, failure.message);
                self.log(place, at, Level::Error, &line);
            }
            None => {
                let n = (1 + self.random.below(99_999)).to_string();
                let word = WORDS[self.random.below(WORDS.len())];
                let line = operation.line.replace('#', &n).replace('@', word);
                self.log(place, at, Level::Info, &line);
            }
        }
    }

    fn log(&mut self, place: Place, at: Timestamp, level: Level, line: &str) {
        let record = spans::log(at, level, line, Some((self.trace, place.span)));
        self.shop.emit(at, place.instance, Item::Log(Box::new(record)));
    }
}

fn messaging(operation: &str) -> Vec<KeyValue> {
    vec![
        text("messaging.system", "rabbitmq"),
        text("messaging.destination.name", "orders"),
        text("messaging.operation.name", operation),
        text("messaging.operation.type", operation),
        text("server.address", shop::QUEUE),
        number("server.port", 5672),
    ]
}
