//! Surveys of running interpreters against what Python says of itself, and of damaged ones.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::damaged::{Numbers, damage};
use super::live::{addresses, modules, start, supported};
use crate::engine::contract::{Instance as _, RuntimeInstance as _};
use crate::engine::cpython::{CpythonEngine, Interpreter, Surveyor};
use crate::memory::{LiveProcess, Memory as _, PageCache, ReadLimit, Recorder, Snapshot, heap_ranges};
use crate::model::{ProcessId, PythonCode, PythonSkipReason, PythonSurvey, Receiver, RemoteAddress, SymbolMap, Target};
use crate::symbol_map::{PythonRules, parse};

const SCRIPT: &str = include_str!("survey.py");
const MAP: &str = "
schema: ml-tracer/v1
library: scikit-learn
language: python
bases: [sklearn.base.BaseEstimator]
methods: [fit, transform, predict]
recurse:
  sklearn.pipeline.Pipeline: {named: [steps]}
  sklearn.pipeline.FeatureUnion: {named: [transformer_list]}
  sklearn.model_selection.Search: {named: [best_estimator_, named_]}
  sklearn.ensemble.Forest: {children: [estimators_]}
  sklearn.ensemble.Bagging: {few: [estimators_]}
  sklearn.calibration.Calibrated: {few: [parts_.model]}
exclude: [__main__.Excluded]
";
/// How long a changed model may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Damaged copies of each recorded process.
const ROUNDS: usize = 12;

/// What `survey.py` prints.
#[derive(Debug, Deserialize)]
struct Expected {
    classes: Vec<ExpectedClass>,
    members: Vec<(u64, u64, Option<String>)>,
    /// A function that runs watched code and that no map asks for.
    unasked: (u64, u64),
}

#[derive(Debug, Deserialize)]
struct ExpectedClass {
    address: u64,
    path: String,
    instances: u32,
    /// Functions and their code by method, outermost first.
    chains: BTreeMap<String, Vec<(u64, u64)>>,
}

fn maps() -> Vec<SymbolMap> {
    parse(MAP, Path::new("survey.yaml"), false).expect("the map is sound")
}

fn rules() -> Arc<PythonRules> {
    Arc::new(PythonRules::new(&maps()))
}

fn target(pid: u32) -> Target {
    Target {
        process: ProcessId { pid, start_time: 0 },
        command_line: Vec::new(),
        executable: PathBuf::new(),
        modules: modules(pid),
        container_id: None,
        image: crate::model::ProgramImage::default(),
        service: crate::model::Service::default(),
    }
}

fn members(survey: &PythonSurvey) -> BTreeSet<(u64, u64, Option<String>)> {
    let step = |step: &Option<_>| step.as_deref().map(str::to_owned);
    survey.members.iter().map(|member| (member.container.0, member.child.0, step(&member.step))).collect()
}

