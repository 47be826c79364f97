//! The contexts (`contextvars.Context`) of one CPython process, which was copied from which, and which requests they belong to.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::begun_request::BegunRequest;
use crate::model::{MonotonicNs, RemoteAddress};

/// Contexts that are remembered at one time. A server has some for each request that it is answering.
const MOST_CONTEXTS: usize = 1 << 17;

/// Requests that were answered one after the other in one context and are remembered there.
const MOST_ANSWERED: usize = 1_024;

/// A context, which keeps its number when its memory is that of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextNumber(u64);

/// The contexts of a process.
#[derive(Debug, Default)]
pub struct Contexts {
    /// Those that are remembered by their address, which they have one after the other.
    by_address: FxHashMap<RemoteAddress, Vec<ContextNumber>>,
    nodes: FxHashMap<ContextNumber, Node>,
    /// Those that were freed and are remembered all the same, the first one first.
    freed: VecDeque<(MonotonicNs, ContextNumber)>,
    last: u64,
}

#[derive(Debug)]
struct Node {
    address: RemoteAddress,
    born: MonotonicNs,
    freed: Option<MonotonicNs>,
    /// The one that was current when it was made.
    parent: Option<ContextNumber>,
    children: FxHashSet<ContextNumber>,
    /// The request that it was made for, directly or not.
    owner: Option<Arc<BegunRequest>>,
    /// Requests that came after it was made and were answered in it.
    answered: Vec<Arc<BegunRequest>>,
}

/// Whom a context belonged to at a time.
#[derive(Clone, Debug)]
pub enum Owner {
    /// This request.
    Request(Arc<BegunRequest>),
    /// Several requests at once, as far as can be told.
    Several,
    /// None that is known.
    None,
}

impl Contexts {
    /// The context that was at an address then, if it was seen to be made.
    pub fn at(&self, address: RemoteAddress, time: MonotonicNs) -> Option<ContextNumber> {
        let was_there = |number: &&ContextNumber| {
            let node = self.nodes.get(number);
            node.is_some_and(|node| node.born <= time && node.freed.is_none_or(|freed| time <= freed))
        };
        self.by_address.get(&address)?.iter().rev().find(was_there).copied()
    }

    /// A context has been made while another one was current.
    pub fn made(&mut self, address: RemoteAddress, current: Option<RemoteAddress>, time: MonotonicNs) {
        let parent = current.and_then(|current| self.at(current, time));
        // The end of the one that was there was not seen.
        self.freed(address, time);
        if self.nodes.len() >= MOST_CONTEXTS {
            self.clear();
        }
        self.last += 1;
        let number = ContextNumber(self.last);
        let parent = parent.filter(|parent| self.nodes.contains_key(parent));
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.insert(number);
        }
        let node = Node {
            address,
            born: time,
            freed: None,
            parent,
            children: FxHashSet::default(),
            owner: None,
            answered: Vec::new(),
        };
        self.nodes.insert(number, node);
        self.by_address.entry(address).or_default().push(number);
    }

    /// A context is there no more. It is remembered until nobody can ask for it ([`Self::forget`]).
    pub fn freed(&mut self, address: RemoteAddress, time: MonotonicNs) {
        let Some(number) = self.by_address.get(&address).and_then(|numbers| numbers.last()) else { return };
        let Some(node) = self.nodes.get_mut(number).filter(|node| node.freed.is_none()) else { return };
        node.freed = Some(time);
        self.freed.push_back((time, *number));
    }

    /// Nobody asks any more for what was freed before a time.
    pub fn forget(&mut self, before: MonotonicNs) {
        while let Some((_, number)) = self.freed.pop_front_if(|(freed, _)| *freed < before) {
            self.remove(number);
        }
    }

    /// Forgets all of them: what was copied from them belongs to nobody that is known.
    pub fn clear(&mut self) {
        let last = self.last;
        *self = Self { last, ..Self::default() };
    }

    /// The answer to a request is begun in a context: the outermost one around it that was made since the request came is the request's,
    /// unless another request was first. A context that is older answers one request after the other; what was over before
    /// `needed_since` is not asked for any more.
    pub fn answers(&mut self, context: ContextNumber, request: &Arc<BegunRequest>, needed_since: MonotonicNs) {
        let mut outermost = None;
        let mut next = Some(context);
        while let Some((number, node)) = next.and_then(|number| Some((number, self.nodes.get(&number)?))) {
            let is_others = node.owner.as_ref().is_some_and(|owner| !Arc::ptr_eq(owner, request));
            if node.born <= request.start.begun || is_others {
                break;
            }
            (outermost, next) = (Some(number), node.parent);
        }
        if let Some(node) = outermost.and_then(|number| self.nodes.get_mut(&number)) {
            node.owner = Some(Arc::clone(request));
        } else if let Some(node) = self.nodes.get_mut(&context) {
            if node.answered.len() >= MOST_ANSWERED / 2 {
                node.answered.retain(|answered| answered.end() >= needed_since);
            }
            if node.answered.len() >= MOST_ANSWERED {
                node.answered.remove(0);
            }
            node.answered.push(Arc::clone(request));
        }
    }

    /// Whom a context belonged to at a time. What was copied from another one belongs to whom that one belonged to then.
    pub fn owner(&self, context: ContextNumber, time: MonotonicNs) -> Owner {
        let (mut next, mut time) = (Some(context), time);
        while let Some(node) = next.and_then(|number| self.nodes.get(&number)) {
            let mut spanning =
                node.answered.iter().filter(|request| request.start.begun <= time && time <= request.end());
            match (spanning.next(), spanning.next()) {
                (Some(request), None) => return Owner::Request(Arc::clone(request)),
                (Some(_), Some(_)) => return Owner::Several,
                (None, _) => {}
            }
            if let Some(owner) = &node.owner {
                return Owner::Request(Arc::clone(owner));
            }
            (next, time) = (node.parent, node.born);
        }
        Owner::None
    }

    /// Takes one away. What was copied from it takes its place among what its own parent has around it.
    fn remove(&mut self, number: ContextNumber) {
        let Some(node) = self.nodes.remove(&number) else { return };
        if let Entry::Occupied(mut numbers) = self.by_address.entry(node.address) {
            numbers.get_mut().retain(|other| *other != number);
            if numbers.get().is_empty() {
                numbers.remove();
            }
        }
        for child in &node.children {
            if let Some(child) = self.nodes.get_mut(child) {
                child.owner = child.owner.take().or_else(|| node.owner.clone());
                child.parent = node.parent;
            }
        }
        if let Some(parent) = node.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.remove(&number);
            parent.children.extend(node.children);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
}
