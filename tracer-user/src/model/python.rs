//! What the CPython engine finds in a process: code objects to watch, the functions that run them, classes, and which
//! object is a step of which.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
pub use tracer_common::python::{
    AttributeForm, CurrentSpanLayout, DEBUG_REGISTERS, EntryMark, FrameStyle, MAX_LOOPS, PythonClassRule,
    PythonCodeRule, PythonFunctionRule, PythonLayout, PythonLoops, Receiver,
};

use super::plan::FunctionDescription;
use super::route::RouteTable;
use super::units::{ProcessId, RemoteAddress};

/// Everything found in one interpreter by one look at it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PythonSurvey {
    /// Classes that a map is about, and their functions.
    pub classes: Vec<PythonClass>,
    /// Functions found on those classes, each function object once.
    pub functions: Vec<PythonFunction>,
    /// The code that they run, each code object once, in no order.
    pub codes: Vec<PythonCode>,
    /// The type of numpy's arrays; `None` if numpy is not imported.
    pub array_type: Option<RemoteAddress>,
    /// How the current span of an OpenTelemetry SDK is read; `None` if there is no SDK.
    pub current_span: Option<CurrentSpanLayout>,
    /// Objects that a live container lists as its children.
    pub members: Vec<ContainerMember>,
    /// The routes of each application that is part of no other one.
    pub routes: Vec<RouteTable>,
    /// What was found and cannot be watched, with the reason.
    pub skipped: Vec<PythonSkipped>,
    /// Classes of the application that no map is about and that look like models, by their names.
    pub unnamed: Vec<UnnamedClass>,
    /// Objects that changed while they were read and were given up after retries.
    pub torn_reads: u64,
    /// What the look did not go into, because it would have taken too long or too much memory.
    pub not_looked_at: Vec<NotLookedAt>,
}

impl PythonSurvey {
    /// The names behind the addresses in records. `process` is the number in the initial pid namespace.
    #[must_use]
    pub fn names(&self, process: u32, is_first: bool) -> PythonNames {
        PythonNames {
            process,
            is_first,
            classes: self.classes.iter().map(|class| (class.address, Arc::clone(&class.name))).collect(),
            containers: self.classes.iter().filter(|class| class.lists_children).map(|class| class.address).collect(),
            members: self.members.clone(),
            routes: self.routes.clone(),
        }
    }

    /// Classes that were found in a process.
    #[must_use]
    pub fn classes_in_sight(&self, process: u32) -> ClassesInSight {
        let traced = self.classes.iter().map(|class| Arc::clone(&class.path)).collect();
        ClassesInSight { process, traced, unnamed: self.unnamed.clone() }
    }
}

/// Something that a look at a process did not go into.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NotLookedAt {
    /// What it is, for people.
    pub what: String,
    /// Why not, for people.
    pub reason: String,
}

/// Methods that models have: a class of the application that has one of them and live objects may be a model. The likeliest first.
pub const MODEL_METHODS: [&str; 7] = ["predict", "generate", "infer", "transform", "encode", "forward", "__call__"];

/// A class of the application's own that has live objects and a method of a model, and that no map is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnnamedClass {
    /// Name with its module, e.g. `app.PriceModel`.
    pub class: Arc<str>,
    /// Which of [`MODEL_METHODS`] it has.
    pub methods: Vec<&'static str>,
    /// Live objects, as far as they were counted.
    pub objects: u32,
}

/// Classes of one process, as far as it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassesInSight {
    /// Process id as the tracer's pid namespace numbers it.
    pub process: u32,
    /// Names, with their modules, of classes that a map or an option is about.
    pub traced: Vec<Arc<str>>,
    /// Those that no map is about, and that look like models.
    pub unnamed: Vec<UnnamedClass>,
}

/// An interpreter inside a process, found once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonRuntime {
    /// The process.
    pub process: ProcessId,
    /// Version as `(major, minor, micro)`.
    pub version: (u8, u8, u8),
    /// File that holds the interpreter, as the process names it.
    pub module: String,
    /// Where the layout was taken from, for people: a data file or the interpreter's own table.
    pub layout_source: String,
}

