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
    known: Vec<(u8, u8)>,
}

fn is_among(numbers: &[(u8, u8)], number: u8) -> bool {
    numbers.iter().any(|(first, last)| (*first..=*last).contains(&number))
}

impl Bytecode {
    /// The parts that a way back leads over, in order, none of which meets the next: offsets in bytes, the last one not
    /// included. What is in none of them runs once in a call at most. `None`: there is something that is not known.
    fn loops(&self, instructions: &[u8]) -> Option<Vec<(u32, u32)>> {
        let (words, _) = instructions.as_chunks::<{ WORD as usize }>();
        let mut loops: Vec<(u32, u32)> = Vec::new();
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
            if is_among(&self.backward, *number) {
                loops.push((next.checked_sub(argument)? * WORD, next * WORD));
            }
            (position, argument) = (next, 0);
        }
        Some(merged(loops))
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
        let (bytecode, start) = (VERSIONS.get(self.layout.version()), self.layout.code.co_code_adaptive);
        let (Some(bytecode), Some(start)) = (bytecode, start) else { return Ok(None) };
        let count = self.u64(code, self.layout.object.ob_size)?;
        if count > MOST_INSTRUCTIONS {
            return Err(ReadProblem::Torn { address: code, what: "code" });
        }
        let bytes = self.bytes_at(code.0.saturating_add(u64::from(start)), count as usize * WORD as usize)?;
        Ok(bytecode.loops(&bytes))
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
    fn what_hides_an_instruction_is_not_looked_into() {
        for (version, number) in [("3.12", 250), ("3.13", 70), ("3.13", 250), ("3.14", 250), ("3.11", 200)] {
            assert_eq!(loops(version, &[number, 0]), None, "{version}");
        }
        assert_eq!(loops("3.13", &[77, 9, 0, 0]), None, "it leads out of the code");
    }

    #[test]
    fn every_version_with_frames_on_a_data_stack_is_known() {
        let versions: Vec<&str> = VERSIONS.keys().map(String::as_str).collect();
        assert_eq!(versions, ["3.11", "3.12", "3.13", "3.14"]);
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
