//! A gRPC codec that sends prepared bytes and reads `partial_success`.

use bytes::{Buf, BufMut};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Bytes out, number of rejected items in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prepared;

impl Codec for Prepared {
    type Encode = Vec<u8>;
    type Decode = u64;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Prepared {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Prepared {
    type Item = u64;
    type Error = Status;

    fn decode(&mut self, answer: &mut DecodeBuf<'_>) -> Result<Option<u64>, Status> {
        let bytes = answer.copy_to_bytes(answer.remaining());
        // The answers to all three signals have the same fields.
        let answer = ExportTraceServiceResponse::decode(bytes)
            .map_err(|error| Status::internal(format!("the answer is no protobuf: {error}")))?;
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(Some(u64::try_from(rejected).unwrap_or(0)))
    }
}
