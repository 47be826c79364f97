//! Real CPython interpreters, as far as they are there, and files that only look like one.

use std::path::{Path, PathBuf};

use crate::model::{InterpreterSites, NoInterpreterSites};
use crate::symbol::{ElfFile, Functions};

fn sites(path: &Path, version: (u8, u8)) -> Result<InterpreterSites, NoInterpreterSites> {
    let bytes = std::fs::read(path).expect("the file is readable");
    let file = ElfFile::parse(bytes.as_slice(), path).expect("an ELF file");
    Functions::read(file).expect("whole symbol tables").interpreter_sites(version)
}

#[test]
fn show() {
    for (path, version) in std::env::var("INTERPRETERS").unwrap().split(' ').map(|it| it.split_once('=').unwrap()) {
        let (a, b) = version.split_once('.').unwrap();
        eprintln!("{path} {:#x?}", sites(&PathBuf::from(path), (a.parse().unwrap(), b.parse().unwrap())));
    }
}
