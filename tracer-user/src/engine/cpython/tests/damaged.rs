//! Recorded interpreters with bytes changed at random: nothing may panic, hang, or give a name that is not there.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::recorded::{VERSIONS, load};
use super::{Document, Says};
use crate::engine::cpython::Interpreter;
use crate::memory::{Memory, MemoryError, Snapshot};
use crate::model::RemoteAddress;

/// Damaged copies of each recorded interpreter.
const ROUNDS: u64 = 5;

/// Memory that is damaged while it is read.
struct Decaying(RefCell<Snapshot>);

impl Memory for Decaying {
    fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
        self.0.borrow().read(address, buffer)
    }
}

/// xorshift64*: the same numbers in every run.
pub(super) struct Numbers(pub u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Changes bytes that were recorded (most of a page is zeros that nothing reads).
pub(super) fn damage(snapshot: &mut Snapshot, numbers: &mut Numbers) {
    let count = 1 << numbers.below(12);
    let mut ranges: Vec<&mut [u8]> = snapshot.ranges_mut().collect();
    for _ in 0..count {
        let range = numbers.below(ranges.len());
        let Some(range) = ranges.get_mut(range) else { continue };
        let start = numbers.below(range.len());
        let Some(byte) = range.iter_mut().skip(start).take(4096).find(|byte| **byte != 0) else { continue };
        *byte = match numbers.below(6) {
            0 => 0,
            1 => 0xff,
            2 => byte.wrapping_add(1),
            3 => *byte ^ 1 << numbers.below(8),
            // Pointers that point a little aside.
            4 => byte.wrapping_add(8),
            _ => numbers.next() as u8,
        };
    }
}

/// Everything that can be asked of every object; returns every name that came out.
fn ask_everything<M: Memory>(interpreter: &Interpreter<M>, document: &Document) -> HashSet<String> {
    let mut names = HashSet::new();
    let modules = interpreter.modules().unwrap_or_default();
    let dictionaries: Vec<RemoteAddress> = modules.iter().map(|(_, dict)| *dict).collect();
    names.extend(modules.into_iter().map(|(name, _)| name));
    let _ = interpreter.threads();
    let _ = interpreter.kernel_layout();
    for dictionary in dictionaries {
        let _ = interpreter.dict_entries(dictionary);
    }
    for fact in &document.expected {
        let object = RemoteAddress(fact.address);
        let _ = (interpreter.tuple_items(object), interpreter.list_items(object), interpreter.cell(object));
        let _ = (interpreter.dict_entries(object), interpreter.method(object), interpreter.held_callable(object));
        names.extend(interpreter.text(object));
        names.extend(interpreter.instance_attributes(object).unwrap_or_default().into_iter().map(|(name, _)| name));
        if let Ok(class) = interpreter.class(object) {
            names.extend([class.name, class.qualified_name, class.module]);
        }
        if let Ok(function) = interpreter.function(object) {
            names.extend([function.name, function.qualified_name, function.module]);
        }
        if let Ok(code) = interpreter.code(object) {
            names.extend([code.name, code.file].into_iter().chain(code.qualified_name));
            names.extend(code.variables.into_iter().map(|variable| variable.name));
        }
    }
    names
}

/// Whether a name is in the bytes, in one of the forms in which CPython keeps strings.
fn holds(snapshot: &Snapshot, name: &str) -> bool {
    let narrow: Option<Vec<u8>> = name.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect();
    // What Rust's strings cannot hold is any two or four bytes.
    let mut forms: Vec<Vec<Option<u8>>> =
        narrow.into_iter().map(|bytes| bytes.into_iter().map(Some).collect()).collect();
    for width in [2, 4] {
        forms.push(
            name.chars()
                .flat_map(|character| {
                    let known = character != char::REPLACEMENT_CHARACTER;
                    let bytes = u32::from(character).to_le_bytes();
                    bytes.into_iter().take(width).map(move |byte| known.then_some(byte))
                })
                .collect(),
        );
    }
    forms.iter().any(|form| snapshot.ranges().iter().any(|(_, bytes)| find(bytes, form)))
}

fn find(bytes: &[u8], form: &[Option<u8>]) -> bool {
    let exact: Option<Vec<u8>> = form.iter().copied().collect();
    match exact {
        Some(exact) if exact.is_empty() => true,
        Some(exact) => aho_corasick::AhoCorasick::new([exact]).expect("one pattern").is_match(bytes),
        None => bytes
            .windows(form.len())
            .any(|part| part.iter().zip(form).all(|(byte, wanted)| wanted.is_none_or(|wanted| wanted == *byte))),
    }
}

#[test]
pub(super) fn damaged_memory_gives_errors_and_no_other_names() {
    for (seed, version) in VERSIONS.into_iter().enumerate() {
        let (intact, addresses, document) = load(version);
        let expected = Interpreter::open(&intact, &addresses).expect("it is intact");
        let expected = ask_everything(&expected, &document);
        assert!(expected.len() > 200, "{}", expected.len());
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ seed as u64);
        for round in 0..ROUNDS {
            let context = format!("{version}, round {round}");
            let started = Instant::now();
            let mut damaged = intact.clone();
            damage(&mut damaged, &mut numbers);
            if let Ok(interpreter) = Interpreter::open(&damaged, &addresses) {
                let names = ask_everything(&interpreter, &document);
                assert_known(&names, &expected, &damaged, &context);
            }
            // Damage to where everything begins would hide the rest: this one is damaged once it is open.
            let decaying = Decaying(RefCell::new(intact.clone()));
            let interpreter = Interpreter::open(&decaying, &addresses).expect("it is intact");
            damage(&mut decaying.0.borrow_mut(), &mut numbers);
            interpreter.refresh();
            let names = ask_everything(&interpreter, &document);
            assert_known(&names, &expected, &decaying.0.borrow(), &context);
            assert!(started.elapsed() < Duration::from_secs(20), "{context}");
        }
    }
}

fn assert_known(names: &HashSet<String>, expected: &HashSet<String>, memory: &Snapshot, context: &str) {
    for name in names.difference(expected) {
        assert!(holds(memory, name), "{context}: {name:?} is not in the memory");
    }
}

/// Each pointer of the facts, one after the other, is led in a circle or to nothing.
#[test]
fn circles_end() {
    for version in VERSIONS {
        let (intact, addresses, document) = load(version);
        let targets: Vec<u64> = document.expected.iter().map(|fact| fact.address).collect();
        let mut numbers = Numbers(1);
        for fact in document.expected.iter().filter(|fact| matches!(fact.says, Says::Class { .. } | Says::Code(_))) {
            let mut snapshot = intact.clone();
            let starts: Vec<u64> = snapshot.ranges().iter().map(|(start, _)| *start).collect();
            for (start, bytes) in starts.into_iter().zip(snapshot.ranges_mut()) {
                let Some(at) = fact.address.checked_sub(start).and_then(|at| usize::try_from(at).ok()) else {
                    continue;
                };
                let Some(object) = bytes.get_mut(at..) else { continue };
                for word in object.as_chunks_mut::<8>().0.iter_mut().take(120).skip(2) {
                    let value = u64::from_le_bytes(*word);
                    if value > 1 << 32 {
                        let target = targets.get(numbers.below(targets.len())).copied().unwrap_or_default();
                        *word = if numbers.below(2) == 0 { fact.address } else { target }.to_le_bytes();
                    }
                }
            }
            if let Ok(interpreter) = Interpreter::open(&snapshot, &addresses) {
                let _ = (interpreter.class(RemoteAddress(fact.address)), interpreter.code(RemoteAddress(fact.address)));
            }
        }
    }
}
