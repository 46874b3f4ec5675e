//! Decompression in steps of 64 KiB, so that a large body does not keep others from being served, and
//! the limit is enforced before memory is taken.

use super::Encoding;
use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use std::cell::RefCell;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// How much is read or written before a step ends.
pub const STEP_BYTES: usize = 64 * 1024;

/// Largest window of zstd frames, as a power of two: the 8 MiB that RFC 8878 asks decoders to support.
const ZSTD_WINDOW_LOG: u32 = 23;

/// States kept by each thread for bodies to come.
const KEPT_STATES: usize = 4;

/// Why a body could not be inflated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    #[error("inflates to more than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("{0} data end too early")]
    Truncated(&'static str),
    #[error("not {encoding} data: {what} at byte {offset}")]
    Corrupt { encoding: &'static str, offset: usize, what: String },
}

/// A body being inflated, step by step.
pub struct Inflater {
    wire: Bytes,
    /// What was read of `wire`.
    at: usize,
    out: Vec<u8>,
    limit_bytes: usize,
    state: State,
}

enum State {
    Identity,
    Gzip {
        state: Decompress,
        place: Place,
        member: usize,
        crc: crc32fast::Hasher,
    },
    Zstd {
        state: Decoder<'static>,
        frame_open: bool,
    },
    /// Only while a state is handed back.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Data,
}

thread_local! {
    static GZIP: RefCell<Vec<Decompress>> = const { RefCell::new(Vec::new()) };
    static ZSTD: RefCell<Vec<Decoder<'static>>> = const { RefCell::new(Vec::new()) };
}

impl Inflater {
    /// Prepares to inflate `wire` to at most `limit_bytes`.
    ///
    /// # Errors
    /// `Corrupt` if the decompressor cannot be set up, for lack of memory.
    pub fn new(encoding: Encoding, wire: Bytes, limit_bytes: usize) -> Result<Self, InflateError> {
        let state = match encoding {
            Encoding::Identity => State::Identity,
            Encoding::Gzip => {
                let mut state = GZIP.with_borrow_mut(Vec::pop).unwrap_or_else(|| Decompress::new(false));
                state.reset(false);
                State::Gzip { state, place: Place::Header, member: 0, crc: crc32fast::Hasher::new() }
            }
            Encoding::Zstd => {
                let state = match ZSTD.with_borrow_mut(Vec::pop) {
                    Some(mut state) => state.reinit().map(|()| state),
                    None => Decoder::new().and_then(|mut state| {
                        state.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
                        Ok(state)
                    }),
                }
                .map_err(|error| corrupt("zstd", 0, error.to_string()))?;
                State::Zstd { state, frame_open: true }
            }
        };
        Ok(Self { wire, at: 0, out: Vec::new(), limit_bytes, state })
    }

    /// Bytes by which memory will grow in the next step.
    #[must_use]
    pub fn growth_bytes(&self) -> usize {
        if matches!(self.state, State::Identity) {
            return 0;
        }
        let room = self.out.capacity().saturating_sub(self.out.len());
        if self.out.capacity() == 0 {
            // Enough for most small bodies at once.
            self.wire
                .len()
                .saturating_mul(6)
                .clamp(4 * 1024, STEP_BYTES)
                .min(self.limit_bytes.saturating_add(1))
        } else if room >= STEP_BYTES.min(self.left()) {
            0
        } else {
            // Doubling keeps the copying linear.
            self.out.capacity().max(STEP_BYTES).min(self.left().saturating_sub(room))
        }
    }

    /// How much may still be written: one byte over the limit, so that going over it shows.
    fn left(&self) -> usize {
        self.limit_bytes.saturating_add(1).saturating_sub(self.out.len())
    }

    /// Inflates up to 64 KiB. `true` when everything is done.
    ///
    /// # Errors
    /// What is wrong with the data, or that they are too large.
    pub fn step(&mut self) -> Result<bool, InflateError> {
        if matches!(self.state, State::Identity) {
            return if self.wire.len() > self.limit_bytes { Err(self.too_large()) } else { Ok(true) };
        }
        let growth = self.growth_bytes();
        if growth > 0 {
            self.out.reserve_exact(self.out.capacity().saturating_sub(self.out.len()).saturating_add(growth));
        }
        let (read, written) = (self.at, self.out.len());
        loop {
            let done = match &mut self.state {
                State::Gzip { .. } => self.step_gzip()?,
                State::Zstd { .. } => self.step_zstd()?,
                State::Identity | State::Gone => true,
            };
            if self.out.len() > self.limit_bytes {
                return Err(self.too_large());
            }
            let used = self.at.saturating_sub(read).max(self.out.len().saturating_sub(written));
            if done || used >= STEP_BYTES || self.out.len() == self.out.capacity() {
                return Ok(done);
            }
        }
    }

    /// What was inflated. For identity the wire itself.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        match self.state {
            State::Identity => self.wire.clone(),
            _ => Bytes::from(std::mem::take(&mut self.out)),
        }
    }

    fn too_large(&self) -> InflateError {
        InflateError::TooLarge { limit_bytes: self.limit_bytes }
    }

    /// Makes room for one call of the decompressor; returns where its output begins.
    fn open_room(&mut self) -> usize {
        let begin = self.out.len();
        let room = self.out.capacity().saturating_sub(begin).min(STEP_BYTES).min(self.left());
        self.out.resize(begin.saturating_add(room), 0);
        begin
    }

    fn step_gzip(&mut self) -> Result<bool, InflateError> {
        let begin = self.open_room();
        let State::Gzip { state, place, member, crc } = &mut self.state else { return Ok(true) };
        if *place == Place::Header {
            self.out.truncate(begin);
            let rest = self.wire.get(self.at..).unwrap_or_default();
            self.at = self.at.saturating_add(gzip_header(rest, self.at)?);
            *place = Place::Data;
            *member = begin;
            *crc = crc32fast::Hasher::new();
            return Ok(false);
        }
        let rest = self.wire.get(self.at..).unwrap_or_default();
        let room = self.out.get_mut(begin..).unwrap_or_default();
        let (read, written) = (state.total_in(), state.total_out());
        let status = state
            .decompress(rest, room, FlushDecompress::None)
            .map_err(|error| corrupt("gzip", self.at, error.to_string()))?;
        let read = state.total_in().saturating_sub(read) as usize;
        let written = state.total_out().saturating_sub(written) as usize;
        self.at = self.at.saturating_add(read);
        self.out.truncate(begin.saturating_add(written));
        crc.update(self.out.get(begin..).unwrap_or_default());
        if status != Status::StreamEnd {
            return if read == 0 && written == 0 { Err(InflateError::Truncated("gzip")) } else { Ok(false) };
        }
        let rest = self.wire.get(self.at..).unwrap_or_default();
        let (Some(sum), Some(size)) =
            (rest.first_chunk::<4>(), rest.get(4..).and_then(|rest| rest.first_chunk::<4>()))
        else {
            return Err(InflateError::Truncated("gzip"));
        };
        if u32::from_le_bytes(*sum) != crc.clone().finalize() {
            return Err(corrupt("gzip", self.at, "the check sum does not match".to_owned()));
        }
        if u32::from_le_bytes(*size) != self.out.len().saturating_sub(*member) as u32 {
            return Err(corrupt("gzip", self.at, "the length does not match".to_owned()));
        }
        self.at = self.at.saturating_add(8);
        state.reset(false);
        *place = Place::Header;
        Ok(self.at >= self.wire.len())
    }

    fn step_zstd(&mut self) -> Result<bool, InflateError> {
        let begin = self.open_room();
        let State::Zstd { state, frame_open } = &mut self.state else { return Ok(true) };
        let rest = self.wire.get(self.at..).unwrap_or_default();
        let room = self.out.get_mut(begin..).unwrap_or_default();
        let full = room.len();
        let mut input = InBuffer::around(rest);
        let mut output = OutBuffer::around(room);
        let hint = state
            .run(&mut input, &mut output)
            .map_err(|error| corrupt("zstd", self.at, error.to_string()))?;
        let (read, written) = (input.pos, output.pos());
        self.at = self.at.saturating_add(read);
        self.out.truncate(begin.saturating_add(written));
        *frame_open = hint != 0;
        if self.at < self.wire.len() {
            return Ok(false);
        }
        if !*frame_open {
            return Ok(true);
        }
        // All was read, and what is left to write did not fit; or there is less than was promised.
        if written < full { Err(InflateError::Truncated("zstd")) } else { Ok(false) }
    }
}

