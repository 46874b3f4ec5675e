//! What callers see of a server that says nothing itself: their CLIENT spans, counted exactly by the
//! address they went to, tested as the server's own errors would be.
//!
//! While a server speaks for itself this only supports. Where it cannot (it is silent, an instance of
//! it is, or it never sends anything, as a database), its callers speak for it: that is how a gap in the
//! data becomes a page.

use super::detectors::Detectors;
use super::errors::Errors;
use super::evidence::{Observed, Stand};
use super::finding::{Band, Finding, Gravity, Interval, Phase, Symptom};
use crate::model::{ServiceKey, Timestamp};
use crate::window::{Calls, EdgeKey, Node};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Edges followed at most; further ones are not judged.
const AT_MOST: usize = 20_000;
/// A caller that saw nothing fail speaks for the server if it called no longer ago.
const RECENT: Duration = Duration::from_secs(5);
/// One that saw it fail does so for longer: it may have given up calling.
const STILL: Duration = Duration::from_secs(60);
/// What was called before a server broke arrives up to so long after that.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);
/// Failed calls, and their share, from which a caller whose evidence still grows counts as one that sees
/// the server fail.
const FAILED_AT_LEAST: u64 = 2;
const SHARE: f64 = 0.2;

/// The calls of one client to one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Call {
    errors: Errors,
    requests: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Call {
    /// Whether its client sees the server fail, or begins to.
    fn fails(&self) -> bool {
        let test = &self.errors.test;
        let grows = test.evidence.is_rising() && test.bad() >= FAILED_AT_LEAST && test.share() >= SHARE;
        test.evidence.is_bad() || grows
    }
}

/// The service that an end of a call is; of a peer that sends nothing, one that is named as its address.
fn service_of(key: &EdgeKey) -> ServiceKey {
    match &key.server {
        Node::Service(service) => service.clone(),
        Node::Peer { address, .. } => ServiceKey::new(&key.client.environment, "", address),
    }
}

impl Detectors {
    /// The calls that arrived with a cut.
    pub(super) fn judge_calls(&mut self, now: Timestamp, calls: &Calls, findings: &mut Vec<Finding>) {
        let mut active = Vec::new();
        for (key, count) in calls {
            if !self.state.calls.contains_key(key) {
                if self.state.calls.len() >= AT_MOST {
                    continue;
                }
                self.state.calls.insert(key.clone(), Call { first: now, ..Call::default() });
            }
            let Some(call) = self.state.calls.get_mut(key) else { continue };
            call.last = now;
            call.requests = call.requests.saturating_add(count.requests);
            let learned =
                call.requests >= self.config.learn_requests && now.since(call.first) >= self.config.learn.0;
            if !learned {
                call.errors.learn(count.requests, count.errors as f64);
                continue;
            }
            let seen = Observed { now, interval: now.secs(), last: now };
            let (floor, healthy) = (self.config.errors_floor, self.config.healthy.0);
            let verdict = call.errors.observe(seen, count.requests, count.errors, floor, healthy);
            if verdict.stand != Stand::Quiet {
                active.push((key, verdict));
            }
        }
        if active.is_empty() {
            return;
        }
        let standing = self.standing(now, active.iter().map(|(key, _)| &key.server));
        for (key, verdict) in active {
            let of = standing.get(&key.server).copied().unwrap_or_default();
            let server = service_of(key);
            let known = self.state.numbers.get(&server).and_then(|n| self.state.services.get(*n as usize));
            let serves = known.is_some_and(|service| service.entries > 0);
            let unheard = known.filter(|_| serves).is_some_and(|service| service.is_unheard(now));
            let Some(call) = self.state.calls.get(key) else { continue };
            let test = &call.errors.test;
            let mut finding =
                Finding::about(now, &server, &format!("calls from {}", key.client.name), Symptom::Errors);
            finding.attributes.push(("client".to_owned(), key.client.to_string()));
            let (earliest, latest) = test.evidence.onset();
            finding.onset = Interval { earliest, latest };
            finding.log_evidence = if test.evidence.is_bad() { test.evidence.log() as f32 } else { 0.0 };
            finding.tail = (-test.evidence.log()).exp().clamp(0.0, 1.0);
            finding.phase = if verdict.stand == Stand::Cleared { Phase::Cleared } else { Phase::Active };
            let enough = test.bad() >= self.config.bad_requests;
            finding.gravity = if unheard && enough { Gravity::Page } else { Gravity::Support };
            // One of several callers may be at fault itself; and of what serves nothing, a single caller's
            // word does not say at which end it broke.
            let most = if serves { of.failing * 2 >= of.recent } else { of.failing * 2 >= of.since };
            finding.blames = enough && (unheard || most && (serves || of.failing >= 2));
            finding.observed = test.share();
            finding.expected = Band { low: 0.0, high: verdict.null };
            finding.unit = "1".to_owned();
            findings.push(finding);
        }
    }

    /// What the callers of these servers see of them now.
    fn standing<'a>(
        &'a self,
        now: Timestamp,
        servers: impl Iterator<Item = &'a Node>,
    ) -> BTreeMap<&'a Node, Standing> {
        let mut standing: BTreeMap<&Node, Standing> =
            servers.map(|server| (server, Standing::default())).collect();
        let mut well = Vec::new();
        for (key, call) in &self.state.calls {
            let heard = now.since(call.last);
            let Some(of) = Some(heard).filter(|heard| *heard <= STILL).and(standing.get_mut(&key.server))
            else {
                continue;
            };
            if call.fails() {
                let onset = call.errors.test.evidence.onset().0;
                of.onset = if of.failing == 0 { onset } else { of.onset.min(onset) };
                of.failing += 1;
                of.recent += 1;
                of.since += 1;
            } else if heard <= RECENT {
                well.push((&key.server, call.last));
            }
        }
        for (server, last) in well {
            // Of one that fails for nobody there is no onset to go by.
            if let Some(of) = standing.get_mut(server).filter(|of| of.failing > 0) {
                of.recent += 1;
                of.since += usize::from(last > of.onset.saturating_add(ARRIVES_WITHIN));
            }
        }
        standing
    }
}

/// What the callers of a server that fails for some see of it.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// When it began to fail for the first of them.
    onset: Timestamp,
    failing: usize,
    /// Those for which it fails, and those that called lately.
    recent: usize,
    /// The same, without those that have not called since the onset: a service whose own callers have given up
    /// has not seen whether the server is well.
    since: usize,
}
