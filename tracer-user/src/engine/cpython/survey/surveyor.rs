//! One look at a process after the other: what was learnt about its classes is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Interpreter, ReadProblem};
use super::catalog::Catalog;
use super::classes::Classes;
use super::instances::Standing;
use super::left_out::LeftOut;
use super::methods::Methods;
use super::modules::{self, Module, OwnModules};
use super::routes::Framework;
use super::scan::{AddressSet, Extent, scan};
use super::{children, current_span, instances, reachable, routes};
use crate::memory::{Memory, MemoryError, ReadLimit};
use crate::model::{
    Children, ContainerMember, FEW, MODEL_METHODS, PythonClass, PythonSurvey, RemoteAddress, UnnamedClass,
};
use crate::symbol_map::PythonRules;

/// Times that memory is gone through in one look: for classes, for those of metaclasses, of metaclasses of these, and
/// for the objects of classes that were found last.
const PASS_LIMIT: usize = 5;

/// Processor time that the parts of a look take at most. Each part has its own, so that what one of them does not get
/// through is all that is missing.
const SEARCHING: Duration = Duration::from_millis(1500);
const READING_CHILDREN: Duration = Duration::from_millis(500);
const WALKING: Duration = Duration::from_millis(500);
const DESCRIBING: Duration = Duration::from_millis(1000);

/// What a look keeps at most: a process may hold any number of everything.
const OBJECT_LIMIT: usize = 200_000;
const OBJECTS_OF_CLASS: usize = 20_000;
const FUNCTION_LIMIT: usize = 400_000;
const CLASS_LIMIT: usize = 40_000;
const TRACED_LIMIT: usize = 4_096;
const DESCRIBED_LIMIT: usize = 16_384;
const MEMBER_LIMIT: usize = 16_384;
const UNNAMED_LIMIT: usize = 256;
const APPLICATION_LIMIT: usize = 1_024;

/// Containers that are asked for what they hold.
const HELD_LIMIT: usize = 1_000;

/// Objects of a class that looks like a model are counted so far.
const MOST_COUNTED: u32 = 1_000;

/// Looks for what the symbol maps ask for in the memory of a process.
#[derive(Clone, Debug)]
pub struct Surveyor {
    rules: Arc<PythonRules>,
    classes: Classes,
    extent: Extent,
    /// The type of numpy's arrays, once it was found.
    array_type: Option<RemoteAddress>,
    /// Whether the routes of web applications are asked for.
    reads_routes: bool,
}

/// What one look finds in memory.
#[derive(Debug, Default)]
struct Finds {
    /// Places that look like classes, with their `tp_name`.
    classes: Vec<(RemoteAddress, u64, Standing)>,
    /// Functions with their code.
    functions: Vec<(RemoteAddress, RemoteAddress)>,
    /// Live objects by class.
    objects: HashMap<RemoteAddress, Vec<RemoteAddress>>,
    /// Live objects of classes that look like models, counted.
    unnamed: HashMap<RemoteAddress, u32>,
    /// Live applications of web frameworks.
    applications: Vec<(RemoteAddress, Framework)>,
    /// Children of containers, by classes that no map is about.
    adopted: BTreeMap<RemoteAddress, BTreeSet<RemoteAddress>>,
}

impl Surveyor {
    /// A surveyor that knows the rules and no process yet.
    #[must_use]
    pub fn new(rules: Arc<PythonRules>) -> Self {
        Self { rules, classes: Classes::default(), extent: Extent::default(), array_type: None, reads_routes: false }
    }

    /// The same, which reads the routes of web applications.
    #[must_use]
    pub fn reading_routes(self, reads_routes: bool) -> Self {
        Self { reads_routes, ..self }
    }

    /// Bytes of memory that the last look went through; 0 if it could not read any.
    #[must_use]
    pub fn memory_read(&self) -> u64 {
        self.extent.read
    }