/// States go back to the thread they are dropped on.
impl Drop for Inflater {
    fn drop(&mut self) {
        fn keep<T>(pool: &RefCell<Vec<T>>, state: T) {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.len() < KEPT_STATES
            {
                pool.push(state);
            }
        }
        // At the end of a thread the pools may be gone; then the state goes too.
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Gzip { state, .. } => drop(GZIP.try_with(|pool| keep(pool, state))),
            State::Zstd { state, .. } => drop(ZSTD.try_with(|pool| keep(pool, state))),
            State::Identity | State::Gone => {}
        }
    }
}

/// Inflates a whole body without pause: for replays and tests.
///
/// # Errors
/// What is wrong with the data, or that they are too large.
pub fn inflate(encoding: Encoding, wire: &Bytes, limit_bytes: usize) -> Result<Bytes, InflateError> {
    let mut inflater = Inflater::new(encoding, wire.clone(), limit_bytes)?;
    while !inflater.step()? {}
    Ok(inflater.finish())
}

fn corrupt(encoding: &'static str, offset: usize, what: String) -> InflateError {
    InflateError::Corrupt { encoding, offset, what }
}

/// Length of the header of a gzip member (RFC 1952, section 2.3).
fn gzip_header(bytes: &[u8], offset: usize) -> Result<usize, InflateError> {
    const TRUNCATED: InflateError = InflateError::Truncated("gzip");
    let wrong = |what: &str| corrupt("gzip", offset, what.to_owned());
    let magic = bytes.get(..bytes.len().min(2)).unwrap_or_default();
    if !magic.is_empty() && !b"\x1f\x8b".starts_with(magic) {
        return Err(wrong("no header"));
    }
    let fixed = bytes.first_chunk::<10>().ok_or(TRUNCATED)?;
    let [_, _, method, flags, ..] = *fixed;
    if method != 8 {
        return Err(wrong("unknown method"));
    }
    if flags & 0xe0 != 0 {
        return Err(wrong("reserved flags"));
    }
    let mut length = fixed.len();
    let rest = |length: usize| bytes.get(length..).unwrap_or_default();
    if flags & 4 != 0 {
        let extra = rest(length).first_chunk::<2>().ok_or(TRUNCATED)?;
        length = length.saturating_add(2).saturating_add(usize::from(u16::from_le_bytes(*extra)));
    }
    // The file's name and a comment, each ended by a zero.
    for flag in [8, 16] {
        if flags & flag != 0 {
            let end = rest(length).iter().position(|&byte| byte == 0).ok_or(TRUNCATED)?;
            length = length.saturating_add(end).saturating_add(1);
        }
    }
    if flags & 2 != 0 {
        length = length.saturating_add(2);
    }
    if length > bytes.len() { Err(TRUNCATED) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new()
            .filename("f")
            .comment("c")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn compress(encoding: Encoding, data: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Identity => data.to_vec(),
            Encoding::Gzip => gzip(data),
            Encoding::Zstd => zstd::encode_all(data, 1).unwrap(),
        }
    }

    const LIMIT: usize = 1 << 20;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn members_and_frames_inflate_to_what_they_were(
            parts in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..2_000), 1usize..80), 1..4),
            gzip: bool,
        ) {
            let encoding = if gzip { Encoding::Gzip } else { Encoding::Zstd };
            let parts: Vec<Vec<u8>> = parts.into_iter().map(|(part, times)| part.repeat(times)).collect();
            let wire = Bytes::from(parts.iter().flat_map(|part| compress(encoding, part)).collect::<Vec<u8>>());
            let whole = parts.concat();
            prop_assert_eq!(inflate(encoding, &wire, LIMIT).unwrap(), &whole[..]);
            prop_assert_eq!(inflate(encoding, &wire, whole.len()).unwrap(), &whole[..]);
            if let Some(less) = whole.len().checked_sub(1) {
                prop_assert_eq!(inflate(encoding, &wire, less), Err(InflateError::TooLarge { limit_bytes: less }));
            }
        }

        #[test]
        fn any_cut_and_any_flipped_bit_is_an_error_or_harmless(
            data in proptest::collection::vec(any::<u8>(), 1..500), cut: prop::sample::Index, bit: prop::sample::Index, gzip: bool,
        ) {
            let encoding = if gzip { Encoding::Gzip } else { Encoding::Zstd };
            let wire = compress(encoding, &data);
            let short = Bytes::copy_from_slice(&wire[..cut.index(wire.len())]);
            prop_assert!(inflate(encoding, &short, LIMIT).is_err());
            let mut flipped = wire;
            let bit = bit.index(flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            let outcome = inflate(encoding, &flipped.into(), LIMIT);
            if gzip && let Ok(outcome) = outcome {
                // Only the header has bits that carry nothing.
                prop_assert_eq!(outcome, &data[..]);
            }
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let wire = compress(Encoding::Gzip, b"hello hello hello");
        let tell = |encoding, wire: &[u8]| {
            inflate(encoding, &Bytes::copy_from_slice(wire), 1000).unwrap_err().to_string()
        };
        assert_eq!(tell(Encoding::Gzip, &wire[..wire.len() - 1]), "gzip data end too early");
        assert_eq!(tell(Encoding::Gzip, b""), "gzip data end too early");
        assert_eq!(tell(Encoding::Gzip, b"{\"a\":1}"), "not gzip data: no header at byte 0");
        let followed = [&wire[..], b"rest"].concat();
        assert_eq!(
            tell(Encoding::Gzip, &followed),
            format!("not gzip data: no header at byte {}", wire.len())
        );
        assert!(tell(Encoding::Zstd, b"{\"a\":1}").starts_with("not zstd data: "));
        assert_eq!(tell(Encoding::Zstd, b""), "zstd data end too early");
        assert_eq!(tell(Encoding::Identity, &[0; 1001]), "inflates to more than 1000 bytes");
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_its_limit() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let wire = Bytes::from(compress(encoding, &vec![0; 50 << 20]));
            assert!(wire.len() < 1_000_000);
            let mut inflater = Inflater::new(encoding, wire, LIMIT).unwrap();
            let mut granted = 0;
            let error = loop {
                granted += inflater.growth_bytes();
                match inflater.step() {
                    Ok(done) => assert!(!done),
                    Err(error) => break error,
                }
                assert!(inflater.out.capacity() <= granted);
            };
            assert_eq!(error, InflateError::TooLarge { limit_bytes: LIMIT });
            assert!(granted <= LIMIT + STEP_BYTES, "{granted}");
        }
    }

    #[test]
    fn windows_over_8_mib_are_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&[1; 100]).unwrap();
        let wire = Bytes::from(encoder.finish().unwrap());
        let error = inflate(Encoding::Zstd, &wire, LIMIT).unwrap_err();
        assert!(matches!(error, InflateError::Corrupt { .. }), "{error}");
    }
}
