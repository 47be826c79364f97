//! The Python targets: the interpreters that run them, and the truth that they tell at their end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::Finished;
use crate::spans::{SpanRow, Spans};
use crate::suite::is_full;
use crate::workspace;

/// An interpreter with the packages that the Python targets need, which `cargo xtask prepare` sets up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpreter {
    /// An environment of this name.
    Environment(&'static str),
    /// The one of Debian sid, in a root directory of its own.
    Sid,
    /// The newest one there, beside its own, without packages.
    Newest,
    /// The one of Debian 11, without packages, likewise: `cargo xtask prepare --full` makes it.
    Debian11,
}

/// Interpreters for targets that need no packages, every version from 3.8 on.
const ALL: [Interpreter; 8] = [
    Interpreter::Environment("plain-3.8"),
    ORACLE,
    LIKE_3_9,
    Interpreter::Environment("sklearn-3.11"),
    Interpreter::Environment("sklearn-3.12"),
    Interpreter::Environment("sklearn-3.13"),
    Interpreter::Sid,
    Interpreter::Newest,
];

/// What is read of 3.10 is where it is in 3.9: it is tried in a full run.
const LIKE_3_9: Interpreter = Interpreter::Environment("plain-3.10");

/// Interpreters for targets that need no packages, every version from 3.8 on; without `--full` one of each kind.
#[must_use]
pub fn all() -> Vec<Interpreter> {
    ALL.into_iter().filter(|interpreter| is_full() || *interpreter != LIKE_3_9).collect()
}

/// What `--python` can be told.
pub const MODES: [&str; 2] = ["watch", "frames"];

/// What it can be told besides, where beginnings and ends are known within bounds.
pub const CHAIN: &str = "chain";

/// CPython 3.9 with scikit-learn 0.24 and the original instrumentation.
pub const ORACLE: Interpreter = Interpreter::Environment("oracle-3.9");

/// The system's own, built statically and stripped.
pub const SYSTEM: Interpreter = Interpreter::Environment("sklearn-system");

/// Interpreters with scikit-learn 1.9: pyenv's from 3.11 to 3.13, the system's, and 3.14.
pub const SCIKIT_LEARN: [Interpreter; 5] = [
    Interpreter::Environment("sklearn-3.11"),
    Interpreter::Environment("sklearn-3.12"),
    Interpreter::Environment("sklearn-3.13"),
    SYSTEM,
    Interpreter::Sid,
];

/// CPython 3.11 with scikit-learn 1.2 and imbalanced-learn 0.10.
pub const SCIKIT_LEARN_1_2: Interpreter = Interpreter::Environment("sklearn-1.2-3.11");

/// CPython 3.12 with scikit-learn 1.9 and the libraries of the other maps.
pub const LIBRARIES: Interpreter = Interpreter::Environment("libraries-3.12");

/// CPython 3.12 with llama-cpp-python, built from its source.
pub const LLAMA: Interpreter = Interpreter::Environment("llama-3.12");

/// The system's own with Debian's PyTorch, transformers and sentence-transformers: `cargo xtask prepare --full` makes it.
pub const TORCH: Interpreter = Interpreter::Environment("torch-system");

/// Where the folder `tests` is inside the root directory of a Debian.
const INSIDE: &str = "opt/tests";

/// Where the packages for the interpreter of Debian sid are, inside its root directory.
const PACKAGES_OF_SID: &str = "/opt/packages";

/// One copy at a time.
static COPYING: Mutex<()> = Mutex::new(());

