//! A class and the name of a method go in; the functions that a call of the method runs, outermost first, come out.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::{FunctionView, Interpreter, ReadProblem};
use super::classes::{Classes, HeapClass};
use crate::memory::Memory;
use crate::model::{PythonSkipReason, RemoteAddress};

/// Longest chain of wrappers that is followed.
const CHAIN_LIMIT: usize = 8;
/// Descriptors inside descriptors that are followed.
const DESCRIPTOR_LIMIT: usize = 4;

/// What stands behind the name of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Functions, each of which calls the next one.
    Chain(Vec<RemoteAddress>),
    /// Something that cannot be watched.
    Skipped(PythonSkipReason),
    /// The class has no such method.
    Absent,
}

/// Looks methods up as Python does. Kept for one look only: classes change.
pub(super) struct Methods<'look, M> {
    interpreter: &'look Interpreter<M>,
    classes: &'look Classes,
    /// Entries of the classes' dicts by name.
    dicts: HashMap<RemoteAddress, HashMap<Arc<str>, RemoteAddress>>,
    /// Text of names by address: most names are interned.
    names: HashMap<RemoteAddress, Arc<str>>,
    functions: HashMap<RemoteAddress, Arc<FunctionView>>,
    /// Chains by what stands in the class's dict.
    chains: HashMap<(RemoteAddress, Arc<str>), Found>,
    /// Objects that kept changing while they were read.
    pub torn: u64,
}

impl<'look, M: Memory> Methods<'look, M> {
    pub(super) fn new(interpreter: &'look Interpreter<M>, classes: &'look Classes) -> Self {
        Self {
            interpreter,
            classes,
            dicts: HashMap::new(),
            names: HashMap::new(),
            functions: HashMap::new(),
            chains: HashMap::new(),
            torn: 0,
        }
    }

    /// The functions behind a method of a class.
    pub(super) fn find(&mut self, class: &HeapClass, method: &Arc<str>) -> Found {
        let found = self.look_up(class, method).and_then(|value| match value {
            None => Ok(Found::Absent),
            Some(value) => self.behind(value, method),
        });
        found.unwrap_or_else(|_| {
            self.torn += 1;
            Found::Skipped(PythonSkipReason::Unreadable)
        })
    }

