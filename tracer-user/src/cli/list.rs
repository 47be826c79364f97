//! A plan as a list for people or as JSON.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::exit::tell;
use crate::model::{EntrySite, PlannedFunction, ProbePlan, ReturnMethod, Skipped};

#[derive(Serialize)]
struct Listing<'plan> {
    functions: Vec<Function<'plan>>,
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
pub fn print_plan(plan: &ProbePlan, unreadable: &[String], json: bool) -> anyhow::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    let written = if json { write_json(plan, unreadable, &mut output) } else { write_text(plan, &mut output) };
    written?;
    if !json {
        unreadable.iter().for_each(|sentence| tell(sentence));
    }
    if plan.functions.is_empty() {
        let detail = format!(
            "no function matches a symbol map and can be probed ({} candidates cannot); `--map FILE` adds rules of your own",
            plan.skipped.len()
        );
        return Err(crate::session::SessionError::NothingToTrace { detail }.into());
    }
    Ok(ExitCode::SUCCESS)
}

fn write_json(plan: &ProbePlan, unreadable: &[String], output: &mut impl Write) -> std::io::Result<()> {
    let listing = Listing {
        functions: plan.functions.iter().map(function).collect(),
        skipped: plan.skipped.iter().map(skipped).collect(),
        unreadable,
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

fn write_text(plan: &ProbePlan, output: &mut impl Write) -> std::io::Result<()> {
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
    if !plan.skipped.is_empty() {
        writeln!(output, "not traced:")?;
    }
    for skipped in &plan.skipped {
        writeln!(output, "  {}  ({}): {}", skipped.name.path, skipped.module, skipped.reason)?;
    }
    writeln!(output, "{} functions, {} not traced", plan.functions.len(), plan.skipped.len())
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
