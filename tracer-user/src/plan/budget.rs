//! How much of one interpreter's code can be seen, and what is known of its calls.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{FrameStyle, PythonLayout, PythonMode, RemoteAddress};

/// How much can be seen, and what is known of the traffic.
#[derive(Clone, Debug, Default)]
pub struct PythonBudget {
    /// Code objects that can be watched; `None`: all, because every call is looked at.
    pub slots: Option<usize>,
    /// Why there are no slots, for people, if it is not for want of debug registers.
    pub obstacle: Option<String>,
    /// Whether a call's function object is seen. If not, code that several functions share is of no use.
    pub function_is_seen: bool,
    /// Calls that were counted while the code was watched, and those that are expected of other code because it is called elsewhere.
    pub calls: HashMap<RemoteAddress, u64>,
    /// Calls in other processes of what is the same code there, and was not watched without effect here.
    pub elsewhere: HashMap<RemoteAddress, u64>,
    /// Code that was called at an earlier time.
    pub called_before: HashSet<RemoteAddress>,
    /// Code that was watched without being called, while other code was.
    pub uncalled: HashSet<RemoteAddress>,
    /// Whether the last slot goes to code that has not been tried and may be the outermost one of a tree: none of these is seen.
    pub tries_roots: bool,
    /// Code whose calls are all folded into calls around them.
    pub only_folded: HashSet<RemoteAddress>,
    /// Bare names of classes that had objects at an earlier look: a request may make some again.
    pub had_objects: HashSet<Arc<str>>,
    /// Whether what is left of the budget goes to classes that were never seen to have objects.
    pub without_objects: bool,
    /// Functions that may get a number now that had none; `None`: as many as there are numbers.
    pub new_numbers: Option<usize>,
}

/// Whether a call's function object is seen: a heap frame does not hold it, and otherwise the caller's stack tells.
pub fn function_is_seen(mode: PythonMode, layout: &PythonLayout) -> bool {
    mode != PythonMode::Frames || layout.style != FrameStyle::Heap as u32
}
