//! Bytecode goes in; the parts of it that may run more than once in one call come out.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::error::ReadProblem;
use super::interpreter::Interpreter;
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// The data file.
const DATA: &str = include_str!("../../../../symbols/cpython/bytecode.yaml");

static VERSIONS: LazyLock<BTreeMap<String, Bytecode>> = LazyLock::new(|| {
    let data: Data = serde_saphyr::from_str(DATA).expect("a unit test reads symbols/cpython/bytecode.yaml");
    data.versions
});

/// Most instructions of one code object that are believed.
const MOST_INSTRUCTIONS: u64 = 1 << 16;

/// Bytes of an instruction, and of a word of cache after it.
const WORD: u32 = 2;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    versions: BTreeMap<String, Bytecode>,
}

/// What is known of the bytecode of one minor version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bytecode {
    extended_arg: u8,
    caches: BTreeMap<u32, Vec<(u8, u8)>>,
    backward: Vec<(u8, u8)>,
    stores: Vec<(u8, u8)>,
    stores_high: Option<u8>,
    stores_both: Option<u8>,
    known: Vec<(u8, u8)>,
}

/// An instruction with the argument that those before it make longer.
struct Instruction {
    number: u8,
    argument: u32,
    /// Offset in bytes, and that of the next one.
    start: u32,
    end: u32,
}

fn is_among(numbers: &[(u8, u8)], number: u8) -> bool {
    numbers.iter().any(|(first, last)| (*first..=*last).contains(&number))
}

impl Bytecode {
    /// The parts that a way back leads over, in order, none of which meets the next: offsets in bytes, the last one not
    /// included. What is in none of them runs once in a call at most. `None`: there is something that is not known.
    fn loops(&self, bytes: &[u8]) -> Option<Vec<(u32, u32)>> {
        let all = self.instructions(bytes)?;
        let backward = all.iter().filter(|instruction| is_among(&self.backward, instruction.number));
        let to = |instruction: &Instruction| instruction.end.checked_sub(instruction.argument.checked_mul(WORD)?);
        let loops = backward.map(|instruction| Some((to(instruction)?, instruction.end)));
        Some(merged(loops.collect::<Option<Vec<_>>>()?))
    }

    /// The offset in bytes of the first instruction that may find something else in a local variable than what was there when the call
    /// began, or one after it: as long as none from there on has run, it is what it was. `None`: there is something that is not known.
    fn unchanged_until(&self, bytes: &[u8], slot: u32) -> Option<u32> {
        let loops = self.loops(bytes)?;
        let all = self.instructions(bytes)?;
        let stores = all.iter().filter(|instruction| self.stores_into(instruction, slot));
        // In a loop it may have been stored the time before.
        let from =
            |start: u32| loops.iter().find(|(first, end)| (*first..*end).contains(&start)).map_or(start, |it| it.0);
        Some(stores.map(|instruction| from(instruction.start)).min().unwrap_or(u32::MAX))
    }

    fn stores_into(&self, instruction: &Instruction, slot: u32) -> bool {
        let Instruction { number, argument, .. } = *instruction;
        let (high, low) = (argument >> 4, argument & 15);
        if self.stores_both == Some(number) {
            return high == slot || low == slot;
        }
        (self.stores_high == Some(number) && high == slot) || (is_among(&self.stores, number) && argument == slot)
    }

    fn instructions(&self, bytes: &[u8]) -> Option<Vec<Instruction>> {
        let (words, _) = bytes.as_chunks::<{ WORD as usize }>();
        let mut instructions = Vec::new();
        let (mut position, mut argument) = (0_u32, 0_u32);
        while let Some([number, low]) = words.get(position as usize) {
            if !is_among(&self.known, *number) {
                return None;
            }
            argument = argument.checked_mul(256)? | u32::from(*low);
            let caches =
                self.caches.iter().find(|(_, numbers)| is_among(numbers, *number)).map_or(0, |(count, _)| *count);
            let next = position + 1 + caches;
            if *number == self.extended_arg {
                position = next;
                continue;
            }
            instructions.push(Instruction { number: *number, argument, start: position * WORD, end: next * WORD });
            (position, argument) = (next, 0);
        }
        Some(instructions)
    }
}

/// Those that meet each other as one.
fn merged(mut loops: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    loops.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (start, end) in loops {
        match merged.last_mut() {
            Some((_, last)) if start < *last => *last = end.max(*last),
            _ => merged.push((start, end)),
        }
    }
    merged
}

