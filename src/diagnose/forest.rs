//! The traces of a period as trees: who called whom, self time, where an error began.

use super::rows::SpanRow;
use crate::model::{ServiceKey, SpanKind};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a span does: service, name, kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    pub service: ServiceKey,
    pub name: Arc<str>,
    pub kind: SpanKind,
}

/// Number of an operation within its [`Operations`].
pub type OperationId = u32;

/// Operations of both periods, numbered alike.
#[derive(Debug, Default)]
pub struct Operations {
    ids: HashMap<Operation, OperationId>,
    all: Vec<Operation>,
}

impl Operations {
    pub fn id(&mut self, span: &SpanRow) -> OperationId {
        let key =
            Operation { service: span.service().clone(), name: span.operation.clone(), kind: span.kind };
        if let Some(&id) = self.ids.get(&key) {
            return id;
        }
        let id = OperationId::try_from(self.all.len()).unwrap_or(OperationId::MAX);
        self.ids.insert(key.clone(), id);
        self.all.push(key);
        id
    }

    #[must_use]
    pub fn get(&self, id: OperationId) -> Option<&Operation> {
        self.all.get(id as usize)
    }
}

/// A span in its tree. Numbers are positions in [`Forest::nodes`], which are those of the rows.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub operation: OperationId,
    pub parent: Option<usize>,
    /// In the order of their starts.
    pub children: Vec<usize>,
    /// The time in which the span ran and no child of it did.
    pub self_ns: u64,
    /// Its status says so, or its service handled an error below it.
    pub failed: bool,
    /// It failed and no child of it did.
    pub error_origin: bool,
    /// The service it waits for while it runs itself: that of its children, if all are another's.
    pub remote: Option<usize>,
}

/// The trees of a period.
#[derive(Debug, Default)]
pub struct Forest<'a> {
    pub spans: &'a [SpanRow],
    pub nodes: Vec<Node>,
}

/// Longest chain of parents that is followed: a bound against cycles in hostile data.
pub const DEPTH: usize = 256;

/// Whether an operation's name is that of a handler of errors.
#[must_use]
pub fn handles_errors(operation: &str) -> bool {
    let name = operation.to_ascii_lowercase();
    name.contains("error") || name.contains("exception")
}

impl<'a> Forest<'a> {
    #[must_use]
    pub fn new(spans: &'a [SpanRow], operations: &mut Operations) -> Self {
        let by_id: HashMap<_, _> =
            spans.iter().enumerate().map(|(at, span)| ((span.trace, span.span), at)).collect();
        let mut nodes: Vec<Node> = spans
            .iter()
            .enumerate()
            .map(|(at, span)| Node {
                operation: operations.id(span),
                parent: (!span.parent.is_none())
                    .then(|| by_id.get(&(span.trace, span.parent)).copied())
                    .flatten()
                    .filter(|&parent| parent != at),
                ..Node::default()
            })
            .collect();
        let mut order: Vec<usize> = (0..spans.len()).collect();
        order.sort_by_key(|&at| spans.get(at).map(|span| (span.start, span.end, span.span)));
        for at in order {
            if let Some(parent) = nodes.get(at).and_then(|node| node.parent)
                && let Some(node) = nodes.get_mut(parent)
            {
                node.children.push(at);
            }
        }
        let mut forest = Self { spans, nodes };
        for at in 0..spans.len() {
            let failed = forest.fails(at);
            if let Some(node) = forest.nodes.get_mut(at) {
                node.failed = failed;
            }
        }
        for at in 0..spans.len() {
            let (self_ns, origin, remote) = forest.measure(at);
            if let Some(node) = forest.nodes.get_mut(at) {
                (node.self_ns, node.error_origin, node.remote) = (self_ns, origin, remote);
            }
        }
        forest
    }

    /// Frameworks that answer an error through a handler of their own, such as the error controller of
    /// Spring, leave the request's status unset: the handler's span is then what tells of the failure.
    fn fails(&self, at: usize) -> bool {
        let (Some(span), Some(node)) = (self.spans.get(at), self.nodes.get(at)) else { return false };
        span.failed()
            || node
                .children
                .iter()
                .filter_map(|&child| self.spans.get(child))
                .any(|child| child.service() == span.service() && handles_errors(&child.operation))
    }

