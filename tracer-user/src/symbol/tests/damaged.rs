//! Damaged and hostile files: errors and reasons, never a panic, a hang, or memory without bound.

use std::path::Path;
use std::time::{Duration, Instant};

use super::compile;
use crate::symbol::{ElfFile, Functions, SymbolError};

/// Everything the room does with a file.
fn examine(bytes: &[u8]) -> Result<usize, SymbolError> {
    let functions = Functions::read(ElfFile::parse(bytes, Path::new("damaged"))?)?;
    let candidates = functions.find(|_| true, |_| Some(0)).candidates;
    let mut resolved: Vec<_> = candidates.iter().filter_map(|candidate| functions.resolve(candidate).ok()).collect();
    functions.locate_objects(&mut resolved.iter_mut().collect::<Vec<_>>());
    Ok(resolved.len())
}

/// A xorshift generator: the same damage in every run.
pub(super) struct Damage(pub u64);

impl Damage {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).expect("64 bits") % limit.max(1)
    }
}

const SOURCE: &str = r#"
struct Model { virtual int fit(int n) { return n; } virtual int predict(int n) const; int total; };
int Model::predict(int n) const { switch (n) { case 1: return total; case 2: return 7; case 3: throw n; case 4: return 9;
    case 5: return total * 2; default: return const_cast<Model *>(this)->fit(n); } }
"#;

#[test]
fn damaged_files_never_panic() {
    let options = ["-O1", "-g", "-gz=zlib", "-shared", "-fPIC", "-nostdlib"];
    let Some(program) = compile("c++", "cpp", SOURCE, &options) else { return };
    damaged(&program.bytes());
}

#[test]
fn damaged_files_without_sections_never_panic() {
    let options = ["-O1", "-shared", "-fPIC", "-nostdlib"];
    let Some(program) = compile("c++", "cpp", SOURCE, &options) else { return };
    let mut whole = program.bytes();
    whole[0x28..0x30].fill(0);
    damaged(&whole);
}

/// Damages a file in a thousand ways.
fn damaged(whole: &[u8]) {
    assert!(examine(whole).expect("the whole file is fine") >= 2);
    let mut damage = Damage(0x9e37_79b9_7f4a_7c15);
    let start = Instant::now();
    for round in 0..1000 {
        let mut bytes = whole.to_vec();
        // Half of the damage goes into the headers, at the beginning and the end, where it does most harm.
        let headers = bytes.len().min(1024);
        for _ in 0..=damage.below(8) {
            let at = match damage.below(4) {
                0 => damage.below(headers),
                1 => bytes.len() - 1 - damage.below(2560.min(bytes.len())),
                _ => damage.below(bytes.len()),
            };
            bytes[at] = match damage.below(3) {
                0 => 0xff,
                1 => 0,
                _ => damage.next().to_le_bytes()[0],
            };
        }
        if round % 8 == 0 {
            bytes.truncate(damage.below(bytes.len()));
        }
        let _ = examine(&bytes);
    }
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn what_is_no_elf_file_is_an_error() {
    assert!(matches!(examine(b""), Err(SymbolError::Malformed { .. })));
    assert!(matches!(examine(b"#!/bin/sh\n"), Err(SymbolError::Malformed { .. })));
    assert!(matches!(examine(&[0; 4096]), Err(SymbolError::Malformed { .. })));
    let mut small = vec![0; 64];
    small[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1, 1, 1]);
    assert!(matches!(examine(&small), Err(SymbolError::WrongClass { .. })));
    small[4] = 2;
    small[5] = 2;
    assert!(matches!(examine(&small), Err(SymbolError::WrongClass { .. } | SymbolError::Malformed { .. })));
}

#[test]
fn the_errors_name_the_file_and_what_to_look_at() {
    let message = examine(b"MZ").expect_err("no ELF file").to_string();
    assert!(message.contains("damaged") && message.ends_with('?'), "{message}");
}
