//! What was traced of a Python program and what was not, in sentences.

use crate::model::{PythonLeftOut, PythonMode, RuntimeCoverage, WatchedCode, counted, first_names};

/// Names in one sentence; the rest is a number. `--summary` has them all.
const MAX_NAMES: usize = 6;

/// What a person should know of one interpreter, in a few sentences without its name. `spans` are its methods that have spans,
/// in the order in which they are to be told.
pub fn remarks(coverage: &RuntimeCoverage, spans: &[(&str, u64)]) -> Vec<String> {
    let RuntimeCoverage { mode, slots, slots_held_by, watched, .. } = coverage;
    let is_watching = *mode == PythonMode::Watch;
    let others = match slots_held_by.as_slice() {
        [] => String::new(),
        holders => {
            let registers = counted(u64::from(*slots), "debug register", "debug registers");
            format!(" ({registers} could be had: {} has the others)", holders.join(", "))
        }
    };
    let mut covered: Vec<&str> = spans.iter().map(|(name, _)| *name).collect();
    for code in watched.iter().filter(|code| code.calls_seen > 0) {
        covered.extend(called_without_spans(code, &covered));
    }
    let covered = match (covered.is_empty(), is_watching) {
        (true, _) if watched.is_empty() && coverage.not_watched.is_empty() => {
            "nothing to trace was found in it".to_owned()
        }
        (true, true) if watched.is_empty() => "none of its Python methods was watched".to_owned(),
        (false, _) => format!("covered {}", first_names(&covered, MAX_NAMES)),
        (true, true) => "none of the Python methods that were watched was called".to_owned(),
        (true, false) => "none of the Python methods that a map asks for was called".to_owned(),
    };
    let mut remarks = vec![format!("{covered}{others}")];
    let has_spans = |method: &&str| spans.iter().any(|(name, _)| name == method);
    let mut silent = methods(watched.iter().filter(|code| code.calls_seen == 0));
    silent.retain(|method| !has_spans(method));
    if is_watching && !silent.is_empty() {
        remarks.push(format!("watched and not called: {}", first_names(&silent, MAX_NAMES)));
    }
    let unseen = |after| format!("not watched before {after} ms after its start: calls until then were not seen");
    remarks.extend(coverage.seen_after_ms.map(unseen));
    let in_windows = |percent| format!("seen in {percent} % of the time: other calls are not counted");
    remarks.extend(coverage.seen_percent.map(in_windows));
    if !coverage.few_witnesses.is_empty() {
        remarks.push(format!(
            "seen at few places of the interpreter ({}), which are compared with all places every 30 s: a call in between that \
             passes none of the few is not counted",
            coverage.few_witnesses.join(", ")
        ));
    }
    remarks.extend(not_traced(coverage, true));
    remarks.extend(not_traced(coverage, false));
    remarks.extend(not_looked_at(coverage));
    remarks
}

/// Code that was called though none of its methods has a span: its calls are part of others, or lost. Where several methods
/// run it, nothing says which of them were called: it goes by its own name.
fn called_without_spans<'code>(code: &'code WatchedCode, covered: &[&str]) -> Option<&'code str> {
    let is_told = code.methods.iter().any(|method| covered.contains(&method.as_str()));
    let name = if let [only] = code.methods.as_slice() { only } else { &code.code };
    (!is_told && !covered.contains(&name.as_str())).then_some(name)
}

/// The commonest reason with some of its methods, and how many methods have other ones. `is_live`: of those methods of live
/// objects that cannot be watched at all, else of all others.
fn not_traced(coverage: &RuntimeCoverage, is_live: bool) -> Option<String> {
    let groups = coverage.by_reason(|method| method.is_live == is_live);
    let (reason, names) = groups.iter().max_by_key(|(_, names)| names.len())?;
    let others = groups.iter().map(|(_, names)| names.len()).sum::<usize>() - names.len();
    let is_all = others == 0 && names.len() <= MAX_NAMES;
    let others = if others == 0 { String::new() } else { format!("; {others} more for other reasons") };
    let hint = if is_all { "" } else { " (`--summary` lists them)" };
    Some(format!("not traced, {reason}: {}{others}{hint}", first_names(names, MAX_NAMES)))
}

