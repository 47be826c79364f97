//! What an application keeps its routes in, read one object after the other.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::super::type_facts::flag;
use super::super::super::{Interpreter, ReadProblem};
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Routes that are read of all applications of a process.
const ROUTE_LIMIT: usize = 4_096;
/// Places in the table of a set of methods.
const METHOD_LIMIT: u64 = 256;
/// Bytes of a template or pattern.
const TEXT_LIMIT: usize = 2_048;

/// Reads the routes of one process.
pub struct Reader<'look, M> {
    /// The interpreter.
    pub interpreter: &'look Interpreter<M>,
    /// Paths of a class and its bases.
    class_paths: RefCell<HashMap<RemoteAddress, Arc<[String]>>>,
    /// Applications that are part of another one.
    parts: RefCell<HashSet<RemoteAddress>>,
    /// Routes that may still be read.
    left: Cell<usize>,
}

/// Attributes of an object.
pub struct Fields(Vec<(String, RemoteAddress)>);

impl Fields {
    /// One of them.
    pub fn get(&self, name: &str) -> Option<RemoteAddress> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

impl<'look, M: Memory> Reader<'look, M> {
    /// Nothing is read yet.
    pub fn new(interpreter: &'look Interpreter<M>) -> Self {
        Self { interpreter, class_paths: RefCell::default(), parts: RefCell::default(), left: Cell::new(ROUTE_LIMIT) }
    }

    /// The application is part of another one.
    pub fn add_part(&self, application: RemoteAddress) {
        self.parts.borrow_mut().insert(application);
    }

    /// Whether an application is part of another one.
    pub fn is_part(&self, application: RemoteAddress) -> bool {
        self.parts.borrow().contains(&application)
    }

    /// Whether one more route may be read.
    pub fn takes_one(&self) -> bool {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// The attributes of an object.
    pub fn fields(&self, object: RemoteAddress) -> Result<Fields, ReadProblem> {
        self.interpreter.instance_attributes(object).map(Fields)
    }

    /// The paths of an object's class and of the bases of that, in the order in which methods are looked up.
    pub fn class_paths(&self, object: RemoteAddress) -> Result<Arc<[String]>, ReadProblem> {
        let class = self.interpreter.type_of(object)?;
        if let Some(known) = self.class_paths.borrow().get(&class) {
            return Ok(Arc::clone(known));
        }
        let order = self.interpreter.mro(class)?;
        let paths = order.iter().map(|base| self.interpreter.class(*base).map(|view| view.path()));
        let paths: Arc<[String]> = paths.collect::<Result<_, _>>()?;
        self.class_paths.borrow_mut().insert(class, Arc::clone(&paths));
        Ok(paths)
    }

    /// Items of a list or tuple of routes, or of what belongs to one.
    pub fn items(&self, list: RemoteAddress) -> Result<Vec<RemoteAddress>, ReadProblem> {
        match self.interpreter.first_list_items(list, ROUTE_LIMIT) {
            Err(ReadProblem::WrongType { .. }) => self.interpreter.first_tuple_items(list, ROUTE_LIMIT),
            items => items,
        }
    }

    /// Values of a dictionary of routes, or of what belongs to one.
    pub fn values(&self, dictionary: RemoteAddress) -> Result<Vec<RemoteAddress>, ReadProblem> {
        let entries = self.interpreter.first_dict_entries(dictionary, ROUTE_LIMIT)?;
        Ok(entries.into_iter().map(|(_, value)| value).collect())
    }

    /// A variable of a module; `None`: it is no module, or has none of this name.
    pub fn variable(&self, module: RemoteAddress, name: &str) -> Result<Option<RemoteAddress>, ReadProblem> {
        let dictionary = self.interpreter.module_dictionary(module, self.interpreter.types().module)?;
        dictionary.map_or(Ok(None), |dictionary| self.interpreter.dict_value(dictionary, name))
    }

    /// A text, if it is one and not too long.
    pub fn text(&self, object: Option<RemoteAddress>) -> Result<Option<Arc<str>>, ReadProblem> {
        let Some(object) = object.filter(|object| self.is_text(*object)) else { return Ok(None) };
        let text = self.interpreter.text(object)?;
        Ok((text.len() <= TEXT_LIMIT).then(|| text.into()))
    }

    fn is_text(&self, object: RemoteAddress) -> bool {
        self.interpreter.facts_of(object).is_ok_and(|(_, facts)| facts.has(flag::TEXT))
    }

    /// What a compiled pattern was compiled from: the only text that it keeps (`PatternObject`, Modules/_sre/sre.h, CPython 3.8 to
    /// 3.15).
    pub fn pattern(&self, compiled: Option<RemoteAddress>) -> Result<Option<Arc<str>>, ReadProblem> {
        let Some(compiled) = compiled else { return Ok(None) };
        let held = self.interpreter.held_objects(compiled)?;
        self.text(held.into_iter().find(|object| self.is_text(*object)))
    }

    /// A set of methods, sorted; Python's `None` is every method. `None`: it is neither.
    pub fn methods(&self, set: Option<RemoteAddress>) -> Result<Option<Vec<Arc<str>>>, ReadProblem> {
        let Some(set) = set else { return Ok(None) };
        let items = match self.interpreter.set_items(set, METHOD_LIMIT) {
            Ok(items) => items,
            Err(ReadProblem::WrongType { .. }) if self.is_none(set)? => return Ok(Some(Vec::new())),
            Err(ReadProblem::WrongType { .. } | ReadProblem::TooLarge { .. }) => return Ok(None),
            Err(problem) => return Err(problem),
        };
        let mut methods = Vec::with_capacity(items.len());
        for item in items {
            let Some(method) = self.text(Some(item))? else { return Ok(None) };
            methods.push(method);
        }
        methods.sort_unstable();
        Ok(Some(methods))
    }

    /// Whether it is Python's `None`.
    pub fn is_none(&self, object: RemoteAddress) -> Result<bool, ReadProblem> {
        Ok(self.interpreter.static_name(self.interpreter.type_of(object)?)? == "NoneType")
    }

    /// A truth value; `false` where there is none.
    pub fn is_true(&self, fields: &Fields, name: &str) -> Result<bool, ReadProblem> {
        fields.get(name).map_or(Ok(false), |value| Ok(self.interpreter.small_integer(value)? != 0))
    }
}
