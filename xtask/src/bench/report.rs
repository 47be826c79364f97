//! The figures as text, and their place in the document.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::attach_cost::AttachCosts;
use super::call_cost::{CallCosts, KINDS};
use super::chain_cost::{ChainCost, Seen};
use super::configuration::Tracing;
use super::python_cost::PythonCosts;
use super::request_cost::{self, RequestCosts};
use super::statistics::Spread;
use super::sustained::{RATE, Sustained};
use super::throughput::Throughput;

/// The figures stand between these lines of the document.
const BEGIN: &str = "<!-- figures: written by cargo xtask bench -->\n";
const END: &str = "<!-- end of figures -->";

/// Everything that was measured in one run.
pub struct Figures {
    /// The cost of a call.
    pub calls: CallCosts,
    /// Records, spans and bytes.
    pub throughput: Throughput,
    /// A steady load.
    pub sustained: Sustained,
    /// A load that may be too much.
    pub tried: Sustained,
    /// Attaching to a large process.
    pub attach: AttachCosts,
    /// Python.
    pub python: PythonCosts,
    /// Python in chain mode, by interpreter.
    pub chain: Vec<ChainCost>,
    /// A server that is asked.
    pub requests: RequestCosts,
}

/// The figures as Markdown.
pub fn write(machine: &str, figures: &Figures) -> String {
    let sections = [
        format!("Machine: {machine}.\n"),
        calls(&figures.calls),
        throughput(&figures.throughput),
        "### A steady load\n\nOn two processors, to a jsonl file:\n".to_owned(),
        load(&figures.sustained),
        load(&figures.tried) + "\n",
        attach(&figures.attach),
        python(&figures.python),
        chain(&figures.chain),
        requests(&figures.requests),
        targets(figures),
    ];
    sections.join("\n")
}

/// Replaces the figures in the document.
///
/// # Errors
/// When the document cannot be read or written, or has no place for figures.
pub fn put_into_document(document: &Path, text: &str) -> Result<()> {
    let shown = document.display();
    let before = fs::read_to_string(document).with_context(|| format!("cannot read {shown}"))?;
    let after =
        with_figures(&before, text).with_context(|| format!("{shown} lacks the lines `{BEGIN}` and `{END}`"))?;
    fs::write(document, after).with_context(|| format!("cannot write {shown}"))
}

fn with_figures(document: &str, text: &str) -> Option<String> {
    let (head, rest) = document.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{text}\n{END}{tail}"))
}

fn show(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string())
}

fn calls(costs: &CallCosts) -> String {
    let mut text = format!(
        "### One call\n\nNanoseconds of a call, medians of {} rounds (and quartiles).\n\n\
         | call | untraced | floor | floor, single | ml-tracer | bpftrace |\n|---|---|---|---|---|---|\n",
        costs.rounds
    );
    for kind in &KINDS {
        let cells = Tracing::ALL.map(|tracing| show(costs.nanoseconds(kind, tracing)));
        let _ = writeln!(text, "| {} | {} |", kind.sentence, cells.join(" | "));
    }
    text.push_str(
        "\nRatios within each round, medians (and quartiles).\n\n\
         | call | ml-tracer / floor | ml-tracer / floor, single | bpftrace / ml-tracer |\n|---|---|---|---|\n",
    );
    for kind in &KINDS {
        let cells = [
            (Tracing::MlTracer, Tracing::Floor),
            (Tracing::MlTracer, Tracing::SingleFloor),
            (Tracing::Bpftrace, Tracing::MlTracer),
        ]
        .map(|(above, below)| show(costs.ratio(kind, above, below)));
        let _ = writeln!(text, "| {} | {} |", kind.sentence, cells.join(" | "));
    }
    let _ = writeln!(text, "\nCalls that ml-tracer lost meanwhile: {}.", costs.lost);
    text
}

fn throughput(figures: &Throughput) -> String {
    let row = |rate: &Spread| format!("{rate:.0} | {:.0}", 1e9 / rate.median);
    format!(
        "### After the kernel\n\nA tape of {} records, replayed from memory.\n\n\
         | to | spans a second | ns a span |\n|---|---|---|\n\
         | nowhere: decoded and assembled, one processor | {} |\n\
         | a jsonl file, two processors | {} |\n\
         | a collector on loopback, OTLP over HTTP ({:.0} bytes a span), two processors | {} |\n",
        figures.records,
        row(&figures.assembled),
        row(&figures.json_lines),
        figures.otlp_bytes,
        row(&figures.otlp),
    )
}

fn load(figures: &Sustained) -> String {
    format!(
        "- {} calls a second asked for: {:.0} a second for {} s, {} spans, {} lost; the tracer used {:.0} % of one \
         processor and at most {:.1} MiB.",
        figures.asked,
        figures.rate,
        figures.seconds,
        figures.spans,
        figures.lost,
        figures.tracer_load * 100.0,
        figures.tracer_memory,
    )
}

