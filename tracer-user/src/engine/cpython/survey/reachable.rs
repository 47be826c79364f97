//! The modules of a process go in; the traced objects that their variables lead to, and the traced classes that the
//! application names, come out.

use std::collections::{HashSet, VecDeque};

use super::super::type_facts::flag;
use super::super::{Interpreter, ReadProblem};
use super::classes::Classes;
use super::modules::{Module, OwnModules};
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Steps from a variable of the application to an object: `app` > its attributes > `state` > its attributes > `models` >
/// the model.
const DEPTH_LIMIT: u8 = 6;
/// Objects that are looked into in all.
const OBJECT_LIMIT: usize = 3_000;
/// Items that are taken from one of them.
const ITEM_LIMIT: usize = 1_000;

/// What the variables of modules lead to.
pub(super) struct Reachable {
    /// Traced objects.
    pub objects: HashSet<RemoteAddress>,
    /// Those of them that are reached without going through another traced object: no other model holds them.
    pub roots: HashSet<RemoteAddress>,
    /// Classes that a variable of the application itself holds: it has imported them by name, or made them.
    pub classes: HashSet<RemoteAddress>,
}

/// The objects among `wanted` that a module variable holds, or, for modules of the application itself, that objects in
/// its variables hold (dictionaries, lists, attributes, closures).
pub(super) fn from_modules<M: Memory>(
    interpreter: &Interpreter<M>,
    classes: &Classes,
    (modules, own_modules): (&[Module], &OwnModules),
    wanted: &HashSet<RemoteAddress>,
    is_partial: bool,
) -> Reachable {
    let mut named = HashSet::new();
    let mut walk = Walk {
        interpreter,
        classes,
        wanted,
        is_partial,
        own_modules,
        reachable: HashSet::new(),
        roots: HashSet::new(),
        seen: HashSet::new(),
        queue: VecDeque::new(),
    };
    for Module { is_own, variables, .. } in modules {
        for (_, value) in variables {
            if *is_own && classes.get(*value).is_some() {
                named.insert(*value);
            }
            walk.meet(*value, if *is_own { 1 } else { DEPTH_LIMIT }, false);
        }
    }
    walk.go();
    Reachable { objects: walk.reachable, roots: walk.roots, classes: named }
}

struct Walk<'look, M> {
    interpreter: &'look Interpreter<M>,
    classes: &'look Classes,
    wanted: &'look HashSet<RemoteAddress>,
    is_partial: bool,
    /// Modules of the application.
    own_modules: &'look OwnModules,
    reachable: HashSet<RemoteAddress>,
    roots: HashSet<RemoteAddress>,
    seen: HashSet<RemoteAddress>,
    /// Objects to look into, how far they are from a variable, and whether a traced object leads to them.
    queue: VecDeque<(RemoteAddress, u8, bool)>,
}

impl<M: Memory> Walk<'_, M> {
    fn meet(&mut self, object: RemoteAddress, depth: u8, is_inside: bool) {
        let is_traced = self.wanted.contains(&object) || (self.is_partial && self.is_traced(object));
        if is_traced {
            self.reachable.insert(object);
            if !is_inside {
                self.roots.insert(object);
            }
        }
        if depth < DEPTH_LIMIT && self.seen.insert(object) {
            self.queue.push_back((object, depth, is_inside || is_traced));
        }
    }

    fn is_traced(&self, object: RemoteAddress) -> bool {
        let class = self.interpreter.type_of(object).ok().and_then(|kind| self.classes.get(kind));
        class.is_some_and(|class| class.rule.is_some())
    }

    fn go(&mut self) {
        for _ in 0..OBJECT_LIMIT {
            let Some((object, depth, is_inside)) = self.queue.pop_front() else { return };
            for inner in self.held_by(object).unwrap_or_default().into_iter().take(ITEM_LIMIT) {
                self.meet(inner, depth + 1, is_inside);
            }
        }
    }

    fn held_by(&self, object: RemoteAddress) -> Result<Vec<RemoteAddress>, ReadProblem> {
        let types = self.interpreter.types();
        let (kind, facts) = self.interpreter.facts_of(object)?;
        let values =
            |entries: Vec<(RemoteAddress, RemoteAddress)>| entries.into_iter().map(|(_, value)| value).collect();
        // `OrderedDict` and `defaultdict` are written in C; what a class of the application's keeps besides is looked at below.
        let is_class = self.classes.get(kind).is_some();
        if facts.has(flag::DICTIONARY) && !is_class {
            self.interpreter.first_dict_entries(object, ITEM_LIMIT).map(values)
        } else if kind == types.list {
            self.interpreter.first_list_items(object, ITEM_LIMIT)
        } else if kind == types.tuple {
            self.interpreter.first_tuple_items(object, ITEM_LIMIT)
        } else if types.method == Some(kind) {
            self.interpreter.method(object).map(|method| vec![method.receiver])
        } else if kind == types.function {
            let Some(closure) = self.interpreter.function(object)?.closure else { return Ok(Vec::new()) };
            let cells = self.interpreter.first_tuple_items(closure, ITEM_LIMIT)?;
            Ok(cells.into_iter().filter_map(|cell| self.interpreter.cell(cell).ok().flatten()).collect())
        } else if self.classes.is_metaclass(kind) {
            let own = self.classes.get(object).filter(|class| self.own_modules.contains(&class.module));
            let dict = own.and_then(|class| class.dict);
            dict.map_or_else(
                || Ok(Vec::new()),
                |dict| self.interpreter.first_dict_entries(dict, ITEM_LIMIT).map(values),
            )
        } else if is_class {
            let mut held = self.interpreter.instance_attributes(object)?.into_iter().map(|(_, value)| value).collect();
            if facts.has(flag::DICTIONARY) {
                let items: Vec<RemoteAddress> = self.interpreter.first_dict_entries(object, ITEM_LIMIT).map(values)?;
                held = [held, items].concat();
            }
            Ok(held)
        } else {
            Ok(Vec::new())
        }
    }
}
