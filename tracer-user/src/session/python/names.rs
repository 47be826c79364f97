//! Names of classes that no look at a process has told: exceptions above all.

use std::collections::HashMap;
use std::sync::mpsc::Sender;

use super::super::recording::Learned;
use super::super::wiring::PythonClassNames;
use crate::engine::cpython::CpythonEngine;
use crate::memory::ReadLimit;
use crate::model::{ProcessId, ProgramImage};
use crate::symbol_map::PythonRules;
use crate::target::{identify, look_at};

/// The interpreters that were asked, by the number of their process, and whose they were then.
type Asked = HashMap<u32, ((ProcessId, ProgramImage), CpythonEngine)>;

/// Reads the name of a class from its process; the tape is told as well. Only processes of the initial pid namespace are
/// traced, so that the numbers in records are those of /proc.
pub fn python_class_names(tell: Sender<Learned>) -> PythonClassNames {
    let mut asked = Asked::new();
    Box::new(move |process, class| {
        let name = engine_of(&mut asked, process).and_then(|engine| engine.shown_name(class));
        let _ = tell.send(Learned::PythonClass(process, class, name.clone()));
        name
    })
}

fn engine_of(asked: &mut Asked, process: u32) -> Option<&CpythonEngine> {
    let identity = identify(process)?;
    if asked.get(&process).is_none_or(|(known, _)| *known != identity) {
        // Processes end without a word.
        asked.retain(|process, (known, _)| identify(*process) == Some(*known));
        let engine =
            CpythonEngine::open(&look_at(process).ok()?, PythonRules::new(&[]), &ReadLimit::default()).ok()??;
        asked.insert(process, (identity, engine));
    }
    asked.get(&process).map(|(_, engine)| engine)
}