fn check(survey: &PythonSurvey, expected: &Expected, name: &str) {
    assert_eq!(members(survey), expected.members.iter().cloned().collect(), "{name}");
    let found: BTreeMap<&str, _> = survey.classes.iter().map(|class| (&*class.path, class)).collect();
    let paths: BTreeSet<&str> = expected.classes.iter().map(|class| class.path.as_str()).collect();
    assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), paths, "{name}");
    let mut codes = BTreeSet::new();
    for class in &expected.classes {
        let found = found[class.path.as_str()];
        assert_eq!((found.address.0, found.instances), (class.address, class.instances), "{name}: {found:?}");
        let containers = ["Pipeline", "SubPipeline", "FeatureUnion", "Forest", "Search", "Calibrated", "Bagging"];
        let is_container = containers.contains(&&*found.name);
        let nests = is_container && &*found.name != "Bagging";
        assert_eq!((found.is_container, found.nests), (is_container, nests), "{name}: {found:?}");
        assert_eq!(found.excluded.is_some(), &*found.name == "Excluded");
        for (method, chain) in &class.chains {
            let of_chain: BTreeSet<u64> = chain.iter().map(|(_, code)| *code).collect();
            codes.extend(&of_chain);
            let is_this = |code: &&PythonCode| {
                code.users.iter().any(|reached| *reached.class == *found.name && *reached.method == **method)
            };
            let reached: BTreeSet<u64> = survey.codes.iter().filter(is_this).map(|code| code.address.0).collect();
            assert_eq!(reached, of_chain, "{name}: {}.{method}", class.path);
            for (function, code) in chain {
                let function = survey.functions.iter().find(|found| found.address.0 == *function);
                let function = function.unwrap_or_else(|| panic!("{name}: {}.{method}", class.path));
                assert_eq!((function.code.0, function.method.as_deref()), (*code, Some(method.as_str())));
                assert_eq!(function.of_container, is_container);
                let wraps = survey.codes.iter().find(|found| found.address.0 == *code).map(|code| &code.wraps);
                let others = of_chain.iter().filter(|other| *other != code);
                assert!(
                    others.into_iter().all(|other| wraps.is_some_and(|wraps| wraps.contains(&RemoteAddress(*other))))
                );
            }
        }
    }
    assert_eq!(survey.codes.iter().map(|code| code.address.0).collect::<BTreeSet<_>>(), codes, "{name}");
    let (function, code) = expected.unasked;
    let unasked = survey.functions.iter().find(|found| found.address.0 == function).expect("it shares code");
    assert_eq!((unasked.code.0, &unasked.method), (code, &None), "{name}");
    let skipped: HashMap<_, _> = survey.skipped.iter().map(|skipped| (skipped.name.as_str(), skipped.reason)).collect();
    let reasons = [
        ("Booster.transform", PythonSkipReason::NotPython),
        ("Pipeline.transform", PythonSkipReason::Property),
        ("SubPipeline.transform", PythonSkipReason::Property),
        ("Scaler.fit", PythonSkipReason::NoReceiver),
        ("Scaler.predict", PythonSkipReason::Generator),
    ];
    assert_eq!(skipped, reasons.into(), "{name}");
    check_receivers(survey, name);
    let unnamed: Vec<_> =
        survey.unnamed.iter().map(|class| (&*class.class, class.methods.as_slice(), class.objects)).collect();
    let expected: [(&str, &[&str], u32); 2] =
        [("__main__.Cheap", &["predict", "__call__"], 2), ("__main__.PriceModel", &["predict"], 1)];
    assert_eq!(unnamed, expected, "{name}");
    assert_eq!(survey.torn_reads, 0, "{name}: nothing changes");
}

fn check_receivers(survey: &PythonSurvey, name: &str) {
    let receiver = |function: &str| {
        let function = survey.functions.iter().find(|found| &*found.qualified_name == function);
        let code = function.map(|function| function.code).expect("it is there");
        survey.codes.iter().find(|found| found.address == code).map(|code| code.receiver)
    };
    assert_eq!(receiver("Pipeline.fit"), Some(Receiver::Local), "{name}");
    assert_eq!(receiver("Forest.predict"), Some(Receiver::Cell), "{name}");
    let variable: Vec<_> = survey.codes.iter().filter(|code| code.receiver == Receiver::FirstOfTuple).collect();
    assert!(matches!(&variable[..], [code] if code.name.ends_with("inner")), "{name}: {variable:?}");
    let in_models = |class: &str| {
        let reached = survey.codes.iter().flat_map(|code| &code.users).find(|reached| &*reached.class == class);
        reached.map(|reached| (reached.instances, reached.in_models))
    };
    assert_eq!(in_models("Scaler"), Some((7, 6)), "{name}: one is held by no model and no variable");
    assert_eq!(in_models("Booster"), Some((2, 2)), "{name}: held by an attribute of an attribute of a variable");
    let roots = |class: &str| {
        let reached = survey.codes.iter().flat_map(|code| &code.users).find(|reached| &*reached.class == class);
        reached.map(|reached| reached.roots)
    };
    assert_eq!(roots("Pipeline"), Some(1), "{name}: one is a step of the other");
    assert_eq!((roots("Search"), roots("Duck")), (Some(2), Some(0)), "{name}: others hold them all");
}

