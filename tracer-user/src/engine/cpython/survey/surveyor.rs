//! One look at a process after the other: what was learnt about its classes is kept.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::super::Interpreter;
use super::catalog::Catalog;
use super::classes::Classes;
use super::instances::Standing;
use super::methods::Methods;
use super::scan::{AddressSet, Extent, scan};
use super::{children, instances, reach};
use crate::memory::{Memory, ReadLimit};
use crate::model::{ContainerMember, PythonClass, PythonSurvey, RemoteAddress};
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

/// Looks for what the symbol maps ask for in the memory of a process.
#[derive(Clone, Debug)]
pub struct Surveyor {
    rules: Arc<PythonRules>,
    classes: Classes,
    extent: Extent,
}

/// What one look finds in memory.
#[derive(Debug, Default)]
struct Finds {
    /// Places that look like classes, with their word `tp_name`.
    classes: Vec<(RemoteAddress, u64, Standing)>,
    /// Functions with their code.
    functions: Vec<(RemoteAddress, RemoteAddress)>,
    /// Live objects by class.
    objects: HashMap<RemoteAddress, Vec<RemoteAddress>>,
}

impl Surveyor {
    /// A surveyor that knows the rules and no process yet.
    #[must_use]
    pub fn new(rules: PythonRules) -> Self {
        Self { rules: Arc::new(rules), classes: Classes::default(), extent: Extent::default() }
    }

    /// Bytes of memory that the last look went through; 0 if it could not read any.
    #[must_use]
    pub fn memory_read(&self) -> u64 {
        self.extent.read
    }