    /// What the first class of the mro that has the name keeps under it.
    fn look_up(&mut self, class: &HeapClass, name: &Arc<str>) -> Result<Option<RemoteAddress>, ReadProblem> {
        for base in &class.mro {
            // Bases written in C have no Python functions, but their method hides those further along.
            if let Some(value) = self.dict(*base)?.get(name) {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }

    fn dict(&mut self, class: RemoteAddress) -> Result<&HashMap<Arc<str>, RemoteAddress>, ReadProblem> {
        if !self.dicts.contains_key(&class) {
            let entries = self.interpreter.retrying(|interpreter| {
                let dict = match self.classes.get(class) {
                    Some(known) => known.dict,
                    None => interpreter.class(class)?.dict,
                };
                dict.map_or_else(|| Ok(Vec::new()), |dict| interpreter.dict_entries(dict))
            })?;
            let mut named = HashMap::with_capacity(entries.len());
            for (key, value) in entries {
                named.insert(self.name(key)?, value);
            }
            self.dicts.insert(class, named);
        }
        Ok(self.dicts.entry(class).or_default())
    }

    fn name(&mut self, text: RemoteAddress) -> Result<Arc<str>, ReadProblem> {
        if let Some(name) = self.names.get(&text) {
            return Ok(name.clone());
        }
        let name: Arc<str> = self.interpreter.retrying(|interpreter| interpreter.text(text))?.into();
        self.names.insert(text, name.clone());
        Ok(name)
    }

    /// A function by its address.
    pub(super) fn function(&mut self, address: RemoteAddress) -> Result<Arc<FunctionView>, ReadProblem> {
        if let Some(view) = self.functions.get(&address) {
            return Ok(view.clone());
        }
        let view = Arc::new(self.interpreter.retrying(|interpreter| interpreter.function(address))?);
        self.functions.insert(address, view.clone());
        Ok(view)
    }

    fn behind(&mut self, value: RemoteAddress, method: &Arc<str>) -> Result<Found, ReadProblem> {
        let key = (value, method.clone());
        if let Some(found) = self.chains.get(&key) {
            return Ok(found.clone());
        }
        let types = self.interpreter.types();
        let kind = self.interpreter.retrying(|interpreter| interpreter.type_of(value))?;
        let found = if kind == types.static_method || kind == types.class_method {
            Found::Skipped(PythonSkipReason::NoReceiver)
        } else if kind == types.property {
            Found::Skipped(PythonSkipReason::Property)
        } else {
            match self.function_of(value, method, DESCRIPTOR_LIMIT)? {
                Some(function) => Found::Chain(self.chain(function, method)?),
                // A class takes a method of its base away by setting it to None.
                None if self.interpreter.class(kind)?.name == "NoneType" => Found::Absent,
                None => Found::Skipped(PythonSkipReason::NotPython),
            }
        };
        self.chains.insert(key, found.clone());
        Ok(found)
    }

    /// The function that a value of a class's dict calls: the value itself, or what a descriptor written in Python keeps.
    ///
    /// `_AvailableIfDescriptor` and `_IffHasAttrDescriptor` of scikit-learn keep the method as `fn` (sklearn/utils/
    /// _available_if.py 1.9, sklearn/utils/metaestimators.py 0.24), `functools.partialmethod` keeps it as `func`
    /// (Lib/functools.py): any attribute is taken that is a function with the name of the method, and those two.
    fn function_of(
        &mut self,
        value: RemoteAddress,
        method: &Arc<str>,
        depth: usize,
    ) -> Result<Option<RemoteAddress>, ReadProblem> {
        let types = self.interpreter.types();
        let kind = self.interpreter.retrying(|interpreter| interpreter.type_of(value))?;
        if kind == types.function {
            return Ok(Some(value));
        }
        let is_made_in_python = |interpreter: &Interpreter<M>| interpreter.class(kind).map(|class| class.is_heap_type);
        if depth == 0 || self.interpreter.is_class(value)? || !self.interpreter.retrying(is_made_in_python)? {
            return Ok(None);
        }
        let mut inner = None;
        for (name, attribute) in self.interpreter.retrying(|interpreter| interpreter.instance_attributes(value))? {
            if self.interpreter.type_of(attribute).is_ok_and(|kind| kind == types.function) {
                if self.function(attribute)?.name == **method {
                    return Ok(Some(attribute));
                }
                if matches!(name.as_str(), "fn" | "func") {
                    inner = Some(attribute);
                }
            } else if matches!(name.as_str(), "fn" | "func" | "__wrapped__") {
                inner = inner.or(self.function_of(attribute, method, depth - 1)?);
            }
        }
        Ok(inner)
    }

    /// A function and those that it wraps, outermost first.
    fn chain(&mut self, function: RemoteAddress, method: &str) -> Result<Vec<RemoteAddress>, ReadProblem> {
        let mut chain = vec![function];
        let mut last = function;
        while chain.len() < CHAIN_LIMIT {
            match self.wrapped(last, method)? {
                Some(next) if !chain.contains(&next) => {
                    chain.push(next);
                    last = next;
                }
                _ => break,
            }
        }
        Ok(chain)
    }

    /// What a function wraps: `__wrapped__`, which `functools.wraps` sets, or a function of the same name that it closes
    /// over.
    fn wrapped(&mut self, function: RemoteAddress, method: &str) -> Result<Option<RemoteAddress>, ReadProblem> {
        let view = self.function(function)?;
        let kind = self.interpreter.types().function;
        if let Some(dict) = view.dict {
            for (key, value) in self.interpreter.retrying(|interpreter| interpreter.dict_entries(dict))? {
                if &*self.name(key)? == "__wrapped__" {
                    let is_function = self.interpreter.type_of(value).is_ok_and(|found| found == kind);
                    return Ok(is_function.then_some(value));
                }
            }
        }
        let Some(closure) = view.closure else { return Ok(None) };
        for cell in self.interpreter.retrying(|interpreter| interpreter.tuple_items(closure))? {
            let Some(content) = self.interpreter.cell(cell)? else { continue };
            if self.interpreter.type_of(content).is_ok_and(|found| found == kind) {
                let name = &self.function(content)?.name;
                if name == method || *name == view.name {
                    return Ok(Some(content));
                }
            }
        }
        Ok(None)
    }
}
