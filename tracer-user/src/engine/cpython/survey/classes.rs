//! Places that look like types go in; the classes of the process, and what the symbol maps say about each, come out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::{ClassView, Interpreter, ReadProblem};
use super::modules::OwnModules;
use super::routes::{Framework, framework_of};
use crate::memory::Memory;
use crate::model::{Children, MODEL_METHODS, RemoteAddress};
use crate::symbol_map::PythonRules;

/// Most members of one class that are looked at for methods of models.
const MEMBER_LIMIT: usize = 1_000;

/// A class made at run time.
#[derive(Clone, Debug)]
pub(super) struct HeapClass {
    pub name: Arc<str>,
    /// Its name with the module.
    pub path: Arc<str>,
    pub module: Arc<str>,
    /// The class itself first.
    pub mro: Vec<RemoteAddress>,
    pub dict: Option<RemoteAddress>,
    /// Its `tp_name`: another one stands where another class took the place of a freed one.
    tp_name: u64,
    /// Whether a look before the one that read it had seen it: then it was made, and in its module, before this one began.
    is_whole: bool,
    pub rule: Option<Arc<ClassRule>>,
    /// What its objects are applications of.
    pub framework: Option<Framework>,
    /// Where no map is about it: the methods of models that it has, if it is the application's own.
    pub model_methods: Vec<&'static str>,
}

/// What a symbol map says about a class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ClassRule {
    pub library: Arc<str>,
    pub methods: Vec<Arc<str>>,
    pub nests: bool,
    pub children: Option<Children>,
    pub excluded: Option<String>,
}

/// The classes of a process, kept from one look to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    known: HashMap<RemoteAddress, Arc<HeapClass>>,
    /// Those that this look has seen.
    seen: HashSet<RemoteAddress>,
    metaclasses: HashSet<RemoteAddress>,
    /// `type`.
    root: Option<RemoteAddress>,
    /// Dotted paths of the types that are bases, those written in C among them.
    paths: HashMap<RemoteAddress, String>,
}

impl Classes {
    pub(super) fn get(&self, address: RemoteAddress) -> Option<&HeapClass> {
        self.known.get(&address).map(|class| &**class)
    }

    pub(super) fn is_metaclass(&self, address: RemoteAddress) -> bool {
        self.metaclasses.contains(&address)
    }

    pub(super) fn metaclasses(&self) -> impl Iterator<Item = RemoteAddress> {
        self.metaclasses.iter().copied()
    }

    /// Classes that a map is about.
    pub(super) fn traced(&self) -> impl Iterator<Item = (RemoteAddress, &HeapClass, &Arc<ClassRule>)> {
        self.known.iter().filter_map(|(address, class)| Some((*address, &**class, class.rule.as_ref()?)))
    }

    /// Classes of applications of web frameworks.
    pub(super) fn applications(&self) -> impl Iterator<Item = RemoteAddress> {
        self.known.iter().filter(|(_, class)| class.framework.is_some()).map(|(address, _)| *address)
    }

