//! The CPython engine: which files hold an interpreter, and which processes run it.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::cpython_instance::{CpythonError, CpythonInstance, FINDING};
use super::frame_sites;
use super::interpreter_file::InterpreterFile;
use crate::engine::contract::{Engine, EngineError, Recognition};
use crate::engine::file_cache::{FileCache, is_the_same};
use crate::memory::{MappedFile, ReadLimit};
use crate::model::{InterpreterSite, ModuleFile, SymbolMap, Target};
use crate::symbol_map::PythonRules;

/// Finds CPython in processes. What a file holds is found out once for all clones.
#[derive(Clone, Debug)]
pub struct CpythonEngine {
    rules: Arc<PythonRules>,
    known: Arc<Mutex<FileCache<KnownFile>>>,
    /// Whether the routes of web applications are asked for.
    reads_routes: bool,
}

/// What was found in a file.
#[derive(Debug)]
struct KnownFile {
    /// Whether it was looked for among the symbols that the file does not export, too.
    thoroughly: bool,
    interpreter: Option<Arc<InterpreterFile>>,
}

impl CpythonEngine {
    /// An engine for these maps; of two that are about the same class the later one wins.
    #[must_use]
    pub fn new(maps: &[SymbolMap]) -> Self {
        let known = Arc::new(Mutex::new(FileCache::new()));
        Self { rules: Arc::new(PythonRules::new(maps)), known, reads_routes: false }
    }

    /// The same, which reads the routes of web applications.
    #[must_use]
    pub fn reading_routes(self, reads_routes: bool) -> Self {
        Self { reads_routes, ..self }
    }

    /// Whether a file of this name may hold an interpreter, or something of one: the process may come to run it.
    #[must_use]
    pub fn may_be_in(file_name: &str) -> bool {
        file_name.to_ascii_lowercase().contains("python")
    }

    /// The interpreter of a process; `None` if none of its files holds one. The likely files are looked into first, and no
    /// more of them than are needed. Files that cannot be opened are left out. `limit` ends this and every later reading.
    ///
    /// # Errors
    /// There is one and it cannot be read: it is of an unknown version or still starting, or the process is gone.
    pub fn find(&mut self, target: &Target, limit: &ReadLimit) -> Result<Option<CpythonInstance>, EngineError> {
        limit.allow(FINDING);
        let mut problem = None;
        for (module, recognised) in self.in_order(target) {
            let facts = match self.facts(&module, recognised) {
                Ok(facts) => facts,
                Err(error) => {
                    let path = module.path.display();
                    tracing::debug!(%path, %error, "no interpreter is looked for in a file");
                    continue;
                }
            };
            match self.instance(&facts, &module, limit) {
                Ok(Some(instance)) => return Ok(Some(instance)),
                Ok(None) => {}
                // A process may have mapped an interpreter that it does not run: another file may hold the one it runs.
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(None), Err)
    }

    /// Where the interpreter that a process runs, or will run, makes objects: the path by which its file is opened, and the place. `None` if
    /// none of the likely files holds one.
    pub fn object_site(&mut self, target: &Target) -> Option<(PathBuf, InterpreterSite)> {
        let likely = self.in_order(target).into_iter().filter(|(_, recognised)| *recognised == Recognition::Likely);
        let mut holding = likely.filter(|(module, recognised)| matches!(self.facts(module, *recognised), Ok(Some(_))));
        let (module, _) = holding.next()?;
        let site = frame_sites::object_site(&module.access_path)?;
        Some((module.access_path, site))
    }

    /// The bare names of the classes that the maps ask for, with those that are derived from them; and whether these are all that they
    /// ask for.
    pub fn class_names(&self) -> (Vec<String>, bool) {
        self.rules.base_names()
    }

    /// What is known of a file, if it was looked into as thoroughly as this.
    fn known(&self, file: &fs::Metadata, thoroughly: bool) -> Option<Option<Arc<InterpreterFile>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(file)?;
        (known.thoroughly || !thoroughly).then(|| known.interpreter.clone())
    }

    /// Everything that a process has mapped, the likely files first.
    fn in_order(&mut self, target: &Target) -> Vec<(ModuleFile, Recognition)> {
        let mut ordered = Vec::with_capacity(target.modules.len());
        for (index, module) in target.modules.iter().enumerate() {
            let recognised = self.recognises(&module.file_name());
            // The executable, which comes first, may hold an interpreter under any name: it is looked into as thoroughly as a
            // likely file, and no earlier than it would be.
            let thoroughly = if index == 0 { Recognition::Likely } else { recognised };
            ordered.push((recognised, ModuleFile::of(target.process, module), thoroughly));
        }
        ordered.sort_by_key(|(recognised, ..)| Reverse(*recognised));
        ordered.into_iter().map(|(_, module, thoroughly)| (module, thoroughly)).collect()
    }
}

