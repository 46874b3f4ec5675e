//! Browsers that are signed in: a random id in a cookie stands for the token that was shown once.

use super::tokens::{Digest, digest};
use crate::model::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Browsers signed in at the same time; the one whose session ends first gives way to one more.
const MOST: usize = 1_024;

struct Session {
    token: Digest,
    ends: Timestamp,
}

/// All sessions by the digest of their id: neither ids nor tokens are kept.
pub(super) struct Sessions {
    open: BTreeMap<Digest, Session>,
    random: SystemRandom,
}

impl Sessions {
    pub fn new() -> Self {
        Self { open: BTreeMap::new(), random: SystemRandom::new() }
    }

    /// A new session's id; `None` if the system has no randomness to give.
    pub fn begin(&mut self, token: Digest, now: Timestamp, length: Duration) -> Option<String> {
        let mut bytes = [0u8; 32];
        self.random.fill(&mut bytes).ok()?;
        let id = hex(&bytes);
        self.open.retain(|_, session| session.ends > now);
        while self.open.len() >= MOST {
            let first = self.open.iter().min_by_key(|(_, session)| session.ends).map(|(id, _)| *id)?;
            self.open.remove(&first);
        }
        self.open.insert(digest(id.as_bytes()), Session { token, ends: now.saturating_add(length) });
        Some(id)
    }

    /// The token that a session stands for; `Err(true)` if it has ended, `Err(false)` if there is none.
    pub fn token(&self, id: &str, now: Timestamp) -> Result<Digest, bool> {
        match self.open.get(&digest(id.as_bytes())) {
            Some(session) if session.ends > now => Ok(session.token),
            Some(_) => Err(true),
            None => Err(false),
        }
    }

    pub fn end(&mut self, id: &str) {
        self.open.remove(&digest(id.as_bytes()));
    }
}

/// What writes within a session must carry: it follows from the id, which pages of others cannot read.
pub(super) fn csrf_token(session: &str) -> String {
    hex(&blake3::derive_key("barograph 2026 CSRF token of a session", session.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_and_are_bounded() {
        let mut sessions = Sessions::new();
        let (now, length) = (Timestamp::from_secs(100), Duration::from_secs(60));
        let id = sessions.begin([7; 32], now, length).unwrap();
        assert_eq!(sessions.token(&id, now), Ok([7; 32]));
        assert_eq!(sessions.token(&id, Timestamp::from_secs(160)), Err(true));
        assert_eq!(sessions.token("", now), Err(false));
        assert_ne!(csrf_token(&id), csrf_token(""));
        for _ in 0..MOST {
            sessions.begin([8; 32], Timestamp::from_secs(101), length).unwrap();
        }
        assert_eq!(sessions.open.len(), MOST);
        assert_eq!(sessions.token(&id, now), Err(false), "the oldest gave way");
        let id = sessions.begin([9; 32], now, length).unwrap();
        sessions.end(&id);
        assert_eq!(sessions.token(&id, now), Err(false));
    }
}
