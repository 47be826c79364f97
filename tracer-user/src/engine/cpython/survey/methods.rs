//! A class and the name of a method go in; the functions that a call of the method runs, outermost first, come out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::{FunctionView, Interpreter, ReadProblem};
use super::classes::{Classes, HeapClass};
use crate::memory::Memory;
use crate::model::{PythonSkipReason, RemoteAddress};

/// Longest chain of wrappers that is followed.
const CHAIN_LIMIT: usize = 8;
/// Descriptors inside descriptors that are followed.
const DESCRIPTOR_LIMIT: usize = 4;

/// Wrappers that are gone into for one method: an object that looks like one may hold many others.
const WRAPPER_LIMIT: usize = 64;

/// Most members of one class that are looked at: those that it was made with come first.
const MEMBER_LIMIT: usize = 1 << 16;
/// Names that are remembered.
const NAME_LIMIT: usize = 1 << 16;

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

/// What the fields of a wrapper hold.
struct InFields {
    /// The function that has the name of the method.
    named: Option<RemoteAddress>,
    /// The only function there, whatever its name.
    only: Option<RemoteAddress>,
}

/// Looks methods up as Python does. Kept for one look only: classes change.
pub(super) struct Methods<'look, M> {
    interpreter: &'look Interpreter<M>,
    classes: &'look Classes,
    /// Names of methods that a map asks for.
    asked: HashSet<Arc<str>>,
    /// Entries of the classes' dicts under these names.
    dicts: HashMap<RemoteAddress, HashMap<Arc<str>, RemoteAddress>>,
    /// Text of names by address: most names are interned.
    names: HashMap<RemoteAddress, Arc<str>>,
    functions: HashMap<RemoteAddress, Arc<FunctionView>>,
    /// Chains by what stands in the class's dict.
    chains: HashMap<(RemoteAddress, Arc<str>), Found>,
    /// Objects that kept changing while they were read.
    pub torn: u64,
    /// Wrappers that are still gone into for the method that is looked up.
    wrappers_left: usize,
}