    /// Looks at a process that is running. `heap` is its memory without a cache, `ranges` are those of its heap, see
    /// [`crate::memory::heap_ranges`]. `limit` is the one under which both are read.
    pub fn look<M: Memory>(
        &mut self,
        interpreter: &Interpreter<M>,
        heap: &impl Memory,
        ranges: &[Range<RemoteAddress>],
        limit: &ReadLimit,
    ) -> PythonSurvey {
        interpreter.memory().refresh();
        let mut survey = PythonSurvey::default();
        let mut left = LeftOut::default();
        limit.allow(WALKING);
        let (modules, own_modules) = modules::of(interpreter);
        self.array_type = self.array_type.or_else(|| modules::array_type(interpreter, &modules));
        survey.array_type = self.array_type;
        survey.current_span = current_span::of(interpreter, &modules);
        limit.allow(SEARCHING);
        let mut finds = self.search(interpreter, &own_modules, (heap, ranges), (&mut survey, &mut left));
        let is_cut = limit.is_over();
        limit.allow(WALKING);
        self.classes.forget_unseen(interpreter, is_cut);
        let modules = (modules.as_slice(), &own_modules);
        let mut reachable = self.reachable(interpreter, modules, &mut finds, left.objects > 0);
        left.walk = limit.is_over();
        if self.reads_routes {
            survey.routes = routes::of(interpreter, &finds.applications);
        }
        limit.allow(READING_CHILDREN);
        survey.members = self.members(interpreter, &mut finds, &reachable, (&mut survey.torn_reads, &mut left));
        reachable.roots.extend(alone(interpreter, &survey.members, &reachable.objects));
        reachable.objects.extend(survey.members.iter().flat_map(|member| [member.container, member.child]));
        limit.allow(DESCRIBING);
        self.describe(interpreter, &finds, &reachable, (&mut survey, &mut left, limit));
        survey.unnamed = self.unnamed(&finds);
        survey.not_looked_at = left.told();
        survey
    }

    /// Goes through memory until all classes that a map is about, and their objects, are found: once if nothing new is
    /// there.
    fn search<M: Memory>(
        &mut self,
        interpreter: &Interpreter<M>,
        own_modules: &OwnModules,
        (heap, ranges): (&impl Memory, &[Range<RemoteAddress>]),
        (survey, left): (&mut PythonSurvey, &mut LeftOut),
    ) -> Finds {
        let types = interpreter.types();
        let layout = &interpreter.layout;
        let (code, name) = (layout.function.func_code as isize, layout.class.tp_name as isize);
        let mut finds = Finds::default();
        let mut searched = HashSet::new();
        self.classes.begin(types.class);
        let mut next: HashSet<RemoteAddress> = self.sought().chain([types.function]).collect();
        for _ in 0..PASS_LIMIT {
            if next.is_empty() {
                break;
            }
            let sought: AddressSet = next.iter().copied().collect();
            let mut objects_left = OBJECT_LIMIT.saturating_sub(finds.objects.values().map(Vec::len).sum());
            let extent = scan(heap, ranges, &sought, |candidate| {
                if !instances::is_referenced(&candidate) {
                    return;
                }
                if candidate.kind == types.function {
                    if finds.functions.len() >= FUNCTION_LIMIT {
                        left.functions += 1;
                        return;
                    }
                    finds.functions.extend(candidate.u64(code).map(|code| (candidate.address, RemoteAddress(code))));
                } else if self.classes.is_metaclass(candidate.kind) {
                    let standing = instances::standing(interpreter, &candidate);
                    let Some(name) = candidate.u64(name).filter(|_| standing != Standing::Nothing) else { return };
                    let is_full = self.classes.count() + finds.classes.len() >= CLASS_LIMIT;
                    if is_full && self.classes.get(candidate.address).is_none() {
                        left.classes += 1;
                        return;
                    }
                    finds.classes.push((candidate.address, name, standing));
                } else if let Some(framework) = self.framework(candidate.kind) {
                    if finds.applications.len() < APPLICATION_LIMIT && instances::is_live(interpreter, &candidate) {
                        finds.applications.push((candidate.address, framework));
                    }
                } else if self.classes.get(candidate.kind).is_some_and(|class| class.rule.is_none()) {
                    let count = finds.unnamed.entry(candidate.kind).or_default();
                    if *count < MOST_COUNTED && instances::is_live(interpreter, &candidate) {
                        *count += 1;
                    }
                } else {
                    let objects = finds.objects.entry(candidate.kind).or_default();
                    if objects.len() >= OBJECTS_OF_CLASS || objects_left == 0 {
                        left.objects += 1;
                    } else if instances::is_live(interpreter, &candidate) {
                        objects.push(candidate.address);
                        objects_left -= 1;
                    }
                }
            });
            if searched.is_empty() {
                self.extent = extent;
            }
            left.memory = left.memory.max(extent.left_out);
            searched.extend(next);
            for (address, name, standing) in finds.classes.drain(..) {
                let is_torn = self.classes.learn(interpreter, (&self.rules, own_modules), address, name).is_err();
                survey.torn_reads += u64::from(is_torn && standing == Standing::Linked);
            }
            // A map is about it after all: its objects were only counted.
            let is_traced = |class: &RemoteAddress| self.classes.get(*class).is_some_and(|class| class.rule.is_some());
            finds.unnamed.extract_if(|class, _| is_traced(class)).for_each(|(class, _)| {
                searched.remove(&class);
            });
            next = self.sought().filter(|address| !searched.contains(address)).collect();
        }
        finds
    }

