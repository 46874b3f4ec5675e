//! Floods of frames that ask for nothing.
//!
//! HTTP/2 lets a peer send PING, SETTINGS, empty DATA and the like as fast as it can, and each is worked on
//! and often answered. The layer above reads them without an end, so one connection could keep a thread to
//! itself. This watches the frames that come and ends the connection whose idle ones are far more than what
//! it asks for: clients send a few of them with each request, however busy they are, and a few each second,
//! however long they only listen.

use std::time::Instant;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
/// Idle frames that a connection may send before it asks for anything, with each frame that does ask, and
/// each second.
const AT_FIRST: u32 = 1_000;
const WITH_EACH: u32 = 10;
const EACH_SECOND: u32 = 100;
const MOST: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of the preface have come.
    Preface(usize),
    /// It is not HTTP/2.
    Other,
    /// So many bytes of a frame's header have come.
    Header([u8; HEADER_BYTES], usize),
    /// So many bytes of a frame are to come.
    Payload(usize),
}

/// Watches what comes over one connection.
#[derive(Debug)]
pub(super) struct FrameGuard {
    state: State,
    /// Idle frames that may still come.
    left: u32,
    /// Up to when what each second allows was added. A clock is read only when nothing is left.
    since: Instant,
}

impl FrameGuard {
    pub const fn new(begun: Instant) -> Self {
        Self { state: State::Preface(0), left: AT_FIRST, since: begun }
    }

    /// Looks at bytes that came. `false`: the connection is to be ended.
    pub fn watch(&mut self, mut bytes: &[u8], clock: impl Fn() -> Instant) -> bool {
        while let Some(&first) = bytes.first() {
            match &mut self.state {
                State::Other => return true,
                State::Preface(have) => {
                    if PREFACE.get(*have) != Some(&first) {
                        self.state = State::Other;
                        return true;
                    }
                    *have += 1;
                    if *have == PREFACE.len() {
                        self.state = State::Header([0; HEADER_BYTES], 0);
                    }
                    bytes = bytes.get(1..).unwrap_or_default();
                }
                State::Header(header, have) => {
                    let count = bytes.len().min(HEADER_BYTES.saturating_sub(*have));
                    let (now, later) = bytes.split_at(count);
                    for (to, from) in header.iter_mut().skip(*have).zip(now) {
                        *to = *from;
                    }
                    *have += count;
                    bytes = later;
                    if *have == HEADER_BYTES {
                        let [a, b, c, kind, ..] = *header;
                        let length = u32::from_be_bytes([0, a, b, c]) as usize;
                        self.state = State::Payload(length);
                        if !self.allows(kind, length, &clock) {
                            return false;
                        }
                        self.rest(0);
                    }
                }
                State::Payload(left) => {
                    let count = bytes.len().min(*left);
                    bytes = bytes.get(count..).unwrap_or_default();
                    self.rest(count);
                }
            }
        }
        true
    }

    /// So many bytes of a payload came.
    fn rest(&mut self, count: usize) {
        if let State::Payload(left) = &mut self.state {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.state = State::Header([0; HEADER_BYTES], 0);
            }
        }
    }

    fn allows(&mut self, kind: u8, length: usize, clock: impl Fn() -> Instant) -> bool {
        if kind == HEADERS || kind == DATA && length > 0 {
            self.left = self.left.saturating_add(WITH_EACH).min(MOST);
            return true;
        }
        if self.left == 0 {
            let now = clock();
            let since = now.saturating_duration_since(self.since);
            let more = since.as_millis().saturating_mul(u128::from(EACH_SECOND)) / 1_000;
            self.left = u32::try_from(more).unwrap_or(MOST).min(MOST);
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        let mut out = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        out.resize(HEADER_BYTES + payload, 7);
        out
    }

    proptest! {
        #[test]
        fn a_flood_is_noticed_however_it_is_cut_into_pieces(cuts in prop::collection::vec(1usize..40, 1..50)) {
            let mut bytes = PREFACE.to_vec();
            for _ in 0..AT_FIRST {
                bytes.extend(frame(6, 8));
            }
            let fine = bytes.len();
            bytes.extend(frame(6, 8));
            let begun = Instant::now();
            let mut guard = FrameGuard::new(begun);
            let (mut at, mut ended) = (0, None);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(bytes.len());
                if !guard.watch(&bytes[at..end], || begun) {
                    ended = Some(end);
                    break;
                }
                at = end;
                if at == bytes.len() {
                    break;
                }
            }
            prop_assert!(ended.is_some_and(|end| end >= fine + HEADER_BYTES));
        }
    }

    #[test]
    fn clients_that_ask_may_ping_and_other_protocols_are_left_alone() {
        let begun = Instant::now();
        let mut guard = FrameGuard::new(begun);
        assert!(guard.watch(PREFACE, || begun));
        for _ in 0..20_000 {
            let request =
                [frame(HEADERS, 30), frame(DATA, 5), frame(DATA, 0), frame(6, 8), frame(8, 4)].concat();
            assert!(guard.watch(&request, || begun));
        }
        let mut guard = FrameGuard::new(begun);
        assert!(guard.watch(b"POST /v1/traces HTTP/1.1\r\n", || begun));
        assert!((0..5_000).all(|_| guard.watch(&frame(6, 8), || begun)));
    }

    #[test]
    fn who_only_listens_may_ping_for_ever_but_not_in_a_flood() {
        let begun = Instant::now();
        let mut guard = FrameGuard::new(begun);
        assert!(guard.watch(PREFACE, || begun));
        let mut now = begun;
        for _ in 0..50_000 {
            now += Duration::from_millis(20);
            assert!(guard.watch(&frame(6, 8), || now));
        }
        let count = (0..).take_while(|_| guard.watch(&frame(6, 8), || now)).count();
        assert!(count <= 2 * MOST as usize, "{count}");
    }
}