/// A class that a map is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonClass {
    /// Address of the type object.
    pub address: RemoteAddress,
    /// Bare name, e.g. `StandardScaler`.
    pub name: Arc<str>,
    /// Name with its module, e.g. `sklearn.preprocessing._data.StandardScaler`.
    pub path: Arc<str>,
    /// Library of the map that decided.
    pub library: Arc<str>,
    /// Whether matching calls inside its calls become spans of their own.
    pub nests: bool,
    /// Whether its instances list their children.
    pub is_container: bool,
    /// Whether a map names fields in which its instances list them.
    pub lists_children: bool,
    /// Pattern of the map that excludes it.
    pub excluded: Option<String>,
    /// Live instances seen.
    pub instances: u32,
    /// Whether a variable of the application holds the class: it has imported it by name.
    pub is_named: bool,
}

/// A function object found behind a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonFunction {
    /// Address of the function object.
    pub address: RemoteAddress,
    /// Address of its code.
    pub code: RemoteAddress,
    /// Addresses of the functions that it wraps: a call of it is a call of these as well.
    pub inner: Vec<RemoteAddress>,
    /// Name of the method, as the map writes it; `None`: it shares watched code but no map asks for it.
    pub method: Option<Arc<str>>,
    /// Qualified name, e.g. `LinearClassifierMixin.predict`. This and the next three are those of the function that is wrapped
    /// in the end: what stands around a method is the same for many.
    pub qualified_name: Arc<str>,
    /// Module that defines it, e.g. `sklearn.linear_model._base`.
    pub module: Arc<str>,
    /// Source file of its code.
    pub file: Arc<str>,
    /// First line of its definition, with the decorators above it.
    pub line: u32,
    /// Library of the map that decided.
    pub library: Arc<str>,
    /// Whether one of the classes that have it lists children.
    pub of_container: bool,
}

/// Where the first argument after the receiver of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstArgument {
    /// In a local variable, or the first of a tuple that is in one.
    pub kind: Receiver,
    /// Offset of the variable from the first one, in bytes.
    pub offset: u32,
    /// It is there as long as no instruction from this offset in bytes on has run.
    pub until: u32,
}

/// A code object that can be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonCode {
    /// Its address; its reference count is its first word.
    pub address: RemoteAddress,
    /// Its qualified name, e.g. `_wrap_method_output.<locals>.wrapped`.
    pub name: Arc<str>,
    /// Bytes that a frame takes on the data stack; 0 for heap frames.
    pub frame_bytes: u32,
    /// Where the receiver is.
    pub receiver: Receiver,
    /// Offset of the receiver's variable from the first local variable, in bytes.
    pub receiver_offset: u32,
    /// The methods that run it: of which classes, and how many live objects there are.
    pub users: Vec<CodeUser>,
    /// The parts of its instructions that may run more than once in one call, in order, none of which meets the next: offsets in
    /// bytes, the last one not included. `None`: that is not known.
    pub loops: Option<Vec<(u32, u32)>>,
    /// Where the argument after the receiver is, if that is known.
    pub first_argument: Option<FirstArgument>,
    /// Code that every call through the same method runs as well, inside (`__wrapped__`) or around it: only one of a
    /// chain needs to be watched.
    pub wraps: Vec<RemoteAddress>,
}

/// One method of one class that runs a code object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeUser {
    /// Address of the class: libraries have classes of the same name.
    pub address: RemoteAddress,
    /// Bare name of the class.
    pub class: Arc<str>,
    /// Name of the method.
    pub method: Arc<str>,
    /// Live instances of the class.
    pub instances: u32,
    /// Of these, how many are reached from a live container or a module variable, and so are part of a model in use.
    pub in_models: u32,
    /// Of these in turn, how many no other traced object holds: calls of them are the outermost ones.
    pub roots: u32,
}

/// An object that a container lists as its child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMember {
    /// The container.
    pub container: RemoteAddress,
    /// The class of the container: an object of another one at its place lists nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_class: Option<RemoteAddress>,
    /// The child.
    pub child: RemoteAddress,
    /// The class of the child: an object of another one at its place is not the child any more.
    #[serde(default)]
    pub class: Option<RemoteAddress>,
    /// Its name in the list, if the list has names.
    pub step: Option<Arc<str>>,
}

