//! Running interpreters: every CPython that can be found on this machine.
//!
//! Looked for in `$PYENV_ROOT/versions` (or `~/.pyenv/versions`), in `PATH` and `/usr/bin`, and in the root folders named by
//! `ML_TRACER_PYTHON_ROOTS` (separated by colons; entered with chroot, which needs root).
//! With `ML_TRACER_RECORD=FOLDER`, what the reader reads of each is kept in `FOLDER/3.x.snapshot`.

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{check, document};
use crate::engine::cpython::{Interpreter, InterpreterAddresses, InterpreterFile, ReadProblem};
use crate::memory::{LiveProcess, MappedFile, Memory, PageCache, Recorder, regions};
use crate::model::{Mapping, Module, ModuleFile, ProcessId, RemoteAddress};

const SCRIPT: &str = include_str!("objects.py");
const CHANGING: &str = include_str!("changing.py");
/// How long changing objects are read, in all.
const CHANGING_TIME: Duration = Duration::from_secs(4);

/// A running script that is ended when the test ends, however that is.
pub(super) struct Running(pub Child);

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
    for program in ["python3", "/usr/bin/python3"] {
        found.push((program.into(), vec![program.into()]));
    }
    for root in env::var("ML_TRACER_PYTHON_ROOTS").unwrap_or_default().split(':').filter(|root| !root.is_empty()) {
        for program in ["python3", "python3.15"] {
            if Path::new(root).join("usr/bin").join(program).exists() {
                found.push((format!("{program} in {root}"), vec!["chroot".into(), root.into(), program.into()]));
            }
        }
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

/// Starts a script; returns the line that it prints once everything is there.
pub(super) fn start(command: &[String], script: &str, arguments: &[&str]) -> (Running, String) {
    let (program, before) = command.split_first().expect("a program");
    let mut process = Command::new(program)
        .args(before)
        // `-I`: nothing of this machine's settings gets in.
        .args(["-I", "-c", script])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("its version was told before");
    let mut line = String::new();
    let output = process.stdout.take().expect("it is piped");
    let running = Running(process);
    BufReader::new(output).read_line(&mut line).expect("a line");
    (running, line)
}

/// The files that a process runs code from, as the room `target` finds them.
pub(super) fn modules(pid: u32) -> Vec<Module> {
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
                version: None,
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

pub(super) fn addresses(pid: u32) -> InterpreterAddresses {
    let modules = modules(pid);
    let process = ProcessId { pid, start_time: 0 };
    let in_module = |module: &Module| {
        let module = ModuleFile::of(process, module);
        let file = MappedFile::of(&module).ok()?.into_file();
        InterpreterFile::read(file, &module.path, true).ok().flatten()?.in_process(&module.mappings)
    };
    let mut found: Vec<_> = modules.iter().filter_map(in_module).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn record(folder: &Path, command: &[String]) {
    let (running, line) = start(command, SCRIPT, &["small"]);
    let document = document(&line);
    let addresses = addresses(running.0.id());
    let interpreter = open(Recorder::new(LiveProcess::new(running.0.id())), &addresses);
    check(&interpreter, &document);
    let path = folder.join(format!("{}.{}.snapshot", document.version.0, document.version.1));
    let facts = serde_json::json!({ "addresses": addresses, "document": line });
    interpreter.into_memory().into_snapshot(facts).save(&path).expect("written");
}

/// The interpreters here that can be read.
#[expect(clippy::print_stderr, reason = "the only place where a test that tested nothing can say so")]
pub(super) fn supported() -> Vec<(String, Vec<String>)> {
    let is_supported = |(name, command): &(String, Vec<String>)| match version_of(command) {
        Some((3, 8..=15)) => true,
        Some((major, minor)) => {
            eprintln!("{name} is left out: {major}.{minor} is not supported");
            false
        }
        None => {
            eprintln!("{name} is left out: it does not run");
            false
        }
    };
    pythons().into_iter().filter(is_supported).collect()
}

#[test]
fn every_python_here_reads_as_it_says() {
    for (name, command) in supported() {
        let (running, line) = start(&command, SCRIPT, &[]);
        let document = document(&line);
        let addresses = addresses(running.0.id());
        let interpreter = open(PageCache::new(LiveProcess::new(running.0.id())), &addresses);
        check(&interpreter, &document);
        assert!(interpreter.layout_source().contains("symbols/cpython/3."), "{name}");
        // Without symbols everything but the types of methods and cells is found, and they too where `types` is there.
        let stripped = InterpreterAddresses { types: BTreeMap::new(), ..addresses };
        let interpreter = open(PageCache::new(LiveProcess::new(running.0.id())), &stripped);
        check(&interpreter, &document);
        if let Some(folder) = env::var_os("ML_TRACER_RECORD") {
            record(Path::new(&folder), &command);
        }
    }
}

/// What is found from the modules on: classes with their members, functions with their code, objects with attributes.
fn walk<M: Memory>(interpreter: &Interpreter<M>, limit: usize) -> (usize, Vec<String>) {
    let mut seen = HashSet::new();
    let mut problems = Vec::new();
    let mut to_do: Vec<RemoteAddress> = Vec::new();
    for (_, dict) in interpreter.modules().expect("modules") {
        to_do.extend(interpreter.dict_entries(dict).expect("a module").into_iter().map(|(_, value)| value));
    }
    while let Some(object) = to_do.pop() {
        if seen.len() >= limit || !seen.insert(object) {
            continue;
        }
        let members = (|| {
            let types = interpreter.types();
            let class = interpreter.type_of(object)?;
            if interpreter.is_class(object)? {
                let view = interpreter.class(object)?;
                assert!(!view.name.is_empty());
                return view.dict.map_or(Ok(Vec::new()), |dict| interpreter.dict_entries(dict));
            }
            if class == types.function {
                let code = interpreter.function(object)?.code;
                interpreter.code(code)?;
            }
            if class == types.dict {
                return interpreter.dict_entries(object);
            }
            interpreter.instance_attributes(object)?;
            let held = interpreter.held_callable(object)?;
            Ok::<_, ReadProblem>(held.map(|held| (held, held)).into_iter().collect())
        })();
        match members {
            Ok(members) => to_do.extend(members.into_iter().map(|(_, value)| value)),
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    (seen.len(), problems)
}

#[test]
fn everything_in_the_standard_library_can_be_read() {
    let script = "
import asyncio, collections, ctypes, dataclasses, decimal, email.message, enum, fractions, http.client, inspect, json
import logging.config, multiprocessing.pool, pathlib, pickle, random, sqlite3, statistics, sys, typing, unittest.mock
import urllib.request, uuid, xml.etree.ElementTree, zipfile
print('here', flush=True)
sys.stdin.read()";
    for (name, command) in supported() {
        let (running, line) = start(&command, script, &[]);
        if line.is_empty() {
            continue;
        }
        let addresses = addresses(running.0.id());
        let interpreter = open(PageCache::new(LiveProcess::new(running.0.id())), &addresses);
        let (seen, problems) = walk(&interpreter, 30_000);
        assert!(seen > 10_000, "{name}: only {seen}");
        assert!(
            problems.is_empty(),
            "{name}: {} of {seen}: {:?}",
            problems.len(),
            problems.get(..10).unwrap_or(&problems)
        );
    }
}

#[test]
fn objects_that_change_give_no_wrong_name() {
    let pythons = supported();
    for (name, command) in &pythons {
        let (running, line) = start(command, CHANGING, &[]);
        let [dictionary, object, classes, list]: [u64; 4] = serde_json::from_str(&line).expect("four addresses");
        let addresses = addresses(running.0.id());
        let interpreter = open(PageCache::new(LiveProcess::new(running.0.id())), &addresses);
        let texts = |interpreter: &Interpreter<_>, entries: Vec<(RemoteAddress, RemoteAddress)>| {
            let text = |address| interpreter.text(address);
            entries
                .into_iter()
                .map(|(key, value)| Ok((text(key)?, text(value)?)))
                .collect::<Result<Vec<_>, ReadProblem>>()
        };
        let end = Instant::now() + CHANGING_TIME / u32::try_from(pythons.len()).expect("a few");
        let (mut read, mut given_up) = (0, 0);
        while Instant::now() < end {
            interpreter.refresh();
            let found = interpreter.confirmed(|it| texts(it, it.dict_entries(RemoteAddress(dictionary))?));
            for (key, value) in found.iter().flatten() {
                let number = key.strip_prefix("key_").unwrap_or_else(|| panic!("{name}: {key:?}"));
                assert_eq!(value.strip_prefix("value_"), Some(number), "{name}: {key:?}");
            }
            let attributes = interpreter.confirmed(|it| {
                let entries = it.instance_attributes(RemoteAddress(object))?;
                entries.into_iter().map(|(name, value)| Ok((name, it.text(value)?))).collect::<Result<Vec<_>, _>>()
            });
            for (attribute, value) in attributes.iter().flatten() {
                let number = attribute.strip_prefix("attribute_").unwrap_or_else(|| panic!("{name}: {attribute:?}"));
                assert_eq!(value.strip_prefix("content_"), Some(number), "{name}: {attribute:?}");
            }
            let made = interpreter.confirmed(|it| {
                it.list_items(RemoteAddress(classes))?
                    .into_iter()
                    .map(|class| it.class(class))
                    .collect::<Result<Vec<_>, _>>()
            });
            for class in made.iter().flatten() {
                assert!(class.name.starts_with("Class_"), "{name}: {class:?}");
                assert_eq!(class.path(), format!("made.{}", class.name));
            }
            let items = interpreter.confirmed(|it| {
                it.list_items(RemoteAddress(list))?.into_iter().map(|item| it.text(item)).collect::<Result<Vec<_>, _>>()
            });
            assert!(items.iter().flatten().all(|item| item.starts_with("item_")), "{name}: {items:?}");
            let results = [found.is_ok(), attributes.is_ok(), made.is_ok(), items.is_ok()];
            read += results.iter().filter(|ok| **ok).count();
            given_up += results.iter().filter(|ok| !**ok).count();
        }
        assert!(read > 0, "{name}: nothing was ever read, {given_up} times given up");
    }
}