    fn measure(&self, at: usize) -> (u64, bool, Option<usize>) {
        let (Some(span), Some(node)) = (self.spans.get(at), self.nodes.get(at)) else {
            return (0, false, None);
        };
        let (mut covered_to, mut covered_ns) = (span.start.0, 0u64);
        let (mut failed_child, mut remote, mut own_child) = (false, None, false);
        for &child_at in &node.children {
            let Some(child) = self.spans.get(child_at) else { continue };
            let (from, to) = (child.start.0.max(covered_to), child.end.0.min(span.end.0));
            covered_ns = covered_ns.saturating_add(to.saturating_sub(from));
            covered_to = covered_to.max(to);
            failed_child |= self.nodes.get(child_at).is_some_and(|node| node.failed);
            if child.service() == span.service() {
                own_child = true;
            } else {
                remote = remote.or(Some(child_at));
            }
        }
        let self_ns = span.duration_ns().saturating_sub(covered_ns);
        (self_ns, node.failed && !failed_child, remote.filter(|_| !own_child))
    }

    /// The span, if there is one at this place.
    #[must_use]
    pub fn span(&self, at: usize) -> Option<&'a SpanRow> {
        self.spans.get(at)
    }

    /// The operation of another service that this span was called by, directly or through spans of its
    /// own service.
    #[must_use]
    pub fn caller(&self, at: usize) -> Option<OperationId> {
        let service = self.spans.get(at)?.service();
        let mut node = self.nodes.get(at)?;
        for _ in 0..DEPTH {
            let parent = node.parent?;
            node = self.nodes.get(parent)?;
            if self.spans.get(parent)?.service() != service {
                return Some(node.operation);
            }
        }
        None
    }

    /// Spans that stand at the top: without a parent, or whose parent is not among the rows.
    pub fn tops(&self) -> impl Iterator<Item = usize> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.parent.is_none()).map(|(at, _)| at)
    }

    /// True roots: spans that name no parent.
    pub fn roots(&self) -> impl Iterator<Item = usize> {
        self.tops().filter(|&at| self.spans.get(at).is_some_and(|span| span.parent.is_none()))
    }

    /// Calls between services: how many spans of one have a child in another.
    #[must_use]
    pub fn edges(&self) -> BTreeMap<(ServiceKey, ServiceKey), u64> {
        let mut edges = BTreeMap::new();
        for (span, node) in self.spans.iter().zip(&self.nodes) {
            let parent = node.parent.and_then(|parent| self.spans.get(parent));
            if let Some(parent) = parent.filter(|parent| parent.service() != span.service()) {
                *edges.entry((parent.service().clone(), span.service().clone())).or_default() += 1;
            }
        }
        edges
    }

    /// The spans below and including `at`, parents first.
    #[must_use]
    pub fn below(&self, at: usize) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut open = vec![(at, 0usize)];
        while let Some((at, depth)) = open.pop() {
            if depth > DEPTH || found.len() > self.spans.len() {
                continue;
            }
            found.push((at, depth));
            if let Some(node) = self.nodes.get(at) {
                open.extend(node.children.iter().rev().map(|&child| (child, depth + 1)));
            }
        }
        found
    }

    /// For every span, how much of its tree's critical path runs in the span itself.
    #[must_use]
    pub fn critical_ns(&self) -> Vec<u64> {
        let mut critical = vec![0u64; self.nodes.len()];
        for top in self.tops() {
            for (at, ns) in self.critical_path(top) {
                if let Some(sum) = critical.get_mut(at) {
                    *sum = sum.saturating_add(ns);
                }
            }
        }
        critical
    }

    /// Self time on the critical path below `at`: from the end backwards, the child that ended last
    /// is what its parent waited for. Each part belongs to one span, and the parts add up to the
    /// duration of `at`.
    #[must_use]
    pub fn critical_path(&self, at: usize) -> Vec<(usize, u64)> {
        let mut parts = Vec::new();
        let Some(top) = self.spans.get(at) else { return parts };
        let mut open = vec![(at, top.start.0, top.end.0, 0usize)];
        while let Some((at, from, to, depth)) = open.pop() {
            let Some(node) = self.nodes.get(at) else { continue };
            let mut children: Vec<&SpanRow> = Vec::new();
            let mut places = Vec::new();
            if depth < DEPTH {
                let mut by_end = node.children.clone();
                by_end.sort_by_key(|&child| {
                    std::cmp::Reverse(self.spans.get(child).map(|span| (span.end, span.start)))
                });
                for child in by_end {
                    if let Some(span) = self.spans.get(child) {
                        children.push(span);
                        places.push(child);
                    }
                }
            }
            let (mut until, mut own) = (to, 0u64);
            for (child, place) in children.into_iter().zip(places) {
                let (start, end) = (child.start.0.max(from), child.end.0.min(until));
                if start >= end {
                    continue;
                }
                own = own.saturating_add(until.saturating_sub(end));
                open.push((place, start, end, depth + 1));
                until = start;
            }
            parts.push((at, own.saturating_add(until.saturating_sub(from))));
        }
        parts
    }
}
