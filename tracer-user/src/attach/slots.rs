//! Which process has which slot in the tables of the programs, and what the programs are told about it.

use aya::maps::Array;
use tracer_common::limits::MAX_PROCESSES;
use tracer_common::python::PythonPushSites;
use tracer_common::tables::ProcessSlot;

use super::error::AttachError;
use super::programs::{Programs, map_error};
use crate::model::ProcessId;

/// The slots by number; a process that is let go leaves its own to the next one.
#[derive(Debug, Default)]
pub struct Slots(Vec<Option<Taken>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    process: ProcessId,
    told: ProcessSlot,
}

impl Slots {
    fn position(&self, process: ProcessId) -> Option<usize> {
        self.0.iter().position(|slot| slot.is_some_and(|taken| taken.process == process))
    }

    /// The number under which the programs know a process that has a slot.
    pub(super) fn kernel_pid(&self, process: ProcessId) -> Option<u32> {
        let taken = self.0.get(self.position(process)?)?.as_ref()?;
        Some(taken.told.process)
    }

    /// The slot of a process; the other value says whether it is new.
    fn take(&mut self, process: ProcessId, kernel_pid: u32) -> Result<(u16, bool), AttachError> {
        let known = self.position(process);
        let free = || self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        let index = known.unwrap_or_else(free);
        let too_many = AttachError::TooManyProcesses { wanted: index + 1, most: MAX_PROCESSES };
        let number = u16::try_from(index).ok().filter(|number| u32::from(*number) < MAX_PROCESSES).ok_or(too_many)?;
        if known.is_none() {
            let taken = Taken { process, told: ProcessSlot { process: kernel_pid, ..ProcessSlot::default() } };
            match self.0.get_mut(index) {
                Some(slot) => *slot = Some(taken),
                None => self.0.push(Some(taken)),
            }
        }
        Ok((number, known.is_none()))
    }

    fn free(&mut self, process: ProcessId) -> Option<usize> {
        let index = self.position(process)?;
        *self.0.get_mut(index)? = None;
        Some(index)
    }

    /// Changes what is told of the processes that it is about; gives those slots.
    fn change(
        &mut self,
        is_about: impl Fn(ProcessId) -> bool,
        change: impl Fn(&mut ProcessSlot),
    ) -> Vec<(usize, ProcessSlot)> {
        let slots = self.0.iter_mut().enumerate().filter_map(|(index, slot)| Some((index, slot.as_mut()?)));
        let about = slots.filter(|(_, taken)| is_about(taken.process));
        about
            .map(|(index, taken)| {
                change(&mut taken.told);
                (index, taken.told)
            })
            .collect()
    }
}

impl Programs {
    /// From now on calls are recorded, or (`false`) only calls already open are seen to end.
    ///
    /// # Errors
    /// The process map cannot be written.
    pub fn accept_entries(&mut self, accept: bool) -> Result<(), AttachError> {
        let changed = self.slots.change(|_| true, |slot| slot.accepts_entries = u32::from(accept));
        self.tell_slots(&changed)
    }

    /// The same for one process.
    ///
    /// # Errors
    /// The process map cannot be written.
    pub fn accept_entries_of(&mut self, process: ProcessId, accept: bool) -> Result<(), AttachError> {
        let changed = self.slots.change(|known| known == process, |slot| slot.accepts_entries = u32::from(accept));
        self.tell_slots(&changed)
    }

    /// Python probes of a process have been taken away while others stay: calls that were open then and are found gone
    /// later have not been left by an exception.
    ///
    /// # Errors
    /// The process map cannot be written.
    pub(super) fn next_python_epoch(&mut self, process: ProcessId) -> Result<(), AttachError> {
        let next = |slot: &mut ProcessSlot| slot.python_epoch = slot.python_epoch.wrapping_add(1);
        let changed = self.slots.change(|known| known == process, next);
        self.tell_slots(&changed)
    }

    pub(super) fn slot_of(&mut self, process: ProcessId, kernel_pid: u32) -> Result<u16, AttachError> {
        let (slot, is_new) = self.slots.take(process, kernel_pid)?;
        if is_new {
            // What another interpreter was seen to do says nothing about this one.
            let map = self.ebpf.map_mut("PYTHON_PUSH_SITES");
            let map = map.ok_or(AttachError::Incomplete { name: "PYTHON_PUSH_SITES" })?;
            let failed = |error| map_error("PYTHON_PUSH_SITES", &error);
            let mut sites: Array<_, [u64; size_of::<PythonPushSites>() / 8]> = map.try_into().map_err(failed)?;
            sites.set(u32::from(slot), PythonPushSites::default().instructions, 0).map_err(failed)?;
            self.tell_slots(&[(usize::from(slot), ProcessSlot { process: kernel_pid, ..ProcessSlot::default() })])?;
        }
        Ok(slot)
    }

    pub(super) fn free_slot(&mut self, process: ProcessId) -> Result<(), AttachError> {
        let Some(index) = self.slots.free(process) else { return Ok(()) };
        self.tell_slots(&[(index, ProcessSlot::default())])
    }

    fn tell_slots(&mut self, changed: &[(usize, ProcessSlot)]) -> Result<(), AttachError> {
        let map = self.ebpf.map_mut("PROCESSES").ok_or(AttachError::Incomplete { name: "PROCESSES" })?;
        let mut processes: Array<_, ProcessSlot> = map.try_into().map_err(|error| map_error("PROCESSES", &error))?;
        for (index, slot) in changed {
            processes.set(*index as u32, *slot, 0).map_err(|error| map_error("PROCESSES", &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> ProcessId {
        ProcessId { pid, start_time: 1 }
    }

    #[test]
    fn a_freed_slot_goes_to_the_next_process() {
        let mut slots = Slots::default();
        for pid in 0..MAX_PROCESSES {
            assert_eq!(slots.take(process(pid), pid).ok(), Some((pid as u16, true)));
        }
        assert_eq!(slots.take(process(7), 7).ok(), Some((7, false)));
        let refused = slots.take(process(MAX_PROCESSES), MAX_PROCESSES);
        assert!(matches!(refused, Err(AttachError::TooManyProcesses { wanted: 1025, most: MAX_PROCESSES })));
        assert_eq!((slots.free(process(9)), slots.free(process(9))), (Some(9), None));
        assert_eq!(slots.take(process(5000), 5000).ok(), Some((9, true)));
    }

    #[test]
    fn what_is_told_of_one_process_is_not_told_of_others() {
        let mut slots = Slots::default();
        for pid in [5, 6] {
            slots.take(process(pid), pid).expect("there is room");
        }
        let changed = slots.change(|known| known == process(6), |slot| slot.accepts_entries = 1);
        assert_eq!(changed.iter().map(|(index, slot)| (*index, slot.process)).collect::<Vec<_>>(), [(1, 6)]);
        let all = slots.change(|_| true, |slot| slot.python_epoch += 1);
        assert_eq!(all.iter().map(|(_, slot)| slot.accepts_entries).collect::<Vec<_>>(), [0, 1]);
    }
}
