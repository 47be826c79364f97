//! Which slots in the process table of the programs are taken, and what the slot of a process tells them.

use aya::Ebpf;
use tracer_common::limits::MAX_PROCESSES;
use tracer_common::python::PythonPushSites;
use tracer_common::tables::ProcessSlot;

use super::error::AttachError;
use super::object::{array, map_error};
use crate::model::{WitnessDensity, WitnessWindow};

/// The tables, by the names of their maps.
const PROCESSES: &str = "PROCESSES";
const PUSH_SITES: &str = "PYTHON_PUSH_SITES";

/// The slots by number, taken or free; a process that goes leaves its own to the next one.
#[derive(Debug, Default)]
pub struct Slots(Vec<bool>);

impl Slots {
    /// A free one, which is taken from now on.
    ///
    /// # Errors
    /// All are taken.
    pub fn take(&mut self) -> Result<u16, AttachError> {
        let index = self.0.iter().position(|taken| !taken).unwrap_or(self.0.len());
        let too_many = AttachError::TooManyProcesses { wanted: index + 1, most: MAX_PROCESSES };
        let number = u16::try_from(index).ok().filter(|number| u32::from(*number) < MAX_PROCESSES).ok_or(too_many)?;
        match self.0.get_mut(index) {
            Some(slot) => *slot = true,
            None => self.0.push(true),
        }
        Ok(number)
    }

    /// It is free again.
    pub fn free(&mut self, number: u16) {
        if let Some(slot) = self.0.get_mut(usize::from(number)) {
            *slot = false;
        }
    }
}

/// The slot of a process.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its number, which is part of the cookie of each probe.
    pub number: u16,
    told: ProcessSlot,
}

impl Slot {
    /// Makes the process known under this number. None of its calls is recorded yet.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn begin(ebpf: &mut Ebpf, number: u16, process: u32) -> Result<Self, AttachError> {
        // What another interpreter was seen to do says nothing about this one.
        let mut sites = array::<[u64; size_of::<PythonPushSites>() / 8]>(ebpf, PUSH_SITES)?;
        let none = PythonPushSites::default().instructions;
        sites.set(u32::from(number), none, 0).map_err(|error| map_error(PUSH_SITES, &error))?;
        let slot = Self { number, told: ProcessSlot { process, ..ProcessSlot::default() } };
        slot.write(ebpf, slot.told)?;
        Ok(slot)
    }

    /// From now on calls are recorded, or (`false`) only calls already open are seen to end.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn accept_entries(&mut self, ebpf: &mut Ebpf, accept: bool) -> Result<(), AttachError> {
        self.told.accepts_entries = u32::from(accept);
        self.write(ebpf, self.told)
    }

    /// Python probes have been taken away while others stay: calls that were open then and are found gone later have not
    /// been left by an exception.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn next_python_epoch(&mut self, ebpf: &mut Ebpf) -> Result<(), AttachError> {
        self.told.python_epoch = self.told.python_epoch.wrapping_add(1);
        self.write(ebpf, self.told)
    }

    /// Which Python calls of the process are seen at witnesses.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn see_witnesses(&mut self, ebpf: &mut Ebpf, window: WitnessWindow) -> Result<(), AttachError> {
        self.told.witness_window = window as u32;
        self.write(ebpf, self.told)
    }

    /// Which witnesses there are in the process.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn has_witnesses(&mut self, ebpf: &mut Ebpf, density: WitnessDensity) -> Result<(), AttachError> {
        self.told.witness_density = density as u32;
        self.write(ebpf, self.told)
    }

    /// Whether it is of interest what Python code threads are in where an outermost native call begins.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn note_contexts(&mut self, ebpf: &mut Ebpf, note: bool) -> Result<(), AttachError> {
        self.told.notes_contexts = u32::from(note);
        self.write(ebpf, self.told)
    }

    /// Nothing is known of the process any more.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn clear(self, ebpf: &mut Ebpf) -> Result<(), AttachError> {
        self.write(ebpf, ProcessSlot::default())
    }

    fn write(&self, ebpf: &mut Ebpf, told: ProcessSlot) -> Result<(), AttachError> {
        let mut processes = array::<ProcessSlot>(ebpf, PROCESSES)?;
        processes.set(u32::from(self.number), told, 0).map_err(|error| map_error(PROCESSES, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_goes_to_the_next_process() {
        let mut slots = Slots::default();
        for number in 0..MAX_PROCESSES {
            assert_eq!(slots.take().ok().map(u32::from), Some(number));
        }
        let refused = slots.take();
        assert!(matches!(refused, Err(AttachError::TooManyProcesses { wanted: 513, most: MAX_PROCESSES })));
        slots.free(9);
        slots.free(9);
        assert_eq!((slots.take().ok(), slots.take().is_err()), (Some(9), true));
    }
}