fn attach(figures: &AttachCosts) -> String {
    format!(
        "### Attaching\n\nTo a Python process with XGBoost's library mapped, built-in maps, {} functions: {} ms until all \
         probes are live; {} MiB resident afterwards, {} MiB at most.\n",
        figures.functions, figures.milliseconds, figures.memory, figures.largest_memory,
    )
}

fn python(costs: &PythonCosts) -> String {
    let microseconds =
        |spread: Spread| Spread { median: spread.median / 1e3, lower: spread.lower / 1e3, upper: spread.upper / 1e3 };
    let call = &costs.call;
    let mut text = format!(
        "### Python\n\n{}, scikit-learn 1.9, medians of {} rounds (and quartiles).\n\n\
         Code that is not traced, in a process with four watchpoints live, takes {:.3} times what it takes without. A change \
         between two of its threads, {} microseconds, takes {} more: the kernel sets the debug registers.\n\n\
         A call of a method that does nothing, microseconds:\n\n\
         | not traced | empty program on the watchpoint | ml-tracer, watch mode | SDK in the process |\n|---|---|---|---|\n\
         | {:.2} | {} | {} | {} |\n\n\
         What ml-tracer adds to it is {:.2} times what the empty program adds, and {:.2} times what the SDK adds.\n\n\
         A prediction of a pipeline of three steps, four spans:\n\n\
         | | microseconds | of untraced |\n|---|---|---|\n",
        costs.interpreter,
        costs.rounds,
        costs.untraced,
        microseconds(costs.switch.0),
        microseconds(costs.switch.1),
        microseconds(call.plain),
        microseconds(call.floor),
        microseconds(call.watched),
        microseconds(call.sdk),
        call.above_floor,
        call.above_sdk,
    );
    for (how, time, ratio) in &costs.prediction {
        let _ = writeln!(text, "| {how} | {} | {ratio:.2} |", microseconds(*time));
    }
    let tracer = &costs.tracer;
    let _ = writeln!(
        text,
        "\nWhat its four spans add to it in watch mode is {:.2} times what four spans of the SDK add. Calls that ml-tracer \
         lost meanwhile: {}.\n\n\
         Attaching takes {} ms, of which {} ms are the look at the process. Afterwards the tracer uses {:.1} % of one \
         processor and {:.1} MiB while the process rests, {:.1} % and {:.1} MiB at {:.0} spans a second.",
        costs.prediction_above_sdk,
        costs.lost,
        tracer.attach_ms,
        tracer.look_ms,
        tracer.at_rest.0 * 100.0,
        tracer.at_rest.1,
        tracer.at_work.0 * 100.0,
        tracer.at_work.1,
        tracer.spans_per_second,
    );
    text
}

fn chain(costs: &[ChainCost]) -> String {
    let mut text = "### Python, chain mode\n\nPredictions of the same pipeline, medians (and quartiles). Bounds: by how much the \
                    beginning and the end of a call may have been earlier than is shown, of its duration; the median of the calls \
                    that take more than 200 microseconds.\n\n\
                    | | not traced, microseconds | all witnesses, of untraced | bounds | as `--python auto` chooses, of untraced | bounds | \
                    witnesses chosen |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    for cost in costs {
        let untraced = cost.untraced;
        let untraced =
            Spread { median: untraced.median / 1e3, lower: untraced.lower / 1e3, upper: untraced.upper / 1e3 };
        let bounds = |seen: &Seen| seen.bounds.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let functions = match cost.chosen.functions.as_slice() {
            [] => "all".to_owned(),
            functions => functions.iter().map(|function| format!("`{function}`")).collect::<Vec<_>>().join(", "),
        };
        let _ = writeln!(
            text,
            "| {} | {untraced} | {:.2} | {} | {:.2} | {} | {functions} |",
            cost.interpreter,
            cost.all.ratio,
            bounds(&cost.all),
            cost.chosen.ratio,
            bounds(&cost.chosen),
        );
    }
    text
}

fn requests(costs: &RequestCosts) -> String {
    use request_cost::Tracing::{Calls, Requests, Untraced};
    let mut text = "### Requests\n\nA FastAPI server that predicts with a pipeline of three steps, on one processor, asked over four \
                    connections, medians (and quartiles). The tracer, in watch mode, and the clients have the other processor.\n\n\
                    | | requests a second | of untraced | p50, ms | p99, ms |\n|---|---|---|---|---|\n"
        .to_owned();
    for tracing in request_cost::Tracing::ALL {
        let [rate, median, longest] = costs.figures(tracing).map(show);
        let ratio = show(costs.rate(tracing, Untraced));
        let _ = writeln!(text, "| {} | {rate} | {ratio} | {median} | {longest} |", tracing.words());
    }
    let _ = writeln!(
        text,
        "\nWith requests looked at, {} of the requests a second without. The shortest system call of a process that is not traced takes {} \
         times as long meanwhile.",
        show(costs.rate(Requests, Calls)),
        show(costs.system_call(Requests, Calls)),
    );
    text
}

