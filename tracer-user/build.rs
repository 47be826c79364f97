//! Refuses to build with a BPF object that does not belong to its sources.

use std::fs;
use std::path::Path;

#[path = "../xtask/src/source_hash.rs"]
#[expect(dead_code, reason = "xtask, which the file belongs to, uses all of it")]
mod source_hash;

use source_hash::{CRATES, OBJECT, STAMP, Stamp, hash, source_hash as hash_of_sources};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tracer-user is a folder of the workspace");
    for path in CRATES.iter().copied().chain([OBJECT, STAMP, "Cargo.toml", "Cargo.lock", "xtask/src/source_hash.rs"]) {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    if let Some(problem) = problem(root) {
        println!("cargo::error=the BPF object {OBJECT} {problem}: run `cargo xtask build-ebpf`");
    }
}

fn problem(root: &Path) -> Option<String> {
    let Ok(object) = fs::read(root.join(OBJECT)) else { return Some("is missing".into()) };
    let Some(stamp) = fs::read_to_string(root.join(STAMP)).ok().and_then(|text| Stamp::parse(&text)) else {
        return Some(format!("has no stamp ({STAMP})"));
    };
    if stamp.object != hash(&object) {
        return Some(format!("is not the one that its stamp ({STAMP}) speaks of"));
    }
    match hash_of_sources(root) {
        Ok(sources) if sources == stamp.sources => None,
        Ok(_) => Some(format!("is older than its sources ({}, or their dependencies)", CRATES.join(", "))),
        Err(error) => Some(format!("cannot be compared with its sources ({error})")),
    }
}
