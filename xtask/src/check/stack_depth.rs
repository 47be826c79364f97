//! The stack of the BPF programs, from the committed object itself: the kernel gives a chain of calls 512 bytes in all.
//! Kernels before about 6.8 round the part of each function up to 32 bytes, so that an object that one kernel takes is
//! refused by another.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

use super::finding::{Finding, Rule};
use crate::source_hash::OBJECT;

/// Bytes that a chain of calls may use: a margin below the kernel's 512, for what a newer compiler or one more variable
/// costs.
const MOST: u64 = 448;

/// What older kernels round the part of a function up to (`round_up(max_t(u32, stack_depth, 1), 32)`,
/// `check_max_stack_depth` in kernel/bpf/verifier.c, Linux 6.1).
const ROUNDING: u64 = 32;

/// Where a function begins: its section's number and its offset there.
type Start = (usize, u64);

/// A function of the object.
#[derive(Debug, Default)]
struct Function {
    name: String,
    /// Whether the kernel calls it itself.
    is_program: bool,
    /// The deepest byte of its own part of the stack.
    depth: u64,
    calls: Vec<Start>,
}

/// The chains of calls that take more than their share of the stack.
///
/// # Errors
/// When the object cannot be read, or is none.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let bytes = fs::read(root.join(OBJECT)).with_context(|| format!("cannot read {OBJECT}"))?;
    let findings = deepest_chains(&bytes)?.into_iter().filter(|chain| chain.bytes > MOST).map(|chain| {
        let sentence = format!(
            "{} bytes of stack in the chain {}, at most {MOST}: keep what is large with the thread, or call one after \
             another what calls one by another",
            chain.bytes, chain.names
        );
        Finding::new(Rule::StackDepth, Path::new(OBJECT), 1, sentence)
    });
    Ok(findings.collect())
}

/// The deepest chain of calls of a program.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    bytes: u64,
    /// Each function and its part of the stack.
    names: String,
}

fn deepest_chains(object: &[u8]) -> Result<Vec<Chain>> {
    let functions = functions(object)?;
    let programs = functions.iter().filter(|(_, function)| function.is_program);
    let chains = programs.map(|(start, _)| {
        let (bytes, names) = deepest(&functions, *start, 0)?;
        Ok(Chain { bytes, names: names.join(" > ") })
    });
    chains.collect()
}

/// No chain of calls is longer (`MAX_CALL_FRAMES`, include/linux/bpf_verifier.h).
const LONGEST: usize = 8;

fn deepest(functions: &BTreeMap<Start, Function>, start: Start, length: usize) -> Result<(u64, Vec<String>)> {
    let function = functions.get(&start).with_context(|| format!("{OBJECT}: a call leads to no function"))?;
    ensure!(
        length < LONGEST,
        "{OBJECT}: more than {LONGEST} functions call one another, the last is {}",
        function.name
    );
    let mut below = (0, Vec::new());
    for call in &function.calls {
        let chain = deepest(functions, *call, length + 1)?;
        if chain.0 > below.0 {
            below = chain;
        }
    }
    let mut names = vec![format!("{} ({})", function.name, function.depth)];
    names.extend(below.1);
    Ok((function.depth.max(1).next_multiple_of(ROUNDING) + below.0, names))
}

fn functions(object: &[u8]) -> Result<BTreeMap<Start, Function>> {
    let file = ElfFile64::<Endianness>::parse(object).with_context(|| format!("{OBJECT} is no ELF object"))?;
    let mut functions = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let section = file.section_by_index(symbol.section_index().context("a function has a section")?)?;
        let number = section.index().0;
        let code = section.data()?;
        let end = symbol.address() + symbol.size();
        let code = code.get(symbol.address() as usize..end as usize).context("a function lies in its section")?;
        let mut targets = HashMap::new();
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(index)?;
            let of_section = symbol.kind() == SymbolKind::Section;
            if let Some(section) = symbol.section_index() {
                targets.insert(offset, (section.0, (!of_section).then(|| symbol.address())));
            }
        }
        let (depth, calls) = read(code, |at, target| match targets.get(&(symbol.address() + at)) {
            Some((section, Some(address))) => (*section, *address),
            // Relative to the section: the instruction counts from the one after it.
            Some((section, None)) => (*section, ((i64::from(target) + 1) * INSTRUCTION as i64) as u64),
            None => (number, (symbol.address() + at).wrapping_add_signed((i64::from(target) + 1) * INSTRUCTION as i64)),
        });
        let name = symbol.name()?;
        let is_program = !section.name()?.starts_with(".text");
        let function = Function { name: plain(name), is_program, depth, calls };
        functions.insert((number, symbol.address()), function);
    }
    ensure!(!functions.is_empty(), "{OBJECT} has no functions");
    Ok(functions)
}

/// The last two parts of a Rust path of the old mangling, which is what programs are built with; any other name as it is.
fn plain(name: &str) -> String {
    let Some(mut rest) = name.strip_prefix("_ZN") else { return name.to_owned() };
    let mut parts = Vec::new();
    while let Some(digits) = rest.find(|character: char| !character.is_ascii_digit()).filter(|digits| *digits > 0) {
        let Some(length) = rest[..digits].parse().ok().filter(|length| digits + length <= rest.len()) else { break };
        let length: usize = length;
        parts.push(&rest[digits..digits + length]);
        rest = &rest[digits + length..];
    }
    // The last part is a hash.
    parts.pop();
    parts.iter().rev().take(2).rev().copied().collect::<Vec<_>>().join("::")
}