impl Interpreter {
    /// For the names of tests: `3.11`, `system`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Environment(name) => name.rsplit('-').next().unwrap_or(name),
            Self::Sid => "sid",
            Self::Newest => "3.15",
            Self::Debian11 => "debian_11",
        }
    }

    /// Why it cannot be used here, if so.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let (file, what) = match self {
            Self::Environment(name) => {
                (workspace::python_environment(name, "bin/python"), "its interpreter, if there is one")
            }
            // Written when everything is in place.
            Self::Sid => {
                (root_of("sid").join("opt/requirements.sha256"), "Debian sid, if this runs as root with debootstrap")
            }
            Self::Newest => {
                (root_of("sid").join("usr/bin/python3.15"), "Debian sid, if this runs as root with debootstrap")
            }
            Self::Debian11 => {
                (debian_11().join("usr/bin/python3"), "--full and Debian 11, if this runs as root with debootstrap")
            }
        };
        (!file.exists()).then(|| format!("{} is missing: `cargo xtask prepare` makes it with {what}", file.display()))
    }

    /// A command that runs a script of the folder `tests`, e.g. `targets/python_asyncio/target.py`.
    ///
    /// # Errors
    /// When the script cannot be brought to where the interpreter sees it.
    pub fn command(self, script: &str) -> Result<Command> {
        let mut command = match self {
            Self::Environment(name) => Command::new(workspace::python_environment(name, "bin/python")),
            Self::Sid => {
                let mut command = Command::new("chroot");
                command.arg(root_of("sid")).arg("/usr/bin/python3").env("PYTHONPATH", PACKAGES_OF_SID);
                command
            }
            Self::Newest => {
                let mut command = Command::new("chroot");
                command.arg(root_of("sid")).arg("/usr/bin/python3.15");
                command
            }
            Self::Debian11 => {
                let mut command = Command::new("chroot");
                command.arg(debian_11()).arg("/usr/bin/python3");
                command
            }
        };
        command.arg(self.place_of(script)?);
        // What was imported once is there compiled for the next one: most of the time of a target is its imports.
        command.env_remove("PYTHONDONTWRITEBYTECODE");
        Ok(command)
    }

    /// Where the interpreter finds a script of the folder `tests`.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn place_of(self, script: &str) -> Result<PathBuf> {
        let root = match self {
            Self::Environment(_) => return Ok(workspace::tests(script)),
            Self::Sid | Self::Newest => root_of("sid"),
            Self::Debian11 => debian_11(),
        };
        let folder = script.split_once('/').map_or("", |(folder, _)| folder);
        let _copying = COPYING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        copy_scripts(&workspace::tests(folder), &root.join(INSIDE).join(folder))?;
        Ok(Path::new("/").join(INSIDE).join(script))
    }
}

/// Lets a command of an interpreter find OpenTelemetry's SDK: it is Python code alone, and that of another version does.
pub fn with_sdk(command: &mut Command, interpreter: Interpreter) {
    if interpreter == Interpreter::Newest {
        command.env("PYTHONPATH", PACKAGES_OF_SID);
    }
}

/// The root directory of Debian 11.
#[must_use]
pub fn debian_11() -> PathBuf {
    root_of("bullseye")
}

fn root_of(suite: &str) -> PathBuf {
    workspace::root().join("target/chroot").join(suite)
}

/// Copies the Python files below a folder, where they have changed.
fn copy_scripts(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_scripts(&source, &copy)?;
        } else if source.extension().is_some_and(|extension| extension == "py") {
            let text = fs::read(&source)?;
            if fs::read(&copy).ok().as_ref() != Some(&text) {
                fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
            }
        }
    }
    Ok(())
}

/// What a Python target knows about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Over everything that its model gave.
    pub digest: String,
    /// How often each kind of call happened.
    pub spans: BTreeMap<Kind, u64>,
}

/// A kind of call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Names of the spans from the outermost call inwards.
    pub path: Vec<String>,
    /// Name of its object in the container that made the call.
    pub step: Option<String>,
    /// Class of the exception that left it.
    pub error: Option<String>,
}

