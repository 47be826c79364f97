//! What the programs are told of the Python code of each process: four tables that all processes share, each of which has a
//! share of every table.

use std::collections::{HashMap, HashSet};

use aya::maps::MapError;
use aya::{Ebpf, Pod};
use tracer_common::limits::MAX_PYTHON_FUNCTIONS;
use tracer_common::python::{PythonClassRule, PythonCodeRule, PythonCount, PythonFunctionRule, PythonKey, PythonLoops};

use super::error::AttachError;
use super::object::{hash_map, map_error};
use crate::model::{PythonLeftOut, PythonTables, RemoteAddress};

/// The tables, by the names of their maps.
const CODES: &str = "PYTHON_CODES";
const FUNCTIONS: &str = "PYTHON_FUNCTIONS";
const CLASSES: &str = "PYTHON_CLASSES";
const MEMBERS: &str = "PYTHON_MEMBERS";
const COUNTS: &str = "PYTHON_COUNTS";
const LOOPS: &str = "PYTHON_LOOPS";

/// The tables that have an entry for each of these things: as large as the loader makes them.
pub const PYTHON_TABLES: [&str; 6] = [CODES, FUNCTIONS, CLASSES, MEMBERS, COUNTS, LOOPS];

/// Entries that each of them has room for unless told otherwise: four times what the object asks for. Only what is used takes
/// much memory.
pub const PYTHON_ENTRIES: u32 = 4 * MAX_PYTHON_FUNCTIONS;

/// The tables, and what each process has in them.
pub struct SharedTables {
    codes: Table,
    functions: Table,
    classes: Table,
    members: Table,
    /// What has no room here is a code of which less is known.
    loops: Table,
    /// The most of each process that ever found no room.
    left_out: HashMap<u32, PythonLeftOut>,
}

/// One of them.
struct Table {
    name: &'static str,
    /// Entries that it has room for.
    room: usize,
    shares: Shares,
}

impl SharedTables {
    /// Empty ones, each with room for so many entries.
    pub fn new(room: usize) -> Self {
        let table = |name| Table { name, room, shares: Shares::default() };
        Self {
            codes: table(CODES),
            functions: table(FUNCTIONS),
            classes: table(CLASSES),
            members: table(MEMBERS),
            loops: table(LOOPS),
            left_out: HashMap::new(),
        }
    }

    /// Tells the programs about the code, functions, classes and containers of a process, in the place of what they knew of
    /// it. What finds no room is left out: each process has a share, and what comes first in each list is told first.
    ///
    /// # Errors
    /// A map cannot be written, for another reason than want of room.
    pub fn tell(&mut self, ebpf: &mut Ebpf, process: u32, slot: u32, tables: &PythonTables) -> Result<(), AttachError> {
        let key = |address: RemoteAddress| PythonKey { address: address.0, process, reserved: 0 };
        let members: Vec<_> = tables.members.iter().map(|(child, container)| (key(*child), container.0)).collect();
        let classes: Vec<_> = tables.classes.iter().map(|(address, rule)| (key(*address), *rule)).collect();
        let functions: Vec<_> = tables.functions.iter().map(|(address, rule)| (key(*address), *rule)).collect();
        let loops: Vec<_> = tables.loops.iter().map(|(address, loops)| (key(*address), *loops)).collect();
        let of_slot = |rule: &PythonCodeRule| PythonCodeRule { process_slot: slot, ..*rule };
        let codes: Vec<_> = tables.codes.iter().map(|(address, rule)| (key(*address), of_slot(rule))).collect();
        // Code last: it is what makes the programs look at the rest.
        let told = self
            .members
            .replace(ebpf, process, members)
            .and_then(|()| self.classes.replace(ebpf, process, classes))
            .and_then(|()| self.functions.replace(ebpf, process, functions))
            .and_then(|()| self.loops.replace(ebpf, process, loops))
            .and_then(|()| self.codes.replace(ebpf, process, codes));
        self.note();
        told
    }

    /// Takes everything away that the programs were told of the Python code of a process, and what they have counted.
    ///
    /// # Errors
    /// A map is not there.
    pub fn forget(&mut self, ebpf: &mut Ebpf, process: u32) -> Result<(), AttachError> {
        self.left_out.remove(&process);
        let Self { codes, functions, classes, members, loops, .. } = self;
        for table in [codes, functions, classes, members, loops] {
            let held = table.shares.0.remove(&process).unwrap_or_default().held;
            take_out(ebpf, table.name, &held)?;
        }
        Ok(())
    }

