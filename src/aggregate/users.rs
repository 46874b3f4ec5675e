//! Users that indicators saw.

use crate::otlp::{AnyValue, Attributes};
use crate::sketch::Distinct;
use serde::{Deserialize, Serialize};

/// Distinct users of what an indicator counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    pub all: Distinct,
    /// Those that something bad happened to.
    pub affected: Distinct,
}

impl Users {
    /// Notes whose an event was. Events without the attribute are nobody's.
    pub fn note(&mut self, attributes: Attributes<'_>, attribute: &str, good: bool) {
        match attributes.get(attribute) {
            None | Some(AnyValue::Empty | AnyValue::Text("")) => {}
            Some(AnyValue::Text(user)) => self.add(user, good),
            Some(value) => self.add(&value.to_string(), good),
        }
    }

    fn add(&mut self, user: &str, good: bool) {
        self.all.insert(user.as_bytes());
        if !good {
            self.affected.insert(user.as_bytes());
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
        self.affected.merge(&other.affected);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
