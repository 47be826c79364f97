//! The Debian package: a staged root, packed by `dpkg-deb`. It depends on nothing, so that one package does for all releases of
//! Debian and Ubuntu.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{FILE, PROGRAM, VERSION, allow, copy, entries, write};
use crate::provision::{self, output_of};
use crate::workspace;

/// The first package of this version.
const REVISION: &str = "1";

/// Who answers for the package: `DEBFULLNAME` and `DEBEMAIL`, as Debian's own tools read them. There is no address of the
/// project to fall back on, so the one that is written says so itself (RFC 2606).
const NOBODY: (&str, &str) = ("The ml-tracer authors", "ml-tracer@packages.invalid");

/// Where a shell looks for completions: its name, and the file below the root.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/ml-tracer"),
    ("zsh", "usr/share/zsh/vendor-completions/_ml-tracer"),
    ("fish", "usr/share/fish/vendor_completions.d/ml-tracer.fish"),
];

const DOCUMENTS: &str = "usr/share/doc/ml-tracer";
const PAGES: &str = "usr/share/man/man1";

/// Symbol maps that are not built in, and the schema that editors complete maps by.
const MAPS: &str = "usr/share/ml-tracer/symbols";

const DESCRIPTION: &str = "\
nested OpenTelemetry spans of a running model server
 ml-tracer attaches to a running process and shows what it spends its time on:
 the fit, transform and predict methods of scikit-learn, XGBoost, LightGBM,
 PyTorch and others, of Python classes and of C++ and Rust programs, as nested
 spans on a terminal, in files or in an OpenTelemetry collector. The process is
 neither changed nor restarted: functions are probed by eBPF from outside.
 .
 It needs Linux 6.1 or newer. The program is linked statically and needs no
 library of the system.
";

/// What lintian would say of a program that is meant to be as it is.
const OVERRIDES: &str = "\
# One package for every release of Debian and Ubuntu: it needs no library of any of them.
ml-tracer: statically-linked-binary [usr/bin/ml-tracer]
# The names of functions are left, so that the report of a fault can be read.
ml-tracer: unstripped-binary-or-object [usr/bin/ml-tracer]
# It is no package of Debian's own archive, which has the bug that it closes.
ml-tracer: initial-upload-closes-no-bugs [usr/share/doc/ml-tracer/changelog.Debian.gz:1]
";

/// Packs the program and what belongs to it. `time` is in seconds since 1970. Gives the package.
///
/// # Errors
/// When a file cannot be written, or `dpkg-deb` and `gzip` are missing or fail.
pub fn package(program: &Path, licences: &Path, folder: &Path, time: &str) -> Result<PathBuf> {
    provision::programs("making a Debian package", &[("dpkg-deb", "dpkg"), ("gzip", "gzip")])?;
    let root = workspace::root().join("target/deb");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove the old {}", root.display()))?;
    }
    copy(program, &placed(&root, "usr/bin/ml-tracer")?, PROGRAM)?;
    for (shell, place) in COMPLETIONS {
        let script = output_of(Command::new(program).args(["completions", shell]))?;
        write(&placed(&root, place)?, format!("{script}\n").as_bytes())?;
    }
    let pages = placed(&root, &format!("{PAGES}/ml-tracer.1"))?;
    let pages = pages.parent().context("a page is in a folder")?;
    output_of(Command::new(program).arg("man-pages").arg(pages))?;
    for page in entries(pages)? {
        allow(&page, FILE)?;
        compress(&page)?;
    }
    maps(&root)?;
    documents(&root, licences, time)?;
    write(&placed(&root, "usr/share/lintian/overrides/ml-tracer")?, OVERRIDES.as_bytes())?;
    control(&root)?;
    let package = folder.join(format!("ml-tracer_{VERSION}-{REVISION}_amd64.deb"));
    provision::run(
        "dpkg-deb --build",
        // Debian 11 cannot unpack zstd, which Ubuntu's would take.
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&root)
            .arg(&package)
            // Nothing in it is newer than this.
            .env("SOURCE_DATE_EPOCH", time)
            .stdout(std::process::Stdio::null()),
    )?;
    allow(&package, FILE)?;
    Ok(package)
}

/// A file below the root; its folders are made.
fn placed(root: &Path, place: &str) -> Result<PathBuf> {
    let file = root.join(place);
    let folder = file.parent().context("a place is below the root")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for folder in folder.ancestors().take_while(|folder| folder.starts_with(root)) {
        allow(folder, PROGRAM)?;
    }
    Ok(file)
}

/// In the place of the file, as policy wants it: as small as it gets, and without a time.
fn compress(file: &Path) -> Result<()> {
    output_of(Command::new("gzip").args(["-9", "-n", "--force"]).arg(file)).map(drop)
}

