//! `ml-tracer doctor`.

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::arguments::DoctorArguments;
use super::exit::NOT_PERMITTED;
use super::print::{json, line};
use crate::attach::{Check, CheckState, ProbeCost, check_machine, measure_probe_costs};
use crate::model::printable;

#[derive(Serialize)]
struct Diagnosis {
    checks: Vec<Check>,
    probe_cost: Option<ProbeCost>,
    probe_cost_problem: Option<String>,
}

/// Looks at the machine and measures what a probe costs here.
pub fn doctor(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let checks = check_machine();
    let (probe_cost, probe_cost_problem) = match measure_probe_costs() {
        Ok(cost) => (Some(cost), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let diagnosis = Diagnosis { checks, probe_cost, probe_cost_problem };
    let mut output = std::io::stdout().lock();
    if arguments.json {
        json(&mut output, &diagnosis)?;
    } else {
        write_text(&diagnosis, &mut output)?;
    }
    let bad = diagnosis.checks.iter().any(|check| check.state == CheckState::Bad);
    Ok(if bad { ExitCode::from(NOT_PERMITTED) } else { ExitCode::SUCCESS })
}

fn write_text(diagnosis: &Diagnosis, output: &mut impl Write) -> std::io::Result<()> {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for check in &diagnosis.checks {
        let (word, shade) = match check.state {
            CheckState::Good => ("good", AnsiColor::Green),
            CheckState::Limited => ("limited", AnsiColor::Yellow),
            CheckState::Bad => ("bad", AnsiColor::Red),
        };
        let style = if colour { shade.on_default() } else { Style::new() };
        writeln!(output, "{style}{word:7}{style:#}  {:20} {}", check.name, printable(&check.detail))?;
    }
    writeln!(output)?;
    match (&diagnosis.probe_cost, &diagnosis.probe_cost_problem) {
        (Some(cost), _) => write_cost(cost, output),
        (None, Some(problem)) => line(output, format_args!("what a probe costs could not be measured: {problem}")),
        (None, None) => Ok(()),
    }
}

fn write_cost(cost: &ProbeCost, output: &mut impl Write) -> std::io::Result<()> {
    writeln!(output, "what an empty probe costs here, per call of a tiny function:")?;
    let rows = [
        ("no probe", Some(cost.none_ns)),
        ("uprobe on an emulated instruction", cost.emulated_ns),
        ("uprobe on a single-stepped instruction", cost.single_stepped_ns),
        ("uprobe and uretprobe, emulated", cost.uretprobe_ns),
        ("hardware watchpoint", cost.watchpoint_ns),
    ];
    for (name, nanoseconds) in rows {
        match nanoseconds {
            Some(nanoseconds) => writeln!(output, "  {name:40} {nanoseconds:>9.0} ns")?,
            None => writeln!(output, "  {name:40} not possible")?,
        }
    }
    writeln!(output, "  {:40} {:>9}", "watchpoints that a thread can have now", cost.watchpoint_slots)?;
    for problem in &cost.problems {
        line(output, format_args!("  {problem}"))?;
    }
    Ok(())
}
