//! `cargo xtask kernels`: Debian's kernels, booted in QEMU with a small system that tries what the README says.

mod archive;
mod guest;
mod machine;
mod report;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{provision, workspace};
use archive::DebianKernel;
use report::Row;

/// The kernels, oldest first.
const KERNELS: [DebianKernel; 4] = [
    DebianKernel { suite: "bullseye", is_refused: true },
    DebianKernel { suite: "bookworm", is_refused: false },
    DebianKernel { suite: "trixie", is_refused: false },
    DebianKernel { suite: "sid", is_refused: false },
];

/// The one that the tests boot: the oldest that ml-tracer runs on.
const TESTED: DebianKernel = KERNELS[1];

/// Where the table stands.
const PAGE: &str = "docs/kernels.md";

/// Boots every kernel, prints the table and writes it to its page.
///
/// # Errors
/// When something cannot be had, or a kernel does not do what is said of it.
pub fn run(suites: &[String]) -> Result<()> {
    let (system, mut rows) = (guest::prepare()?, Vec::new());
    let is_wanted = |kernel: &DebianKernel| suites.is_empty() || suites.iter().any(|suite| suite == kernel.suite);
    for kernel in KERNELS.into_iter().filter(is_wanted) {
        rows.push(boot(kernel, &system)?);
    }
    let table = report::table(&rows);
    println!("{table}");
    let wrong: Vec<String> = rows.iter().filter_map(Row::problem).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    if !suites.is_empty() {
        return Ok(());
    }
    let page = workspace::root().join(PAGE);
    fs::write(&page, report::page(&table)).with_context(|| format!("cannot write {}", page.display()))?;
    println!("written to {PAGE}");
    Ok(())
}

/// What a test of one kernel came to.
pub enum Tested {
    /// It does what is said of it.
    Good,
    /// It could not be tried, for this reason.
    NotTried(anyhow::Error),
}

/// Boots the oldest kernel that ml-tracer runs on.
///
/// # Errors
/// When it does not do what is said of it.
pub fn test() -> Result<Tested> {
    let prepared = guest::prepare().and_then(|system| Ok((TESTED.fetch()?, system)));
    let (_, system) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Ok(Tested::NotTried(error)),
    };
    let row = boot(TESTED, &system)?;
    println!("{}", report::table(std::slice::from_ref(&row)));
    match row.problem() {
        None => Ok(Tested::Good),
        Some(problem) => anyhow::bail!("{problem}"),
    }
}

fn boot(kernel: DebianKernel, system: &std::path::Path) -> Result<Row> {
    let image = kernel.fetch()?;
    let started = Instant::now();
    eprintln!("==> Debian {} in QEMU", kernel.suite);
    let said = machine::boot(&image, system)?;
    eprintln!("    {:.1} s: Debian {} in QEMU", started.elapsed().as_secs_f64(), kernel.suite);
    Row::read(kernel, &said, started.elapsed())
}

/// What is needed besides what the tests need.
fn packages() -> Result<()> {
    provision::system_packages(
        "booting Debian's kernels",
        &["qemu-system-x86", "busybox-static", "debian-archive-keyring", "python3"],
    )
}
