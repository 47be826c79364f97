//! A plan as a list for people or as JSON.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::exit::tell;
use crate::model::{
    EntrySite, NotLookedAt, PlannedFunction, ProbePlan, PythonCoverage, PythonMode, ReturnMethod, Skipped,
};
use crate::session::{PlanOnly, first_names};

/// Methods that are named of those that share one code object.
const MAX_METHODS: usize = 8;

#[derive(Serialize)]
struct Listing<'plan> {
    functions: Vec<Function<'plan>>,
    python: &'plan [PythonCoverage],
    skipped: Vec<SkippedFunction<'plan>>,
    unreadable: &'plan [String],
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
pub fn print_plan(plan: &PlanOnly, json: bool) -> anyhow::Result<ExitCode> {
    let PlanOnly { native, python, unreadable } = plan;
    let mut output = std::io::stdout().lock();
    let written = if json { write_json(plan, &mut output) } else { write_text(native, python, &mut output) };
    written?;
    if !json {
        unreadable.iter().for_each(|sentence| tell(sentence));
    }
    if native.functions.is_empty() && python.iter().all(|coverage| coverage.watched.is_empty()) {
        let detail = format!(
            "no function matches a symbol map and can be probed ({} candidates cannot); `--map FILE` adds rules of your own",
            native.skipped.len()
        );
        return Err(crate::session::SessionError::NothingToTrace { detail }.into());
    }
    Ok(ExitCode::SUCCESS)
}

fn write_json(plan: &PlanOnly, output: &mut impl Write) -> std::io::Result<()> {
    let listing = Listing {
        functions: plan.native.functions.iter().map(function).collect(),
        python: &plan.python,
        skipped: plan.native.skipped.iter().map(skipped).collect(),
        unreadable: &plan.unreadable,
    };
    serde_json::to_writer_pretty(&mut *output, &listing)?;
    writeln!(output)
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

fn write_text(plan: &ProbePlan, python: &[PythonCoverage], output: &mut impl Write) -> std::io::Result<()> {
    let mut module = None;
    let widest = plan.functions.iter().map(|function| function.request.span_name.len()).max().unwrap_or(0).min(44);
    for function in &plan.functions {
        let request = &function.request;
        if module != Some(&request.module.path) {
            writeln!(output, "{}", request.module.path.display())?;
            module = Some(&request.module.path);
        }
        writeln!(
            output,
            "  {:widest$}  entry {}; {}{}",
            request.span_name,
            describe_entry(&request.function.entry),
            describe_returns(&request.function.returns),
            if request.nests { "" } else { "; inside folded" },
        )?;
        if request.function.name.path != request.span_name.replace('.', "::") {
            writeln!(output, "  {:widest$}    {}", "", request.function.name.path)?;
        }
    }
    for coverage in python {
        write_python(coverage, output)?;
    }
    let not_watched: usize = python.iter().map(|coverage| coverage.not_watched.len()).sum();
    if plan.skipped.len() + not_watched > 0 {
        writeln!(output, "not traced:")?;
    }
    for coverage in python {
        write_not_watched(coverage, output)?;
    }
    for skipped in &plan.skipped {
        writeln!(output, "  {}  ({}): {}", skipped.name.path, skipped.module, skipped.reason)?;
    }
    for coverage in python {
        for NotLookedAt { what, reason } in &coverage.not_looked_at {
            let PythonCoverage { interpreter, process, .. } = coverage;
            writeln!(output, "not looked at in {interpreter} of process {process}: {what} ({reason})")?;
        }
    }
    let codes: usize = python.iter().map(|coverage| coverage.watched.len()).sum();
    writeln!(output, "{} functions, {} not traced", plan.functions.len() + codes, plan.skipped.len() + not_watched)
}

/// The Python code that is seen, and the methods of live models that it stands for.
fn write_python(coverage: &PythonCoverage, output: &mut impl Write) -> std::io::Result<()> {
    let PythonCoverage { process, interpreter, mode, slots, slots_held_by, watched, not_watched, .. } = coverage;
    match mode {
        PythonMode::Watch => writeln!(
            output,
            "{interpreter} of process {process}: a watchpoint on each of these, {slots} at one time{}",
            slots_held_by.iter().map(|holder| format!("; {holder} has others")).collect::<String>()
        ),
        PythonMode::Frames => {
            writeln!(output, "{interpreter} of process {process}: every Python call is looked at, these become spans")
        }
    }?;
    if watched.is_empty() {
        writeln!(
            output,
            "  nothing yet: there is no live object of a class that a map is about; `attach` waits for one"
        )?;
    }
    let widest = watched.iter().map(|code| code.code.len()).max().unwrap_or(0).min(44);
    for code in watched {
        let methods: Vec<&str> = code.methods.iter().map(String::as_str).collect();
        writeln!(output, "  {:widest$}  {}", code.code, first_names(&methods, MAX_METHODS))?;
    }
    if *mode == PythonMode::Watch && !watched.is_empty() && !not_watched.is_empty() {
        writeln!(
            output,
            "  This choice knows the live models and no traffic. `attach` first counts calls of each candidate for a moment,\n  \
             watches what is called, and tries others while something that it watches is not called."
        )?;
    }
    Ok(())
}

/// Methods of live models that are not seen, in a few lines for each reason.
fn write_not_watched(coverage: &PythonCoverage, output: &mut impl Write) -> std::io::Result<()> {
    for (reason, names) in coverage.not_watched_by_reason() {
        writeln!(output, "  {} of process {}: {reason}", coverage.interpreter, coverage.process)?;
        for (class, methods) in by_class(&names) {
            writeln!(output, "    {class:<28}  {}", methods.join(", "))?;
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
                (returns, 0) => format!("{returns} return sites"),
                (returns, jumps) => format!("{returns} return sites, {jumps} tail jumps"),
            }
        }
        ReturnMethod::Uretprobe { proof, .. } => format!("uretprobe, {proof}"),
    }
}