/// What a look did not get through.
fn not_looked_at(coverage: &RuntimeCoverage) -> Option<String> {
    let first = coverage.not_looked_at.first()?;
    let others = match coverage.not_looked_at.len() - 1 {
        0 => String::new(),
        1 => "; one more (`--summary` has it)".to_owned(),
        more => format!("; {more} more (`--summary` lists them)"),
    };
    Some(format!("not looked at: {} ({}){others}", first.what, first.reason))
}

/// What the tables had no room for, of all processes.
pub fn left_out(coverage: &[RuntimeCoverage]) -> Option<String> {
    let sum =
        |count: fn(&PythonLeftOut) -> usize| coverage.iter().map(|coverage| count(&coverage.left_out)).sum::<usize>();
    let counts = [
        (sum(|left| left.codes), "code object", "code objects"),
        (sum(|left| left.functions), "function", "functions"),
        (sum(|left| left.classes), "class", "classes"),
        (sum(|left| left.members), "step", "steps"),
        (sum(|left| left.numbers), "function without a number", "functions without a number"),
    ];
    let counts = counts.into_iter().filter(|(count, ..)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, one, many)| counted(count as u64, one, many)).collect();
    let processes = coverage.iter().filter(|coverage| coverage.left_out != PythonLeftOut::default()).count();
    (processes > 0).then(|| {
        format!(
            "left out for want of room in the tables, the least used ones of {}: {}; `--summary` has them by process, a \
             second tracer has tables of its own",
            counted(processes as u64, "process", "processes"),
            counts.join(", ")
        )
    })
}