fn targets(figures: &Figures) -> String {
    let [push, marked, _, folded] = &KINDS;
    let calls = &figures.calls;
    let median = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.median);
    let over_floor = median(calls.ratio(push, Tracing::MlTracer, Tracing::Floor));
    let over_single_floor = median(calls.ratio(push, Tracing::MlTracer, Tracing::SingleFloor));
    let folded_over_floor = median(calls.ratio(folded, Tracing::MlTracer, Tracing::Floor));
    let cheaper = median(calls.ratio(marked, Tracing::Bpftrace, Tracing::MlTracer));
    let sustained = &figures.sustained;
    let attach = &figures.attach;
    let rows = [
        ("`push`, of the floor", "at most 1.15", format!("{over_floor:.2}"), over_floor <= 1.15),
        (
            "`push`, of the floor with single probes",
            "at most 1.30",
            format!("{over_single_floor:.2}"),
            over_single_floor <= 1.30,
        ),
        ("a folded call, of the floor", "at most 1.05", format!("{folded_over_floor:.2}"), folded_over_floor <= 1.05),
        ("`endbr64`, cheaper than bpftrace", "at least 8 times", format!("{cheaper:.1} times"), cheaper >= 8.0),
        (
            "records through decode and assemble",
            "1,000,000 a second",
            format!("{:.0}", figures.throughput.assembled.median),
            figures.throughput.assembled.median >= 1e6,
        ),
        (
            "steady load to jsonl",
            "200,000 a second, none lost",
            format!("{:.0}, {} lost", sustained.rate, sustained.lost),
            sustained.lost == 0 && sustained.rate >= 0.99 * f64::from(RATE),
        ),
        (
            "attaching, XGBoost mapped",
            "under 300 ms",
            format!("{:.0} ms", attach.milliseconds.median),
            attach.milliseconds.median < 300.0,
        ),
        (
            "memory, XGBoost mapped",
            "under 40 MiB",
            format!("{:.1} MiB, {:.1} at most", attach.memory.median, attach.largest_memory.median),
            attach.largest_memory.median < 40.0,
        ),
    ];
    let python = &figures.python;
    let rows = rows.into_iter().chain([
        (
            "untraced Python code, four watchpoints live",
            "1.00",
            format!("{:.3}", python.untraced.median),
            (python.untraced.lower..=python.untraced.upper).contains(&1.0)
                && (python.untraced.median - 1.0).abs() < 0.02,
        ),
        (
            "span of an empty Python method, of one of the SDK",
            "at most 1.00",
            format!("{:.2}", python.call.above_sdk.median),
            python.call.above_sdk.median <= 1.0,
        ),
        (
            "spans of a prediction, of those of the SDK",
            "at most 1.00",
            format!("{:.2}", python.prediction_above_sdk.median),
            python.prediction_above_sdk.median <= 1.0,
        ),
    ]);
    let dearest = figures.chain.iter().map(|cost| cost.chosen.ratio.median).fold(f64::NAN, f64::max);
    let widest = figures.chain.iter().filter_map(|cost| cost.chosen.bounds).fold(f64::NAN, f64::max);
    let rows = rows.chain([
        ("a prediction in chain mode, of untraced", "at most 1.38", format!("{dearest:.2}"), dearest <= 1.38),
        ("bounds of calls over 200 microseconds", "below 5 %", format!("{:.1} %", widest * 100.0), widest < 0.05),
    ]);
    let requests = &figures.requests;
    let (with, without) = (request_cost::Tracing::Requests, request_cost::Tracing::Calls);
    let asked = median(requests.rate(with, without));
    let system_call = median(requests.system_call(with, without));
    let rows = rows.chain([
        ("requests a second with `--requests`, of without", "at least 0.97", format!("{asked:.2}"), asked >= 0.97),
        (
            "a system call of an untraced process, with `--requests`, of without",
            "at most 1.30",
            format!("{system_call:.2}"),
            system_call <= 1.30,
        ),
    ]);
    let mut text = "### First targets\n\n| what | target | here | reached |\n|---|---|---|---|\n".to_owned();
    for (what, target, here, reached) in rows {
        let _ = writeln!(text, "| {what} | {target} | {here} | {} |", if reached { "yes" } else { "no" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_figures_are_replaced() {
        let document = format!("# A\n{BEGIN}old\n{END}\nB\n");
        let after = with_figures(&document, "new\n");
        assert_eq!(after, Some(format!("# A\n{BEGIN}\nnew\n\n{END}\nB\n")));
        assert_eq!(with_figures("# A\n", "new"), None);
    }
}
