//! Names of classes that no look at a process has told: exceptions above all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::super::recording::Learned;
use super::super::wiring::PythonClassNames;
use crate::engine::cpython::CpythonEngine;
use crate::model::Target;
use crate::symbol_map::PythonRules;
use crate::target::look_at;

/// Reads the name of a class from its process; the tape is told as well.
pub fn python_class_names(targets: &[Target], tell: Sender<Learned>) -> PythonClassNames {
    let pids: HashMap<u32, u32> = targets.iter().map(|target| (target.kernel_pid, target.process.pid)).collect();
    let mut engines: HashMap<u32, CpythonEngine> = HashMap::new();
    Box::new(move |process, class| {
        if !engines.contains_key(&process)
            && let Some(target) = pids.get(&process).and_then(|pid| look_at(*pid).ok())
            && let Ok(Some(engine)) = CpythonEngine::open(&target, PythonRules::new(&[]))
        {
            engines.insert(process, engine);
        }
        let name: Option<Arc<str>> = engines.get(&process).and_then(|engine| engine.shown_name(class));
        let _ = tell.send(Learned::PythonClass(process, class, name.clone()));
        name
    })
}