/// The methods that run some code.
fn methods<'code>(codes: impl Iterator<Item = &'code WatchedCode>) -> Vec<&'code str> {
    codes.flat_map(|code| &code.methods).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NotLookedAt, NotWatched};

    fn watched(code: &str, methods: &[&str], calls_seen: u64) -> WatchedCode {
        WatchedCode { code: code.into(), methods: methods.iter().map(|method| (*method).into()).collect(), calls_seen }
    }

    fn coverage() -> RuntimeCoverage {
        let not_watched =
            |name: &str, reason: &str| NotWatched { name: name.into(), reason: reason.into(), is_live: false };
        RuntimeCoverage {
            process: 4242,
            interpreter: "CPython 3.11.7".into(),
            layout: "a data file".into(),
            slots: 3,
            slots_held_by: vec!["gdb (process 77)".into()],
            watched: vec![
                watched("Pipeline.predict", &["Pipeline.predict"], 10),
                watched("wrapped", &["StandardScaler.transform", "PCA.transform"], 20),
                watched("SVC.fit", &["SVC.fit"], 0),
            ],
            not_watched: (0..8)
                .map(|number| (number, if number % 2 == 0 { "predict" } else { "fit" }))
                .map(|(number, method)| not_watched(&format!("Model{number}.{method}"), "no debug register left"))
                .chain([not_watched("Lazy.fit", "it is a generator")])
                .collect(),
            ..RuntimeCoverage::default()
        }
    }

    const SPANS: &[(&str, u64)] = &[("StandardScaler.transform", 20), ("Pipeline.predict", 10)];

    #[test]
    fn everything_is_told_and_nothing_at_length() {
        assert_eq!(
            remarks(&coverage(), SPANS),
            [
                "covered StandardScaler.transform, Pipeline.predict (3 debug registers could \
                 be had: gdb (process 77) has the others)",
                "watched and not called: SVC.fit",
                "not traced, no debug register left: Model0.predict, Model2.predict, Model4.predict, Model6.predict, \
                 Model1.fit, Model3.fit and 2 more; 1 more for other reasons (`--summary` lists them)",
            ]
        );
    }

    #[test]
    fn methods_of_live_models_that_cannot_be_watched_are_told_first() {
        let mut coverage = RuntimeCoverage { slots: 1, ..coverage() };
        let reason = "it is no Python function".to_owned();
        coverage.not_watched.push(NotWatched { name: "Wrapped.predict".into(), reason, is_live: true });
        let remarks = remarks(&coverage, SPANS);
        assert_eq!(remarks[2], "not traced, it is no Python function: Wrapped.predict");
        assert!(remarks[3].starts_with("not traced, no debug register left: Model0.predict"), "{remarks:?}");
        assert!(remarks[0].contains("(1 debug register could be had"), "{remarks:?}");
    }

    #[test]
    fn what_was_called_is_told_whatever_is_watched_in_the_end() {
        // The guard was killed: nothing is watched any more.
        let coverage = RuntimeCoverage { watched: Vec::new(), not_watched: Vec::new(), ..coverage() };
        let coverage = RuntimeCoverage { slots: 0, slots_held_by: Vec::new(), ..coverage };
        let told = remarks(&coverage, SPANS);
        assert_eq!(told, ["covered StandardScaler.transform, Pipeline.predict"]);
        // Calls of shared code that are part of others have no spans: who was called is not known.
        let coverage = RuntimeCoverage {
            watched: vec![
                watched("wrapped", &["StandardScaler.transform", "PCA.transform"], 20),
                watched("f", &["F.f"], 2),
            ],
            ..coverage
        };
        let remarks = remarks(&coverage, &[]);
        assert_eq!(remarks, ["covered wrapped, F.f"]);
    }

    #[test]
    fn in_frames_mode_only_what_was_called_is_told() {
        let frames = RuntimeCoverage { mode: PythonMode::Frames, slots: 0, slots_held_by: Vec::new(), ..coverage() };
        let few = RuntimeCoverage { not_watched: frames.not_watched.iter().take(1).cloned().collect(), ..frames };
        assert_eq!(
            remarks(&few, SPANS),
            [
                "covered StandardScaler.transform, Pipeline.predict",
                "not traced, no debug register left: Model0.predict",
            ]
        );
        let seen_after_ms = Some(840);
        let nothing = RuntimeCoverage { watched: Vec::new(), not_watched: Vec::new(), seen_after_ms, ..few.clone() };
        assert_eq!(
            remarks(&RuntimeCoverage { watched: vec![watched("SVC.fit", &["SVC.fit"], 0)], ..few }, &[])[0],
            "none of the Python methods that a map asks for was called"
        );
        assert_eq!(
            remarks(&nothing, &[]),
            [
                "nothing to trace was found in it",
                "not watched before 840 ms after its start: calls until then were not seen",
            ]
        );
    }

    #[test]
    fn what_was_not_looked_at_is_told() {
        let left = |what: &str| NotLookedAt { what: what.into(), reason: "it takes too long".into() };
        let not_looked_at = vec![left("7 classes"), left("5 MiB of memory")];
        let coverage = RuntimeCoverage { not_looked_at, not_watched: Vec::new(), ..coverage() };
        let last = remarks(&coverage, SPANS).pop();
        assert_eq!(
            last.as_deref(),
            Some("not looked at: 7 classes (it takes too long); one more (`--summary` has it)")
        );
        let bare = RuntimeCoverage { watched: Vec::new(), slots_held_by: Vec::new(), ..coverage };
        assert_eq!(remarks(&bare, &[])[0], "nothing to trace was found in it");
        let not_watched = vec![NotWatched { name: "A.fit".into(), reason: "why".into(), is_live: true }];
        let unwatched = RuntimeCoverage { not_watched, ..bare };
        assert_eq!(remarks(&unwatched, &[])[0], "none of its Python methods was watched");
    }

    #[test]
    fn the_summary_names_all() {
        let python = serde_json::to_value(coverage()).expect("JSON");
        assert_eq!((&python["mode"], &python["process"]), (&"watch".into(), &4242.into()));
        assert_eq!(python["not_watched"].as_array().map(Vec::len), Some(9));
        assert_eq!(python["watched"][1]["methods"][1], "PCA.transform");
    }
}