/// Bytes of an instruction (Documentation/bpf/standardization/instruction-set.rst).
const INSTRUCTION: usize = 8;
const WIDE_LOAD: u8 = 0x18;
const CALL: u8 = 0x85;
const CALL_OF_FUNCTION: u8 = 1;
const COPY: u8 = 0xbf;
const ADD_NUMBER: u8 = 0x07;
const FRAME_POINTER: u8 = 10;

/// The deepest byte of the stack that instructions reach, and the functions that they call, as `target_of` resolves an
/// offset in the code and the number in a call.
fn read(code: &[u8], target_of: impl Fn(u64, i32) -> Start) -> (u64, Vec<Start>) {
    let mut depth = 0;
    let mut calls = Vec::new();
    // Registers that hold an address on the stack: how far below its top.
    let mut addresses: [Option<i64>; 16] = [None; 16];
    addresses[usize::from(FRAME_POINTER)] = Some(0);
    let mut at = 0;
    while let Some(&[operation, registers, low, high, first, second, third, fourth]) = code.get(at..at + INSTRUCTION) {
        let (to, from) = (usize::from(registers & 15), usize::from(registers >> 4));
        let offset = i64::from(i16::from_le_bytes([low, high]));
        let number = i32::from_le_bytes([first, second, third, fourth]);
        let reach = |base: Option<i64>| base.map_or(0, |base| (-(base + offset)).max(0) as u64);
        match (operation & 7, operation) {
            // Loads into a register, and stores of a number or a register.
            (1, _) => {
                depth = depth.max(reach(addresses[from]));
                addresses[to] = None;
            }
            (2 | 3, _) => depth = depth.max(reach(addresses[to])),
            (_, COPY) => addresses[to] = addresses[from],
            (_, ADD_NUMBER) => {
                addresses[to] = addresses[to].map(|base| base + i64::from(number));
                // What a function is given may be read and written from there on.
                depth = depth.max(addresses[to].map_or(0, |base| (-base).max(0) as u64));
            }
            (_, CALL) => {
                if from == usize::from(CALL_OF_FUNCTION) {
                    calls.push(target_of(at as u64, number));
                }
                // What a call may change.
                addresses[..6].fill(None);
            }
            // Other arithmetic, and loads of numbers.
            (0 | 4 | 7, _) => addresses[to] = None,
            _ => {}
        }
        at += if operation == WIDE_LOAD { 2 * INSTRUCTION } else { INSTRUCTION };
    }
    (depth, calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    /// The instruction with these parts.
    fn instruction(operation: u8, to: u8, from: u8, offset: i16, number: i32) -> Vec<u8> {
        let mut bytes = vec![operation, to | from << 4];
        bytes.extend(offset.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes
    }

    #[test]
    fn the_deepest_byte_is_found_however_it_is_reached() {
        let depth_of = |code: &[Vec<u8>]| read(&code.concat(), |_, _| (0, 0)).0;
        let store = instruction(0x7b, 10, 1, -40, 0);
        let load = instruction(0x79, 1, 10, -56, 0);
        assert_eq!(depth_of(&[store.clone(), load]), 56);
        let address = [instruction(COPY, 2, 10, 0, 0), instruction(ADD_NUMBER, 2, 0, 0, -64)];
        assert_eq!(depth_of(&address), 64);
        // A copy with other instructions between, and a store through it.
        let through = [&address[..], &[store, instruction(COPY, 3, 2, 0, 0), instruction(0x72, 3, 0, -8, 0)]].concat();
        assert_eq!(depth_of(&through), 72);
        // What is no address on the stack any more.
        let lost = [instruction(COPY, 2, 10, 0, 0), instruction(0xb7, 2, 0, 0, 5), instruction(0x7b, 2, 1, -200, 0)];
        assert_eq!(depth_of(&lost), 0);
    }

    #[test]
    fn parts_of_a_chain_are_rounded_and_added() {
        let function = |name: &str, depth, calls: &[Start]| Function {
            name: name.to_owned(),
            is_program: name == "program",
            depth,
            calls: calls.to_vec(),
        };
        let functions = BTreeMap::from([
            ((1, 0), function("program", 40, &[(2, 0), (2, 8)])),
            ((2, 0), function("shallow", 100, &[])),
            ((2, 8), function("deep", 0, &[(2, 16)])),
            ((2, 16), function("deeper", 97, &[])),
        ]);
        let (bytes, names) = deepest(&functions, (1, 0), 0).expect("a chain");
        assert_eq!((bytes, names.join(" > ").as_str()), (64 + 32 + 128, "program (40) > deep (0) > deeper (97)"));
    }

    #[test]
    fn the_committed_object_is_read() {
        let object = fs::read(workspace::root().join(OBJECT)).expect("the object");
        let chains = deepest_chains(&object).expect("an object");
        let of = |program: &str| chains.iter().find(|chain| chain.names.starts_with(program)).expect("a program");
        assert_eq!(of("empty_entry").bytes, ROUNDING);
        let watch = of("python_watch");
        assert!(watch.names.contains(" > resolve ("), "{watch:?}");
        assert!(watch.bytes > 4 * ROUNDING, "{watch:?}");
    }

    #[test]
    fn names_are_made_readable() {
        assert_eq!(plain("_ZN6tracer12python_calls5enter17h028981e823259d48E"), "python_calls::enter");
        assert_eq!(plain("end_left"), "end_left");
    }
}