    /// What of a process has found no room, at most.
    pub fn left_out(&self, process: u32) -> PythonLeftOut {
        self.left_out.get(&process).copied().unwrap_or_default()
    }

    /// Takes note of what has found no room.
    fn note(&mut self) {
        let Self { codes, functions, classes, members, left_out, .. } = self;
        let shares = [&codes.shares, &functions.shares, &classes.shares, &members.shares];
        for process in shares.iter().flat_map(|shares| shares.0.keys()) {
            let [codes, functions, classes, members] = shares.map(|shares| shares.left_out(*process));
            let now = PythonLeftOut { codes, functions, classes, members, numbers: 0 };
            if now != PythonLeftOut::default() {
                let most = left_out.entry(*process).or_default();
                *most = most.most(now);
            }
        }
    }
}

impl Table {
    /// Writes what is there now and takes away what was written for this process and is not there any more. What is as it
    /// was is left alone: the kernel uses the memory of a replaced element again at once, while a program may still read it.
    fn replace<Value: Pod + PartialEq>(
        &mut self,
        ebpf: &mut Ebpf,
        process: u32,
        entries: Vec<(PythonKey, Value)>,
    ) -> Result<(), AttachError> {
        let Self { name, room, shares } = self;
        let entries = once_each(entries);
        let (may_have, given_up) = shares.want(process, entries.len(), *room);
        take_out(ebpf, name, &given_up)?;
        let wanted: HashSet<PythonKey> = entries.iter().take(may_have).map(|(key, _)| *key).collect();
        let share = shares.0.entry(process).or_default();
        let stale: Vec<PythonKey> = share.held.extract_if(.., |key| !wanted.contains(key)).collect();
        take_out(ebpf, name, &stale)?;
        let is_there: HashSet<PythonKey> = share.held.iter().copied().collect();
        let mut held = Vec::with_capacity(may_have);
        let mut failure = None;
        let mut map = hash_map::<PythonKey, Value>(ebpf, name)?;
        for (key, value) in entries.into_iter().take(may_have) {
            if is_there.contains(&key) && map.get(&key, 0).ok() == Some(value) {
                held.push(key);
                continue;
            }
            match map.insert(key, value, 0) {
                Ok(()) => held.push(key),
                // The kernel has no memory for more; what is told so far stays.
                Err(error) if is_want_of_room(&error) => break,
                Err(error) => {
                    failure = Some(map_error(name, &error));
                    break;
                }
            }
        }
        // What was there and was not come to is still there.
        let come_to: HashSet<PythonKey> = held.iter().copied().collect();
        held.extend(is_there.difference(&come_to).copied());
        share.held = held;
        failure.map_or(Ok(()), Err)
    }
}

/// Takes entries out of a table; with code goes what the programs have counted of it.
fn take_out(ebpf: &mut Ebpf, name: &'static str, keys: &[PythonKey]) -> Result<(), AttachError> {
    if keys.is_empty() {
        return Ok(());
    }
    // The values do not matter: an element is deleted by its key.
    match name {
        CODES => {
            delete::<PythonCodeRule>(ebpf, name, keys)?;
            delete::<PythonCount>(ebpf, COUNTS, keys)
        }
        FUNCTIONS => delete::<PythonFunctionRule>(ebpf, name, keys),
        LOOPS => delete::<PythonLoops>(ebpf, name, keys),
        CLASSES => delete::<PythonClassRule>(ebpf, name, keys),
        _ => delete::<u64>(ebpf, name, keys),
    }
}

fn delete<Value: Pod>(ebpf: &mut Ebpf, name: &'static str, keys: &[PythonKey]) -> Result<(), AttachError> {
    let mut map = hash_map::<PythonKey, Value>(ebpf, name)?;
    for key in keys {
        // It may be gone already.
        let _ = map.remove(key);
    }
    Ok(())
}

/// How one table is shared out: what each process has in it, by the number of the process.
#[derive(Debug, Default)]
struct Shares(HashMap<u32, Share>);

#[derive(Debug, Default)]
struct Share {
    /// Entries that it wants to have, room or not.
    wanted: usize,
    /// What it has, the most wanted first.
    held: Vec<PythonKey>,
}

