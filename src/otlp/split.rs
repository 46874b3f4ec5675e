//! The split of a request by resource.

use super::schema;
use super::wire::{Damage, Fields, Malformed, Repeated, Value, WireType};
use super::{PARTITIONS, Slice};
use crate::model::Signal;
use foldhash::quality::FixedState;
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hasher};

/// Fixed, since the partition of a resource must be the same after a restart.
const SEED: FixedState = FixedState::with_seed(0x6261_726f_6772_6170);

/// Splits an inflated request into one slice for each of its resources. Only what lies outside the
/// resources is checked; each of them is for [`super::Checked`].
///
/// # Errors
/// Damage outside any resource: nothing of the request can be trusted then.
pub fn split(signal: Signal, body: &[u8]) -> Result<SmallVec<[Slice; 8]>, Malformed> {
    split_within(signal, body, usize::MAX)
}

/// The same of a request that may have `limit` resources.
///
/// # Errors
/// That it has more, too.
pub fn split_within(signal: Signal, body: &[u8], limit: usize) -> Result<SmallVec<[Slice; 8]>, Malformed> {
    let mut slices = SmallVec::new();
    let mut fields = Fields::of(body);
    loop {
        let start = fields.offset();
        let malformed = |what, number: Option<u32>, index: usize| Malformed {
            path: match number {
                Some(1) => format!("{}[{index}]", schema::resources_name(signal)),
                _ => String::new(),
            },
            offset: start,
            what,
        };
        match fields.try_next() {
            Ok(None) => return Ok(slices),
            Ok(Some(field)) if field.number == 1 => {
                let Value::Bytes(resource) = field.value else {
                    let what =
                        Damage::WrongWireType { found: field.value.wire_type(), expected: WireType::Bytes };
                    return Err(malformed(what, Some(1), slices.len()));
                };
                if slices.len() >= limit {
                    let what = Damage::TooManyResources { limit };
                    return Err(malformed(what, None, slices.len()));
                }
                let end = fields.offset();
                let begin = end.saturating_sub(resource.len());
                let (Ok(begin), Ok(end)) = (u32::try_from(begin), u32::try_from(end)) else {
                    // Requests are far smaller; a limit of 4 GiB lies in the type of the range.
                    let left = u64::from(u32::MAX);
                    return Err(malformed(
                        Damage::PastTheEnd { announced: end as u64, left },
                        Some(1),
                        slices.len(),
                    ));
                };
                slices.push(Slice { partition: partition(resource), range: begin..end });
            }
            Ok(Some(_)) => {}
            Err(what) => return Err(malformed(what, Fields::number_at(body, start), slices.len())),
        }
    }
}

/// The partition of a resource: a hash of its attributes that ignores their order.
#[must_use]
pub fn partition(resource: &[u8]) -> u8 {
    let mut sum = 0u64;
    for attributes in Repeated::of(resource, 1) {
        for attribute in Repeated::of(attributes, 1) {
            let mut hasher = SEED.build_hasher();
            hasher.write(attribute);
            sum = sum.wrapping_add(hasher.finish());
        }
    }
    // The sum's low bits are as good as any; its hash is not needed.
    (sum % u64::from(PARTITIONS)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
    use prost::Message;

    fn resource(attributes: &[(&str, &str)]) -> ResourceSpans {
        let attributes = attributes
            .iter()
            .map(|(key, value)| KeyValue {
                key: (*key).into(),
                value: Some(AnyValue { value: Some(Any::StringValue((*value).into())) }),
                ..KeyValue::default()
            })
            .collect();
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            ..ResourceSpans::default()
        }
    }

    #[test]
    fn slices_hold_their_resources_and_order_of_attributes_does_not_matter() {
        let resources = vec![
            resource(&[("a", "1"), ("b", "2")]),
            resource(&[("b", "2"), ("a", "1")]),
            resource(&[]),
            resource(&[("a", "2"), ("b", "1")]),
        ];
        let body = ExportTraceServiceRequest { resource_spans: resources.clone() }.encode_to_vec();
        let slices = split(Signal::Traces, &body).unwrap();
        assert_eq!(slices.len(), 4);
        for (slice, resource) in slices.iter().zip(&resources) {
            let range = slice.range.start as usize..slice.range.end as usize;
            assert_eq!(ResourceSpans::decode(&body[range]).as_ref(), Ok(resource));
        }
        assert_eq!(slices[0].partition, slices[1].partition);
        assert_ne!(slices[0].partition, slices[3].partition);
    }

    #[test]
    fn partitions_are_even_and_the_same_in_every_build() {
        let mut filled = [0u32; PARTITIONS as usize];
        for number in 0..6_400 {
            let body = resource(&[("service.name", &format!("service-{number}"))]).encode_to_vec();
            filled[usize::from(partition(&body))] += 1;
        }
        assert!(filled.iter().all(|n| (60..=145).contains(n)), "{filled:?}");
        let body = resource(&[("service.name", "cart"), ("service.version", "1.0")]).encode_to_vec();
        assert_eq!(partition(&body), KNOWN_PARTITION);
    }

    /// Journals and checkpoints of earlier builds rest on it.
    const KNOWN_PARTITION: u8 = 5;

    #[test]
    fn damage_outside_any_resource_refuses_the_request_and_is_named() {
        let good =
            ExportTraceServiceRequest { resource_spans: vec![resource(&[("a", "1")])] }.encode_to_vec();
        let unknown = [good.clone(), vec![0xf8, 0x01, 5]].concat();
        assert_eq!(split(Signal::Traces, &unknown).unwrap().len(), 1, "unknown fields are skipped");
        let cut = &[good.clone(), good.clone()].concat()[..good.len() * 2 - 1];
        assert_eq!(
            split(Signal::Traces, cut).unwrap_err().to_string(),
            format!("resource_spans[1]: announces 12 bytes where 11 are left (at byte {})", good.len())
        );
        let empty = [0x0a, 0].repeat(1_000);
        assert_eq!(split_within(Signal::Traces, &empty, 1_000).unwrap().len(), 1_000);
        let said = split_within(Signal::Traces, &empty, 999).unwrap_err().to_string();
        assert_eq!(said, "more than 999 resources in one request (at byte 1998)");
        assert_eq!(split(Signal::Traces, &empty).unwrap().len(), 1_000, "what was let in is read again");
        let wrong = split(Signal::Logs, &[8, 1]).unwrap_err();
        assert_eq!(wrong.path, "resource_logs[0]");
        assert!(split(Signal::Traces, &[]).unwrap().is_empty());
    }
}
