//! The licences of all that is in the program: their texts have to go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::program::TARGET;
use super::{VERSION, entries};
use crate::provision::{self, output_of};
use crate::workspace;

/// What the names of files begin with that hold a licence or what it asks to be handed on.
const BEGINNINGS: [&str; 5] = ["license", "licence", "copying", "notice", "copyright"];

/// What is in every program of Rust for the target, and is no crate of its own.
const LINKED: &str = "\
Rust's standard library: MIT or Apache-2.0, Copyright (c) The Rust Project Contributors.
musl: MIT, Copyright (c) 2005-2020 Rich Felker, et al.
LLVM's libunwind: Apache-2.0 with LLVM exception, Copyright (c) The LLVM Project.
The texts of the MIT licence and of Apache-2.0 are below.
";

/// All of it as one text: the same texts once, with the crates that they are about.
///
/// # Errors
/// When a crate has no licence file, or cargo does not say what is in the program.
pub fn text() -> Result<String> {
    let root = workspace::root();
    let mut crates_of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut list = String::new();
    let mut without_text = Vec::new();
    for (name, package) in packages()? {
        let licence = package["license"].as_str().with_context(|| format!("{name} names no licence"))?;
        list.push_str(&format!("{name}: {licence}\n"));
        let manifest = package["manifest_path"].as_str().with_context(|| format!("{name} is nowhere"))?;
        let texts = texts(Path::new(manifest).parent().unwrap_or(Path::new("/")))?;
        if texts.is_empty() {
            without_text.push(name.clone());
        }
        for text in texts {
            crates_of.entry(text).or_default().insert(name.clone());
        }
    }
    let mut all = format!("ml-tracer {VERSION} is under Apache-2.0 or MIT, as you like.\n\n");
    for own in ["LICENSE-MIT", "LICENSE-APACHE"] {
        all.push_str(&section(own, &fs::read_to_string(root.join(own))?));
    }
    all.push_str(&section("What is linked with it beside the following crates", LINKED));
    all.push_str(&section("Crates in it, and their licences", &list));
    if !without_text.is_empty() {
        let sentence = "These crates come without a text of their own. For them the texts above hold:\n";
        all.push_str(&section("Crates without a text", &format!("{sentence}{}\n", without_text.join(", "))));
    }
    for (text, crates) in crates_of {
        let crates: Vec<String> = crates.into_iter().collect();
        all.push_str(&section(&crates.join(", "), &text));
    }
    Ok(all)
}

fn section(title: &str, text: &str) -> String {
    format!("{}\n{title}\n\n{}\n\n", "=".repeat(100), text.trim_end())
}

/// What cargo knows of each crate in the program, by its name and version; not of those of the workspace.
fn packages() -> Result<BTreeMap<String, Value>> {
    let tree = ["tree", "--locked", "--package", "tracer-user", "--target", TARGET, "--edges", "normal"];
    let tree = output_of(provision::cargo().args(tree).args(["--prefix", "none", "--format", "{p}"]))?;
    // A line is a name, a version, and of a crate that has one its folder.
    let wanted: BTreeSet<String> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let metadata = ["metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET];
    let metadata: Value = serde_json::from_str(&output_of(provision::cargo().args(metadata))?)?;
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    let mut found = BTreeMap::new();
    for package in packages.iter().filter(|package| !package["source"].is_null()) {
        let name = format!("{} {}", text_of(package, "name")?, text_of(package, "version")?);
        if wanted.contains(&name) {
            found.insert(name, package.clone());
        }
    }
    ensure!(found.len() > 50, "cargo names {} crates in the program: that cannot be all", found.len());
    Ok(found)
}

fn text_of<'package>(package: &'package Value, key: &str) -> Result<&'package str> {
    package[key].as_str().with_context(|| format!("cargo tells no {key} of a package"))
}

/// The texts in a crate's own folder.
fn texts(folder: &Path) -> Result<Vec<String>> {
    let is_one = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        path.is_file() && BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
    };
    let files = entries(folder)?;
    let texts = files.iter().filter(|path| is_one(path)).map(|path| {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
    });
    texts.collect()
}
