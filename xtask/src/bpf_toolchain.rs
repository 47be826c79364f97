//! Finds a Rust compiler that can build for BPF, and a linker that fits it; installs what is missing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::provision::{self, output_of};
use crate::workspace;

/// The BPF target that Rust and the kernel of a little-endian machine share.
pub const TARGET: &str = "bpfel-unknown-none";
/// The linker of aya's projects, from the crate registry.
const LINKER_VERSION: &str = "0.13.0";
/// Debian's compiler with a prebuilt `core` for BPF: rustc, cargo and the library.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Where `core` for the BPF target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// It lies compiled in the toolchain.
    Prebuilt,
    /// Its source lies in the toolchain (rustup component `rust-src`).
    BuildFromSource,
}

/// A toolchain that can build the BPF programs.
#[derive(Debug)]
pub struct Toolchain {
    /// The compiler itself, not rustup's proxy.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// Where `core` comes from.
    pub core: Core,
    /// `rustc --version`.
    pub version: String,
    sysroot: PathBuf,
    llvm: String,
    host: String,
}

impl Toolchain {
    /// The value of `RUSTC_BOOTSTRAP` that lets a stable compiler take what aya-ebpf needs; `None` for a nightly.
    pub fn bootstrap(&self) -> Option<&'static str> {
        match self.core {
            _ if self.version.contains("nightly") => None,
            Core::Prebuilt => Some("aya_ebpf"),
            Core::BuildFromSource => Some("1"),
        }
    }
}

/// Finds a toolchain; as root on Debian or Ubuntu installs one when there is none.
///
/// # Errors
/// When there is none and none can be installed; the message says what would do.
pub fn find_or_install() -> Result<Toolchain> {
    if let Some(toolchain) = find() {
        return Ok(toolchain);
    }
    let ways = "`rustup toolchain install nightly --component rust-src`, or a Debian/Ubuntu with rustc-web";
    provision::system_packages("building the BPF programs (a rustc with `core` for the BPF target)", &DEBIAN_PACKAGES)
        .with_context(|| format!("no rustc here can build for {TARGET}; any of these would do: {ways}"))?;
    find().with_context(|| {
        format!("{} are installed, and still no rustc can build for {TARGET}", DEBIAN_PACKAGES.join(" "))
    })
}

fn find() -> Option<Toolchain> {
    let nightly = output_of(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"])).ok();
    let candidates = [
        std::env::var("BPF_RUSTC").ok(),
        nightly,
        std::env::var("RUSTC").ok(),
        Some("rustc".into()),
        Some("/usr/bin/rustc".into()),
    ];
    candidates.into_iter().flatten().find_map(|rustc| inspect(&rustc))
}

fn inspect(rustc: &str) -> Option<Toolchain> {
    let sysroot = PathBuf::from(output_of(Command::new(rustc).args(["--print", "sysroot"])).ok()?);
    let core = core_of(&sysroot)?;
    // The compiler of the sysroot: behind a proxy of rustup another one might answer the next call.
    let (rustc, cargo) = (sysroot.join("bin/rustc"), sysroot.join("bin/cargo"));
    let verbose = output_of(Command::new(&rustc).arg("-vV")).ok()?;
    let field =
        |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    if !cargo.is_file() {
        return None;
    }
    Some(Toolchain {
        version: verbose.lines().next()?.to_owned(),
        llvm: field("LLVM version:")?,
        host: field("host:")?,
        rustc,
        cargo,
        core,
        sysroot,
    })
}

fn core_of(sysroot: &Path) -> Option<Core> {
    let library = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let prebuilt = fs::read_dir(library).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
    });
    if prebuilt {
        Some(Core::Prebuilt)
    } else if sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file() {
        Some(Core::BuildFromSource)
    } else {
        None
    }
}

/// The linker, and what the stamp says about it.
#[derive(Debug)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// `bpf-linker <version>, LLVM <version>`.
    pub version: String,
}

