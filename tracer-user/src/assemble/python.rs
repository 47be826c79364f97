//! What is known of the Python classes and objects that records name by address.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tracer_common::limits::MAX_PROCESSES;

use crate::model::{ContainerMember, FunctionDescription, FunctionId, PythonNames, RemoteAddress};

/// Gives the bare name of the class whose type object is at an address of a process (its number in the initial pid
/// namespace). Called when a record names a class that no [`PythonNames`] did, and again for each record as long as it gives
/// none; once it has, the name holds until the next [`PythonNames`] come. It must not take long.
pub type PythonClassNames = Box<dyn FnMut(u32, RemoteAddress) -> Option<Arc<str>> + Send>;

/// Processes remembered at one time: twice what can be watched, because the end of a process is not announced.
const MAX_TRACKED_PROCESSES: usize = 2 * MAX_PROCESSES as usize;
/// Classes remembered of one process, beyond those that its last names told.
const MAX_CLASSES: usize = 16_384;
/// Classes of one process that were asked for and are remembered: exception classes above all.
const MAX_ASKED: usize = 1_024;

/// Names of classes and steps, by process.
pub struct PythonObjects {
    ask: PythonClassNames,
    processes: FxHashMap<u32, ProcessNames>,
    updates: u64,
}

/// One process. Its addresses are chosen by the traced program, so these tables hash with the standard library's keys.
#[derive(Default)]
struct ProcessNames {
    classes: HashMap<RemoteAddress, Class>,
    /// Classes that were asked for.
    asked: HashMap<RemoteAddress, Class>,
    steps: HashMap<RemoteAddress, Step>,
    /// Classes of containers.
    containers: HashSet<RemoteAddress>,
    /// What each container lists.
    listed: HashMap<RemoteAddress, Vec<Listed>>,
    last_update: u64,
}

/// What containers say of an object that they list.
struct Step {
    /// Its name; `None` where they disagree.
    name: Option<Arc<str>>,
    class: Option<RemoteAddress>,
}

/// An object that a container lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The class of the container.
    container_class: Option<RemoteAddress>,
    /// The object.
    pub object: RemoteAddress,
    /// Its class.
    pub class: RemoteAddress,
    /// Its name in the list, if the list has names.
    pub step: Option<Arc<str>>,
}

struct Class {
    name: Arc<str>,
    /// Functions that were called on objects of this class, under its name.
    functions: FxHashMap<FunctionId, Arc<FunctionDescription>>,
}

impl PythonObjects {
    /// Nothing is known yet.
    pub fn new(ask: PythonClassNames) -> Self {
        Self { ask, processes: FxHashMap::default(), updates: 0 }
    }

    /// Takes names. Classes are added to the known ones, and those asked for are asked for again: an address can have
    /// become another class. Members take the place of the known ones.
    pub fn learn(&mut self, names: PythonNames) {
        let PythonNames { process, is_first, classes, members, containers, .. } = names;
        if is_first {
            self.forget(process);
        }
        let known = self.interpreter(process);
        known.asked.clear();
        if known.classes.len() + classes.len() > MAX_CLASSES {
            known.classes.clear();
        }
        for (address, name) in classes {
            if known.classes.get(&address).is_none_or(|class| class.name != name) {
                known.classes.insert(address, Class::new(name));
            }
        }
        known.steps = steps_of(&members);
        known.containers = containers.into_iter().collect();
        known.listed = listed_in(members);
    }

    /// The process number belongs to another process now.
    pub fn forget(&mut self, process: u32) {
        self.processes.remove(&process);
    }

    /// Bare name of a class.
    pub fn class_name(&mut self, process: u32, address: RemoteAddress) -> Option<Arc<str>> {
        self.class(process, address).map(|class| Arc::clone(&class.name))
    }

    /// The function under the name of a class, `{Class}.{method}`; `None` if the class is not known.
    pub fn named_after(
        &mut self,
        process: u32,
        address: RemoteAddress,
        function: &FunctionDescription,
        method: &str,
    ) -> Option<Arc<FunctionDescription>> {
        let class = self.class(process, address)?;
        let name = &class.name;
        let named = class.functions.entry(function.id).or_insert_with(|| {
            Arc::new(FunctionDescription { span_name: format!("{name}.{method}").into(), ..function.clone() })
        });
        Some(Arc::clone(named))
    }

