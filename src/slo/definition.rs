//! An objective as its author wrote it.

use super::burn::Rule;
use super::calendar::Calendar;
use crate::aggregate::{GoodSpans, Indicator, IndicatorId, Matcher, Source};
use crate::model::ServiceKey;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An objective as its author wrote it; it holds for each service that it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub name: String,
    /// `[ENVIRONMENT/][NAMESPACE/]NAME`.
    pub service: String,
    /// What is counted: one that knows both good and all, or several that count a part each. Empty in a
    /// composite.
    pub parts: Vec<Counting>,
    /// Whether what [`crate::aggregate::Part::Some`] counts is bad.
    pub some_is_bad: bool,
    /// Share of good ones asked for, from 0 and below 1.
    pub target: f64,
    pub method: Method,
    pub period: Period,
    /// When it alerts; `None`: as the configuration says for all.
    pub rules: Option<Vec<Rule>>,
    /// Names and weights of the objectives that it is composed of.
    pub composed_of: Vec<(String, f64)>,
    /// Bad events that a long window must hold at least; `None`: as the configuration says for all.
    pub floor: Option<u64>,
    /// The attribute that tells the users of what is counted apart; `None`: nobody counts them.
    pub users: Option<Arc<str>>,
    pub origin: Origin,
}

/// Where an objective was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub path: PathBuf,
    pub line: u64,
}

/// What is counted of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counting {
    pub source: Source,
    pub only: Vec<Matcher>,
}

impl Counting {
    /// The requests of a service, of which some are good.
    #[must_use]
    pub const fn requests(operation: Option<std::sync::Arc<str>>, good: GoodSpans) -> Self {
        Self { source: Source::Spans { operation, good }, only: Vec::new() }
    }

    pub(super) fn of(&self, id: IndicatorId, service: &ServiceKey, users: Option<&Arc<str>>) -> Indicator {
        let Self { source, only } = self.clone();
        Indicator { id, service: service.clone(), source, only, users: users.cloned() }
    }
}

/// What the budget is a share of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// Events.
    Occurrences,
    /// Slices of time, good where at least this share of their events is.
    Timeslices { slice_s: u64, share: f64 },
    /// Slices of time, each by the share of its events that is good.
    RatioTimeslices { slice_s: u64 },
}

/// What a budget lasts for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Period {
    Rolling(Duration),
    Calendar(Calendar),
}

impl Period {
    /// The longest it can be.
    #[must_use]
    pub fn longest(&self) -> Duration {
        match self {
            Self::Rolling(length) => *length,
            Self::Calendar(calendar) => calendar.longest(),
        }
    }
}

impl Definition {
    pub(super) fn means(&self, service: &ServiceKey) -> bool {
        // Most are not even of this name.
        self.service.ends_with(&*service.name) && service.is_meant_by(&self.service)
    }

    /// Whether what was counted for an objective is what this one counts.
    pub(super) fn counts_like(&self, parts: &[Counting], method: Method) -> bool {
        self.parts == parts && self.method == method
    }
}