/// Names for the addresses in Python call records; sent again whenever a look at the process found something new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonNames {
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// Whether they are the first ones of an interpreter: what was known of the process before is of another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_first: bool,
    /// Bare class names by the address of the type object: traced classes, and exceptions as they are met.
    pub classes: Vec<(RemoteAddress, Arc<str>)>,
    /// Classes whose objects list steps; take the place of those that were known before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<RemoteAddress>,
    /// Which object is a step of which; takes the place of what was known before.
    pub members: Vec<ContainerMember>,
    /// The routes of its applications; take the place of those that were known before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteTable>,
}

/// Something that a map asks for and that cannot be watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PythonSkipped {
    /// `Class.method`.
    pub name: String,
    /// Why not.
    pub reason: PythonSkipReason,
    /// Whether its class has live objects.
    pub is_live: bool,
}

/// Why a Python method cannot be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PythonSkipReason {
    /// It is a generator or a coroutine: its frame outlives the call.
    Generator,
    /// It is no Python function (a C or Cython method, a `partial` of one).
    NotPython,
    /// It has no receiver among its arguments.
    NoReceiver,
    /// It is a property: what is called is whatever it gives (`Pipeline.transform` in scikit-learn before 1.0).
    Property,
    /// What stands behind the name could not be understood.
    Unreadable,
}

/// What the programs are told of the Python code of one process; takes the place of what they knew before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PythonTables {
    /// Code whose calls are seen. `process_slot` is filled in when the tables are written.
    pub codes: Vec<(RemoteAddress, PythonCodeRule)>,
    /// Function objects that run it.
    pub functions: Vec<(RemoteAddress, PythonFunctionRule)>,
    /// Classes of receivers.
    pub classes: Vec<(RemoteAddress, PythonClassRule)>,
    /// Loops of code.
    pub loops: Vec<(RemoteAddress, PythonLoops)>,
    /// The type of numpy's arrays, whose rows and columns are read.
    pub array_type: Option<RemoteAddress>,
    /// How the current span of an OpenTelemetry SDK is read.
    pub current_span: Option<CurrentSpanLayout>,
    /// Child and the container that lists it.
    pub members: Vec<(RemoteAddress, RemoteAddress)>,
}

/// What of one process the programs were not told, because the tables that all processes share had no room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PythonLeftOut {
    /// Code objects, calls of which are not seen.
    pub codes: usize,
    /// Function objects: where several run the same code, calls of these are lost.
    pub functions: usize,
    /// Classes: calls inside calls on their objects are counted, and are no spans of their own.
    pub classes: usize,
    /// Objects that a container lists: what other threads do with them begins a trace of its own.
    pub members: usize,
    /// Functions that found all numbers in use: their calls are not seen.
    pub numbers: usize,
}

impl PythonLeftOut {
    /// The greater one of each count.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        Self {
            codes: self.codes.max(other.codes),
            functions: self.functions.max(other.functions),
            classes: self.classes.max(other.classes),
            members: self.members.max(other.members),
            numbers: self.numbers.max(other.numbers),
        }
    }
}

/// What to watch in one interpreter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PythonPlan {
    /// What the programs must know.
    pub tables: PythonTables,
    /// Code to set watchpoints on, the most wanted first, and the methods that it covers.
    pub watched: Vec<(RemoteAddress, WatchedCode)>,
    /// The functions behind the numbers in the tables, for the assembler.
    pub functions: Vec<FunctionDescription>,
    /// Methods that will not be seen, with the reason.
    pub not_watched: Vec<NotWatched>,
    /// Of the watched code, that of classes which were never seen to have objects, and what it may have been called as if it
    /// is called. Such classes are many, and most never get one.
    pub without_objects: HashMap<RemoteAddress, Vec<String>>,
    /// Whether other code could be watched instead.
    pub has_more: bool,
    /// Whether some of that is code of live objects, does more than train, and was not found uncalled.
    pub may_need_more: bool,
    /// Whether there is other code of models that no other model holds, and that was not tried.
    pub has_untried_root: bool,
    /// Functions that found all numbers in use.
    pub without_number: usize,
    /// Functions that have got a number that had none.
    pub new_numbers: usize,
}

impl PythonPlan {
    /// Watched code with the calls that were counted, named after what it may have been called as.
    #[must_use]
    pub fn called(&self, code: RemoteAddress, watched: &WatchedCode, calls_seen: u64) -> WatchedCode {
        let in_question = self.without_objects.get(&code).filter(|_| calls_seen > 0);
        let methods = in_question.unwrap_or(&watched.methods).clone();
        WatchedCode { methods, calls_seen, ..watched.clone() }
    }
}