impl<M: Memory> Interpreter<M> {
    /// The parts of a code object's instructions that may run more than once in one call: offsets in bytes from the first
    /// instruction, the last one not included. `None`: that is not known.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn loops(&self, code: RemoteAddress) -> Result<Option<Vec<(u32, u32)>>, ReadProblem> {
        let Some((bytecode, bytes)) = self.bytecode(code)? else { return Ok(None) };
        Ok(bytecode.loops(&bytes))
    }

    /// As long as no instruction from this offset in bytes on has run in a call, a local variable holds what it was given. `None`: that is
    /// not known.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn unchanged_until(&self, code: RemoteAddress, slot: u32) -> Result<Option<u32>, ReadProblem> {
        let Some((bytecode, bytes)) = self.bytecode(code)? else { return Ok(None) };
        Ok(bytecode.unchanged_until(&bytes, slot))
    }

    fn bytecode(&self, code: RemoteAddress) -> Result<Option<(&'static Bytecode, Vec<u8>)>, ReadProblem> {
        let (bytecode, start) = (VERSIONS.get(self.layout.version()), self.layout.code.co_code_adaptive);
        let (Some(bytecode), Some(start)) = (bytecode, start) else { return Ok(None) };
        let count = self.u64(code, self.layout.object.ob_size)?;
        if count > MOST_INSTRUCTIONS {
            return Err(ReadProblem::Torn { address: code, what: "code" });
        }
        let bytes = self.bytes_at(code.0.saturating_add(u64::from(start)), count as usize * WORD as usize)?;
        Ok(Some((bytecode, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loops(version: &str, instructions: &[u8]) -> Option<Vec<(u32, u32)>> {
        VERSIONS[version].loops(instructions)
    }

    #[test]
    fn a_way_back_makes_a_loop() {
        // 3.13: NOP, FOR_ITER with its cache, NOP, JUMP_BACKWARD over 5 with its cache, NOP.
        let code = [30, 0, 72, 2, 0xff, 0xff, 30, 0, 77, 5, 0xff, 0xff, 30, 0];
        assert_eq!(loops("3.13", &code), Some(vec![(2, 12)]));
    }

    #[test]
    fn caches_are_no_instructions() {
        // 3.13: LOAD_GLOBAL with four words of cache that look like jumps, RETURN_VALUE.
        assert_eq!(loops("3.13", &[91, 0, 77, 1, 77, 1, 77, 1, 77, 1, 36, 0]), Some(vec![]));
    }

    #[test]
    fn long_ways_and_loops_in_loops_are_one() {
        // 3.12: 300 NOPs, a jump over 2 and one over 257.
        let mut code = [9, 0].repeat(300);
        code.extend([140, 2, 144, 1, 140, 1]);
        assert_eq!(loops("3.12", &code), Some(vec![(2 * (303 - 257), 606)]));
    }

    #[test]
    fn a_variable_is_what_it_was_until_something_is_stored() {
        let until = |version: &str, bytes: &[u8], slot| VERSIONS[version].unchanged_until(bytes, slot);
        // 3.13: NOP, STORE_FAST 1, NOP, STORE_FAST_LOAD_FAST 2 and 1, STORE_FAST_STORE_FAST 3 and 4, EXTENDED_ARG and STORE_FAST 300.
        let code = [30, 0, 110, 1, 30, 0, 111, 0x21, 112, 0x34, 71, 1, 110, 44];
        let of = [1, 2, 3, 4, 5, 300].map(|slot| until("3.13", &code, slot));
        assert_eq!(of, [Some(2), Some(6), Some(8), Some(8), Some(u32::MAX), Some(12)]);
        // In a loop, from its beginning on: 3.12, NOP, FOR_ITER with its cache, STORE_FAST 1, JUMP_BACKWARD over 4.
        let in_loop = [9, 0, 93, 2, 0, 0, 125, 1, 140, 4];
        assert_eq!([1, 2].map(|slot| until("3.12", &in_loop, slot)), [Some(2), Some(u32::MAX)]);
        // An exception that is kept goes with DELETE_FAST.
        assert_eq!(until("3.11", &[9, 0, 126, 1], 1), Some(2));
    }

    #[test]
    fn what_hides_an_instruction_is_not_looked_into() {
        for (version, number) in [("3.12", 250), ("3.13", 70), ("3.13", 250), ("3.14", 250), ("3.11", 200)] {
            assert_eq!(loops(version, &[number, 0]), None, "{version}");
        }
        assert_eq!(loops("3.13", &[77, 9, 0, 0]), None, "it leads out of the code");
    }

    #[test]
    fn every_version_with_frames_on_a_data_stack_is_known() {
        let versions: Vec<&str> = VERSIONS.keys().map(String::as_str).collect();
        assert_eq!(versions, ["3.11", "3.12", "3.13", "3.14", "3.15"]);
        for (version, bytecode) in VERSIONS.iter() {
            for numbers in bytecode.caches.values().chain([&bytecode.backward]) {
                assert!(
                    numbers.iter().all(|(first, last)| (*first..=*last).all(|it| is_among(&bytecode.known, it))),
                    "{version}"
                );
            }
        }
    }
}
