//! One pass against two: whatever [`Rows`] reads is what the check and the views show.

use super::against_prost::{damage, draw};
use super::every_field::every_field;
use super::schema;
use super::*;
use crate::model::Signal;
use fastrand::Rng;
use opentelemetry_proto::tonic::{logs::v1 as logs, trace::v1 as trace};
use proptest::prelude::*;
use prost::Message;

/// All that a span shows, however it was read.
fn shown(span: SpanView<'_>) -> String {
    let mut fields = span;
    fields.begin_attributes(&[]);
    format!("{fields:?} {:?}", span.attributes().collect::<Vec<_>>())
}

/// What reading and checking in one pass makes of a resource: all items, written out.
fn in_one_pass(signal: Signal, bytes: &[u8]) -> Option<String> {
    let mut rows = Rows::default();
    match signal {
        Signal::Traces => rows.spans(bytes, |_| false).map(|(resource, spans)| {
            format!("{resource:?} {:?}", spans.into_iter().map(shown).collect::<Vec<_>>())
        }),
        Signal::Logs => rows.logs(bytes, |_| false).map(|read| format!("{read:?}")),
        Signal::Metrics => None,
    }
}

/// The same after the check of the whole.
fn in_two_passes(signal: Signal, bytes: &[u8]) -> Option<String> {
    let checked = Checked::new(signal, bytes).ok()?;
    match signal {
        Signal::Traces => {
            let spans: Vec<_> = checked.spans().scopes().flat_map(|scope| scope.items()).collect();
            let resource = checked.spans().resource();
            Some(format!("{resource:?} {:?}", spans.into_iter().map(shown).collect::<Vec<_>>()))
        }
        Signal::Logs => {
            let logs: Vec<_> = checked.logs().scopes().flat_map(|scope| scope.items()).collect();
            Some(format!("{:?}", (checked.logs().resource(), logs)))
        }
        Signal::Metrics => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6_000))]

    #[test]
    fn one_pass_shows_what_two_do_or_leaves_it_to_them(seed: u64, as_encoded: bool, damaged: bool) {
        let mut rng = Rng::with_seed(seed);
        let signal = *rng.choice(&[Signal::Traces, Signal::Logs]).unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < 40 {
            draw(&mut rng, schema::resource(signal), 0, &mut bytes);
        }
        if as_encoded {
            // What prost would have written of it: laid out plainly.
            bytes = match signal {
                Signal::Traces => trace::ResourceSpans::decode(&*bytes).map(|of| of.encode_to_vec()),
                _ => logs::ResourceLogs::decode(&*bytes).map(|of| of.encode_to_vec()),
            }.unwrap_or(bytes);
        }
        if damaged {
            damage(&mut rng, &mut bytes);
        }
        if let Some(one) = in_one_pass(signal, &bytes) {
            prop_assert_eq!(Some(one), in_two_passes(signal, &bytes));
        }
    }
}

/// The lists' memory is used again, whatever became of a resource.
#[test]
fn rows_keep_their_memory() {
    let [spans, ..] = every_field();
    let many: Vec<u8> = {
        let of = trace::ResourceSpans::decode(&*spans).unwrap();
        let mut scope = of.scope_spans[0].clone();
        scope.spans = vec![scope.spans[0].clone(); 300];
        trace::ResourceSpans { scope_spans: vec![scope], ..of }.encode_to_vec()
    };
    let mut rows = Rows::default();
    let (_, read) = rows.spans(&many, |_| false).unwrap();
    let (memory, room) = (read.as_ptr().addr(), read.capacity());
    assert_eq!(read.len(), 300);
    rows.keep_spans(read);
    assert!(rows.spans(&many[..many.len() - 1], |_| false).is_none(), "damaged");
    let (_, read) = rows.spans(&many, |_| false).unwrap();
    assert_eq!((read.as_ptr().addr(), read.capacity()), (memory, room));
}

/// What every encoder writes is read in one pass, with every field set.
#[test]
fn plain_messages_are_read_in_one_pass() {
    let [spans, logs, _] = every_field();
    for (signal, bytes) in [(Signal::Traces, spans), (Signal::Logs, logs)] {
        let one = in_one_pass(signal, &bytes);
        assert!(one.is_some(), "{signal:?}");
        assert_eq!(one, in_two_passes(signal, &bytes));
    }
}