fn maps(root: &Path) -> Result<()> {
    let symbols = workspace::root().join("symbols");
    copy(&symbols.join("schema.json"), &placed(root, &format!("{MAPS}/schema.json"))?, FILE)?;
    for map in entries(&symbols.join("optional"))? {
        let name = map.file_name().context("a map has a name")?;
        copy(&map, &placed(root, &format!("{MAPS}/optional/{}", name.display()))?, FILE)?;
    }
    Ok(())
}

fn documents(root: &Path, licences: &Path, time: &str) -> Result<()> {
    let source = workspace::root();
    let document = |name: &str| placed(root, &format!("{DOCUMENTS}/{name}"));
    let mit = fs::read_to_string(source.join("LICENSE-MIT")).context("cannot read LICENSE-MIT")?;
    write(&document("copyright")?, copyright(&mit).as_bytes())?;
    let date =
        output_of(Command::new("date").args(["--utc", "--rfc-email", &format!("--date=@{time}")]).env("LC_ALL", "C"))?;
    let entry = format!(
        "ml-tracer ({VERSION}-{REVISION}) unstable; urgency=medium\n\n  * Version {VERSION}: changelog.gz says what is new.\n\n -- {}  {date}\n",
        maintainer()
    );
    for (name, bytes) in [
        ("changelog.Debian", entry.into_bytes()),
        ("changelog", fs::read(source.join("CHANGELOG.md")).context("cannot read CHANGELOG.md")?),
        ("licences.txt", fs::read(licences).context("cannot read the licences")?),
    ] {
        let file = document(name)?;
        write(&file, &bytes)?;
        compress(&file)?;
    }
    Ok(())
}

/// In the machine-readable form (copyright-format 1.0).
fn copyright(mit: &str) -> String {
    let mit: String = mit.lines().skip_while(|line| !line.starts_with("Permission")).map(in_field).collect();
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: ml-tracer\n\
         Comment:\n The program contains other people's crates; licences.txt.gz beside this file has\n their licences.\n\n\
         Files: *\n\
         Copyright: 2026 The ml-tracer authors\n\
         License: Apache-2.0 or Expat\n\n\
         License: Apache-2.0\n On Debian systems the full text of the Apache License, version 2.0, is in\n \
         /usr/share/common-licenses/Apache-2.0.\n\n\
         License: Expat\n{mit}"
    )
}

/// A line of a field that has many: an empty one is a dot.
fn in_field(line: &str) -> String {
    if line.trim().is_empty() { " .\n".to_owned() } else { format!(" {line}\n") }
}

fn maintainer() -> String {
    let variable = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    format!("{} <{}>", variable("DEBFULLNAME", NOBODY.0), variable("DEBEMAIL", NOBODY.1))
}

/// What dpkg knows of the package, and the checksums by which it verifies what it has installed.
fn control(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    list(&root.join("usr"), &mut files)?;
    let mut sums = String::new();
    let mut kibibytes = 0;
    for file in &files {
        let size = fs::metadata(file).with_context(|| format!("cannot look at {}", file.display()))?.len();
        kibibytes += size.div_ceil(1024);
        let sum = output_of(Command::new("md5sum").arg("--").arg(file))?;
        let sum = sum.split_whitespace().next().context("md5sum says nothing")?;
        sums.push_str(&format!("{sum}  {}\n", file.strip_prefix(root)?.display()));
    }
    let fields = format!(
        "Package: ml-tracer\nVersion: {VERSION}-{REVISION}\nArchitecture: amd64\nMaintainer: {}\nInstalled-Size: {kibibytes}\n\
         Section: utils\nPriority: optional\nDescription: {DESCRIPTION}",
        maintainer()
    );
    write(&placed(root, "DEBIAN/control")?, fields.as_bytes())?;
    write(&placed(root, "DEBIAN/md5sums")?, sums.as_bytes())
}

/// All files below a folder, in the order of their names.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in entries(folder)? {
        if entry.is_dir() {
            list(&entry, files)?;
        } else {
            files.push(entry);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copyright_file_is_made_of_fields() {
        let text = copyright("MIT License\n\nCopyright (c) 2026\n\nPermission is granted\n\nNO WARRANTY\n");
        assert!(text.ends_with("License: Expat\n Permission is granted\n .\n NO WARRANTY\n"), "{text}");
        let is_field =
            |line: &str| line.is_empty() || line.starts_with(' ') || line.contains(": ") || line == "Comment:";
        let odd: Vec<&str> = text.lines().filter(|line| !is_field(line)).collect();
        assert!(odd.is_empty(), "{odd:?}");
    }

    #[test]
    fn a_description_has_a_short_first_line_and_no_empty_ones() {
        assert!(DESCRIPTION.lines().next().is_some_and(|line| line.len() < 80));
        assert!(DESCRIPTION.lines().skip(1).all(|line| line.starts_with(' ') && line.trim().len() < 80));
        assert!(in_field("").starts_with(" ."));
    }
}
