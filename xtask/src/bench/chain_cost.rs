//! What chain mode costs a Python process, and how narrow the bounds of its spans are, on each interpreter that is here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::Value;

use super::python_cost::Side;
use super::statistics::Spread;
use super::target::Place;

/// Predictions in a round.
const PREDICTIONS: u32 = 100;

/// Rounds before those that count.
const WARM_UP: usize = 2;

/// For so long the target is busy before the first round: which witnesses suffice is counted for two seconds.
const BUSY_MS: u32 = 5_000;

/// Bounds are told of calls that take at least so many nanoseconds.
const LONG_CALL: u64 = 200_000;

/// What was measured on one interpreter.
pub struct ChainCost {
    /// Its version.
    pub interpreter: String,
    /// Nanoseconds of a prediction that is not traced.
    pub untraced: Spread,
    /// With all witnesses, `--python chain`.
    pub all: Seen,
    /// With those that `--python auto` chooses.
    pub chosen: Seen,
}

/// A way to see the calls.
pub struct Seen {
    /// Time of a prediction as a ratio of an untraced one.
    pub ratio: Spread,
    /// By how much the beginning and the end of a long call may have been earlier than is shown, as a share of its duration: the median.
    /// `None` if no call was long.
    pub bounds: Option<f64>,
    /// Functions of the interpreter in which the witnesses are, where not all are.
    pub functions: Vec<String>,
}

/// Measures on each of these interpreters.
///
/// # Errors
/// When something does not start, or ends.
pub fn measure(place: &Place, pythons: &[PathBuf], rounds: usize) -> Result<Vec<ChainCost>> {
    pythons.iter().map(|python| on(place, python, rounds)).collect()
}

fn on(place: &Place, python: &Path, rounds: usize) -> Result<ChainCost> {
    eprintln!("==> Python, chain mode: {rounds} rounds of 3 configurations with {}", python.display());
    let mut plain = Side::plain(place, python)?;
    let mut all = Side::plain(place, python)?;
    let mut chosen = Side::plain(place, python)?;
    for (side, name, mode) in [(&mut all, ALL, "--python=chain"), (&mut chosen, CHOSEN, "--python=auto")] {
        // While it is idle: `auto` sees it in chain mode then.
        side.attach_idle(place, name, &[mode.to_owned()])?;
        side.target.work("busy", BUSY_MS)?;
    }
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let (mut untraced, mut with_all, mut with_chosen) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds + WARM_UP {
        let one = plain.target.work("pipeline", PREDICTIONS)?;
        let ratios =
            (all.target.work("pipeline", PREDICTIONS)? / one, chosen.target.work("pipeline", PREDICTIONS)? / one);
        if round >= WARM_UP {
            untraced.push(one);
            with_all.push(ratios.0);
            with_chosen.push(ratios.1);
        }
    }
    let interpreter = |summary: &Value| {
        let name = summary.pointer("/python/0/interpreter").and_then(Value::as_str);
        name.unwrap_or("CPython").to_owned()
    };
    let summary = all.let_go()?.context("it was traced")?;
    let all = seen(place, ALL, (with_all, began), &summary)?;
    Ok(ChainCost {
        interpreter: interpreter(&summary),
        untraced: Spread::of(untraced).context("no rounds")?,
        all,
        chosen: seen(place, CHOSEN, (with_chosen, began), &chosen.let_go()?.context("it was traced")?)?,
    })
}

/// Names of the files.
const ALL: &str = "chain_all";
const CHOSEN: &str = "chain_chosen";

fn seen(place: &Place, name: &str, (ratios, began): (Vec<f64>, u128), summary: &Value) -> Result<Seen> {
    let functions = summary.pointer("/python/0/few_witnesses").and_then(Value::as_array).into_iter().flatten();
    let text = fs::read_to_string(place.file(&format!("{name}.jsonl"))).context("the tracer has left no spans")?;
    Ok(Seen {
        ratio: Spread::of(ratios).context("no rounds")?,
        bounds: Spread::of(shares(&text, began)?).map(|spread| spread.median),
        functions: functions.filter_map(|function| Some(function.as_str()?.to_owned())).collect(),
    })
}

/// The bounds of each long call that began after this time, as a share of its duration.
fn shares(lines: &str, began: u128) -> Result<Vec<f64>> {
    let mut shares = Vec::new();
    for line in lines.lines() {
        let data: Value = serde_json::from_str(line).context("a line is no JSON")?;
        let list = |of: &Value, name: &str| of.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let scopes = list(&data, "resourceSpans").into_iter().flat_map(|resource| list(&resource, "scopeSpans"));
        for span in scopes.flat_map(|scope| list(&scope, "spans")) {
            let time = |name: &str| span.get(name).and_then(number).unwrap_or_default();
            let (start, end) = (time("startTimeUnixNano"), time("endTimeUnixNano"));
            if u128::from(start) < began || end.saturating_sub(start) < LONG_CALL {
                continue;
            }
            let wide: u64 = list(&span, "attributes").iter().filter_map(uncertainty).sum();
            shares.push(wide as f64 / (end - start) as f64);
        }
    }
    Ok(shares)
}

fn uncertainty(attribute: &Value) -> Option<u64> {
    let is_one = matches!(attribute.get("key")?.as_str()?, "ml.start_uncertainty" | "ml.end_uncertainty");
    is_one.then(|| number(attribute.pointer("/value/intValue")?))?
}

/// 64-bit numbers are strings in OTLP's JSON.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_shares_of_long_calls() {
        let span = |start: u64, end: u64, wide: u64| {
            format!(
                r#"{{"startTimeUnixNano":"{start}","endTimeUnixNano":"{end}","attributes":[{{"key":"ml.start_uncertainty",
                "value":{{"intValue":"{wide}"}}}},{{"key":"ml.end_uncertainty","value":{{"intValue":5000}}}}]}}"#
            )
            .replace('\n', "")
        };
        let spans = [span(1_000, 201_000, 15_000), span(1_000, 200_999, 9), span(10, 900_000, 9)].join(",");
        let line = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
        assert_eq!(shares(&line, 1_000).expect("it is JSON"), [0.1]);
    }
}