    /// Name of the object in the list of its container, if all containers that list it agree. An object of another class
    /// than the listed one is not that one: it has been freed, and its memory used again.
    pub fn step(&self, process: u32, object: RemoteAddress, class: Option<RemoteAddress>) -> Option<Arc<str>> {
        let step = self.processes.get(&process)?.steps.get(&object)?;
        let is_other = step.class.zip(class).is_some_and(|(listed, called)| listed != called);
        step.name.clone().filter(|_| !is_other)
    }

    /// What a container of this class lists, as far as the class of each object is known; `None` if it is one into which nobody has looked. An object
    /// of another class than the one that was looked into is not that one.
    pub fn listed_in(&self, process: u32, container: RemoteAddress, class: Option<RemoteAddress>) -> Option<&[Listed]> {
        let Some(known) = self.processes.get(&process) else { return Some(&[]) };
        let is_it = |listed: &&Vec<Listed>| {
            let looked_into = listed.first().and_then(|first| first.container_class);
            looked_into.zip(class).is_none_or(|(looked_into, class)| looked_into == class)
        };
        match known.listed.get(&container).filter(is_it) {
            Some(listed) => Some(listed),
            None if class.is_some_and(|class| known.containers.contains(&class)) => None,
            None => Some(&[]),
        }
    }

    /// Bare name of a class of which names were told.
    pub fn told_class(&self, process: u32, class: RemoteAddress) -> Option<&Arc<str>> {
        self.processes.get(&process)?.classes.get(&class).map(|class| &class.name)
    }

    fn class(&mut self, process: u32, address: RemoteAddress) -> Option<&mut Class> {
        if !self.processes.get(&process).is_some_and(|known| known.knows(address)) {
            // Whoever is asked may know it next time: only a name is remembered.
            let answer = (self.ask)(process, address).map(Class::new)?;
            let known = self.interpreter(process);
            if known.asked.len() >= MAX_ASKED {
                known.asked.clear();
            }
            known.asked.insert(address, answer);
        }
        let ProcessNames { classes, asked, .. } = self.processes.get_mut(&process)?;
        classes.get_mut(&address).or_else(|| asked.get_mut(&address))
    }

    /// What is known of a process; the one that has learned nothing for longest gives way to a new one.
    fn interpreter(&mut self, process: u32) -> &mut ProcessNames {
        self.updates += 1;
        if self.processes.len() >= MAX_TRACKED_PROCESSES && !self.processes.contains_key(&process) {
            let oldest = self.processes.iter().min_by_key(|(_, known)| known.last_update).map(|(number, _)| *number);
            oldest.and_then(|number| self.processes.remove(&number));
        }
        let known = self.processes.entry(process).or_default();
        known.last_update = self.updates;
        known
    }
}

impl ProcessNames {
    fn knows(&self, address: RemoteAddress) -> bool {
        self.classes.contains_key(&address) || self.asked.contains_key(&address)
    }
}

impl Class {
    fn new(name: Arc<str>) -> Self {
        Self { name, functions: FxHashMap::default() }
    }
}

/// The name of each listed object. An object can be in several lists; of those of one container the ones with names count.
fn steps_of(members: &[ContainerMember]) -> HashMap<RemoteAddress, Step> {
    let place = |member: &ContainerMember| (member.container, member.child);
    let named: HashSet<_> = members.iter().filter(|member| member.step.is_some()).map(place).collect();
    let mut steps: HashMap<RemoteAddress, Step> = HashMap::new();
    for member in members.iter().filter(|member| member.step.is_some() || !named.contains(&place(member))) {
        let step = steps.entry(member.child).or_insert_with(|| Step { name: member.step.clone(), class: member.class });
        if step.name != member.step {
            step.name = None;
        }
    }
    steps
}

