//! A container and the names of its fields go in; its children, with the names of their steps, come out.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::type_facts::flag;
use super::super::{Interpreter, ReadProblem};
use super::classes::Classes;
use super::object_array;
use crate::memory::Memory;
use crate::model::{Children, ContainerMember, RemoteAddress};

/// Most children of one container that are read.
const CHILD_LIMIT: usize = 16_384;
/// Most objects that are looked at in the fields of one container: a list of steps is short, and what is longer holds data.
const OBJECT_LIMIT: usize = 50_000;
/// Lists inside lists that are gone into.
const DEPTH_LIMIT: usize = 3;

/// What the fields of a container hold.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub members: Vec<ContainerMember>,
    /// Whether there is more than is looked at.
    pub is_cut: bool,
}

/// The children of a container. What is no object of a Python class is none: `'passthrough'`, `'drop'`, `None`.
///
/// # Errors
/// The container was changing all the time while it was read.
pub(super) fn of<M: Memory>(
    interpreter: &Interpreter<M>,
    classes: &Classes,
    (container, class): (RemoteAddress, RemoteAddress),
    rule: &Children,
) -> Result<Found, ReadProblem> {
    interpreter.confirmed(|interpreter| {
        // It may have been freed since it was found.
        if interpreter.type_of(container)? != class {
            return Ok(Found::default());
        }
        let mut reading = Reading {
            interpreter,
            classes,
            container,
            class,
            found: Found::default(),
            children: HashSet::new(),
            collections: HashSet::new(),
            objects_left: OBJECT_LIMIT,
            arrays: None,
            attributes: None,
        };
        // In the order of the map: the first field that has a child names it.
        for path in rule.fields() {
            let (field, attributes) =
                path.split_once('.').map_or((path.as_str(), None), |(field, rest)| (field, Some(rest)));
            if let Some(value) = interpreter.instance_attribute(container, field)? {
                // A single child goes by the name of the field.
                let step: Option<Arc<str>> = matches!(rule, Children::Named(_)).then(|| field.into());
                reading.attributes = attributes;
                reading.read_field(value, step.as_ref())?;
            }
        }
        Ok(reading.found)
    })
}

struct Reading<'look, M> {
    interpreter: &'look Interpreter<M>,
    classes: &'look Classes,
    container: RemoteAddress,
    class: RemoteAddress,
    found: Found,
    children: HashSet<RemoteAddress>,
    /// Lists, tuples and dictionaries that were gone through: they may hold each other, or be held many times.
    collections: HashSet<RemoteAddress>,
    /// Objects that are still looked at.
    objects_left: usize,
    /// Where the field holds something around the children: the attribute that leads to them, and on from there.
    attributes: Option<&'look str>,
    /// The type of numpy's arrays and others that were asked whether they are it.
    arrays: Option<(RemoteAddress, bool)>,
}

impl<'look, M: Memory> Reading<'look, M> {
    /// Takes up what a field holds; `step` is for a single child.
    fn read_field(&mut self, value: RemoteAddress, step: Option<&Arc<str>>) -> Result<(), ReadProblem> {
        let first = self.found.members.len();
        self.read(value, None, DEPTH_LIMIT)?;
        if let Some(member) = self.found.members.get_mut(first).filter(|member| member.child == value) {
            member.step = step.cloned();
        }
        Ok(())
    }

