//! The modules of a process go in; their variables, and which of them are the application's own, come out.

use std::collections::HashSet;

use super::super::Interpreter;
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Variables of one module that are looked at.
const VARIABLE_LIMIT: usize = 20_000;
/// Modules in which the name `__file__` is looked for by its text; its address is the same in all of them.
const MODULES_FOR_FILE: usize = 20;
/// Folders of what is installed and not written for this process alone.
const LIBRARY_FOLDERS: [&str; 4] = ["/site-packages/", "/dist-packages/", "/lib/python3", "/lib64/python3"];

/// The module and the name of the type of numpy's arrays.
const NUMPY: &str = "numpy";
const ARRAY: &str = "ndarray";

/// A module that was imported.
pub(super) struct Module {
    /// Its name.
    name: String,
    /// Whether it is the application's own: `__main__`, or its file lies where nothing is installed.
    pub is_own: bool,
    /// Its variables: names and values.
    pub variables: Vec<(RemoteAddress, RemoteAddress)>,
}

/// Names of the application's own modules.
#[derive(Debug, Default)]
pub(super) struct OwnModules(HashSet<String>);

impl OwnModules {
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// The type of numpy's arrays, if it is among the variables of numpy by now.
pub(super) fn array_type<M: Memory>(interpreter: &Interpreter<M>, modules: &[Module]) -> Option<RemoteAddress> {
    variable(interpreter, modules, NUMPY, ARRAY)
}

/// A variable of a module, if both are there by now.
pub(super) fn variable<M: Memory>(
    interpreter: &Interpreter<M>,
    modules: &[Module],
    module: &str,
    variable: &str,
) -> Option<RemoteAddress> {
    let module = modules.iter().find(|known| known.name == module)?;
    let is_it = |name: RemoteAddress| interpreter.text_is(name, variable).unwrap_or(false);
    module.variables.iter().find(|(name, _)| is_it(*name)).map(|(_, value)| *value)
}

/// The modules, in the order in which they were imported. What cannot be read is left out: the next look will tell.
pub(super) fn of<M: Memory>(interpreter: &Interpreter<M>) -> (Vec<Module>, OwnModules) {
    let (mut modules, mut own) = (Vec::new(), OwnModules::default());
    let mut file_name = None;
    for (index, (name, dict)) in interpreter.modules().unwrap_or_default().into_iter().enumerate() {
        let Ok(variables) = interpreter.first_dict_entries(dict, VARIABLE_LIMIT) else { continue };
        if file_name.is_none() && index < MODULES_FOR_FILE {
            let is_file = |key: RemoteAddress| interpreter.text(key).is_ok_and(|key| key == "__file__");
            file_name = variables.iter().map(|(key, _)| *key).find(|key| is_file(*key));
        }
        let file = variables.iter().find(|(key, _)| Some(*key) == file_name).map(|(_, value)| *value);
        let file = file.and_then(|file| interpreter.text(file).ok());
        let is_own =
            name == "__main__" || file.is_some_and(|file| !LIBRARY_FOLDERS.iter().any(|folder| file.contains(folder)));
        if is_own {
            own.0.insert(name.clone());
        }
        modules.push(Module { name, is_own, variables });
    }
    (modules, own)
}
