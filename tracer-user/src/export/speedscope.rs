//! A profile for speedscope: each stack with the time spent in it.
//! Source: https://www.speedscope.app/file-format-schema.json, a profile of type `sampled`.

use serde::Serialize;

use super::attribute_limits::shorten_name;
use super::resource::{TRACER_NAME, TRACER_VERSION};
use super::stack_totals::{Frame, StackTotals};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'totals> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: String,
    name: &'static str,
    active_profile_index: u32,
    shared: Shared<'totals>,
    profiles: [Profile; 1],
}

#[derive(Serialize)]
struct Shared<'totals> {
    frames: Vec<Named<'totals>>,
}

#[derive(Serialize)]
struct Named<'totals> {
    name: &'totals str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'totals str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    r#type: &'static str,
    name: &'static str,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

fn named(frame: &Frame) -> Named<'_> {
    let (file, line) = frame.source.as_ref().map(|(file, line)| (shorten_name(file), *line)).unzip();
    Named { name: shorten_name(&frame.name), file, line }
}

/// The file.
pub fn speedscope(totals: &StackTotals) -> Vec<u8> {
    let (mut samples, mut weights) = (Vec::new(), Vec::new());
    totals.visit(|stack, nanoseconds| {
        samples.push(stack.to_vec());
        weights.push(nanoseconds);
    });
    let end_value = weights.iter().fold(0_u64, |sum, weight| sum.saturating_add(*weight));
    let profile = Profile {
        r#type: "sampled",
        name: "all calls",
        unit: "nanoseconds",
        start_value: 0,
        end_value,
        samples,
        weights,
    };
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: format!("{TRACER_NAME} {TRACER_VERSION}"),
        name: TRACER_NAME,
        active_profile_index: 0,
        shared: Shared { frames: totals.frames().iter().map(named).collect() },
        profiles: [profile],
    };
    let mut bytes = serde_json::to_vec(&file).expect("writing to memory cannot fail");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples;
    use super::*;

    #[test]
    fn each_stack_is_a_sample_with_its_time() {
        let mut totals = StackTotals::default();
        for span in samples::python_spans().iter().chain(&samples::python_spans()) {
            totals.span(span);
        }
        let file: Value = serde_json::from_slice(&speedscope(&totals)).expect("JSON");
        let frames = file["shared"]["frames"].as_array().expect("frames");
        assert_eq!(frames.len(), 7, "a name is one frame, however often it was called");
        let pipeline = frames.iter().position(|frame| frame["name"] == "Pipeline.predict").expect("a frame");
        assert_eq!(frames[pipeline]["line"], 117);
        let profile = &file["profiles"][0];
        let samples = profile["samples"].as_array().expect("samples");
        assert_eq!((&samples[0], &profile["weights"][0]), (&json!([pipeline]), &json!(80_000)));
        assert_eq!(samples.len(), profile["weights"].as_array().expect("weights").len());
        assert!(samples.iter().all(|stack| stack[0] == pipeline));
        assert_eq!(profile["endValue"], 2 * 1_660_000);
    }

    #[test]
    fn nothing_is_a_profile_too() {
        let file: Value = serde_json::from_slice(&speedscope(&StackTotals::default())).expect("JSON");
        assert_eq!((&file["profiles"][0]["samples"], &file["profiles"][0]["endValue"]), (&json!([]), &json!(0)));
    }
}