impl Shares {
    /// The most that a process may have, so that all fit: those that want less than that have all that they want.
    fn level(&self, room: usize) -> usize {
        let mut wanted: Vec<usize> = self.0.values().map(|share| share.wanted).collect();
        wanted.sort_unstable();
        let mut left = room;
        for (position, wants) in wanted.iter().enumerate() {
            let each = left / (wanted.len() - position);
            if *wants > each {
                return each;
            }
            left -= wants;
        }
        room
    }

    /// A process wants so many entries from now on. Gives how many it may have, and what others have to give up for it: the
    /// least wanted of those that have most.
    fn want(&mut self, process: u32, wanted: usize, room: usize) -> (usize, Vec<PythonKey>) {
        self.0.entry(process).or_default().wanted = wanted;
        let level = self.level(room);
        let others = self.0.iter_mut().filter(|(known, share)| **known != process && share.held.len() > level);
        let given_up = others.flat_map(|(_, share)| share.held.split_off(level)).collect();
        (wanted.min(level), given_up)
    }

    /// Entries of a process that found no room.
    fn left_out(&self, process: u32) -> usize {
        self.0.get(&process).map_or(0, |share| share.wanted.saturating_sub(share.held.len()))
    }
}

/// Each key once, in the order in which they come, with the last of its values.
fn once_each<Value>(entries: Vec<(PythonKey, Value)>) -> Vec<(PythonKey, Value)> {
    let mut places: HashMap<PythonKey, usize> = HashMap::with_capacity(entries.len());
    let mut each: Vec<(PythonKey, Value)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        match places.get(&key).and_then(|place| each.get_mut(*place)) {
            Some((_, known)) => *known = value,
            None => {
                places.insert(key, each.len());
                each.push((key, value));
            }
        }
    }
    each
}

/// The table is full, or the kernel has no memory for it.
fn is_want_of_room(error: &MapError) -> bool {
    let MapError::SyscallError(error) = error else { return false };
    matches!(error.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(process: u32, count: u64) -> Vec<PythonKey> {
        (0..count).map(|address| PythonKey { address, process, reserved: 0 }).collect()
    }

    /// A process wants so many entries and gets what it may have; gives how many.
    fn come(shares: &mut Shares, process: u32, wants: u64, room: usize) -> usize {
        let (may_have, _) = shares.want(process, wants as usize, room);
        shares.0.entry(process).or_default().held = keys(process, wants).into_iter().take(may_have).collect();
        may_have
    }

    fn held(shares: &Shares) -> Vec<(u32, usize)> {
        let mut held: Vec<_> = shares.0.iter().map(|(process, share)| (*process, share.held.len())).collect();
        held.sort_unstable();
        held
    }

    #[test]
    fn a_process_that_wants_all_leaves_room_for_those_that_come_later() {
        let mut shares = Shares::default();
        assert_eq!(come(&mut shares, 1, 500, 100), 100);
        let (may_have, given_up) = shares.want(2, 30, 100);
        assert_eq!(may_have, 30);
        let expected: Vec<PythonKey> = keys(1, 100).split_off(70);
        assert_eq!(given_up, expected, "the least wanted of the other one");
        assert_eq!(shares.left_out(1), 430);
    }

    #[test]
    fn however_many_come_each_has_its_share_and_all_fit() {
        let mut shares = Shares::default();
        for process in 0..200 {
            come(&mut shares, process, u64::from(process % 7) * 100, 1_000);
            let total: usize = held(&shares).iter().map(|(_, count)| count).sum();
            assert!(total <= 1_000, "{total}");
        }
        assert!(held(&shares).iter().all(|(process, count)| *count == 0 || *count == 5 || process % 7 == 0));
        for process in 1..200 {
            shares.0.remove(&process);
        }
        assert_eq!(come(&mut shares, 1, 900, 1_000), 900, "what the others had is free again");
    }

    #[test]
    fn what_does_not_fit_is_counted_at_its_most() {
        let mut tables = SharedTables::new(100);
        come(&mut tables.classes.shares, 7, 120, 100);
        tables.note();
        come(&mut tables.classes.shares, 7, 10, 100);
        tables.note();
        let most = PythonLeftOut { classes: 20, ..PythonLeftOut::default() };
        assert_eq!(tables.left_out(7), most);
    }

    #[test]
    fn of_two_values_for_one_key_the_last_one_counts() {
        let [first, second] = [keys(1, 2)[0], keys(1, 2)[1]];
        assert_eq!(once_each(vec![(first, 1), (second, 2), (first, 3)]), [(first, 3), (second, 2)]);
    }
}