impl Engine for CpythonEngine {
    type Facts = Option<Arc<InterpreterFile>>;
    type Instance = CpythonInstance;

    fn recognises(&mut self, file_name: &str) -> Recognition {
        // Not by "python" alone: it is in the name of every extension module (`_tree.cpython-311-x86_64-linux-gnu.so`).
        let is_likely = file_name.starts_with("python") || file_name.starts_with("libpython");
        if is_likely { Recognition::Likely } else { Recognition::Perhaps }
    }

    fn facts(&mut self, module: &ModuleFile, recognised: Recognition) -> Result<Self::Facts, EngineError> {
        let thoroughly = recognised == Recognition::Likely;
        let unreadable = |source: io::Error| EngineError::Unreadable {
            path: module.path.clone(),
            access_path: module.access_path.clone(),
            source,
        };
        // Where the file is reached by its name, another one may have taken that.
        let is_it = |file: &fs::Metadata| [0, file.ino()].contains(&module.number.inode);
        let file = fs::metadata(&module.access_path).ok().filter(is_it);
        if let Some(known) = file.and_then(|file| self.known(&file, thoroughly)) {
            return Ok(known);
        }
        let file = MappedFile::of(module).map_err(unreadable)?.into_file();
        let (before, again) = (file.metadata().map_err(unreadable)?, file.try_clone().map_err(unreadable)?);
        let interpreter = InterpreterFile::read(file, &module.path, thoroughly)?.map(Arc::new);
        // While somebody is writing it, what was read belongs together by chance only.
        if again.metadata().is_ok_and(|after| is_the_same(&before, &after)) {
            let known = KnownFile { thoroughly, interpreter: interpreter.clone() };
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(&before, known);
        }
        Ok(interpreter)
    }

    fn instance(
        &self,
        facts: &Self::Facts,
        module: &ModuleFile,
        limit: &ReadLimit,
    ) -> Result<Option<CpythonInstance>, EngineError> {
        let Some(file) = facts else { return Ok(None) };
        let Some(addresses) = file.in_process(&module.mappings) else { return Ok(None) };
        let of = (module.process, module.path.to_string_lossy().into_owned(), Arc::clone(file));
        let instance = CpythonInstance::open(of, &addresses, Arc::clone(&self.rules), limit);
        Ok(Some(instance.map_err(CpythonError::from)?.reading_routes(self.reads_routes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mapping, ProcessId};

    /// This program, as if a process had mapped it.
    fn module(path: &std::path::Path) -> ModuleFile {
        let metadata = fs::metadata(path).expect("a file");
        let device = (rustix::fs::major(metadata.dev()).cast_signed(), rustix::fs::minor(metadata.dev()).cast_signed());
        ModuleFile {
            process: ProcessId { pid: std::process::id(), start_time: 0 },
            path: path.to_owned(),
            access_path: path.to_owned(),
            number: crate::model::FileNumber { device, inode: metadata.ino() },
            mappings: Vec::<Mapping>::new(),
            is_program: false,
        }
    }

    #[test]
    fn a_file_is_looked_into_once_until_it_is_written_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("libpython3.so");
        fs::copy(std::env::current_exe().expect("a program"), &path).expect("copied");
        let mut engine = CpythonEngine::new(&[]);
        let mut known = |module: &ModuleFile, recognised| {
            assert!(engine.facts(module, recognised).expect("it is read").is_none(), "it holds no interpreter");
            let metadata = fs::metadata(&module.access_path).expect("a file");
            // A clone knows what the other one has found.
            let knows = |thoroughly| engine.clone().known(&metadata, thoroughly).is_some();
            (knows(false), knows(true))
        };
        assert_eq!(known(&module(&path), Recognition::Perhaps), (true, false));
        assert_eq!(known(&module(&path), Recognition::Likely), (true, true));
        assert_eq!(known(&module(&path), Recognition::Perhaps), (true, true));
        let metadata = fs::metadata(&path).expect("a file");
        fs::write(&path, b"no program").expect("written");
        let written = fs::metadata(&path).expect("a file");
        assert!(engine.known(&metadata, true).is_some() && engine.known(&written, false).is_none());
        assert!(engine.facts(&module(&path), Recognition::Likely).is_err(), "what it holds now is read");
    }
}
