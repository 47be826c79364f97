//! The span trees of the original, which wraps estimators inside the process, against those of the tracer outside it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use tracer_tests::python::ORACLE;
use tracer_tests::spans::Tree;
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{Trace, Tracer};
use tracer_tests::workspace;

/// The tests: one for each tree of the record.
pub fn cases() -> Vec<Case> {
    let needs = vec![Need::Program, Need::Kernel, Need::Python(ORACLE)];
    let recorded = fs::read_to_string(workspace::tests("python_oracle/trees.txt")).unwrap_or_default();
    let headings = recorded.lines().filter_map(|line| line.strip_prefix("# "));
    let case = |heading: &str| {
        let heading = heading.to_owned();
        case_of(format!("like_the_original_{}", heading.replace(' ', "_")), needs.clone(), move || compare(&heading))
    };
    headings.map(case).collect()
}

/// Times that the work is done: each must give the same tree.
const REPEAT: usize = 3;

fn compare(heading: &str) -> Result<()> {
    let recorded = fs::read_to_string(workspace::tests("python_oracle/trees.txt"))?;
    let (_, rest) = recorded.split_once(&format!("# {heading}\n")).context("it is in the record")?;
    let expected = parse(rest.split("\n\n").next().unwrap_or_default())?;

    // One process in both modes: its work is the same each time.
    let mut target = start(heading)?;
    let trace = traced(&mut target, heading, "frames")?;
    agree(&trace, &expected).context("frames")?;

    let trace = traced(&mut target, heading, "watch")?;
    let watched = trace.summary.watched();
    let left_out: BTreeSet<String> = names(&expected).difference(&watched).cloned().collect();
    agree(&trace, &without(&expected, &left_out)).context("watching")?;
    // What the slots did not suffice for is told by name.
    let told = trace.summary.python().first().and_then(|python| python.get("not_watched")?.as_array()).cloned();
    let told: BTreeSet<String> =
        told.iter().flatten().filter_map(|left| Some(left.get("name")?.as_str()?.to_owned())).collect();
    ensure!(left_out.is_subset(&told), "watching: {left_out:?} are left out, and told are {told:?}");
    let finished = target.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    Ok(())
}

fn start(heading: &str) -> Result<Target> {
    let words: Vec<&str> = heading.split(' ').collect();
    let [model, action, _] = words.as_slice() else { bail!("`{heading}` is no heading") };
    let arguments = [model, action, "--repeat", &REPEAT.to_string()];
    Target::start_forked(ORACLE, "python_oracle/oracle.py", &arguments)
}

fn traced(target: &mut Target, heading: &str, mode: &str) -> Result<Trace> {
    let words: Vec<&str> = heading.split(' ').collect();
    let [model, _, methods] = words.as_slice() else { bail!("`{heading}` is no heading") };
    let mut tracer = Tracer::attach(target.pid())?.arguments(["--python", mode]);
    let map = match (*methods, *model) {
        ("private", _) => Some("private"),
        (_, "multi_output" | "random_forest_children") => Some("children"),
        _ => None,
    };
    if let Some(map) = map {
        tracer = tracer.map_file(&workspace::tests(&format!("python_oracle/{map}.yaml")))?;
    }
    let attached = tracer.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    trace.check_whole()?;
    Ok(trace)
}

/// Names, parents, order and number of calls are those of the record, each time that the work was done.
fn agree(trace: &Trace, expected: &[Tree]) -> Result<()> {
    let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    let times: Vec<String> = (0..REPEAT).flat_map(|_| expected.iter().cloned()).collect();
    let seen = trace.spans.tree_lines();
    ensure!(
        seen == times,
        "the original:\n{}\nseen, of {REPEAT} times:\n{}\n{}",
        expected.join("\n"),
        seen.join("\n"),
        trace.summary.0
    );
    Ok(())
}

/// The lines of the record: two spaces for each level.
fn parse(text: &str) -> Result<Vec<Tree>> {
    let mut open = vec![Tree { name: String::new(), children: Vec::new() }];
    for line in text.lines() {
        let name = line.trim_start();
        let depth = (line.len() - name.len()) / 2;
        close_to(&mut open, depth + 1)?;
        open.push(Tree { name: name.to_owned(), children: Vec::new() });
    }
    close_to(&mut open, 1)?;
    Ok(open.pop().map(|root| root.children).unwrap_or_default())
}

fn close_to(open: &mut Vec<Tree>, depth: usize) -> Result<()> {
    ensure!(open.len() >= depth, "a level is missing in the record");
    while open.len() > depth {
        let Some(closed) = open.pop() else { break };
        open.last_mut().context("the root stays")?.children.push(closed);
    }
    Ok(())
}

fn names(trees: &[Tree]) -> BTreeSet<String> {
    trees.iter().flat_map(|tree| names(&tree.children).into_iter().chain([tree.name.clone()])).collect()
}

/// Calls of methods that are left out are as if they were not there: what is inside them belongs to the call around.
fn without(trees: &[Tree], left_out: &BTreeSet<String>) -> Vec<Tree> {
    let keep = |tree: &Tree| {
        let children = without(&tree.children, left_out);
        if left_out.contains(&tree.name) { children } else { vec![Tree { name: tree.name.clone(), children }] }
    };
    trees.iter().flat_map(keep).collect()
}
