//! Spans as text that a person can read and a test can compare: what depends on the run alone (ids, process and thread
//! numbers, wall-clock time, the folder of the checkout) is left out, durations and order stay.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use crate::spans::{SpanRow, Spans};

/// Attributes that differ from run to run.
const LEFT_OUT: &[&str] = &["thread.id", "ml.module", "code.file.path"];

/// Renders all trees: threads in the order of their first span, a line a span.
#[must_use]
pub fn render(spans: &Spans) -> String {
    let mut rows: Vec<&SpanRow> = spans.0.iter().collect();
    rows.sort_by_key(|row| (row.span.start_time_unix_nano, std::cmp::Reverse(row.span.end_time_unix_nano)));
    let first = rows.first().map_or(0, |row| row.span.start_time_unix_nano);
    let mut children: HashMap<&[u8], Vec<&SpanRow>> = HashMap::new();
    let mut threads: Vec<i64> = Vec::new();
    for row in &rows {
        children.entry(&row.span.parent_span_id).or_default().push(row);
        let thread = row.integer("thread.id").unwrap_or(0);
        if !threads.contains(&thread) {
            threads.push(thread);
        }
    }
    let mut text = String::new();
    for (number, thread) in threads.iter().enumerate() {
        text.push_str(&format!("thread {}\n", number + 1));
        for root in children.get([].as_slice()).into_iter().flatten() {
            if root.integer("thread.id").unwrap_or(0) == *thread {
                render_span(root, &children, first, 1, &mut text);
            }
        }
    }
    text
}

fn render_span(row: &SpanRow, children: &HashMap<&[u8], Vec<&SpanRow>>, first: u64, depth: usize, text: &mut String) {
    let span = &row.span;
    let start = span.start_time_unix_nano - first;
    let duration = span.end_time_unix_nano - span.start_time_unix_nano;
    let status = if row.is_error() { " error" } else { "" };
    let mut attributes = BTreeMap::new();
    for attribute in &span.attributes {
        if !LEFT_OUT.contains(&attribute.key.as_str()) {
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            attributes.insert(attribute.key.as_str(), value.map_or_else(|| "?".to_owned(), shown));
        }
    }
    let attributes: Vec<String> = attributes.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:indent$}{} at {start} for {duration}{status} {}",
        "",
        span.name,
        attributes.join(" "),
        indent = depth * 2
    );
    for child in children.get(span.span_id.as_slice()).into_iter().flatten() {
        render_span(child, children, first, depth + 1, text);
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}
