//! Parents that were named by their children and have not come yet: found out, they are lost.
//!
//! Records of one thread come in the order in which the calls ended, children before parents. So a call is known to be
//! lost as soon as a record shows that it must have ended earlier.

use tracer_common::limits::MAX_DEPTH;

use crate::model::{Call, Join, MonotonicNs};

/// The awaited parents of one thread, outermost first, at most one for each depth.
#[derive(Debug, Default)]
pub struct Waiting {
    calls: Vec<Awaited>,
}

#[derive(Clone, Copy, Debug)]
struct Awaited {
    call: u64,
    root: u64,
    depth: u32,
    start: MonotonicNs,
    end: MonotonicNs,
    join: Option<Join>,
}

/// A call whose record was lost; known from its children alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostCall {
    /// Its number on its thread.
    pub call: u64,
    /// Outermost call of its tree.
    pub root: u64,
    /// Open calls below it.
    pub depth: u32,
    /// Start of its first known child.
    pub start: MonotonicNs,
    /// End of its last known child.
    pub end: MonotonicNs,
    /// The nearest call that is known to be around it; `None` for a root.
    pub around: Option<Around>,
    /// The call of another thread that its tree is part of.
    pub join: Option<Join>,
}

/// A call that is known to be around another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Around {
    /// Its number on its thread.
    pub call: u64,
    /// Open calls below it; one less than the depth of the inner call if it is its parent.
    pub depth: u32,
}

impl Waiting {
    /// Takes a record and reports the calls that are lost, as it shows.
    pub fn arrived(&mut self, call: &Call, lost: &mut impl FnMut(LostCall)) {
        let mut first_start = call.start;
        let mut last_end = call.end;
        while let Some(&top) = self.calls.last() {
            let same_tree = top.root == call.root_call;
            let came = same_tree && top.depth == call.depth && top.call == call.call;
            let still_open = same_tree
                && top.depth < call.depth
                && (top.depth + 1 < call.depth || Some(top.call) == call.parent_call);
            if still_open {
                break;
            }
            self.calls.pop();
            if came {
                continue;
            }
            let around = if same_tree { around(&top, call) } else { None };
            if around.is_some_and(|around| Some(around.call) == call.parent_call) {
                first_start = first_start.min(top.start);
                last_end = last_end.max(top.end);
            }
            self.report(top, around, lost);
        }
        if let (Some(parent), Some(depth)) = (call.parent_call, call.depth.checked_sub(1)) {
            let (start, end) = (first_start, last_end);
            self.expect(Awaited { call: parent, root: call.root_call, depth, start, end, join: call.join });
        }
    }

    /// No record will come any more: reports all that is still awaited.
    pub fn finish(&mut self, lost: &mut impl FnMut(LostCall)) {
        while let Some(top) = self.calls.pop() {
            self.report(top, None, lost);
        }
    }

    /// Reports a lost call. If nothing nearer is known to be around it then its root is, which may be lost as well.
    fn report(&mut self, call: Awaited, around: Option<Around>, lost: &mut impl FnMut(LostCall)) {
        let around = match around {
            _ if call.depth == 0 => None,
            Some(around) => Some(around),
            None => {
                self.expect_root(&call);
                Some(Around { call: call.root, depth: 0 })
            }
        };
        let Awaited { call, root, depth, start, end, join } = call;
        lost(LostCall { call, root, depth, start, end, around, join });
    }

    /// A parent was named: its start is no later, and its end no earlier, than those of its child.
    fn expect(&mut self, parent: Awaited) {
        let open = self.calls.len();
        match self.calls.last_mut() {
            Some(top) if top.depth == parent.depth => top.extend(&parent),
            // The programs keep no more open calls than this; only a forged record can ask for more.
            _ if open < MAX_DEPTH => self.calls.push(parent),
            _ => {}
        }
    }

    fn expect_root(&mut self, inner: &Awaited) {
        let root = Awaited { call: inner.root, depth: 0, ..*inner };
        match self.calls.first_mut() {
            Some(bottom) if bottom.depth == 0 => bottom.extend(&root),
            _ => self.calls.insert(0, root),
        }
    }
}

impl Awaited {
    fn extend(&mut self, other: &Self) {
        self.start = self.start.min(other.start);
        self.end = self.end.max(other.end);
    }
}

/// The nearest call around a lost one that a later record of the same tree proves: begun before it (calls are numbered
/// as they begin), ended after it, and at a smaller depth.
fn around(lost: &Awaited, later: &Call) -> Option<Around> {
    let itself = Around { call: later.call, depth: later.depth };
    let parent =
        later.parent_call.zip(later.depth.checked_sub(1)).map(|(parent, depth)| Around { call: parent, depth });
    [Some(itself), parent].into_iter().flatten().find(|around| around.call < lost.call && around.depth < lost.depth)
}
