//! What was traced of a Python program and what was not, in sentences.

use crate::model::{NotWatched, PythonCoverage, PythonMode, WatchedCode};

/// Names in one sentence; the rest is a number. `--summary` has them all.
const MAX_NAMES: usize = 6;

/// What a person should know of one interpreter, a sentence each.
pub fn python_remarks(coverage: &PythonCoverage) -> Vec<String> {
    let PythonCoverage { process, interpreter, mode, slots, slots_held_by, watched, not_watched } = coverage;
    let of = format!("{interpreter} of process {process}");
    let mut remarks = Vec::new();
    if let PythonMode::Watch = mode {
        let others = match slots_held_by.as_slice() {
            [] => String::new(),
            holders => format!("; others are held by {}", some_of(holders.iter().map(String::as_str))),
        };
        remarks.push(format!("{of}: {} of {slots} watchpoints in use{others}", watched.len()));
    }
    let called: Vec<&str> = methods(watched.iter().filter(|code| code.calls_seen > 0));
    let silent: Vec<&str> = methods(watched.iter().filter(|code| code.calls_seen == 0));
    if !called.is_empty() {
        remarks.push(format!("{of}: traced {}", some_of(called)));
    }
    if !silent.is_empty() {
        remarks.push(format!("{of}: watched, and never called: {}", some_of(silent)));
    }
    for (reason, names) in by_reason(not_watched) {
        remarks.push(format!("{of}: not traced, {reason}: {}", some_of(names)));
    }
    remarks
}

fn methods<'code>(codes: impl Iterator<Item = &'code WatchedCode>) -> Vec<&'code str> {
    codes.flat_map(|code| &code.methods).map(String::as_str).collect()
}

/// The names for each reason, reasons in the order in which they first occur.
fn by_reason(not_watched: &[NotWatched]) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for NotWatched { name, reason } in not_watched {
        match groups.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(name),
            None => groups.push((reason, vec![name])),
        }
    }
    groups
}

/// The first names, and how many more there are.
fn some_of<'name>(names: impl IntoIterator<Item = &'name str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(MAX_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(code: &str, methods: &[&str], calls_seen: u64) -> WatchedCode {
        WatchedCode { code: code.into(), methods: methods.iter().map(|method| (*method).into()).collect(), calls_seen }
    }

    fn coverage() -> PythonCoverage {
        let not_watched = |name: &str, reason: &str| NotWatched { name: name.into(), reason: reason.into() };
        PythonCoverage {
            process: 4242,
            interpreter: "CPython 3.11.7".into(),
            mode: PythonMode::Watch,
            slots: 3,
            slots_held_by: vec!["gdb (process 77)".into()],
            watched: vec![
                watched("Pipeline.predict", &["Pipeline.predict"], 10),
                watched("wrapped", &["StandardScaler.transform", "PCA.transform"], 20),
                watched("SVC.fit", &["SVC.fit"], 0),
            ],
            not_watched: (0..8)
                .map(|number| not_watched(&format!("Model{number}.fit"), "no watchpoint is left"))
                .chain([not_watched("Lazy.fit", "it is a generator")])
                .collect(),
        }
    }

    #[test]
    fn everything_is_told_and_nothing_at_length() {
        assert_eq!(
            python_remarks(&coverage()),
            [
                "CPython 3.11.7 of process 4242: 3 of 3 watchpoints in use; others are held by gdb (process 77)",
                "CPython 3.11.7 of process 4242: traced Pipeline.predict, StandardScaler.transform, PCA.transform",
                "CPython 3.11.7 of process 4242: watched, and never called: SVC.fit",
                "CPython 3.11.7 of process 4242: not traced, no watchpoint is left: Model0.fit, Model1.fit, Model2.fit, \
                 Model3.fit, Model4.fit, Model5.fit and 2 more",
                "CPython 3.11.7 of process 4242: not traced, it is a generator: Lazy.fit",
            ]
        );
    }

    #[test]
    fn the_summary_names_all() {
        let report = crate::session::Report { identity_holds: true, python: vec![coverage()], ..Default::default() };
        let summary = serde_json::to_value(&report).expect("JSON");
        let python = &summary["python"][0];
        assert_eq!((&python["mode"], &python["process"]), (&"watch".into(), &4242.into()));
        assert_eq!(python["not_watched"].as_array().map(Vec::len), Some(9));
        assert_eq!(python["watched"][1]["methods"][1], "PCA.transform");
        assert_eq!(report.remarks().len(), 5);
    }
}