impl Truth {
    /// Reads the last line of a target's output.
    ///
    /// # Errors
    /// When it did not end well, or the line is not what a target tells.
    pub fn of(finished: &Finished) -> Result<Self> {
        let told = || -> Option<Self> {
            let value: Value = serde_json::from_str(finished.output.lines().last()?).ok()?;
            let spans = value.get("spans")?.as_array()?.iter().map(Self::kind).collect::<Option<_>>()?;
            Some(Self { digest: value.get("digest")?.as_str()?.to_owned(), spans })
        };
        let told = (finished.code == Some(0)).then(told).flatten();
        told.with_context(|| format!("the target has told no truth: {finished:?}"))
    }

    /// Holds the spans of a run against the truth: the same paths with the same errors, each as often, and the steps that
    /// the truth names. Where it names none, a span may have one.
    ///
    /// # Errors
    /// When they differ; the message lists every difference.
    pub fn check(&self, spans: &Spans) -> Result<()> {
        let mut seen = observed(spans);
        let mut differences = Vec::new();
        let (named, unnamed): (Vec<_>, Vec<_>) = self.spans.iter().partition(|(kind, _)| kind.step.is_some());
        for (kind, count) in named {
            let found = seen.remove(kind).unwrap_or(0);
            if found != *count {
                differences.push(format!("{kind:?}: {count} calls, {found} spans"));
            }
        }
        for (kind, count) in unnamed {
            let (these, others): (BTreeMap<_, _>, _) = std::mem::take(&mut seen)
                .into_iter()
                .partition(|(other, _)| other.path == kind.path && other.error == kind.error);
            seen = others;
            let found: u64 = these.values().sum();
            if found != *count {
                differences.push(format!("{kind:?}: {count} calls, {found} spans"));
            }
        }
        differences.extend(seen.iter().map(|(kind, count)| format!("{kind:?}: no calls, {count} spans")));
        ensure!(differences.is_empty(), "spans and truth differ:\n{}", differences.join("\n"));
        Ok(())
    }

    /// Holds the spans of a run against the truth where calls may be missing, and with them the path to others: of each kind
    /// of call there are no more spans than calls.
    ///
    /// # Errors
    /// What is made up.
    pub fn check_at_most(&self, spans: &Spans) -> Result<()> {
        let count = |kinds: &BTreeMap<Kind, u64>| {
            let mut counts: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
            for (kind, count) in kinds {
                let own = kind.path.last().cloned().unwrap_or_default();
                *counts.entry((own, kind.error.clone())).or_default() += count;
            }
            counts
        };
        let truth = count(&self.spans);
        for (kind, seen) in count(&observed(spans)) {
            let calls = truth.get(&kind).copied().unwrap_or(0);
            ensure!(seen <= calls, "{kind:?}: {calls} calls, {seen} spans");
        }
        Ok(())
    }

    /// What is left of it where only these methods are watched: other calls are as if they were not there. Where the call
    /// around one is missing, its step is not told.
    #[must_use]
    pub fn only(&self, methods: &BTreeSet<String>) -> Self {
        let mut spans = BTreeMap::new();
        for (kind, count) in &self.spans {
            let Some((own, around)) = kind.path.split_last() else { continue };
            if !methods.contains(own) {
                continue;
            }
            let direct = around.last().is_none_or(|name| methods.contains(name));
            let kind = Kind {
                path: kind.path.iter().filter(|name| methods.contains(*name)).cloned().collect(),
                step: kind.step.clone().filter(|_| direct),
                error: kind.error.clone(),
            };
            *spans.entry(kind).or_insert(0) += count;
        }
        Self { digest: self.digest.clone(), spans }
    }

    fn kind(entry: &Value) -> Option<(Kind, u64)> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let path = entry.get("path")?.as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
        let kind = Kind { path: path.collect::<Option<_>>()?, step: text("step"), error: text("error") };
        Some((kind, entry.get("count")?.as_u64()?))
    }
}