    /// Classes of the application that no map is about and that have a method of a model.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = (RemoteAddress, &HeapClass)> {
        let unnamed = |class: &HeapClass| class.rule.is_none() && !class.model_methods.is_empty();
        self.known.iter().filter(move |(_, class)| unnamed(class)).map(|(address, class)| (*address, &**class))
    }

    /// Begins a new look: whatever is not seen in it is forgotten by [`Self::forget_unseen`].
    /// `root` is the type of types.
    pub(super) fn begin(&mut self, root: RemoteAddress) {
        self.metaclasses.insert(root);
        self.root = Some(root);
        self.seen.clear();
    }

    /// Forgets the classes that this look has not seen. A look that was cut short has not seen all that are there: then those
    /// stay that still read as they did.
    pub(super) fn forget_unseen<M: Memory>(&mut self, interpreter: &Interpreter<M>, is_cut: bool) {
        let seen = std::mem::take(&mut self.seen);
        let metaclasses = &self.metaclasses;
        let is_there = |address: RemoteAddress, class: &HeapClass| {
            let is_class = interpreter.type_of(address).is_ok_and(|kind| metaclasses.contains(&kind));
            is_class && interpreter.u64(address, interpreter.layout.class.tp_name) == Ok(class.tp_name)
        };
        self.known.retain(|address, class| seen.contains(address) || (is_cut && is_there(*address, class)));
        self.metaclasses.retain(|address| self.root == Some(*address) || self.known.contains_key(address));
        // A path is asked for again only when a new class has that base.
        self.paths.clear();
    }

    /// Classes that are known.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// Takes up a place that looks like a class. `tp_name` is what stands in its `tp_name`.
    ///
    /// What the first look reads of a class may be half of it: the program goes on making it, and a page that was read before
    /// may be kept beside one that is read after. The second look reads it again, and that is kept.
    ///
    /// # Errors
    /// It is a class that was changing all the time while it was read.
    pub(super) fn learn<M: Memory>(
        &mut self,
        interpreter: &Interpreter<M>,
        (rules, modules): (&PythonRules, &OwnModules),
        address: RemoteAddress,
        tp_name: u64,
    ) -> Result<(), ReadProblem> {
        let known = self.known.get(&address).filter(|class| class.tp_name == tp_name);
        let (is_known, is_whole) = (known.is_some(), known.is_some_and(|class| class.is_whole));
        let is_of_this_look = is_known && !self.seen.insert(address);
        if is_whole || is_of_this_look {
            return Ok(());
        }
        let view = interpreter.retrying(|interpreter| interpreter.class(address))?;
        let mut paths = Vec::with_capacity(view.mro.len());
        for base in &view.mro {
            match self.paths.get(base) {
                Some(path) => paths.push(path.clone()),
                None => {
                    let path = interpreter.retrying(|interpreter| interpreter.class(*base))?.path();
                    self.paths.insert(*base, path.clone());
                    paths.push(path);
                }
            }
        }
        if view.mro.contains(&interpreter.types().class) {
            self.metaclasses.insert(address);
        }
        let is_own = modules.contains(&view.module);
        let rule = rules.verdict(&paths, is_own).map(|verdict| {
            Arc::new(ClassRule {
                library: verdict.library.into(),
                methods: verdict.methods.iter().map(|method| method.as_str().into()).collect(),
                nests: verdict.nests,
                children: verdict.children.filter(|children| lists_any(children)).cloned(),
                excluded: verdict.excluded.map(str::to_owned),
            })
        });
        if rule.is_some() && interpreter.confirmed(|interpreter| interpreter.class(address))? != view {
            return Err(ReadProblem::Torn { address, what: "class" });
        }
        let is_model = is_own && rule.is_none() && !self.metaclasses.contains(&address);
        let model_methods = if is_model { Self::model_methods(interpreter, modules, &view) } else { Vec::new() };
        let class = HeapClass {
            name: view.name.as_str().into(),
            path: paths.first().map(String::as_str).unwrap_or_default().into(),
            module: view.module.as_str().into(),
            mro: view.mro,
            dict: view.dict,
            tp_name,
            is_whole: is_known,
            rule,
            framework: framework_of(&paths),
            model_methods,
        };
        self.seen.insert(address);
        self.known.insert(address, Arc::new(class));
        Ok(())
    }

    /// Which methods of models a class and its bases in the application define: functions whose frame ends with the call. What
    /// cannot be read is not told.
    fn model_methods<M: Memory>(
        interpreter: &Interpreter<M>,
        modules: &OwnModules,
        view: &ClassView,
    ) -> Vec<&'static str> {
        let mut found = HashSet::new();
        for base in &view.mro {
            let read = |interpreter: &Interpreter<M>| {
                let base = interpreter.class(*base)?;
                let dict = base.dict.filter(|_| modules.contains(&base.module));
                let members =
                    dict.map_or_else(|| Ok(Vec::new()), |dict| interpreter.first_dict_entries(dict, MEMBER_LIMIT));
                let mut methods = Vec::new();
                for (name, value) in members? {
                    for method in MODEL_METHODS {
                        if interpreter.text_is(name, method)? && is_plain_function(interpreter, value)? {
                            methods.push(method);
                        }
                    }
                }
                Ok(methods)
            };
            found.extend(interpreter.retrying(read).unwrap_or_default());
        }
        MODEL_METHODS.into_iter().filter(|method| found.contains(method)).collect()
    }

    /// Has the map of a container be about the class of one of its children, which none is about.
    pub(super) fn adopt(&mut self, address: RemoteAddress, container: &ClassRule) {
        if let Some(class) = self.known.get_mut(&address) {
            Arc::make_mut(class).rule.get_or_insert_with(|| {
                Arc::new(ClassRule {
                    library: container.library.clone(),
                    methods: container.methods.clone(),
                    nests: false,
                    children: None,
                    excluded: None,
                })
            });
        }
    }
}

/// Whether a member of a class is a function that is neither a generator nor a coroutine.
fn is_plain_function<M: Memory>(interpreter: &Interpreter<M>, member: RemoteAddress) -> Result<bool, ReadProblem> {
    if interpreter.type_of(member)? != interpreter.types().function {
        return Ok(false);
    }
    Ok(!interpreter.code(interpreter.function(member)?.code)?.is_resumed())
}

/// Whether children are kept in any field: a class may be one that is looked into and keeps none.
fn lists_any(children: &Children) -> bool {
    !children.fields().is_empty()
}
