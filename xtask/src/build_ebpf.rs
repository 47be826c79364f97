//! `cargo xtask build-ebpf`: the sources of the BPF programs become the committed object, bit for bit the same in
//! every checkout.
//!
//! The object is built from a copy of its two crates in a workspace of their own, with the paths of the copy and of
//! the registry written out of it, and without the debug sections that only a debugger would read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use object::build::elf::{Builder, SectionData};

use crate::bpf_toolchain::{self, Core, TARGET, Toolchain};
use crate::provision::{self, output_of};
use crate::source_hash::{CRATES, FLAGS, OBJECT, STAMP, Stamp, hash, locked_packages, source_files, source_hash};
use crate::workspace;

/// Builds the object and writes it with its stamp.
///
/// # Errors
/// When there is no toolchain, or the build fails.
pub fn write() -> Result<()> {
    let root = workspace::root();
    let (object, stamp) = build(&root)?;
    let path = root.join(OBJECT);
    let folder = path.parent().context("the object has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    write_file(&path, &object)?;
    write_file(&root.join(STAMP), stamp.to_text().as_bytes())?;
    println!("{OBJECT}: {} bytes, sha256 {}", object.len(), stamp.object);
    Ok(())
}

/// Rebuilds the object and compares it with the committed one.
///
/// # Errors
/// When sources, stamp and object do not agree.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let mend = "run `cargo xtask build-ebpf` and commit what it writes";
    let committed = fs::read(root.join(OBJECT)).with_context(|| format!("cannot read {OBJECT}: {mend}"))?;
    let text = fs::read_to_string(root.join(STAMP)).with_context(|| format!("cannot read {STAMP}: {mend}"))?;
    let stamp = Stamp::parse(&text).with_context(|| format!("{STAMP} is not a stamp: {mend}"))?;
    ensure!(stamp.object == hash(&committed), "{OBJECT} is not the object that {STAMP} speaks of: {mend}");
    let sources = source_hash(&root).context("cannot read the sources of the BPF programs")?;
    ensure!(stamp.sources == sources, "{OBJECT} is older than its sources: {mend}");
    let (object, fresh) = build(&root)?;
    if (&fresh.rustc, &fresh.linker) != (&stamp.rustc, &stamp.linker) {
        println!(
            "{OBJECT}: belongs to its sources by the stamp; the sources build here too, but the bytes cannot be compared:"
        );
        println!(
            "  committed with {} and {}\n  rebuilt with   {} and {}",
            stamp.rustc, stamp.linker, fresh.rustc, fresh.linker
        );
        return Ok(());
    }
    ensure!(object == committed, "{OBJECT} differs from what its sources build to: {mend}");
    println!("{OBJECT}: rebuilt from its sources, {} bytes, identical", object.len());
    Ok(())
}

fn build(root: &Path) -> Result<(Vec<u8>, Stamp)> {
    let toolchain = bpf_toolchain::find_or_install()?;
    let linker = bpf_toolchain::linker(&toolchain)?;
    let copy = copy_sources(root)?;
    let remapped = fetch(&toolchain, root, &copy)?;

    let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
    flags.push(format!("--remap-path-prefix={}=/tracer", copy.display()));
    flags.extend(remapped);
    // By the path, not by a flag: flags are part of the names that rustc gives to symbols.
    let mut path = vec![linker.path.parent().context("the linker has a folder")?.to_path_buf()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));

    let mut command = bpf_toolchain::cargo(&toolchain);
    command
        .current_dir(&copy)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--package",
            "tracer-ebpf",
            "--bin",
            "tracer",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(target_folder(root))
        .env("PATH", std::env::join_paths(path).context("a folder of PATH has a colon in its name")?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if toolchain.core == Core::BuildFromSource {
        command.args(["-Z", "build-std=core"]);
    }
    if let Some(bootstrap) = toolchain.bootstrap() {
        command.env("RUSTC_BOOTSTRAP", bootstrap);
    }
    provision::run(&format!("BPF programs with {}", toolchain.version), &mut command)?;

    let built = target_folder(root).join(TARGET).join("release/tracer");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = without_debug_sections(&bytes)?;
    let stamp = Stamp {
        sources: source_hash(root).context("cannot read the sources of the BPF programs")?,
        object: hash(&object),
        rustc: toolchain.version,
        linker: linker.version,
    };
    Ok((object, stamp))
}