impl<'look, M: Memory> Methods<'look, M> {
    pub(super) fn new(interpreter: &'look Interpreter<M>, classes: &'look Classes) -> Self {
        Self {
            interpreter,
            classes,
            asked: classes.traced().flat_map(|(_, _, rule)| &rule.methods).cloned().collect(),
            dicts: HashMap::new(),
            names: HashMap::new(),
            functions: HashMap::new(),
            chains: HashMap::new(),
            torn: 0,
            wrappers_left: 0,
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
                dict.map_or_else(|| Ok(Vec::new()), |dict| interpreter.first_dict_entries(dict, MEMBER_LIMIT))
            })?;
            let mut named = HashMap::new();
            for (key, value) in entries {
                let name = self.name(key)?;
                if self.asked.contains(&name) {
                    named.insert(name, value);
                }
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
        if self.names.len() >= NAME_LIMIT {
            self.names.clear();
        }
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
        self.wrappers_left = WRAPPER_LIMIT;
        let types = self.interpreter.types();
        let kind = self.interpreter.retrying(|interpreter| interpreter.type_of(value))?;
        let order = self.interpreter.retrying(|interpreter| interpreter.mro(kind))?;
        let found = if order.contains(&types.static_method) || order.contains(&types.class_method) {
            Found::Skipped(PythonSkipReason::NoReceiver)
        } else if order.contains(&types.property) {
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

    /// The function that a value of a class's dict calls: the value itself, or what a wrapper or a descriptor keeps.
    ///
    /// Wrappers written in C keep it in a field of their own and show it as they like: `FunctionWrapper` of wrapt and of the
    /// agents built on it (`wrapped`), `functools.lru_cache` (`func`), a bound method (`im_func`). So their fields are gone
    /// through: the function with the name of the method is taken, or else the only one there. A field may hold another
    /// wrapper.
    ///
    /// Those written in Python keep it in an attribute: `_AvailableIfDescriptor` and `_IffHasAttrDescriptor` of scikit-learn
    /// as `fn` (sklearn/utils/_available_if.py 1.9, sklearn/utils/metaestimators.py 0.24), `functools.partialmethod` and
    /// `functools.singledispatchmethod` as `func` (Lib/functools.py): any attribute is taken that is a function with the name
    /// of the method, and those two.
    fn function_of(
        &mut self,
        value: RemoteAddress,
        method: &str,
        depth: usize,
    ) -> Result<Option<RemoteAddress>, ReadProblem> {
        let types = self.interpreter.types();
        let kind = self.interpreter.retrying(|interpreter| interpreter.type_of(value))?;
        if kind == types.function {
            return Ok(Some(value));
        }
        // What these hold gets another first argument than the object: a property, a static or class method, a `partial`.
        let has_receiver = |interpreter: &Interpreter<M>| Ok(interpreter.held_callable(value)?.is_none());
        let is_left = depth == 0 || self.wrappers_left == 0 || self.interpreter.is_class(value)?;
        if is_left || !self.interpreter.retrying(has_receiver)? {
            return Ok(None);
        }
        self.wrappers_left -= 1;
        let fields = self.interpreter.retrying(|interpreter| interpreter.held_objects(value))?;
        let in_fields = self.among(&fields, method, depth)?;
        if let Some(function) = in_fields.named {
            return Ok(Some(function));
        }
        let (mut inner, mut named) = (None, None);
        for (name, attribute) in self.interpreter.retrying(|interpreter| interpreter.instance_attributes(value))? {
            let is_known = matches!(name.as_str(), "fn" | "func" | "__wrapped__");
            if self.interpreter.type_of(attribute).is_ok_and(|kind| kind == types.function) {
                let is_named = self.function(attribute)?.name == *method;
                if is_named && is_known {
                    return Ok(Some(attribute));
                }
                named = named.or(is_named.then_some(attribute));
                inner = inner.or((is_known && name != "__wrapped__").then_some(attribute));
            } else if is_known {
                inner = inner.or(self.function_of(attribute, method, depth - 1)?);
            }
        }
        Ok(named.or(inner).or(in_fields.only))
    }

    /// The function among the fields of a wrapper: most of them are something else, and some are no object at all.
    fn among(&mut self, fields: &[RemoteAddress], method: &str, depth: usize) -> Result<InFields, ReadProblem> {
        let mut found = Vec::new();
        for field in fields {
            let Ok(kind) = self.interpreter.type_of(*field) else { continue };
            if kind == self.interpreter.types().function {
                // What looks like a function and is none is no reason to give the wrapper up.
                if self.function(*field).is_ok() && !found.contains(field) {
                    found.push(*field);
                }
            } else if self.may_wrap(kind)
                && let Some(function) = self.function_of(*field, method, depth - 1).ok().flatten()
                && !found.contains(&function)
            {
                found.push(function);
            }
        }
        let mut named = None;
        for function in &found {
            // Of several the first: what is wrapped is kept before what wraps it.
            if named.is_none() && self.function(*function)?.name == *method {
                named = Some(*function);
            }
        }
        let only = if let [only] = found.as_slice() { Some(*only) } else { None };
        Ok(InFields { named, only })
    }

    /// Whether objects of this type may keep a callable in a field. Containers, texts and numbers do not, and modules and
    /// classes keep far too much.
    fn may_wrap(&self, kind: RemoteAddress) -> bool {
        let types = self.interpreter.types();
        let plain = [
            types.text,
            types.bytes,
            types.integer,
            types.tuple,
            types.list,
            types.dict,
            types.set,
            types.frozen_set,
            types.module,
            types.code,
            types.class,
            types.object,
        ];
        !plain.contains(&kind) && !self.classes.is_metaclass(kind) && types.cell != Some(kind)
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
                    return self.function_of(value, method, DESCRIPTOR_LIMIT);
                }
            }
        }
        let Some(closure) = view.closure else { return Ok(None) };
        for cell in self.interpreter.retrying(|interpreter| interpreter.tuple_items(closure))? {
            let Some(content) = self.interpreter.cell(cell)? else { continue };
            let Ok(found) = self.interpreter.type_of(content) else { continue };
            let inner = match found {
                _ if found == kind => Some(content),
                _ if self.may_wrap(found) => self.function_of(content, method, DESCRIPTOR_LIMIT).ok().flatten(),
                _ => None,
            };
            if let Some(inner) = inner {
                let name = &self.function(inner)?.name;
                if name == method || *name == view.name {
                    return Ok(Some(inner));
                }
            }
        }
        Ok(None)
    }
}
