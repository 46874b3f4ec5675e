//! Requests at random, and what a plain loop over what prost decodes makes of them.

use super::*;

fn span() -> impl Strategy<Value = Span> {
    (
        (prop::sample::select(vec!["get", "put", "", "list"]), 0i32..8, 0u8..4, 0u8..3),
        (prop_oneof![Just(0u64), 0u64..40, Just(7_200)], 0u64..3_000_000_000, 0u64..20),
        (0i32..3, prop::sample::select(vec!["", "ot=th:8", "x=y"]), 0u8..3),
    )
        .prop_map(|((name, kind, id, parent), (back_s, duration, ahead_s), (status, state, peer))| {
            let end = (NOW - back_s) * NS + if back_s == 0 { ahead_s * NS } else { 0 } + duration % NS;
            Span {
                trace_id: vec![id; 16],
                span_id: vec![id.wrapping_add(peer); 8],
                parent_span_id: if parent == 0 { vec![] } else { vec![parent; 8] },
                trace_state: state.into(),
                name: name.into(),
                kind,
                start_time_unix_nano: end - duration,
                end_time_unix_nano: end,
                status: (status > 0).then(|| Status { code: status, ..Status::default() }),
                attributes: match peer {
                    0 => vec![],
                    1 => vec![pair("server.address", "db.internal"), pair("db.system", "postgresql")],
                    _ => vec![pair("peer.service", "other"), pair("http.route", "/x")],
                },
                ..Span::default()
            }
        })
}

pub(super) fn traces() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let of_resource = (prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["i1", "i2", "i3"]))
        .prop_flat_map(|(service, instance)| {
            prop::collection::vec(prop::collection::vec(span(), 0..12), 0..3).prop_map(move |scopes| {
                ResourceSpans {
                    resource: resource(service, instance),
                    scope_spans: scopes
                        .into_iter()
                        .map(|spans| ScopeSpans { spans, ..ScopeSpans::default() })
                        .collect(),
                    ..ResourceSpans::default()
                }
            })
        });
    prop::collection::vec(of_resource, 0..4)
        .prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

pub(super) fn indicator(service: &str) -> Indicator {
    Indicator {
        id: IndicatorId(7),
        service: ServiceKey::new("prod", "", service),
        source: Source::Spans {
            operation: None,
            good: GoodSpans { threshold_ns: Some(NS), errors_are_bad: true, ..GoodSpans::default() },
        },
        only: Vec::new(),
        users: None,
    }
}

/// What a plain loop over decoded spans counts.
pub(super) fn expected(requests: &[ExportTraceServiceRequest], indicator: &Indicator) -> Merged {
    let mut sum = Merged::default();
    for (place, request) in requests.iter().enumerate() {
        for of_resource in &request.resource_spans {
            let text = |key: &str| {
                let attributes = &of_resource.resource.as_ref().unwrap().attributes;
                match &attributes.iter().find(|pair| pair.key == key).unwrap().value {
                    Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => text.clone(),
                    _ => panic!("text"),
                }
            };
            let service = ServiceKey::new("prod", "", &text("service.name"));
            for span in of_resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                let (now, mut end) = (NOW * NS, span.end_time_unix_nano);
                if end + 3_600 * NS < now {
                    *sum.rejected.entry(RejectedReason::TooOld).or_default() += 1;
                    *sum.untimely.entry((service.clone(), UntimelyReason::TooOld)).or_default() += 1;
                    continue;
                }
                if end > now + 10 * NS {
                    (end, sum.late) = (now, sum.late + 1);
                    *sum.untimely.entry((service.clone(), UntimelyReason::Future)).or_default() += 1;
                }
                sum.accepted.spans += 1;
                let kind = SpanKind::from_wire(span.kind as u64);
                let entry = kind.is_entry() || span.parent_span_id.is_empty();
                let key = SeriesKey {
                    service: service.clone(),
                    signal: Signal::Traces,
                    operation: (*operation_name(&span.name)).into(),
                    kind,
                    entry,
                    unit: "".into(),
                    attributes: vec![],
                };
                let duration = span.end_time_unix_nano - span.start_time_unix_nano;
                let error = span.status.as_ref().is_some_and(|status| status.code == 2);
                let weight = Weight(if span.trace_state == "ot=th:8" { 2 << 16 } else { 1 << 16 });
                let exemplar = Exemplar {
                    trace: TraceId::from_wire(&span.trace_id),
                    span: SpanId::from_wire(&span.span_id),
                    value_ns: duration,
                    time: Timestamp(end),
                    at: Position(place as u64),
                };
                let mut one = Requests {
                    seen: 1,
                    weight,
                    errors: u64::from(error),
                    errors_weight: if error { weight } else { Weight(0) },
                    sum_ns: duration,
                    slowest: Some(exemplar),
                    failed: error.then_some(exemplar),
                    first: Timestamp(end),
                    last: Timestamp(end),
                    ..Requests::default()
                };
                one.latency.record(duration as f64);
                let window = WindowId::of(Timestamp(end));
                if indicator.counts(&key) {
                    let count = sum.seconds.entry((indicator.id, end / NS)).or_default();
                    count.0 += u64::from(!error && duration <= NS);
                    count.1 += 1;
                }
                for (name, value) in
                    [("service.instance.id", text("service.instance.id")), ("service.version", "1.2".into())]
                {
                    let key = FacetKey {
                        service: service.clone(),
                        name: name.into(),
                        value: value.as_str().into(),
                    };
                    sum.facets.entry((key, window)).or_default().merge(&Facet {
                        items: 1,
                        requests: u64::from(entry),
                        errors: u64::from(entry && error),
                        sum_ns: if entry { duration } else { 0 },
                    });
                }
                if matches!(kind, SpanKind::Client | SpanKind::Producer) && !span.attributes.is_empty() {
                    let (address, system) = match span.attributes[0].key.as_str() {
                        "server.address" => ("db.internal", "postgresql"),
                        _ => ("other", "http"),
                    };
                    let key = PeerKey {
                        client: service.clone(),
                        address: address.into(),
                        system: system.into(),
                        kind,
                    };
                    let mut cell = EdgeCell { requests: 1, errors: u64::from(error), ..EdgeCell::default() };
                    cell.latency.record(duration as f64);
                    sum.peers.entry((key, window)).or_default().merge(&cell);
                }
                sum.halves += usize::from(!exemplar.trace.is_none());
                let id = key.id();
                sum.keys.insert(id, key);
                let one = Cell::Requests(Box::new(one));
                sum.cells.entry((id, window)).and_modify(|cell| cell.merge(&one)).or_insert(one);
            }
        }
    }
    sum
}
