//! What the BPF object is made from, as one hash, and the stamp that lies beside the object.
//!
//! `tracer-user/build.rs` includes this file too: the build that embeds the object and the command that makes it
//! cannot disagree about what "stale" means.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The committed object, from the root of the workspace.
pub const OBJECT: &str = "tracer-user/ebpf/tracer.o";
/// The committed stamp of the object.
pub const STAMP: &str = "tracer-user/ebpf/tracer.o.stamp";
/// The crates that the object is built from.
pub const CRATES: [&str; 2] = ["tracer-common", "tracer-ebpf"];
const ROOT: &str = "tracer-ebpf";
/// Compiler flags that shape the object; part of its hash.
pub const FLAGS: [&str; 3] = [r#"--cfg=bpf_target_arch="x86_64""#, "-Cdebuginfo=2", "-Clink-arg=--btf"];

/// What the stamp file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Hash of the sources, see [`source_hash`].
    pub sources: String,
    /// Hash of the object's bytes.
    pub object: String,
    /// First line of `rustc --version` of the compiler.
    pub rustc: String,
    /// `bpf-linker --version` and the LLVM that it runs on.
    pub linker: String,
}

impl Stamp {
    /// The stamp as it is written to its file.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "# Written by `cargo xtask build-ebpf`; not to be edited.\nsources = {}\nobject = {}\nrustc = {}\nlinker = {}\n",
            self.sources, self.object, self.rustc, self.linker
        )
    }

    /// Reads the text of a stamp file; `None` when a field is missing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(" = "))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        Some(Self {
            sources: field("sources")?,
            object: field("object")?,
            rustc: field("rustc")?,
            linker: field("linker")?,
        })
    }
}

/// SHA-256 of `bytes` in hexadecimal digits.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new().chain_update(bytes))
}