    /// Types whose objects are looked for: metaclasses, the classes that a map is about, those that look like models, and those of
    /// web applications.
    fn sought(&self) -> impl Iterator<Item = RemoteAddress> {
        let traced = self.classes.traced().map(|(address, ..)| address);
        let applications = self.reads_routes.then(|| self.classes.applications()).into_iter().flatten();
        let unnamed = self.classes.unnamed().map(|(address, _)| address);
        self.classes.metaclasses().chain(traced).chain(unnamed).chain(applications)
    }

    /// What an object of this class is an application of, where that is asked for and no map is about the class.
    fn framework(&self, class: RemoteAddress) -> Option<Framework> {
        let class = self.classes.get(class).filter(|class| self.reads_routes && class.rule.is_none())?;
        class.framework
    }

    /// Classes of the application that look like models, have objects, and are no map's affair: those with the likeliest methods
    /// first.
    fn unnamed(&self, finds: &Finds) -> Vec<UnnamedClass> {
        let unnamed = self.classes.unnamed().filter_map(|(address, class)| {
            let objects = *finds.unnamed.get(&address).filter(|objects| **objects > 0)?;
            Some(UnnamedClass { class: Arc::clone(&class.path), methods: class.model_methods.clone(), objects })
        });
        let mut unnamed: Vec<UnnamedClass> = unnamed.collect();
        let rank = |class: &UnnamedClass| MODEL_METHODS.iter().position(|method| class.methods.first() == Some(method));
        unnamed.sort_by(|left, right| (rank(left), &left.class).cmp(&(rank(right), &right.class)));
        unnamed.truncate(UNNAMED_LIMIT);
        unnamed
    }

    /// The children of the live containers, those of models in use first. Children of classes that no map is about become
    /// objects to trace: their container's map decides about them.
    fn members<M: Memory>(
        &mut self,
        interpreter: &Interpreter<M>,
        finds: &mut Finds,
        reachable: &reachable::Reachable,
        (torn_reads, left): (&mut u64, &mut LeftOut),
    ) -> Vec<ContainerMember> {
        let mut containers = Vec::new();
        for (address, class, rule) in self.classes.traced().filter(|(_, _, rule)| rule.children.is_some()) {
            for container in finds.objects.get(&address).into_iter().flatten() {
                let rank = (!reachable.objects.contains(container), *container);
                containers.push((rank, address, class.name.clone(), Arc::clone(rule)));
            }
        }
        containers.sort_unstable_by_key(|(rank, ..)| *rank);
        let mut members: Vec<ContainerMember> = Vec::new();
        let mut adopted = Vec::new();
        for ((_, container), address, name, rule) in containers {
            let Some(fields) = &rule.children else { continue };
            if members.len() >= MEMBER_LIMIT {
                left.add_container(&name);
                continue;
            }
            let found = match children::of(interpreter, &self.classes, (container, address), fields) {
                Ok(found) => found,
                Err(ReadProblem::Memory(MemoryError::OutOfTime)) => {
                    left.add_container(&name);
                    continue;
                }
                Err(_) => {
                    *torn_reads += 1;
                    continue;
                }
            };
            if found.is_cut {
                left.add_container(&name);
            }
            for member in &found.members {
                if let Ok(class) = interpreter.type_of(member.child)
                    && self.classes.get(class).is_some_and(|class| class.rule.is_none())
                {
                    adopted.push((class, member.child, rule.clone()));
                }
            }
            members.extend(found.members);
        }
        for (class, child, rule) in adopted {
            self.classes.adopt(class, &rule);
            finds.adopted.entry(class).or_default().insert(child);
        }
        for (class, children) in std::mem::take(&mut finds.adopted) {
            let objects = finds.objects.entry(class).or_default();
            let known: HashSet<RemoteAddress> = objects.iter().copied().collect();
            objects.extend(children.into_iter().filter(|child| !known.contains(child)));
        }
        members.sort_by_key(|member| member.container);
        members
    }

    /// Classes that are looked into only where their objects have few children, and that have an object with more.
    fn crowded<M: Memory>(&self, interpreter: &Interpreter<M>, members: &[ContainerMember]) -> HashSet<RemoteAddress> {
        let lists = members.chunk_by(|first, second| first.container == second.container);
        let long = lists.filter(|list| list.len() > FEW).filter_map(|list| list.first());
        let classes = long.filter_map(|member| interpreter.type_of(member.container).ok());
        let is_few = |class: &RemoteAddress| {
            let rule = self.classes.get(*class).and_then(|class| class.rule.as_ref());
            rule.is_some_and(|rule| matches!(rule.children, Some(Children::Few(_))))
        };
        classes.filter(is_few).collect()
    }

