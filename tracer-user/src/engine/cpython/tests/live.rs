//! Running interpreters: every CPython that can be found on this machine.
//!
//! Looked for in `$PYENV_ROOT/versions` (or `~/.pyenv/versions`), in `PATH`, and in the root folders named by
//! `ML_TRACER_PYTHON_ROOTS` (separated by colons; entered with chroot, which needs root).
//! With `ML_TRACER_RECORD=FOLDER`, what the reader reads of each is kept in `FOLDER/3.x.snapshot`.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Document, check, document};
use crate::engine::cpython::{Interpreter, InterpreterAddresses};
use crate::memory::{LiveProcess, Memory, PageCache, Recorder, regions};
use crate::model::{Mapping, Module, RemoteAddress};

const SCRIPT: &str = include_str!("objects.py");

/// A running script that is ended when the test ends, however that is.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How to start a Python, for each that is there.
fn pythons() -> Vec<(String, Vec<String>)> {
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".pyenv")));
    let versions = root.and_then(|root| std::fs::read_dir(root.join("versions")).ok());
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for entry in versions.into_iter().flatten().flatten() {
        let program = entry.path().join("bin/python3");
        if program.exists() {
            found.push((format!("pyenv {}", entry.file_name().display()), vec![program.display().to_string()]));
        }
    }
    found.push(("python3 of PATH".into(), vec!["python3".into()]));
    for root in env::var("ML_TRACER_PYTHON_ROOTS").unwrap_or_default().split(':').filter(|root| !root.is_empty()) {
        found.push((format!("python3 in {root}"), vec!["chroot".into(), root.into(), "python3".into()]));
    }
    found
}

fn version_of(command: &[String]) -> Option<(u8, u8)> {
    let (program, arguments) = command.split_first()?;
    let version = "import sys; print(*sys.version_info[:2])";
    let output = Command::new(program).args(arguments).args(["-c", version]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn start(command: &[String], arguments: &[&str]) -> (Running, Document, String) {
    let (program, before) = command.split_first().expect("a program");
    let mut process = Command::new(program)
        .args(before)
        // `-I`: nothing of this machine's settings gets in.
        .args(["-I", "-c", SCRIPT])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("its version was told before");
    let mut line = String::new();
    let output = process.stdout.take().expect("it is piped");
    let running = Running(process);
    BufReader::new(output).read_line(&mut line).expect("a line");
    let document = document(&line);
    (running, document, line)
}

/// The files that a process runs code from, as the room `target` finds them.
fn modules(pid: u32) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for region in regions(pid).expect("it can be looked at").into_iter().filter(|region| region.executable) {
        let Some((path, offset)) = region.file else { continue };
        let mapping = Mapping { start: region.start, end: region.end, offset };
        match modules.iter_mut().find(|module| module.path == path) {
            Some(module) => module.mappings.push(mapping),
            None => modules.push(Module {
                access_path: access_path(pid, &region.start, &region.end, &path),
                path,
                device: (0, 0),
                inode: 0,
                mappings: vec![mapping],
            }),
        }
    }
    modules
}

fn access_path(pid: u32, start: &RemoteAddress, end: &RemoteAddress, path: &Path) -> PathBuf {
    let exact = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", start.0, end.0));
    // It takes root to look into.
    if exact.metadata().is_ok() { exact } else { path.to_owned() }
}

fn open<M: Memory>(memory: M, addresses: &InterpreterAddresses) -> Interpreter<M> {
    Interpreter::open(memory, addresses).unwrap_or_else(|error| panic!("{error}"))
}

fn addresses(pid: u32) -> InterpreterAddresses {
    let modules = modules(pid);
    let mut found = InterpreterAddresses::in_modules(&modules);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0).1
}

fn record(folder: &Path, command: &[String]) {
    let (running, document, line) = start(command, &["small"]);
    let addresses = addresses(running.0.id());
    let interpreter = open(Recorder::new(LiveProcess::new(running.0.id())), &addresses);
    check(&interpreter, &document);
    let path = folder.join(format!("{}.{}.snapshot", document.version.0, document.version.1));
    let facts = serde_json::json!({ "addresses": addresses, "document": line });
    interpreter.into_memory().into_snapshot(facts).save(&path).expect("written");
}

#[test]
fn every_python_here_reads_as_it_says() {
    for (name, command) in pythons() {
        match version_of(&command) {
            Some((3, 8..=14)) => {}
            Some((major, minor)) => {
                eprintln!("{name} is left out: {major}.{minor} is not supported");
                continue;
            }
            None => {
                eprintln!("{name} is left out: it does not run");
                continue;
            }
        }
        let (running, document, _) = start(&command, &[]);
        let addresses = addresses(running.0.id());
        let interpreter = open(PageCache::new(LiveProcess::new(running.0.id())), &addresses);
        check(&interpreter, &document);
        eprintln!("{name}: {:?}, {}", interpreter.version(), interpreter.layout_source());
        // Without symbols everything but the types of methods and cells is found, and they too where `types` is there.
        let stripped = InterpreterAddresses { types: Default::default(), ..addresses };
        let interpreter = open(PageCache::new(LiveProcess::new(running.0.id())), &stripped);
        check(&interpreter, &document);
        if let Some(folder) = env::var_os("ML_TRACER_RECORD") {
            record(Path::new(&folder), &command);
        }
    }
}