/// Every file that the object is made from, sorted, from the root of the workspace.
///
/// # Errors
/// When a folder of the sources cannot be listed.
pub fn source_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for member in CRATES {
        files.push(Path::new(member).join("Cargo.toml"));
        collect(root, &Path::new(member).join("src"), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Hash of everything in this repository that shapes the object: the files of [`source_files`], the compiler flags,
/// and of `Cargo.toml` and `Cargo.lock` only what concerns the dependencies of `tracer-ebpf`, so that other
/// dependencies come and go without a rebuild.
///
/// The version of the workspace is left out: the object is built as version 0.0.0 always.
///
/// # Errors
/// When a file cannot be read.
pub fn source_hash(root: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut add = |name: &str, content: &str| {
        // Lengths first: no two different lists of files give the same stream of bytes.
        digest.update(format!("{name} {}\n", content.len()));
        digest.update(content);
    };
    for file in source_files(root)? {
        add(&file.to_string_lossy(), &fs::read_to_string(root.join(&file))?);
    }
    add("flags", &FLAGS.join(" "));
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let direct: Vec<String> = parse_lock(&lock)
        .into_iter()
        .filter(|package| package.name == ROOT)
        .flat_map(|package| package.dependencies)
        .collect();
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    for line in manifest.lines() {
        // The edition, and the features of what the programs themselves depend on.
        let key = line.split([' ', '=']).next().unwrap_or_default();
        if key == "edition" || direct.iter().any(|name| name == key) {
            add("Cargo.toml", line);
        }
    }
    let packages = locked_packages(&lock);
    for package in packages {
        add("Cargo.lock", &format!("{} {} {}", package.name, package.version, package.checksum));
    }
    Ok(hexadecimal(digest))
}

/// One package of a lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// Hash of its archive; empty for a package of the workspace.
    pub checksum: String,
    dependencies: Vec<String>,
}

/// The registry packages that `tracer-ebpf` is built from, sorted, read from the text of `Cargo.lock`.
#[must_use]
pub fn locked_packages(lock: &str) -> Vec<LockedPackage> {
    let all = parse_lock(lock);
    let mut wanted: Vec<&str> = vec![ROOT];
    let mut found: Vec<LockedPackage> = Vec::new();
    while let Some(dependency) = wanted.pop() {
        // "name" or, where two versions are locked, "name version".
        let (name, version) = dependency.split_once(' ').unwrap_or((dependency, ""));
        for package in all.iter().filter(|package| package.name == name) {
            // `tracer-common` depends on `aya` for user space only.
            let known = found.contains(package) || name == "tracer-common";
            if !known && (version.is_empty() || package.version == version) {
                found.push(package.clone());
                wanted.extend(package.dependencies.iter().map(String::as_str));
            }
        }
    }
    found.retain(|package| !package.checksum.is_empty());
    // They name a version only where the lock file has another one too, of whatever other package.
    found.iter_mut().for_each(|package| package.dependencies.clear());
    found.sort();
    found
}

fn parse_lock(lock: &str) -> Vec<LockedPackage> {
    let mut packages: Vec<LockedPackage> = Vec::new();
    for line in lock.lines() {
        if line == "[[package]]" {
            packages.push(LockedPackage::default());
        }
        let Some(package) = packages.last_mut() else { continue };
        if let Some((key, value)) = line.split_once(" = ") {
            let value = value.trim_matches('"').to_owned();
            match key {
                "name" => package.name = value,
                "version" => package.version = value,
                "checksum" => package.checksum = value,
                _ => {}
            }
        } else if let Some(dependency) = line.strip_prefix(" \"") {
            package.dependencies.push(dependency.trim_end_matches("\",").to_owned());
        }
    }
    packages
}

fn hexadecimal(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"version = 4

[[package]]
name = "aya-ebpf"
version = "0.2.1"
source = "registry+https://example.org"
checksum = "aa"
dependencies = [
 "macros 1.0.0",
]

[[package]]
name = "macros"
version = "1.0.0"
checksum = "bb"

[[package]]
name = "macros"
version = "2.0.0"
checksum = "cc"

[[package]]
name = "tracer-common"
version = "0.1.0"
dependencies = [
 "aya",
]

[[package]]
name = "aya"
version = "0.14.0"
checksum = "dd"

[[package]]
name = "tracer-ebpf"
version = "0.1.0"
dependencies = [
 "aya-ebpf",
 "tracer-common",
]
"#;

    /// A workspace with both crates; the closure may change it before it is hashed.
    fn hash_of(change: impl FnOnce(&Path)) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path();
        for member in CRATES {
            fs::create_dir_all(root.join(member).join("src/inner")).expect("a new folder");
            fs::write(root.join(member).join("Cargo.toml"), "[package]").expect("a new file");
            fs::write(root.join(member).join("src/inner/a.rs"), "//! A.").expect("a new file");
        }
        fs::write(root.join("Cargo.lock"), LOCK).expect("a new file");
        fs::write(root.join("Cargo.toml"), "version = \"1\"\naya = \"1\"\naya-ebpf = \"1\"\n").expect("a new file");
        change(root);
        source_hash(root).expect("a readable workspace")
    }

    fn replace(root: &Path, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(root.join(file)).expect("a readable file");
        assert!(text.contains(from));
        fs::write(root.join(file), text.replace(from, to)).expect("a writable file");
    }

    #[test]
    fn only_the_dependencies_of_the_programs_are_locked() {
        let found: Vec<String> =
            locked_packages(LOCK).into_iter().map(|package| format!("{} {}", package.name, package.version)).collect();
        assert_eq!(found, ["aya-ebpf 0.2.1", "macros 1.0.0"]);
    }

    #[test]
    fn everything_that_shapes_the_object_changes_the_hash() {
        let before = hash_of(|_| {});
        assert_eq!(before, hash_of(|_| {}), "the folder does not matter");
        for (file, from, to) in [
            ("tracer-common/src/inner/a.rs", "A", "B"),
            ("tracer-ebpf/Cargo.toml", "package", "other"),
            ("Cargo.lock", "0.2.1", "0.2.2"),
            ("Cargo.lock", "checksum = \"bb\"", "checksum = \"be\""),
            ("Cargo.toml", "aya-ebpf = \"1\"", "aya-ebpf = \"2\""),
        ] {
            assert_ne!(before, hash_of(|root| replace(root, file, from, to)), "{file}: {from}");
        }
        let moved = |root: &Path| {
            fs::rename(root.join("tracer-ebpf/src/inner/a.rs"), root.join("tracer-ebpf/src/inner/b.rs"))
                .expect("a rename");
        };
        assert_ne!(before, hash_of(moved));
    }

    #[test]
    fn what_does_not_shape_it_does_not() {
        let before = hash_of(|_| {});
        for (file, from, to) in [
            ("Cargo.lock", "0.14.0", "0.15.0"),
            ("Cargo.toml", "aya = \"1\"", "aya = \"2\""),
            ("Cargo.toml", "version = \"1\"", "version = \"2\""),
        ] {
            assert_eq!(before, hash_of(|root| replace(root, file, from, to)), "{file}: {from}");
        }
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp =
            Stamp { sources: "a1".into(), object: "b2".into(), rustc: "rustc 1 (x = y)".into(), linker: "l".into() };
        assert_eq!(Stamp::parse(&stamp.to_text()), Some(stamp));
        assert_eq!(Stamp::parse("sources = a\nobject = b\n"), None);
    }
}
