//! Joins the two ends of a call that crosses services: a SERVER or CONSUMER span and its parent.

use crate::aggregate::{EdgeCell, PeerKey, SpanHalf, Weight};
use crate::model::{ServiceKey, SpanId, SpanKind, WindowId};
use crate::window::{EdgeKey, Node};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How long an end waits for the other, in seconds of arrival.
const HELD_SECONDS: u64 = 60;

/// A call of which both ends are known.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub key: Arc<EdgeKey>,
    /// The later of the windows of its ends, so that it does not depend on which end came first.
    pub window: WindowId,
    pub cell: EdgeCell,
    /// Where the CLIENT end said it went, and the service whose SERVER end answered.
    pub answered: Option<(Arc<PeerKey>, Arc<ServiceKey>)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    /// Second of arrival.
    second: u64,
    trace: u64,
    span: SpanId,
    parent: SpanId,
    service: Arc<ServiceKey>,
    kind: SpanKind,
    duration_ns: u64,
    error: bool,
    peer: Option<Arc<PeerKey>>,
    weight: Weight,
    window: WindowId,
    /// Its parent has not come yet.
    waiting: bool,
}

/// Span halves of the last minute. The limit bounds its memory; the oldest are let go first.
#[derive(Debug)]
pub(super) struct Joiner {
    limit: usize,
    spans: HashMap<(u64, SpanId), Held>,
    /// Which spans wait for this parent.
    waiting: HashMap<(u64, SpanId), SmallVec<[SpanId; 2]>>,
    order: VecDeque<(u64, SpanId)>,
    /// Halves let go before their minute was over.
    pub dropped: u64,
}

impl Joiner {
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            spans: HashMap::new(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Takes one half and yields the calls that it completes.
    pub fn add(&mut self, second: u64, half: SpanHalf, out: &mut Vec<Joined>) {
        let at = (half.trace, half.span);
        if half.span.is_none() || self.spans.contains_key(&at) {
            return;
        }
        while self.order.len() >= self.limit {
            self.let_go_oldest();
            self.dropped += 1;
        }
        let mut held = Held {
            second,
            trace: half.trace,
            span: half.span,
            parent: half.parent,
            service: half.service,
            kind: half.kind,
            duration_ns: half.duration_ns,
            error: half.error,
            peer: half.peer,
            weight: half.weight,
            window: half.window,
            waiting: false,
        };
        if held.kind.is_entry() && !held.parent.is_none() {
            match self.spans.get(&(held.trace, held.parent)) {
                Some(parent) => out.extend(join(parent, &held)),
                None => {
                    held.waiting = true;
                    self.waiting.entry((held.trace, held.parent)).or_default().push(held.span);
                }
            }
        }
        for child in self.waiting.remove(&at).unwrap_or_default() {
            if let Some(child) = self.spans.get_mut(&(held.trace, child)) {
                child.waiting = false;
                out.extend(join(&held, child));
            }
        }
        self.order.push_back(at);
        self.spans.insert(at, held);
    }

    /// Lets go what has waited for a minute.
    pub fn expire(&mut self, second: u64) {
        while let Some(oldest) = self.order.front().and_then(|at| self.spans.get(at)) {
            if oldest.second.saturating_add(HELD_SECONDS) > second {
                break;
            }
            self.let_go_oldest();
        }
    }

    fn let_go_oldest(&mut self) {
        let Some(held) = self.order.pop_front().and_then(|at| self.spans.remove(&at)) else { return };
        let parent = (held.trace, held.parent);
        if held.waiting
            && let Some(children) = self.waiting.get_mut(&parent)
        {
            children.retain(|child| *child != held.span);
            if children.is_empty() {
                self.waiting.remove(&parent);
            }
        }
    }

    /// What a checkpoint keeps, oldest first.
    pub fn state(&self) -> impl Serialize + use<> {
        self.order.iter().filter_map(|at| self.spans.get(at).cloned()).collect::<Vec<Held>>()
    }

    pub fn restore(&mut self, state: JoinerState) {
        *self = Self::new(self.limit);
        for held in state.0 {
            let at = (held.trace, held.span);
            if held.waiting {
                self.waiting.entry((held.trace, held.parent)).or_default().push(held.span);
            }
            self.order.push_back(at);
            self.spans.insert(at, held);
        }
    }
}

/// See [`Joiner::state`].
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct JoinerState(Vec<Held>);

fn join(parent: &Held, child: &Held) -> Option<Joined> {
    if parent.service == child.service {
        return None;
    }
    let kind = if child.kind == SpanKind::Consumer { SpanKind::Producer } else { SpanKind::Client };
    let requests = child.weight.rounded().max(1);
    let mut cell =
        EdgeCell { requests, errors: if child.error { requests } else { 0 }, ..EdgeCell::default() };
    cell.latency.record_many(child.duration_ns as f64, requests);
    let answered = (parent.kind == SpanKind::Client && child.kind == SpanKind::Server)
        .then(|| parent.peer.clone().map(|peer| (peer, child.service.clone())))
        .flatten();
    Some(Joined {
        key: Arc::new(EdgeKey {
            client: (*parent.service).clone(),
            server: Node::Service((*child.service).clone()),
            kind,
        }),
        window: parent.window.max(child.window),
        cell,
        answered,
    })
}
