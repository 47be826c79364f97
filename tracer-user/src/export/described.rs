//! What a sink keeps for each process: bounded, because the end of a process is not announced.

use std::collections::HashMap;

use crate::model::ProcessId;

/// Four times what a tracer can watch at one time.
const MAX_DESCRIBED: usize = 4 * tracer_common::limits::MAX_PROCESSES as usize;

/// Values by process; the one that was not asked for the longest gives way.
#[derive(Debug)]
pub struct Described<T> {
    values: HashMap<ProcessId, (T, u64)>,
    uses: u64,
}

impl<T> Default for Described<T> {
    fn default() -> Self {
        Self { values: HashMap::new(), uses: 0 }
    }
}

impl<T> Described<T> {
    /// The value of a process.
    pub fn get(&mut self, process: ProcessId) -> Option<&mut T> {
        self.uses += 1;
        self.values.get_mut(&process).map(|(value, last_use)| {
            *last_use = self.uses;
            value
        })
    }

    /// Sets the value of a process; returns the one that had to go for it.
    pub fn insert(&mut self, process: ProcessId, value: T) -> Option<T> {
        self.uses += 1;
        let replaced = self.values.insert(process, (value, self.uses)).map(|(value, _)| value);
        if self.values.len() <= MAX_DESCRIBED {
            return replaced;
        }
        let oldest = self.values.iter().min_by_key(|(_, (_, last_use))| *last_use).map(|(process, _)| *process)?;
        self.values.remove(&oldest).map(|(value, _)| value)
    }

    /// All values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.values_mut().map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_outlives_a_thousand_others() {
        let process = |pid| ProcessId { pid, start_time: 0 };
        let mut described = Described::default();
        assert_eq!(described.insert(process(0), 0), None);
        for pid in 1..10_000 {
            described.insert(process(pid), pid);
            assert_eq!(described.get(process(0)), Some(&mut 0));
        }
        assert_eq!(described.values.len(), MAX_DESCRIBED);
        assert_eq!(described.get(process(1)), None);
        assert_eq!(described.insert(process(0), 7), Some(0));
    }
}