    /// Bytes of memory that the last look did not go through: they could not be read, or were beyond 2 GiB.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.extent.left_out
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
        limit.allow(SEARCHING);
        let mut finds = self.search(interpreter, heap, ranges, &mut survey);
        limit.allow(READING_CHILDREN);
        survey.members = self.members(interpreter, &mut finds, &mut survey.torn_reads);
        limit.allow(WALKING);
        let reached = self.reached(interpreter, &finds, &survey.members);
        limit.allow(DESCRIBING);
        self.describe(interpreter, &finds, &reached, &mut survey);
        survey
    }

    /// Goes through memory until all classes that a map is about, and their objects, are found: once if nothing new is
    /// there.
    fn search<M: Memory>(
        &mut self,
        interpreter: &Interpreter<M>,
        heap: &impl Memory,
        ranges: &[Range<RemoteAddress>],
        survey: &mut PythonSurvey,
    ) -> Finds {
        let types = interpreter.types();
        let layout = &interpreter.layout;
        let (code, name) = (layout.function.code as isize, layout.class.name as isize);
        let mut finds = Finds::default();
        let mut searched = HashSet::new();
        self.classes.begin(types.class);
        let mut next: HashSet<RemoteAddress> = self.sought().chain([types.function]).collect();
        for _ in 0..PASS_LIMIT {
            if next.is_empty() {
                break;
            }
            let sought: AddressSet = next.iter().copied().collect();
            let extent = scan(heap, ranges, &sought, |candidate| {
                if !instances::is_referenced(&candidate) {
                    return;
                }
                if candidate.kind == types.function {
                    finds.functions.extend(candidate.word(code).map(|code| (candidate.address, RemoteAddress(code))));
                } else if self.classes.is_metaclass(candidate.kind) {
                    let standing = instances::standing(interpreter, &candidate);
                    let name = candidate.word(name).filter(|_| standing != Standing::Nothing);
                    finds.classes.extend(name.map(|name| (candidate.address, name, standing)));
                } else if instances::is_live(interpreter, &candidate) {
                    finds.objects.entry(candidate.kind).or_default().push(candidate.address);
                }
            });
            if searched.is_empty() {
                self.extent = extent;
            }
            searched.extend(next);
            for (address, name, standing) in finds.classes.drain(..) {
                let is_torn = self.classes.learn(interpreter, &self.rules, address, name).is_err();
                survey.torn_reads += u64::from(is_torn && standing == Standing::Linked);
            }
            next = self.sought().filter(|address| !searched.contains(address)).collect();
        }
        self.classes.forget_unseen();
        finds
    }

    /// Types whose objects are looked for: metaclasses and the classes that a map is about.
    fn sought(&self) -> impl Iterator<Item = RemoteAddress> {
        self.classes.metaclasses().chain(self.classes.traced().map(|(address, ..)| address))
    }

    /// The children of all live containers. Children of classes that no map is about become objects to trace: their
    /// container's map decides about them.
    fn members<M: Memory>(
        &mut self,
        interpreter: &Interpreter<M>,
        finds: &mut Finds,
        torn_reads: &mut u64,
    ) -> Vec<ContainerMember> {
        let mut members = Vec::new();
        let mut adopted = Vec::new();
        for (address, _, rule) in self.classes.traced() {
            let Some(fields) = &rule.children else { continue };
            for container in finds.objects.get(&address).into_iter().flatten() {
                let Ok(found) = children::of(interpreter, &self.classes, (*container, address), fields) else {
                    *torn_reads += 1;
                    continue;
                };
                for member in &found {
                    if let Ok(class) = interpreter.type_of(member.child)
                        && self.classes.get(class).is_some_and(|class| class.rule.is_none())
                    {
                        adopted.push((class, member.child, rule.clone()));
                    }
                }
                members.extend(found);
            }
        }
        for (class, child, rule) in adopted {
            self.classes.adopt(class, &rule);
            let objects = finds.objects.entry(class).or_default();
            if !objects.contains(&child) {
                objects.push(child);
            }
        }
        members.sort_by_key(|member| member.container);
        members
    }

    /// Objects that are part of a model: containers with children, these children, and what module variables lead to. And
    /// the classes that the application names.
    fn reached<M: Memory>(
        &self,
        interpreter: &Interpreter<M>,
        finds: &Finds,
        members: &[ContainerMember],
    ) -> reach::Reached {
        let objects: HashSet<RemoteAddress> = finds.objects.values().flatten().copied().collect();
        let mut reached = reach::from_modules(interpreter, &self.classes, &objects);
        reached.objects.extend(members.iter().flat_map(|member| [member.container, member.child]));
        reached
    }

    /// Fills in classes, functions, code, and what cannot be watched.
    fn describe<M: Memory>(
        &self,
        interpreter: &Interpreter<M>,
        finds: &Finds,
        reached: &reach::Reached,
        survey: &mut PythonSurvey,
    ) {
        let mut methods = Methods::new(interpreter, &self.classes);
        let mut catalog = Catalog::default();
        let mut traced: Vec<_> = self.classes.traced().collect();
        traced.sort_by_key(|(address, class, _)| (class.path.clone(), *address));
        for (address, class, rule) in traced {
            let objects = finds.objects.get(&address).map(Vec::as_slice).unwrap_or_default();
            let count = |objects: usize| u32::try_from(objects).unwrap_or(u32::MAX);
            let instances = count(objects.len());
            if rule.excluded.is_none() {
                let in_models = count(objects.iter().filter(|object| reached.objects.contains(object)).count());
                let has_any = catalog.add(&mut methods, interpreter, (class, rule), (instances, in_models));
                if !has_any {
                    continue;
                }
            }
            survey.classes.push(PythonClass {
                address,
                name: class.name.clone(),
                path: class.path.clone(),
                library: rule.library.clone(),
                nests: rule.nests,
                is_container: rule.children.is_some(),
                excluded: rule.excluded.clone(),
                instances,
                is_named: reached.classes.contains(&address),
            });
        }
        for (function, code) in &finds.functions {
            if catalog.codes.contains_key(code) {
                catalog.add_sharing(&mut methods, interpreter, *function);
            }
        }
        survey.torn_reads += methods.torn;
        survey.functions = catalog.functions.into_values().collect();
        survey.codes = catalog.codes.into_values().collect();
        survey.skipped = catalog.skipped;
    }
}
