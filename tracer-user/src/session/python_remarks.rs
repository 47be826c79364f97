//! What was traced of a Python program and what was not, in sentences.

use crate::model::{PythonCoverage, PythonMode, WatchedCode};

/// Names in one sentence; the rest is a number. `--summary` has them all.
const MAX_NAMES: usize = 6;

/// What a person should know of one interpreter: four sentences at most.
pub fn python_remarks(coverage: &PythonCoverage) -> Vec<String> {
    let PythonCoverage { process, interpreter, mode, slots, slots_held_by, watched, .. } = coverage;
    let is_watching = *mode == PythonMode::Watch;
    let others = match slots_held_by.as_slice() {
        [] => String::new(),
        holders => format!(" ({slots} debug registers could be had: {} has the others)", holders.join(", ")),
    };
    let called = methods(watched.iter().filter(|code| code.calls_seen > 0));
    let called = if called.is_empty() {
        "nothing: no watched method was called".to_owned()
    } else {
        first_names(&called, MAX_NAMES)
    };
    let mut remarks = vec![format!("{interpreter} of process {process}: covered {called}{others}")];
    let silent = methods(watched.iter().filter(|code| code.calls_seen == 0));
    if is_watching && !silent.is_empty() {
        remarks.push(format!("  watched and not called: {}", first_names(&silent, MAX_NAMES)));
    }
    let unseen = |after| format!("  not watched before {after} ms after its start: calls until then were not seen");
    remarks.extend(coverage.seen_after_ms.map(unseen));
    remarks.extend(not_traced(coverage));
    remarks
}

/// The commonest reason with some of its methods, and how many methods have other ones.
fn not_traced(coverage: &PythonCoverage) -> Option<String> {
    let groups = coverage.not_watched_by_reason();
    let (reason, names) = groups.iter().max_by_key(|(_, names)| names.len())?;
    let others = coverage.not_watched.len() - names.len();
    let is_all = others == 0 && names.len() <= MAX_NAMES;
    let others = if others == 0 { String::new() } else { format!("; {others} more for other reasons") };
    let hint = if is_all { "" } else { " (`--summary` lists them)" };
    Some(format!("  not traced, {reason}: {}{others}{hint}", first_names(names, MAX_NAMES)))
}

/// The methods that run some code. Where many do, not all of them need have been called.
fn methods<'code>(codes: impl Iterator<Item = &'code WatchedCode>) -> Vec<&'code str> {
    codes.flat_map(|code| &code.methods).map(String::as_str).collect()
}

/// The first names, so many at most, and how many more there are.
#[must_use]
pub fn first_names(names: &[&str], most: usize) -> String {
    let shown = names.iter().take(most).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NotWatched;

    fn watched(code: &str, methods: &[&str], calls_seen: u64) -> WatchedCode {
        WatchedCode { code: code.into(), methods: methods.iter().map(|method| (*method).into()).collect(), calls_seen }
    }

    fn coverage() -> PythonCoverage {
        let not_watched = |name: &str, reason: &str| NotWatched { name: name.into(), reason: reason.into() };
        PythonCoverage {
            process: 4242,
            interpreter: "CPython 3.11.7".into(),
            layout: "a data file".into(),
            mode: PythonMode::Watch,
            slots: 3,
            slots_held_by: vec!["gdb (process 77)".into()],
            seen_after_ms: None,
            left_out: crate::model::PythonLeftOut::default(),
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
        }
    }

    #[test]
    fn everything_is_told_and_nothing_at_length() {
        assert_eq!(
            python_remarks(&coverage()),
            [
                "CPython 3.11.7 of process 4242: covered Pipeline.predict, StandardScaler.transform, PCA.transform (3 debug \
                 registers could be had: gdb (process 77) has the others)",
                "  watched and not called: SVC.fit",
                "  not traced, no debug register left: Model0.predict, Model2.predict, Model4.predict, Model6.predict, \
                 Model1.fit, Model3.fit and 2 more; 1 more for other reasons (`--summary` lists them)",
            ]
        );
    }

    #[test]
    fn in_frames_mode_only_what_was_called_is_told() {
        let frames = PythonCoverage { mode: PythonMode::Frames, slots: 0, slots_held_by: Vec::new(), ..coverage() };
        let few = PythonCoverage { not_watched: frames.not_watched.iter().take(1).cloned().collect(), ..frames };
        assert_eq!(
            python_remarks(&few),
            [
                "CPython 3.11.7 of process 4242: covered Pipeline.predict, StandardScaler.transform, PCA.transform",
                "  not traced, no debug register left: Model0.predict",
            ]
        );
        let seen_after_ms = Some(840);
        let nothing = PythonCoverage { watched: Vec::new(), not_watched: Vec::new(), seen_after_ms, ..few };
        assert_eq!(
            python_remarks(&nothing),
            [
                "CPython 3.11.7 of process 4242: covered nothing: no watched method was called",
                "  not watched before 840 ms after its start: calls until then were not seen",
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
        assert_eq!(report.remarks().len(), 3);
    }
}
