//! What an anomaly has cost.

use crate::model::ServiceKey;
use crate::sketch::Distinct;
use crate::slo::{Lost, share_in_words};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Objectives named in words.
const NAMED: usize = 3;

/// What an anomaly has cost from its onset on, and at its end in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Impact {
    /// What objectives lost, most of their budget first.
    pub budget_spent: Vec<Lost>,
    /// Distinct users that something bad happened to, and all that were there; `None` where nobody counts them.
    pub users: Option<Users>,
}

/// Distinct users, each count to 2 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    pub affected: u64,
    pub all: u64,
}

impl Impact {
    /// `12.1 % of "charge-fast" (3000 bad)`, empty if nothing was lost.
    #[must_use]
    pub fn budget_in_words(&self, service: &ServiceKey) -> String {
        let mut text = String::new();
        for lost in self.budget_spent.iter().take(NAMED) {
            if !text.is_empty() {
                text.push_str(", ");
            }
            let _ = write!(text, "{} of {:?}", share_in_words(lost.share), lost.slo);
            if lost.service != *service {
                let _ = write!(text, " of {}", lost.service);
            }
            let _ = write!(text, " ({} bad)", lost.bad);
        }
        if let Some(more) = self.budget_spent.len().checked_sub(NAMED).filter(|more| *more > 0) {
            let _ = write!(text, " and of {more} more");
        }
        text
    }

    /// `9 of 296 users affected` (see [`users_in_words`]), empty where nobody counts them.
    #[must_use]
    pub fn users_in_words(&self) -> String {
        self.users.map_or_else(String::new, |users| {
            format!("{} users affected", users_in_words(users.affected, users.all))
        })
    }
}

/// Users that something bad happened to, of all: `9 of 296`, or `about 1240 of 8300` where they are too many to be
/// counted one by one.
#[must_use]
pub fn users_in_words(affected: u64, all: u64) -> String {
    let all = all.max(affected);
    let about = if all > Distinct::EXACT_UP_TO as u64 { "about " } else { "" };
    format!("{about}{affected} of {all}")
}