/// The linker for this toolchain in `tools/` of the workspace; built from the crate registry once.
///
/// # Errors
/// When LLVM of the compiler cannot be found or the linker cannot be built.
pub fn linker(toolchain: &Toolchain) -> Result<Linker> {
    let tools = workspace::root().join("tools");
    let path = tools.join("bin/bpf-linker");
    let version = format!("bpf-linker {LINKER_VERSION}, LLVM {}", toolchain.llvm);
    let library = llvm_library(toolchain)?;
    let mark = tools.join("bpf-linker.built-for");
    let fingerprint = format!("{version}\n{}\n", library.display());
    let answers = || output_of(Command::new(&path).arg("--version")).is_ok_and(|text| text.contains(LINKER_VERSION));
    if fs::read_to_string(&mark).is_ok_and(|found| found == fingerprint) && answers() {
        return Ok(Linker { path, version });
    }
    let stub = llvm_stub(&tools, &library)?;
    let major = toolchain.llvm.split('.').next().unwrap_or_default();
    let mut install = cargo(toolchain);
    install
        .env("LLVM_PREFIX", stub)
        .args(["install", "--quiet", "--locked", "--force", "bpf-linker", "--version", LINKER_VERSION])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{major}"),
            "--config",
            "profile.release.debug=false",
        ])
        .arg("--root")
        .arg(&tools);
    provision::run(
        &format!("bpf-linker {LINKER_VERSION} against LLVM {} (once, about a minute)", toolchain.llvm),
        &mut install,
    )?;
    if !answers() {
        bail!("{} was built but does not run: try `{} --version`", path.display(), path.display());
    }
    fs::write(&mark, fingerprint).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(Linker { path, version })
}

/// The LLVM that the compiler itself runs on: bitcode of a newer LLVM cannot be read by an older one.
fn llvm_library(toolchain: &Toolchain) -> Result<PathBuf> {
    let architecture = toolchain.host.split('-').next().unwrap_or_default();
    let folders = [toolchain.sysroot.join("lib"), toolchain.sysroot.join(format!("lib/{architecture}-linux-gnu"))];
    let mut parts = toolchain.llvm.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let wanted = format!("libLLVM.so.{major}.{minor}");
    for folder in &folders {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        if let Some(name) = names.filter(|name| name.to_string_lossy().starts_with(&wanted)).min() {
            return Ok(folder.join(name));
        }
    }
    bail!(
        "{} runs on LLVM {}, but {wanted} is neither in {} nor in {}",
        toolchain.rustc.display(),
        toolchain.llvm,
        folders[0].display(),
        folders[1].display()
    )
}

/// A folder that looks like an installed LLVM to bpf-linker's build: `lib/libLLVM.so` is all it asks for. It becomes
/// the run path of the linker, so it stays.
fn llvm_stub(tools: &Path, library: &Path) -> Result<PathBuf> {
    let stub = tools.join("llvm");
    let folder = stub.join("lib");
    if stub.exists() {
        fs::remove_dir_all(&stub).with_context(|| format!("cannot remove the old {}", stub.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let soname = library.file_name().context("a library has a file name")?;
    for name in [soname, "libLLVM.so".as_ref()] {
        let link = folder.join(name);
        symlink(library, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(stub)
}

/// Cargo of the toolchain with nothing of the outer cargo in its environment, which would change what is built.
pub fn cargo(toolchain: &Toolchain) -> Command {
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_"];
    let mut command = Command::new(&toolchain.cargo);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let leaks = text.starts_with("CARGO") && !KEPT.iter().any(|kept| text.starts_with(kept));
        if leaks || text.starts_with("RUST") && text != "RUSTUP_HOME" || text == "LD_LIBRARY_PATH" {
            command.env_remove(&name);
        }
    }
    command.env("RUSTC", &toolchain.rustc);
    command
}
