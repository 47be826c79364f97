//! A machine in software: a kernel and a system in memory go in, what it says on its serial line comes out.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Process;

/// How long it may take on a busy machine; it takes about a minute.
const PATIENCE: Duration = Duration::from_secs(400);

/// What the machine says until it turns itself off. Emulated throughout: what the hardware below can do does not matter.
///
/// # Errors
/// When it cannot be started, or does not end.
pub fn boot(kernel: &Path, system: &Path) -> Result<String> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024", "-nic", "none"]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(system);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start qemu-system-x86_64")?;
    let mut output = child.stdout.take().context("its output is a pipe")?;
    let mut machine = Process(child);
    let reader = spawn(move || {
        let mut said = Vec::new();
        // What was said before the pipe broke is what there is.
        let _ = output.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    let deadline = Instant::now() + PATIENCE;
    let has_ended = loop {
        match machine.0.try_wait()? {
            Some(_) => break true,
            None if Instant::now() > deadline => break false,
            None => sleep(Duration::from_millis(100)),
        }
    };
    drop(machine);
    let said = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    if !has_ended {
        bail!("the machine did not end within {PATIENCE:?}; it said:\n{said}");
    }
    Ok(said)
}