    /// Takes up what a field or a list holds: a child, or something with children in it.
    fn read(&mut self, value: RemoteAddress, step: Option<&Arc<str>>, depth: usize) -> Result<(), ReadProblem> {
        let Some(left) = self.objects_left.checked_sub(1) else {
            self.found.is_cut = true;
            return Ok(());
        };
        self.objects_left = left;
        let types = self.interpreter.types();
        let (kind, facts) = self.interpreter.facts_of(value)?;
        // scikit-learn's `Bunch` is a dictionary (sklearn/utils/_bunch.py), `OrderedDict` begins as one (CPython 3.8 to 3.15,
        // Objects/odictobject.c, `_odictobject`), a named tuple is a tuple.
        let collection = [flag::TUPLE, flag::LIST, flag::DICTIONARY].into_iter().find(|kinds| facts.has(*kinds));
        if self.classes.get(kind).is_some() && collection.is_none() {
            if let Some(path) = self.attributes {
                return self.read_attribute(value, path, step, depth);
            }
            if !self.classes.is_metaclass(kind) {
                self.add(value, kind, step);
            }
            return Ok(());
        }
        let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
        if collection.is_some() && !self.collections.insert(value) {
            return Ok(());
        }
        // One more shows that there are more.
        let most = self.objects_left.saturating_add(1);
        if collection == Some(flag::TUPLE) {
            let items = self.interpreter.first_tuple_items(value, most)?;
            // (name, child) or (name, child, columns), as scikit-learn writes steps.
            if let [name, child, ..] = items.as_slice()
                && self.interpreter.type_of(*name)? == types.text
            {
                let name: Arc<str> = self.interpreter.text(*name)?.into();
                return self.read(*child, Some(&name), depth);
            }
            self.read_all(&items, step, depth)
        } else if collection == Some(flag::LIST) {
            self.read_all(&self.interpreter.first_list_items(value, most)?, step, depth)
        } else if collection == Some(flag::DICTIONARY) {
            for (key, child) in self.interpreter.first_dict_entries(value, most)? {
                if self.found.is_cut {
                    break;
                }
                let name = self.interpreter.text(key).ok().map(Arc::from);
                self.read(child, name.as_ref().or(step), depth)?;
            }
            Ok(())
        } else if self.is_array(kind)? {
            let items = object_array::items(self.interpreter, value, most)?;
            self.read_all(&items, step, depth)
        } else {
            Ok(())
        }
    }

    /// Takes up what an attribute of an object holds that stands around children.
    fn read_attribute(
        &mut self,
        object: RemoteAddress,
        path: &'look str,
        step: Option<&Arc<str>>,
        depth: usize,
    ) -> Result<(), ReadProblem> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
        if let Some(value) = self.interpreter.instance_attribute(object, name)? {
            self.attributes = rest;
            let read = self.read(value, step, depth);
            self.attributes = Some(path);
            read?;
        }
        Ok(())
    }

    /// Whether a type is that of numpy's arrays. A list holds objects of one type, mostly.
    fn is_array(&mut self, kind: RemoteAddress) -> Result<bool, ReadProblem> {
        if let Some((known, is_array)) = self.arrays
            && known == kind
        {
            return Ok(is_array);
        }
        let is_array = self.interpreter.static_name(kind)? == "numpy.ndarray";
        self.arrays = Some((kind, is_array));
        Ok(is_array)
    }

    /// Takes up a child, unless it is there: a container may keep its children in two fields.
    fn add(&mut self, child: RemoteAddress, class: RemoteAddress, step: Option<&Arc<str>>) {
        let member = ContainerMember {
            container: self.container,
            container_class: Some(self.class),
            child,
            class: Some(class),
            step: step.cloned(),
        };
        if self.found.members.len() >= CHILD_LIMIT {
            self.found.is_cut = true;
        } else if self.children.insert(child) {
            self.found.members.push(member);
        }
    }

    /// Takes up items: first those that may be children, then what may hold more of them, which may be long.
    fn read_all(&mut self, items: &[RemoteAddress], step: Option<&Arc<str>>, depth: usize) -> Result<(), ReadProblem> {
        let types = self.interpreter.types();
        let mut later = Vec::new();
        for item in items {
            if self.found.is_cut {
                return Ok(());
            }
            let kind = self.interpreter.type_of(*item)?;
            if kind == types.list || kind == types.dict {
                later.push(*item);
            } else {
                self.read(*item, step, depth)?;
            }
        }
        for item in later {
            if self.found.is_cut {
                break;
            }
            self.read(item, step, depth)?;
        }
        Ok(())
    }
}
