//! A container and the names of its fields go in; its children, with the names of their steps, come out.

use std::collections::HashSet;
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
        let mut reading = Reading { interpreter, classes, container, members: Vec::new(), children: HashSet::new() };
        // In the order of the map: the first field that has a child names it.
        for field in fields {
            if let Some((_, value)) = attributes.iter().find(|(name, _)| name == field) {
                // A single child goes by the name of the field.
                let step: Option<Arc<str>> = matches!(rule, Children::Named(_)).then(|| field.as_str().into());
                reading.read_field(*value, step.as_ref())?;
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
    children: HashSet<RemoteAddress>,
}

impl<M: Memory> Reading<'_, M> {
    /// Takes up what a field holds; `step` is for a single child.
    fn read_field(&mut self, value: RemoteAddress, step: Option<&Arc<str>>) -> Result<(), ReadProblem> {
        let first = self.members.len();
        self.read(value, None, DEPTH_LIMIT)?;
        if let Some(member) = self.members.get_mut(first).filter(|member| member.child == value) {
            member.step = step.cloned();
        }
        Ok(())
    }

    /// Takes up what a field or a list holds: a child, or something with children in it.
    fn read(&mut self, value: RemoteAddress, step: Option<&Arc<str>>, depth: usize) -> Result<(), ReadProblem> {
        let types = self.interpreter.types();
        let kind = self.interpreter.type_of(value)?;
        let class = self.classes.get(kind);
        // scikit-learn's `Bunch` is a dictionary (sklearn/utils/_bunch.py), a named tuple is a tuple.
        let is_a = |kinds: RemoteAddress| kind == kinds || class.is_some_and(|class| class.mro.contains(&kinds));
        let collection = [types.tuple, types.list, types.dict].into_iter().find(|collection| is_a(*collection));
        if class.is_some() && collection.is_none() {
            if !self.classes.is_metaclass(kind) && self.members.len() < CHILD_LIMIT {
                self.add(value, kind, step);
            }
            return Ok(());
        }
        let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
        if collection == Some(types.tuple) {
            let items = self.interpreter.tuple_items(value)?;
            // (name, child) or (name, child, columns), as scikit-learn writes steps.
            if let [name, child, ..] = items.as_slice()
                && self.interpreter.type_of(*name)? == types.text
            {
                let name: Arc<str> = self.interpreter.text(*name)?.into();
                return self.read(*child, Some(&name), depth);
            }
            self.read_all(&items, step, depth)
        } else if collection == Some(types.list) {
            self.read_all(&self.interpreter.list_items(value)?, step, depth)
        } else if collection == Some(types.dict) {
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

    /// Takes up a child, unless it is there: a container may keep its children in two fields.
    fn add(&mut self, child: RemoteAddress, class: RemoteAddress, step: Option<&Arc<str>>) {
        let member = ContainerMember { container: self.container, child, class: Some(class), step: step.cloned() };
        if self.children.insert(child) {
            self.members.push(member);
        }
    }

    fn read_all(&mut self, items: &[RemoteAddress], step: Option<&Arc<str>>, depth: usize) -> Result<(), ReadProblem> {
        items.iter().try_for_each(|item| self.read(*item, step, depth))
    }
}