#[test]
fn every_python_here_is_surveyed_as_it_says() {
    for (name, command) in supported() {
        let (mut running, line) = start(&command, SCRIPT, &[]);
        let expected: Expected = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
        let mut engine =
            CpythonEngine::new(&maps()).find(&target(running.0.id()), &ReadLimit::default()).expect("it is running");
        let engine = engine.as_mut().expect("it is an interpreter");
        assert!(engine.runtime().version >= (3, 8, 0) && engine.layout().is_ok(), "{name}");
        let class = |path: &str| {
            let found = expected.classes.iter().find(|class| class.path == path);
            found.map(|class| RemoteAddress(class.address)).expect("Python says where it is")
        };
        assert_eq!(engine.meaning(class("sklearn.pipeline.Pipeline")).as_deref(), Some("Pipeline"));
        assert_eq!(engine.meaning(RemoteAddress(8)), None);
        let mut look = || engine.look().expect("it is running").survey;
        let first = look();
        check(&first, &expected, &name);
        // A look may be cut by its time on a machine that is busy with other tests.
        assert!((0..3).any(|_| look() == first), "{name}: nothing changed");
        // Another model takes the place of the first one.
        let input = running.0.stdin.as_mut().expect("it is piped");
        writeln!(input, "change").expect("it is running");
        let started = Instant::now();
        let steps = |survey: &PythonSurvey| -> Vec<Option<String>> {
            members(survey).into_iter().map(|(_, _, step)| step).collect::<BTreeSet<_>>().into_iter().collect()
        };
        loop {
            let now = look();
            if steps(&now) == [Some("only".to_owned()), Some("other".to_owned())] {
                let pipelines = now.classes.iter().find(|class| &*class.path == "sklearn.pipeline.Pipeline");
                assert_eq!(pipelines.map(|class| class.instances), Some(1), "{name}");
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{name}: the new model is not seen: {:?}", now.members);
            sleep(Duration::from_millis(20));
        }
        drop(running);
        assert!(engine.look().is_err(), "{name}: it is gone");
    }
}

/// A program as a look meets it that comes too early: one class has no module yet, and `functools` is not imported.
const EARLY: &str = "
import sys

class BaseEstimator:
    pass

BaseEstimator.__module__ = None

class Model(BaseEstimator):
    def predict(self, rows):
        return rows

model = Model()
print(sys.modules.pop('functools', None) is None, flush=True)
for line in sys.stdin:
    BaseEstimator.__module__ = 'sklearn.base'
    import functools
    Model.transform = functools.partial(Model.predict)
    open(sys.argv[1], 'w').close()
";

#[test]
fn what_was_looked_at_while_it_was_made_is_looked_at_again() {
    for (name, command) in supported() {
        // What has another root sees the folder without that.
        let root = command.get(1).filter(|_| command[0] == "chroot").map_or("/", String::as_str);
        let folder = tempfile::tempdir_in(Path::new(root).join("tmp")).expect("a folder");
        let done = folder.path().join("done");
        let path = Path::new("/").join(done.strip_prefix(root).expect("it is in there"));
        let (mut running, _) = start(&command, EARLY, &[path.to_str().expect("text")]);
        let found = CpythonEngine::new(&maps()).find(&target(running.0.id()), &ReadLimit::default());
        let mut engine = found.expect("it is running").expect("it is an interpreter");
        let mut look = || engine.look().expect("it is running").survey;
        assert!(look().codes.is_empty(), "{name}: its base is no class that a map is about");
        writeln!(running.0.stdin.as_mut().expect("it is piped"), "go on").expect("it is running");
        let started = Instant::now();
        while !done.exists() {
            assert!(started.elapsed() < PATIENCE, "{name}: it does not go on");
            sleep(Duration::from_millis(1));
        }
        let survey = look();
        let users = survey.codes.iter().flat_map(|code| &code.users);
        let methods: BTreeSet<&str> = users.map(|user| &*user.method).collect();
        assert_eq!(methods, ["predict"].into(), "{name}");
        // A `partial` passes no object on: what it holds is no method, which only its type tells.
        let skipped: Vec<_> = survey.skipped.iter().map(|it| (&*it.name, it.reason, it.is_live)).collect();
        assert_eq!(skipped, [("Model.transform", PythonSkipReason::NotPython, true)], "{name}");
    }
}

/// What a survey reads of a process: objects, and the places where it finds them.
fn record(pid: u32) -> (Snapshot, PythonSurvey) {
    let process = LiveProcess::new(pid);
    let interpreter = Interpreter::open(Recorder::new(process), &addresses(pid)).expect("it is an interpreter");
    let survey = Surveyor::new(rules()).look(
        &interpreter,
        &process,
        &heap_ranges(pid).expect("it is running"),
        &ReadLimit::default(),
    );
    let classes = survey.classes.iter().map(|class| class.address);
    let metaclasses: Vec<_> = classes.clone().filter_map(|class| interpreter.type_of(class).ok()).collect();
    // A field may be of a class that no map is about, and so may be what a list in it holds.
    let fields = survey.members.iter().flat_map(|member| interpreter.instance_attributes(member.container));
    let values: Vec<_> = fields.flatten().map(|(_, value)| value).collect();
    let lists = values.iter().filter(|value| {
        interpreter.type_of(**value).and_then(|kind| interpreter.class(kind)).is_ok_and(|class| &*class.name == "list")
    });
    let items: Vec<_> = lists.filter_map(|list| interpreter.list_items(*list).ok()).flatten().collect();
    let kinds = values.iter().chain(&items).filter_map(|value| interpreter.type_of(*value).ok());
    let kinds: Vec<_> = kinds.filter(|kind| interpreter.class(*kind).is_ok_and(|class| class.is_heap_type)).collect();
    let members = survey.members.iter().flat_map(|member| [member.container, member.child]);
    let functions = survey.functions.iter().map(|function| function.address);
    for object in classes.chain(metaclasses).chain(kinds).chain(members).chain(functions) {
        // With the header of the garbage collector before it.
        interpreter.memory().read(RemoteAddress(object.0 - 16), &mut [0; 96]).expect("it was read before");
    }
    (interpreter.into_memory().into_snapshot(serde_json::Value::Null), survey)
}

fn ranges(snapshot: &Snapshot) -> Vec<Range<RemoteAddress>> {
    let range = |start: u64, length: usize| RemoteAddress(start)..RemoteAddress(start + length as u64);
    snapshot.ranges().iter().map(|(start, bytes)| range(*start, bytes.len())).collect()
}

#[test]
fn recorded_surveys_are_the_same_and_damaged_ones_are_survived() {
    let mut numbers = Numbers(0x05ee_d0f5);
    let (mut pythons, mut surveyed) = (0, 0);
    for (name, command) in supported() {
        let (running, _) = start(&command, SCRIPT, &[]);
        let (snapshot, live) = record(running.0.id());
        let addresses = addresses(running.0.id());
        let look = |snapshot: &Snapshot| {
            let interpreter = Interpreter::open(PageCache::new(snapshot), &addresses).ok()?;
            Some(Surveyor::new(rules()).look(&interpreter, snapshot, &ranges(snapshot), &ReadLimit::default()))
        };
        let recorded = look(&snapshot).expect("it is as it was");
        assert_eq!((&recorded.members, &recorded.functions), (&live.members, &live.functions), "{name}");
        assert_eq!(recorded.skipped, live.skipped, "{name}");
        let known: HashSet<&str> = live.classes.iter().map(|class| &*class.name).collect();
        for _ in 0..ROUNDS {
            let mut damaged = snapshot.clone();
            damage(&mut damaged, &mut numbers);
            let Some(survey) = look(&damaged) else { continue };
            surveyed += survey.classes.len();
            for class in survey.classes.iter().filter(|class| !known.contains(&*class.name)) {
                let is_there = |(_, bytes): &(u64, Vec<u8>)| {
                    bytes.windows(class.name.len()).any(|part| part == class.name.as_bytes())
                };
                assert!(damaged.ranges().iter().any(is_there), "{name}: {:?} is nowhere", class.name);
            }
        }
        pythons += 1;
    }
    assert!(surveyed > 0 || pythons == 0, "the damage leaves nothing to be found");
}
