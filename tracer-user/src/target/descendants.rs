//! Who was forked by whom.

use std::collections::HashSet;
use std::fs;

use super::process::look_at;
use crate::model::{ProcessId, Target};

/// Whether this kernel tells the children of a process (`CONFIG_PROC_CHILDREN`).
#[must_use]
pub fn children_are_told() -> bool {
    fs::exists("/proc/thread-self/children").unwrap_or(false)
}

/// The processes that any thread of a process has forked and that have not been waited for. Reading the list while one of
/// them ends may leave out another one (proc(5)): to be read again now and then.
pub(super) fn children_of(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let numbers = |list: String| list.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<u32>>();
    lists.flat_map(numbers).collect()
}

/// All processes that descend from these, with the one that forked each: parents before their children. Those that cannot be
/// looked at, have ended meanwhile or are this process are left out.
#[must_use]
pub fn descendants(targets: &[Target]) -> Vec<(ProcessId, Target)> {
    let mut known: HashSet<u32> = targets.iter().map(|target| target.process.pid).collect();
    known.insert(std::process::id());
    let mut parents: Vec<ProcessId> = targets.iter().map(|target| target.process).collect();
    let mut found: Vec<(ProcessId, Target)> = Vec::new();
    while let Some(parent) = parents.pop() {
        for child in children_of(parent.pid) {
            if known.insert(child)
                && let Ok(target) = look_at(child)
            {
                parents.push(target.process);
                found.push((parent, target));
            }
        }
    }
    found
}
