//! A container and the names of its fields go in; its children, with the names of their steps, come out.

use std::sync::Arc;

use super::super::{Interpreter, ReadProblem};
use super::classes::Classes;
use super::object_array;
use crate::memory::Memory;
use crate::model::{Children, ContainerMember, RemoteAddress};

/// Most children of one container that are read.
const CHILD_LIMIT: usize = 100_000;
/// Lists inside lists that are gone into.
const DEPTH_LIMIT: usize = 3;

/// The children of a container. What is no object of a Python class is none: `'passthrough'`, `'drop'`, `None`.
///
/// # Errors
/// The container was changing all the time while it was read.
pub(super) fn of<M: Memory>(
    interpreter: &Interpreter<M>,
    classes: &Classes,
    (container, class): (RemoteAddress, RemoteAddress),
    rule: &Children,
) -> Result<Vec<ContainerMember>, ReadProblem> {
    let (Children::Named(fields) | Children::Plain(fields)) = rule;
    interpreter.confirmed(|interpreter| {
        // It may have been freed since it was found.
        if interpreter.type_of(container)? != class {
            return Ok(Vec::new());
        }
        let attributes = interpreter.instance_attributes(container)?;
        let mut reading = Reading { interpreter, classes, container, members: Vec::new() };
        for (name, value) in &attributes {
            if fields.contains(name) {
                reading.read(*value, None, DEPTH_LIMIT)?;
            }
        }
        Ok(reading.members)
    })
}

struct Reading<'look, M> {
    interpreter: &'look Interpreter<M>,
    classes: &'look Classes,
    container: RemoteAddress,
    members: Vec<ContainerMember>,
}

impl<M: Memory> Reading<'_, M> {
    /// Takes up what a field or a list holds: a child, or something with children in it.
    fn read(&mut self, value: RemoteAddress, step: Option<&Arc<str>>, depth: usize) -> Result<(), ReadProblem> {
        let types = self.interpreter.types();
        let kind = self.interpreter.type_of(value)?;
        if self.classes.get(kind).is_some_and(|class| !class.mro.contains(&types.dict)) {
            if !self.classes.is_metaclass(kind) && self.members.len() < CHILD_LIMIT {
                self.members.push(ContainerMember { container: self.container, child: value, step: step.cloned() });
            }
            return Ok(());
        }
        let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
        if kind == types.tuple {
            let items = self.interpreter.tuple_items(value)?;
            // (name, child) or (name, child, columns), as scikit-learn writes steps.
            if let [name, child, ..] = items.as_slice()
                && self.interpreter.type_of(*name)? == types.text
            {
                let name: Arc<str> = self.interpreter.text(*name)?.into();
                return self.read(*child, Some(&name), depth);
            }
            self.read_all(&items, step, depth)
        } else if kind == types.list {
            self.read_all(&self.interpreter.list_items(value)?, step, depth)
        } else if kind == types.dict {
            for (key, child) in self.interpreter.dict_entries(value)? {
                let name = self.interpreter.text(key).ok().map(Arc::from);
                self.read(child, name.as_ref().or(step), depth)?;
            }
            Ok(())
        } else {
            let items = object_array::items(self.interpreter, kind, value)?;
            self.read_all(&items, step, depth)
        }
    }

    fn read_all(&mut self, items: &[RemoteAddress], step: Option<&Arc<str>>, depth: usize) -> Result<(), ReadProblem> {
        items.iter().try_for_each(|item| self.read(*item, step, depth))
    }
}
