//! The file of a keepsake, little endian: magic (8), version (2), zero (2), crc32 of all that follows (4),
//! length of what is known of it (4), that (postcard), and its requests (postcard, zstd): bodies as they came,
//! not redacted, like the journal's.

use super::keepsake::Keepsake;
use crate::model::Signal;
use std::io::Read;

const MAGIC: [u8; 8] = *b"barokeep";
const VERSION: u16 = 1;
/// Bytes before what is known of it.
const HEADER_BYTES: usize = 20;
/// Most bytes of its requests.
const REQUEST_BYTES: u64 = 64 << 20;

/// Export requests that hold the spans and log records of one trace.
pub(super) type Requests = Vec<(Signal, Vec<u8>)>;

/// The bytes of a file.
///
/// # Errors
/// When it has no such form.
pub(super) fn encode(keepsake: &Keepsake, requests: &Requests) -> Result<Vec<u8>, String> {
    let known = postcard::to_stdvec(keepsake).map_err(|error| error.to_string())?;
    let requests = postcard::to_stdvec(requests).map_err(|error| error.to_string())?;
    let packed = zstd::encode_all(requests.as_slice(), 3).map_err(|error| error.to_string())?;
    let length = u32::try_from(known.len()).map_err(|error| error.to_string())?;
    let mut covered = length.to_le_bytes().to_vec();
    covered.extend(known);
    covered.extend(packed);
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(crc32fast::hash(&covered).to_le_bytes());
    bytes.extend(covered);
    Ok(bytes)
}

/// What is known of the keepsake in a file, and its requests, packed.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<(Keepsake, &[u8]), String> {
    let cut = || "it is cut off".to_owned();
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(cut)?;
    let short =
        |from: usize| header.get(from..from.saturating_add(2))?.try_into().ok().map(u16::from_le_bytes);
    let word =
        |from: usize| header.get(from..from.saturating_add(4))?.try_into().ok().map(u32::from_le_bytes);
    if !header.starts_with(&MAGIC) {
        return Err("it is no keepsake".to_owned());
    }
    if short(8) != Some(VERSION) {
        return Err(format!("its format is {}, known is {VERSION}", short(8).unwrap_or_default()));
    }
    let covered = bytes.get(16..).ok_or_else(cut)?;
    if word(12) != Some(crc32fast::hash(covered)) {
        return Err("its checksum does not fit".to_owned());
    }
    let length = word(16).and_then(|length| usize::try_from(length).ok()).ok_or_else(cut)?;
    let (known, packed) = rest.split_at_checked(length).ok_or_else(cut)?;
    Ok((postcard::from_bytes(known).map_err(|error| error.to_string())?, packed))
}

/// The requests of a keepsake.
///
/// # Errors
/// What is wrong with them.
pub(super) fn unpack(packed: &[u8]) -> Result<Requests, String> {
    let mut bytes = Vec::new();
    zstd::Decoder::new(packed)
        .and_then(|decoder| decoder.take(REQUEST_BYTES).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    postcard::from_bytes(&bytes).map_err(|error| error.to_string())
}