/// What each container lists, in its order.
fn listed_in(members: Vec<ContainerMember>) -> HashMap<RemoteAddress, Vec<Listed>> {
    let mut listed: HashMap<RemoteAddress, Vec<Listed>> = HashMap::new();
    for ContainerMember { container, container_class, child, class, step } in members {
        if let Some(class) = class {
            listed.entry(container).or_default().push(Listed { container_class, object: child, class, step });
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(container: u64, child: u64, step: Option<&str>) -> ContainerMember {
        ContainerMember {
            container: RemoteAddress(container),
            container_class: None,
            child: RemoteAddress(child),
            class: None,
            step: step.map(Into::into),
        }
    }

    #[test]
    fn a_step_is_named_where_its_containers_agree() {
        let steps = steps_of(&[
            member(1, 10, Some("scaler")),
            member(1, 11, Some("clf")),
            member(2, 11, Some("clf")), // a slice of the pipeline
            member(1, 12, Some("poly")),
            member(2, 12, Some("features")),
            member(1, 13, Some("inner")),
            member(2, 13, None), // a plain list of another container
            member(3, 14, None),
            member(3, 14, Some("tree")), // two lists of one container
            member(4, 15, Some("twice")),
            member(4, 15, Some("again")),
        ]);
        let step = |child| steps.get(&RemoteAddress(child)).and_then(|step| step.name.as_deref());
        assert_eq!((step(10), step(11), step(12)), (Some("scaler"), Some("clf"), None));
        assert_eq!((step(13), step(14), step(15), step(99)), (None, Some("tree"), None, None));
    }

    #[test]
    fn classes_are_asked_for_until_there_is_a_name_and_again_when_new_names_come() {
        let (count, counted) = std::sync::mpsc::channel();
        let mut objects = PythonObjects::new(Box::new(move |process, address| {
            count.send((process, address.0)).expect("the test listens");
            (address.0 % 2 == 0).then(|| format!("Class{}", address.0).into())
        }));
        let names = |classes: &[(u64, &str)]| PythonNames {
            process: 7,
            is_first: false,
            classes: classes.iter().map(|(address, name)| (RemoteAddress(*address), (*name).into())).collect(),
            ..PythonNames::default()
        };
        objects.learn(names(&[(4, "Known")]));
        for _ in 0..3 {
            assert_eq!(objects.class_name(7, RemoteAddress(4)).as_deref(), Some("Known"));
            assert_eq!(objects.class_name(7, RemoteAddress(6)).as_deref(), Some("Class6"));
            assert_eq!(objects.class_name(7, RemoteAddress(5)), None);
            assert_eq!(objects.class_name(8, RemoteAddress(4)).as_deref(), Some("Class4"));
        }
        assert_eq!(counted.try_iter().collect::<Vec<_>>(), [(7, 6), (7, 5), (8, 4), (7, 5), (7, 5)]);

        objects.learn(names(&[(4, "Renamed"), (5, "Read")]));
        assert_eq!(objects.class_name(7, RemoteAddress(4)).as_deref(), Some("Renamed"));
        assert_eq!(objects.class_name(7, RemoteAddress(5)).as_deref(), Some("Read"));
        assert_eq!(objects.class_name(7, RemoteAddress(6)).as_deref(), Some("Class6"));
        assert_eq!(counted.try_iter().collect::<Vec<_>>(), [(7, 6)]);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut objects = PythonObjects::new(Box::new(|_, _| Some("C".into())));
        for number in 0..100_000 {
            objects.class_name(number % 5_000, RemoteAddress(u64::from(number)));
            objects.class_name(1, RemoteAddress(u64::from(number)));
        }
        assert!(objects.processes.len() <= MAX_TRACKED_PROCESSES);
        assert!(objects.processes.values().all(|known| known.asked.len() <= MAX_ASKED));
        for round in 0..100_u64 {
            let classes = (0..1_000).map(|number| (RemoteAddress(round * 1_000 + number), "C".into())).collect();
            objects.learn(PythonNames { process: 1, classes, ..PythonNames::default() });
        }
        assert!(objects.processes[&1].classes.len() <= MAX_CLASSES);
    }
}
