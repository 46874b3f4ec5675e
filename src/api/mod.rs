//! Code generated from `proto/`; no logic. `scripts/generate-api` writes it anew, and the test
//! `generated_api` fails when it is not what the definitions say.

/// The package `barograph.v1`: messages, clients and servers.
#[allow(clippy::all, clippy::pedantic, reason = "generated")]
#[rustfmt::skip]
pub mod v1 {
    include!("barograph.v1.rs");
}

/// The definitions with their comments, as an encoded `google.protobuf.FileDescriptorSet`: what
/// server reflection answers from.
pub const DESCRIPTORS: &[u8] = include_bytes!("barograph.v1.bin");
