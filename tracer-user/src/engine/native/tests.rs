//! The engine on files that the system's compiler makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::NativeEngine;
use crate::engine::{EngineError, Requests};
use crate::model::{FileNumber, ModuleFile, ObjectLocation, ProcessId, SkipReason, SymbolMap};
use crate::symbol_map;

const SOURCE: &str = r#"
volatile int sink;
namespace ml {
struct Scaler { virtual int transform(int n) { sink = n; return n; } };
struct Forest { virtual int predict(int n); virtual int fit(int n) { sink = n; return 0; } };
int Forest::predict(int n) { sink = n; return Scaler().transform(n) + fit(n); }
namespace detail { struct Forest { virtual int predict(int n); }; int Forest::predict(int n) { return n; } }
}
extern "C" int model_run(void *handle, int rows) { sink = rows; return ((ml::Forest *)handle)->predict(rows); }
ml::Forest forest; ml::Scaler scaler; ml::detail::Forest other;
"#;

const MAP: &str = "
schema: ml-tracer/v1
library: own
language: cpp
module: libown.so
methods: [predict, transform]
recurse: {ml::Forest: {named: [steps]}}
exclude: [ml::detail::*]
---
schema: ml-tracer/v1
library: own
language: c
module: libown.so
functions:
  - symbol: model_run
    span: Model.run
    attributes: {ml.rows: {arg: 1, type: i32}}
    error: {when: return < 0}
";

/// The library, or nothing (with a line that says so) where there is no compiler.
#[expect(clippy::print_stderr, reason = "the only place where a test that tested nothing can say so")]
fn library(folder: &Path) -> Option<PathBuf> {
    let (input, path) = (folder.join("own.cpp"), folder.join("libown.so"));
    std::fs::write(&input, SOURCE).expect("the source is written");
    let mut compiler = Command::new("c++");
    match compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&path).arg(&input).status() {
        Ok(status) => {
            assert!(status.success());
            Some(path)
        }
        Err(error) => {
            eprintln!("not tested: c++ does not start: {error}");
            None
        }
    }
}

fn maps() -> Vec<SymbolMap> {
    symbol_map::parse(MAP, Path::new("own.yaml"), false).expect("a valid map")
}

fn module(path: &Path, pid: u32) -> ModuleFile {
    let process = ProcessId { pid, start_time: 1 };
    ModuleFile {
        process,
        path: path.to_owned(),
        access_path: path.to_owned(),
        number: FileNumber::default(),
        mappings: Vec::new(),
        is_program: false,
    }
}

fn spans(found: &Requests) -> Vec<(&str, bool, ObjectLocation)> {
    let mut spans: Vec<_> = found
        .requests
        .iter()
        .map(|request| (request.span_name.as_str(), request.nests, request.function.object))
        .collect();
    spans.sort_unstable_by_key(|(name, ..)| *name);
    spans
}

#[test]
fn rules_become_requests() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(path) = library(folder.path()) else { return };
    let mut engine = NativeEngine::new(maps());
    let found = engine.module(&module(&path, 7)).expect("a readable library");
    let first = ObjectLocation::FirstArgument;
    let expected = [("Forest.predict", true, first), ("Model.run", true, first), ("Scaler.transform", false, first)];
    assert_eq!(spans(&found), expected);
    let run = found.requests.iter().find(|request| request.span_name == "Model.run").expect("it is there");
    assert_eq!((run.library.as_str(), run.attributes.len()), ("own", 1));
    assert!(run.error.is_some_and(|rule| rule.matches(u64::from(u32::MAX)) && !rule.matches(0)));
    let [skipped] = found.skipped.as_slice() else { panic!("{:?}", found.skipped) };
    assert_eq!(skipped.name.path, "ml::detail::Forest::predict");
    assert_eq!(skipped.reason, SkipReason::Excluded { pattern: "ml::detail::*".to_owned() });
}

#[test]
fn processes_share_what_is_known_of_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(path) = library(folder.path()) else { return };
    let mut engine = NativeEngine::new(maps());
    let first = engine.module(&module(&path, 7)).expect("a readable library");
    // The same file by another path: known by its identity.
    let link = folder.path().join("link.so");
    std::fs::hard_link(&path, &link).expect("a second name");
    let mut second_module = module(&path, 8);
    second_module.access_path = link;
    let second = engine.module(&second_module).expect("a readable library");
    assert_eq!(first.requests.len(), second.requests.len());
    assert!(second.requests.iter().all(|request| request.module.process.pid == 8));
    // Written to since: looked at again.
    std::fs::write(&path, b"no longer a library").expect("the file is writable");
    assert!(matches!(engine.module(&module(&path, 7)), Err(EngineError::Symbol(_))));
}

#[test]
fn files_without_rules_are_not_opened() {
    let mut engine = NativeEngine::new(maps());
    let found = engine.module(&module(Path::new("/nowhere/libother.so"), 7)).expect("nothing to open");
    assert_eq!(found, Requests::default());
    let missing = engine.module(&module(Path::new("/nowhere/libown.so"), 7));
    assert!(matches!(missing, Err(EngineError::Unreadable { .. })));
}

#[test]
fn devices_and_pipes_hold_nothing() {
    let mut engine = NativeEngine::new(maps());
    let mut device = module(Path::new("/dev/libown.so"), 7);
    device.access_path = PathBuf::from("/dev/zero");
    assert_eq!(engine.module(&device).expect("a device has no symbols"), Requests::default());
}
