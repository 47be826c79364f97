//! A plan as a list for people or as JSON.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::print::{json, line, tell};
use super::unnamed_classes::unnamed;
use crate::model::{
    EntrySite, NotLookedAt, PlannedFunction, ProbePlan, PythonMode, ReturnMethod, RuntimeCoverage, SkipReason, Skipped,
    counted, first_names, process_numbers,
};
use crate::session::PlanOnly;

/// Methods that are named of those that share one code object.
const MAX_METHODS: usize = 8;

#[derive(Serialize)]
struct Listing<'plan> {
    functions: Vec<Function<'plan>>,
    python: &'plan [RuntimeCoverage],
    skipped: Vec<SkippedFunction<'plan>>,
    unreadable: &'plan [String],
    /// A symbol map about the classes that no map is about and that look like models.
    #[serde(skip_serializing_if = "Option::is_none")]
    map_of_unnamed_classes: Option<String>,
}

#[derive(Serialize)]
struct Function<'plan> {
    span: &'plan str,
    class: Option<&'plan str>,
    method: &'plan str,
    path: &'plan str,
    symbol: &'plan str,
    module: String,
    library: &'plan str,
    nests: bool,
    entry: &'plan EntrySite,
    returns: &'plan ReturnMethod,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    shared_code: &'plan [String],
}

#[derive(Serialize)]
struct SkippedFunction<'plan> {
    class: Option<&'plan str>,
    method: &'plan str,
    path: &'plan str,
    symbol: &'plan str,
    module: &'plan str,
    why: String,
}

/// Prints what would be probed and what not and why. Nothing at all is a failure of its own.
pub fn print_plan(plan: &PlanOnly, as_json: bool) -> anyhow::Result<ExitCode> {
    let PlanOnly { native, python, unreadable, hints } = plan;
    let mut output = std::io::stdout().lock();
    if as_json {
        write_json(plan, &mut output)?;
    } else {
        write_text(native, python, &mut output)?;
        unreadable.iter().for_each(|sentence| tell(sentence));
    }
    if native.functions.is_empty() && python.iter().all(|coverage| coverage.watched.is_empty()) {
        let unnamed = unnamed(python).map(|_| "; `--class NAME` traces classes that no map names");
        let skipped = match native.skipped.len() as u64 {
            0 => String::new(),
            count => format!(" ({} cannot)", counted(count, "candidate", "candidates")),
        };
        let detail = format!(
            "no function matches a symbol map and can be probed{skipped}; `--map FILE` adds rules of your own{}{}",
            unnamed.unwrap_or_default(),
            hints.iter().take(1).map(|hint| format!("; {hint}")).collect::<String>()
        );
        return Err(crate::session::SessionError::NothingToTrace { detail }.into());
    }
    Ok(ExitCode::SUCCESS)
}

fn write_json(plan: &PlanOnly, output: &mut impl Write) -> anyhow::Result<()> {
    let listing = Listing {
        functions: plan.native.functions.iter().map(function).collect(),
        python: &plan.python,
        skipped: plan.native.skipped.iter().map(skipped).collect(),
        unreadable: &plan.unreadable,
        map_of_unnamed_classes: unnamed(&plan.python).map(|unnamed| unnamed.yaml),
    };
    json(output, &listing)
}

fn function(function: &PlannedFunction) -> Function<'_> {
    let request = &function.request;
    let name = &request.function.name;
    Function {
        span: &request.span_name,
        class: name.class.as_deref(),
        method: &name.method,
        path: &name.path,
        symbol: &name.symbol,
        module: request.module.path.to_string_lossy().into_owned(),
        library: &request.library,
        nests: request.nests,
        entry: &request.function.entry,
        returns: &request.function.returns,
        shared_code: &request.shared_code,
    }
}