/// How often each kind of call was seen.
#[must_use]
pub fn observed(spans: &Spans) -> BTreeMap<Kind, u64> {
    let by_id: HashMap<&[u8], &SpanRow> = spans.0.iter().map(|row| (row.span.span_id.as_slice(), row)).collect();
    let mut kinds = BTreeMap::new();
    for row in &spans.0 {
        let mut path = vec![row.span.name.clone()];
        let mut parent = by_id.get(row.span.parent_span_id.as_slice());
        // Parents that go round in a circle must not keep a test busy for ever.
        while let (Some(row), true) = (parent, path.len() <= spans.0.len()) {
            path.push(row.span.name.clone());
            parent = by_id.get(row.span.parent_span_id.as_slice());
        }
        path.reverse();
        let step = row.text("ml.step").map(str::to_owned);
        // A class is told with its module, unless it is built in; targets tell bare names.
        let error = row.text("error.type").map(|name| name.rsplit('.').next().unwrap_or(name).to_owned());
        *kinds.entry(Kind { path, step, error }).or_insert(0) += 1;
    }
    kinds
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
    use opentelemetry_proto::tonic::common::v1::{AnyValue as Holder, KeyValue};
    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;

    fn row(id: u8, parent: Option<u8>, name: &str, step: Option<&str>) -> SpanRow {
        let attribute = |text: &str| KeyValue {
            key: "ml.step".to_owned(),
            value: Some(Holder { value: Some(AnyValue::StringValue(text.to_owned())) }),
            ..KeyValue::default()
        };
        let span = Span {
            span_id: vec![id],
            parent_span_id: parent.map(|parent| vec![parent]).unwrap_or_default(),
            name: name.to_owned(),
            attributes: step.map(attribute).into_iter().collect(),
            ..Span::default()
        };
        SpanRow { span, resource: Vec::new() }
    }

    fn truth(last_line: &str) -> Result<Truth> {
        let output = format!("ready\n{last_line}\n");
        Truth::of(&Finished { code: Some(0), signal: None, output, errors: String::new() })
    }

    const TOLD: &str = r#"{"digest": "d", "spans": [
        {"path": ["P.predict"], "step": null, "error": null, "count": 1},
        {"path": ["P.predict", "S.transform"], "step": "scaler", "error": null, "count": 1},
        {"path": ["P.predict", "C.predict"], "step": null, "error": null, "count": 1}]}"#;

    #[test]
    fn spans_are_held_against_the_truth() {
        let truth = truth(&TOLD.replace('\n', "")).expect("a truth");
        let spans = |step, name| {
            Spans(vec![
                row(1, None, "P.predict", None),
                row(2, Some(1), "S.transform", Some(step)),
                row(3, Some(1), name, Some("a step that the truth does not name")),
            ])
        };
        truth.check(&spans("scaler", "C.predict")).expect("all as told");
        let error = truth.check(&spans("other", "C.predict")).expect_err("another step").to_string();
        assert!(error.contains("1 calls, 0 spans") && error.contains("no calls, 1 spans"), "{error}");
        assert!(truth.check(&spans("scaler", "D.predict")).is_err());
        let mut twice = spans("scaler", "C.predict");
        twice.0.push(row(4, None, "P.predict", None));
        assert!(truth.check(&twice).is_err());
    }

    #[test]
    fn calls_that_are_not_watched_leave_the_truth() {
        let truth = truth(&TOLD.replace('\n', "")).expect("a truth");
        let methods = ["S.transform", "C.predict"].map(str::to_owned).into();
        let kinds: Vec<Kind> = truth.only(&methods).spans.into_keys().collect();
        let kind = |name: &str| Kind { path: vec![name.to_owned()], step: None, error: None };
        assert_eq!(kinds, [kind("C.predict"), kind("S.transform")]);
        let methods = ["P.predict", "S.transform"].map(str::to_owned).into();
        let steps: Vec<_> = truth.only(&methods).spans.into_keys().map(|kind| kind.step).collect();
        assert_eq!(steps, [None, Some("scaler".to_owned())]);
    }

    #[test]
    fn what_is_no_truth_is_refused() {
        assert!(truth("sum 3").is_err());
        assert!(truth("{\"digest\": \"d\"}").is_err());
    }
}