fn target_folder(root: &Path) -> PathBuf {
    root.join("target/ebpf")
}

/// Copies the crates of the object into a workspace that has no other members, so that neither a profile nor a
/// dependency of user space can change the object.
fn copy_sources(root: &Path) -> Result<PathBuf> {
    let copy = root.join("target/ebpf-sources");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("cannot remove the old {}", copy.display()))?;
    }
    for file in source_files(root).context("cannot list the sources of the BPF programs")? {
        let (from, to) = (root.join(&file), copy.join(&file));
        let folder = to.parent().context("a source file has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("cannot read Cargo.toml")?;
    write_file(&copy.join("Cargo.toml"), copied_manifest(&manifest)?.as_bytes())?;
    Ok(copy)
}

/// The manifest of the copy: that of the workspace without its other members and profiles. The version of the
/// packages is left out of it too, as it goes into the names of symbols.
fn copied_manifest(manifest: &str) -> Result<String> {
    let mut table: toml::Table = manifest.parse().context("Cargo.toml is not TOML")?;
    let workspace =
        table.get_mut("workspace").and_then(toml::Value::as_table_mut).context("Cargo.toml has no [workspace]")?;
    workspace.remove("default-members");
    workspace.insert("members".into(), CRATES.to_vec().into());
    let package = workspace
        .get_mut("package")
        .and_then(toml::Value::as_table_mut)
        .context("Cargo.toml has no [workspace.package]")?;
    package.insert("version".into(), "0.0.0".into());
    let release: toml::Table = "debug = 2\ncodegen-units = 1\nincremental = false".parse().expect("a constant");
    table.insert("profile".into(), toml::Table::from_iter([("release".into(), release.into())]).into());
    Ok(table.to_string())
}

/// Fetches the dependencies of the copy, proves that they are the ones locked in the workspace, and gives the flags
/// that write their folders out of the object.
fn fetch(toolchain: &Toolchain, root: &Path, copy: &Path) -> Result<Vec<String>> {
    // Without `--locked`: this one time cargo drops the packages of the other members from the copied lock file.
    let mut command = bpf_toolchain::cargo(toolchain);
    let metadata =
        output_of(command.current_dir(copy).args(["metadata", "--format-version", "1", "--filter-platform", TARGET]))
            .context("cannot fetch the dependencies of the BPF programs")?;
    let lock = |folder: &Path| fs::read_to_string(folder.join("Cargo.lock")).context("cannot read Cargo.lock");
    let (ours, copied) = (locked_packages(&lock(root)?), locked_packages(&lock(copy)?));
    ensure!(ours == copied, "Cargo.lock does not fit the manifests: run `cargo check`, then this again");

    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata did not print JSON")?;
    let mut flags = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten().filter(|package| !package["source"].is_null())
    {
        let text = |key: &str| package[key].as_str().with_context(|| format!("cargo metadata names no {key}"));
        let folder = Path::new(text("manifest_path")?).parent().context("a manifest has a folder")?;
        flags.push(format!(
            "--remap-path-prefix={}=/registry/{}-{}",
            folder.display(),
            text("name")?,
            text("version")?
        ));
    }
    if flags.is_empty() {
        bail!("cargo metadata lists no dependency of tracer-ebpf");
    }
    Ok(flags)
}

/// Takes the DWARF sections out; `.BTF` and `.BTF.ext`, which the kernel reads, stay.
fn without_debug_sections(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the linker's output is not an ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete = name.starts_with(".debug_") || name.starts_with(".rel.debug_");
    }
    // LLVM keeps the names of sections and of symbols in one table, object writes them to two.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the object without its debug sections")?;
    Ok(stripped)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
