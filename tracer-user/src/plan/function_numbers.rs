//! The numbers of functions, by which records name them: one for each function of a file, whichever processes run it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tracer_common::limits::MAX_FUNCTIONS;

use crate::model::{FunctionId, ProbeRequest, PythonFunction, VirtualAddress};

/// Numbers of Python functions begin here, beyond all that the cookie of a native probe can hold: neither kind uses up the
/// numbers of the other.
const FIRST_PYTHON: u32 = 1 << 24;

/// Python functions that one tracer can tell apart.
pub const MOST_PYTHON: u32 = 1 << 18;

/// What a native function's number stands for: file as processes name it, address in it, symbol.
type NativeKey = (PathBuf, VirtualAddress, String);

/// What a Python function's number stands for: the interpreter's file, and the function's module, qualified name, method,
/// file and line. Where its object is in memory does not matter: workers that run the same program share its numbers.
type PythonKey = (Arc<str>, Arc<str>, Arc<str>, Arc<str>, Arc<str>, u32);

/// The numbers that were given so far. The same function of the same file has one number in all processes: workers that come
/// and go use none up.
#[derive(Debug)]
pub struct FunctionNumbers {
    next_native: u32,
    next_python: u32,
    native: HashMap<NativeKey, FunctionId>,
    python: HashMap<PythonKey, FunctionId>,
}

impl Default for FunctionNumbers {
    fn default() -> Self {
        Self { next_native: 0, next_python: FIRST_PYTHON, native: HashMap::new(), python: HashMap::new() }
    }
}

impl FunctionNumbers {
    /// The number of a native function; `None` once they are used up.
    pub fn of_native(&mut self, request: &ProbeRequest) -> Option<FunctionId> {
        let function = &request.function;
        let key = (request.module.path.clone(), function.address, function.name.symbol.clone());
        if let Some(known) = self.native.get(&key) {
            return Some(*known);
        }
        let new = (self.next_native < MAX_FUNCTIONS).then(|| {
            self.next_native += 1;
            FunctionId(self.next_native - 1)
        })?;
        self.native.insert(key, new);
        Some(new)
    }

    /// The number of a Python function of an interpreter's file (`module`). A function that has none takes one of the
    /// `new_numbers` that may be given; `None` once those, or all, are used up.
    pub fn of_python(
        &mut self,
        module: &str,
        function: &PythonFunction,
        method: &Arc<str>,
        new_numbers: &mut usize,
    ) -> Option<FunctionId> {
        let key = (
            module.into(),
            Arc::clone(&function.module),
            Arc::clone(&function.qualified_name),
            Arc::clone(method),
            Arc::clone(&function.file),
            function.line,
        );
        if let Some(known) = self.python.get(&key) {
            return Some(*known);
        }
        *new_numbers = new_numbers.checked_sub(1)?;
        let new = self.new_python()?;
        self.python.insert(key, new);
        Some(new)
    }

    /// The next number of a Python function; `None` once they are used up.
    fn new_python(&mut self) -> Option<FunctionId> {
        (self.next_python < FIRST_PYTHON + MOST_PYTHON).then(|| {
            self.next_python += 1;
            FunctionId(self.next_python - 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::python::NO_FUNCTION;

    use super::*;

    #[test]
    fn python_and_native_functions_use_up_no_numbers_of_each_other() {
        let mut numbers = FunctionNumbers::default();
        let mut last = None;
        while let Some(number) = numbers.new_python() {
            assert!(number.0 >= 1 << 24 && number.0 < NO_FUNCTION);
            last = Some(number);
        }
        assert_eq!(last.map(|number| number.0 - (1 << 24) + 1), Some(MOST_PYTHON));
        assert!(numbers.new_python().is_none(), "none is given twice");
    }
}