    /// Objects that are part of a model, as far as module variables lead to them. And the classes that the application names.
    /// `is_partial`: there are more objects than were kept; those that are part of a model are taken in here.
    fn reachable<M: Memory>(
        &self,
        interpreter: &Interpreter<M>,
        modules: (&[Module], &OwnModules),
        finds: &mut Finds,
        is_partial: bool,
    ) -> reachable::Reachable {
        let objects: HashSet<RemoteAddress> = finds.objects.values().flatten().copied().collect();
        let reachable = reachable::from_modules(interpreter, &self.classes, modules, &objects, is_partial);
        for object in reachable.objects.iter().filter(|object| !objects.contains(object)) {
            if let Ok(class) = interpreter.type_of(*object) {
                finds.objects.entry(class).or_default().push(*object);
            }
        }
        reachable
    }

    /// Fills in classes, functions, code, and what cannot be watched.
    fn describe<M: Memory>(
        &self,
        interpreter: &Interpreter<M>,
        finds: &Finds,
        reachable: &reachable::Reachable,
        (survey, left, limit): (&mut PythonSurvey, &mut LeftOut, &ReadLimit),
    ) {
        let mut methods = Methods::new(interpreter, &self.classes);
        let mut catalog = Catalog::default();
        let mut traced: Vec<_> = self.classes.traced().collect();
        let objects_of = |class| finds.objects.get(&class).map(Vec::as_slice).unwrap_or_default();
        let count = |objects: usize| u32::try_from(objects).unwrap_or(u32::MAX);
        let among =
            |class, set: &HashSet<RemoteAddress>| objects_of(class).iter().filter(|it| set.contains(it)).count();
        let in_models = |class| among(class, &reachable.objects);
        let crowded = self.crowded(interpreter, &survey.members);
        // What is in use comes first: there may be more than there is time for.
        traced.sort_by_cached_key(|(address, class, rule)| {
            let is_unused = (in_models(*address) == 0, objects_of(*address).is_empty());
            (is_unused, !reachable.classes.contains(address), rule.children.is_none(), class.path.clone(), *address)
        });
        for (address, class, rule) in traced {
            if limit.is_over() || survey.classes.len() >= TRACED_LIMIT || catalog.functions.len() >= DESCRIBED_LIMIT {
                left.undescribed += 1;
                continue;
            }
            let instances = count(objects_of(address).len());
            if rule.excluded.is_none() {
                let numbers = (instances, count(in_models(address)), count(among(address, &reachable.roots)));
                let has_any = catalog.add(&mut methods, interpreter, (class, rule), numbers);
                if !has_any {
                    continue;
                }
            }
            survey.classes.push(PythonClass {
                address,
                name: class.name.clone(),
                path: class.path.clone(),
                library: rule.library.clone(),
                nests: rule.nests && !crowded.contains(&address),
                is_container: rule.children.is_some(),
                lists_children: rule.children.as_ref().is_some_and(|children| !children.fields().is_empty()),
                excluded: rule.excluded.clone(),
                instances,
                is_named: reachable.classes.contains(&address),
            });
        }
        survey.classes.sort_by(|first, second| (&first.path, first.address).cmp(&(&second.path, second.address)));
        for (function, code) in &finds.functions {
            if !catalog.codes.contains_key(code) {
                continue;
            }
            if catalog.functions.len() >= DESCRIBED_LIMIT {
                left.functions += 1;
            } else {
                catalog.add_sharing(&mut methods, interpreter, *function);
            }
        }
        survey.torn_reads += methods.torn;
        survey.functions = catalog.functions.into_values().collect();
        survey.codes = catalog.codes.into_values().collect();
        survey.skipped = catalog.skipped;
    }
}

/// Containers that nothing of the application is known to lead to, and that no other one of these lists or holds: models of their
/// own, which are in the variables of a function that runs, for example.
fn alone<M: Memory>(
    interpreter: &Interpreter<M>,
    members: &[ContainerMember],
    reachable: &HashSet<RemoteAddress>,
) -> HashSet<RemoteAddress> {
    let containers = members.iter().map(|member| member.container);
    let mut alone: HashSet<RemoteAddress> = containers.filter(|object| !reachable.contains(object)).collect();
    // Unfitted copies of models are held and not listed.
    let held = alone.iter().take(HELD_LIMIT).filter_map(|object| interpreter.instance_attributes(*object).ok());
    let held: HashSet<RemoteAddress> = held.flatten().map(|(_, value)| value).collect();
    alone.retain(|object| !held.contains(object));
    members.iter().for_each(|member| {
        alone.remove(&member.child);
    });
    alone
}