fn skipped(skipped: &Skipped) -> SkippedFunction<'_> {
    SkippedFunction {
        class: skipped.name.class.as_deref(),
        method: &skipped.name.method,
        path: &skipped.name.path,
        symbol: &skipped.name.symbol,
        module: &skipped.module,
        why: skipped.reason.to_string(),
    }
}

fn write_text(plan: &ProbePlan, python: &[RuntimeCoverage], output: &mut impl Write) -> std::io::Result<()> {
    let mut module = None;
    let widest = plan.functions.iter().map(|function| function.request.span_name.len()).max().unwrap_or(0).min(44);
    for function in &plan.functions {
        let request = &function.request;
        if module != Some(&request.module.path) {
            line(output, format_args!("{}", request.module.path.display()))?;
            module = Some(&request.module.path);
        }
        line(
            output,
            format_args!(
                "  {:widest$}  entry {}; {}{}",
                request.span_name,
                describe_entry(&request.function.entry),
                describe_returns(&request.function.returns),
                if request.nests { "" } else { "; inside folded" }
            ),
        )?;
        if request.function.name.path != request.span_name.replace('.', "::") {
            line(output, format_args!("  {:widest$}    {}", "", request.function.name.path))?;
        }
        if !request.shared_code.is_empty() {
            let others: Vec<&str> = request.shared_code.iter().map(String::as_str).collect();
            line(output, format_args!("  {:widest$}    also the code of {}", "", first_names(&others, MAX_METHODS)))?;
        }
    }
    let groups = grouped(python);
    for (processes, coverage) in &groups {
        write_python(processes, coverage, output)?;
    }
    let not_watched: usize = python.iter().map(|coverage| coverage.not_watched.len()).sum();
    if plan.skipped.len() + not_watched > 0 {
        line(output, format_args!("not traced:"))?;
    }
    for (processes, coverage) in &groups {
        write_not_watched(processes, coverage, output)?;
    }
    write_libraries_of_others(&plan.skipped, output)?;
    let is_own = |skipped: &&Skipped| !matches!(skipped.reason, SkipReason::OfOthers { .. });
    for skipped in plan.skipped.iter().filter(is_own) {
        line(output, format_args!("  {}  ({}): {}", skipped.name.path, skipped.module, skipped.reason))?;
    }
    for (processes, RuntimeCoverage { interpreter, not_looked_at, .. }) in &groups {
        for NotLookedAt { what, reason } in not_looked_at {
            line(output, format_args!("not looked at in {interpreter} of {processes}: {what} ({reason})"))?;
        }
    }
    if let Some(unnamed) = unnamed(python) {
        unnamed.write(output)?;
    }
    let codes: usize = python.iter().map(|coverage| coverage.watched.len()).sum();
    line(
        output,
        format_args!("{} functions, {} not traced", plan.functions.len() + codes, plan.skipped.len() + not_watched),
    )
}

/// Interpreters of which the same is to be said: the processes, and one of them.
fn grouped(python: &[RuntimeCoverage]) -> Vec<(String, &RuntimeCoverage)> {
    let mut groups: Vec<(Vec<u32>, &RuntimeCoverage)> = Vec::new();
    for coverage in python {
        let is_same =
            |other: &RuntimeCoverage| RuntimeCoverage { process: coverage.process, ..other.clone() } == *coverage;
        match groups.iter_mut().find(|(_, other)| is_same(other)) {
            Some((processes, _)) => processes.push(coverage.process),
            None => groups.push((vec![coverage.process], coverage)),
        }
    }
    groups.into_iter().map(|(processes, coverage)| (process_numbers(&processes), coverage)).collect()
}

/// What is left out in libraries that are not the program's own: many functions in few libraries.
fn write_libraries_of_others(skipped: &[Skipped], output: &mut impl Write) -> std::io::Result<()> {
    let mut libraries: BTreeMap<&str, (&SkipReason, Vec<String>)> = BTreeMap::new();
    for Skipped { name, module, reason } in skipped {
        if matches!(reason, SkipReason::OfOthers { .. }) {
            libraries.entry(module).or_insert_with(|| (reason, Vec::new())).1.push(name.span_name());
        }
    }
    for (module, (reason, mut names)) in libraries {
        names.sort_unstable();
        names.dedup();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        line(output, format_args!("  {module}: {reason}"))?;
        line(output, format_args!("    {}", first_names(&names, MAX_METHODS)))?;
    }
    Ok(())
}