/// Kernels before this one verify the functions of the programs for themselves, whether anybody calls them or not, and have not
/// been seen to take those of [`PythonMode::Chain`].
pub const CHAIN_KERNEL: (u32, u32) = (6, 8);

/// How the calls of an interpreter are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PythonMode {
    /// Hardware watchpoints on a few code objects.
    #[default]
    Watch,
    /// Probes in the interpreter that every call passes.
    Frames,
    /// Probes in the interpreter that a part of the calls passes; at each all frames are looked at.
    Chain,
}

/// What of the Python code of one process was traced, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuntimeCoverage {
    /// Process id as the tracer's pid namespace numbers it.
    pub process: u32,
    /// The interpreter, for people: `CPython 3.11.7`.
    pub interpreter: String,
    /// Where the layout of its objects was taken from, for people: a data file or the interpreter's own table.
    pub layout: String,
    /// How its calls were seen.
    pub mode: PythonMode,
    /// Watchpoints that could be had at one time; 0 unless in watch mode.
    pub slots: u32,
    /// Who has the others, as far as it is known, for people.
    pub slots_held_by: Vec<String>,
    /// Milliseconds from the start of the interpreter until any of its code was seen; `None` if it was there before the tracer.
    pub seen_after_ms: Option<u64>,
    /// Share of the time, in per cent, in which its calls were seen, where the probes may not be live all the time; `None`: all of it.
    pub seen_percent: Option<u32>,
    /// The functions of the interpreter in which probes are placed in chain mode, where few suffice for the calls that are made; empty where
    /// all are placed.
    pub few_witnesses: Vec<String>,
    /// What found no room in the tables, at most at one time.
    pub left_out: PythonLeftOut,
    /// Code that was watched.
    pub watched: Vec<WatchedCode>,
    /// Methods that the maps ask for and that were not watched.
    pub not_watched: Vec<NotWatched>,
    /// Classes that no map is about, and that look like models.
    pub unnamed_classes: Vec<UnnamedClass>,
    /// What the last look at the process did not go into: models in it may be missing, and names of steps.
    pub not_looked_at: Vec<NotLookedAt>,
}

/// A code object that was watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchedCode {
    /// Its qualified name.
    pub code: String,
    /// Methods that run it, `Class.method`.
    pub methods: Vec<String>,
    /// Calls seen to begin.
    pub calls_seen: u64,
}

/// A method that was not watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotWatched {
    /// `Class.method`.
    pub name: String,
    /// Why not, for people.
    pub reason: String,
    /// Whether a live object has it and it cannot be watched at all, however few others there are.
    pub is_live: bool,
}

impl RuntimeCoverage {
    /// Whether nothing was ever found that could have been traced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_known = self.unnamed_classes.is_empty() && self.not_looked_at.is_empty();
        is_known && self.watched.is_empty() && self.not_watched.is_empty()
    }

    /// The methods that were not watched, by reason: reasons in the order in which they first occur; methods by name, those
    /// that train a model last.
    #[must_use]
    pub fn not_watched_by_reason(&self) -> Vec<(&str, Vec<&str>)> {
        self.by_reason(|_| true)
    }

    /// The same of some of them.
    #[must_use]
    pub fn by_reason(&self, which: impl Fn(&NotWatched) -> bool) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for NotWatched { name, reason, .. } in self.not_watched.iter().filter(|method| which(method)) {
            match groups.iter_mut().find(|(known, _)| known == reason) {
                Some((_, names)) => names.push(name),
                None => groups.push((reason, vec![name])),
            }
        }
        for (_, names) in &mut groups {
            names.sort_by_key(|name| (name.rsplit('.').next().is_some_and(|method| method.contains("fit")), *name));
        }
        groups
    }
}

impl fmt::Display for PythonSkipReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Generator => "it is a generator or a coroutine: its frame outlives the call",
            Self::NotPython => "it is no Python function",
            Self::NoReceiver => "it has no receiver among its arguments",
            Self::Property => "it is a property: what is called is whatever it gives",
            Self::Unreadable => "what stands behind the name could not be understood",
        })
    }
}
