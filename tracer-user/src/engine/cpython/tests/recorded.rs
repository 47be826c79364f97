//! Recorded interpreters (`tests/snapshots`): every version, without root and without the interpreter.
//!
//! A snapshot holds the bytes that the reader read of `objects.py`, and what Python said of the objects. To record them
//! again: `ML_TRACER_RECORD=$PWD/tests/snapshots cargo test -p tracer-user --lib cpython::tests::live` with all the
//! interpreters at hand.

use std::path::Path;

use super::{Document, check, document};
use crate::engine::cpython::{Interpreter, InterpreterAddresses, InterpreterError};
use crate::memory::{PageCache, Snapshot};
use crate::model::RemoteAddress;

pub(super) const VERSIONS: [&str; 8] = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"];

pub(super) fn load(version: &str) -> (Snapshot, InterpreterAddresses, Document) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/snapshots").join(format!("{version}.snapshot"));
    let snapshot = Snapshot::load(&path).unwrap_or_else(|error| panic!("{error}"));
    let addresses = serde_json::from_value(snapshot.facts()["addresses"].clone()).expect("addresses");
    let document = document(snapshot.facts()["document"].as_str().expect("what Python said"));
    (snapshot, addresses, document)
}

#[test]
fn every_version_reads_as_python_said() {
    for version in VERSIONS {
        let (snapshot, addresses, document) = load(version);
        let interpreter = Interpreter::open(&snapshot, &addresses).unwrap_or_else(|error| panic!("{version}: {error}"));
        check(&interpreter, &document);
        let tells = interpreter.layout_source().starts_with("_Py_DebugOffsets");
        assert_eq!(tells, ["3.13", "3.14", "3.15"].contains(&version));
    }
}

#[test]
fn snapshots_name_no_folder_of_the_machine_that_made_them() {
    for version in VERSIONS {
        let (snapshot, ..) = load(version);
        for (_, bytes) in snapshot.ranges() {
            for folder in ["/root", "/home", "/work", "/tmp", "/usr"] {
                assert!(!bytes.windows(folder.len()).any(|part| part == folder.as_bytes()), "{version}: {folder}");
            }
        }
    }
}

#[test]
fn what_is_no_interpreter_is_refused() {
    let (snapshot, addresses, _) = load("3.11");
    let elsewhere = |runtime| InterpreterAddresses { runtime: RemoteAddress(runtime), ..addresses.clone() };
    let shifted = Interpreter::open(PageCache::new(&snapshot), &elsewhere(addresses.runtime.0 + 8));
    assert!(matches!(shifted, Err(InterpreterError::NoLayoutFits { .. })), "{shifted:?}");
    assert!(matches!(Interpreter::open(&snapshot, &elsewhere(0)), Err(InterpreterError::Memory(_))));
}

#[test]
fn unknown_and_free_threaded_versions_are_refused() {
    let (snapshot, addresses, _) = load("3.15");
    let changed = |offset: u64, bytes: &[u8]| {
        let ranges = snapshot.ranges().iter().map(|(start, held)| {
            let mut held = held.clone();
            if let Some(at) = (addresses.runtime.0 + offset).checked_sub(*start).and_then(|at| usize::try_from(at).ok())
                && let Some(place) = held.get_mut(at..at + bytes.len())
            {
                place.copy_from_slice(bytes);
            }
            (*start, held)
        });
        Snapshot::new(serde_json::Value::Null, ranges)
    };
    let opened = |snapshot: Snapshot| Interpreter::open(snapshot, &addresses).map(|_| ());
    assert_eq!(opened(changed(0, b"xdebugpy")), Ok(()));
    let next = opened(changed(8, &0x0310_00f0_u64.to_le_bytes()));
    assert_eq!(next, Err(InterpreterError::UnknownVersion { version: "3.16".into() }));
    assert_eq!(opened(changed(16, &[1])), Err(InterpreterError::FreeThreaded));
    // It says 3.13 and is not: the tables differ, and so does `sys.hexversion`.
    assert!(opened(changed(8, &0x030d_00f0_u64.to_le_bytes())).is_err());
}