/// The Python code that is seen, and the methods of live models that it stands for.
fn write_python(processes: &str, coverage: &RuntimeCoverage, output: &mut impl Write) -> std::io::Result<()> {
    let RuntimeCoverage { interpreter, mode, slots, slots_held_by, watched, not_watched, .. } = coverage;
    match mode {
        PythonMode::Watch => line(
            output,
            format_args!(
                "{interpreter} of {processes}: a watchpoint on each of these, {slots} at one time{}",
                slots_held_by.iter().map(|holder| format!("; {holder} has others")).collect::<String>()
            ),
        ),
        PythonMode::Chain => line(
            output,
            format_args!(
                "{interpreter} of {processes}: calls of these become spans; frames are looked at where C code calls Python"
            ),
        ),
        PythonMode::Frames => line(
            output,
            format_args!("{interpreter} of {processes}: calls of these become spans; every Python call is looked at"),
        ),
    }?;
    if watched.is_empty() {
        line(
            output,
            format_args!(
                "  nothing yet: there is no live object of a class that a map is about; `attach` waits for one"
            ),
        )?;
    }
    let widest = watched.iter().map(|code| code.code.len()).max().unwrap_or(0).min(44);
    for code in watched {
        let methods: Vec<&str> = code.methods.iter().map(String::as_str).collect();
        line(output, format_args!("  {:widest$}  {}", code.code, first_names(&methods, MAX_METHODS)))?;
    }
    if *mode == PythonMode::Watch && !watched.is_empty() && !not_watched.is_empty() {
        for sentence in [
            "  This choice is made without a look at traffic. `attach` first counts the calls of each candidate for a moment,",
            "  watches what is called, and tries others in the place of what is not.",
        ] {
            line(output, format_args!("{sentence}"))?;
        }
    }
    Ok(())
}

/// Methods of live models that are not seen, in a few lines for each reason.
fn write_not_watched(processes: &str, coverage: &RuntimeCoverage, output: &mut impl Write) -> std::io::Result<()> {
    for (reason, names) in coverage.not_watched_by_reason() {
        line(output, format_args!("  {} of {processes}: {reason}", coverage.interpreter))?;
        for (class, methods) in by_class(&names) {
            line(output, format_args!("    {class:<28}  {}", methods.join(", ")))?;
        }
    }
    Ok(())
}

/// `Class.method` by class, in the order of the names.
fn by_class<'name>(names: &[&'name str]) -> BTreeMap<&'name str, Vec<&'name str>> {
    let mut classes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        let (class, method) = name.rsplit_once('.').unwrap_or((name, ""));
        classes.entry(class).or_default().push(method);
    }
    classes
}

fn describe_entry(entry: &EntrySite) -> String {
    let cost = if entry.emulated { "emulated" } else { "single-stepped" };
    format!("{} `{}` {cost}", entry.offset, entry.instruction)
}

fn describe_returns(returns: &ReturnMethod) -> String {
    match returns {
        ReturnMethod::ReturnSites { sites } => {
            let jumps = sites.iter().filter(|site| site.tail_jump).count();
            match (sites.len() - jumps, jumps) {
                (returns, 0) => counted(returns as u64, "return site", "return sites"),
                (returns, jumps) => format!(
                    "{}, {}",
                    counted(returns as u64, "return site", "return sites"),
                    counted(jumps as u64, "tail jump", "tail jumps")
                ),
            }
        }
        ReturnMethod::Uretprobe { proof, .. } => format!("uretprobe, {proof}"),
    }
}
