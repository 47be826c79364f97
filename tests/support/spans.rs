//! Spans as the tracer wrote them, read back with the official protobuf types, and the trees they form.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, TracesData};

/// One span with the resource that it came with.
#[derive(Clone, Debug)]
pub struct SpanRow {
    /// The span.
    pub span: Span,
    /// Attributes of its resource.
    pub resource: Vec<KeyValue>,
}

/// Spans of one run.
#[derive(Clone, Debug, Default)]
pub struct Spans(pub Vec<SpanRow>);

/// A call and the calls inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Span name.
    pub name: String,
    /// Calls inside, in the order of their start.
    pub children: Vec<Tree>,
}

impl SpanRow {
    /// Text of an attribute.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match value_of(&self.span.attributes, key)? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    /// Number of an attribute.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<i64> {
        match value_of(&self.span.attributes, key)? {
            Value::IntValue(number) => Some(*number),
            _ => None,
        }
    }

    /// Truth value of an attribute.
    #[must_use]
    pub fn boolean(&self, key: &str) -> Option<bool> {
        match value_of(&self.span.attributes, key)? {
            Value::BoolValue(value) => Some(*value),
            _ => None,
        }
    }

    /// Text or number of a resource attribute, as text.
    #[must_use]
    pub fn resource(&self, key: &str) -> Option<String> {
        match value_of(&self.resource, key)? {
            Value::StringValue(text) => Some(text.clone()),
            Value::IntValue(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// How the call ended: the attribute `ml.ending`.
    #[must_use]
    pub fn ending(&self) -> &str {
        self.text("ml.ending").unwrap_or("returned")
    }

    /// Whether it is a request that the process was asked.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.span.kind() == SpanKind::Server
    }

    /// Whether the span's status is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
    }
}

fn value_of<'attributes>(attributes: &'attributes [KeyValue], key: &str) -> Option<&'attributes Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value {
        Some(AnyValue { value: Some(value) }) => Some(value),
        _ => None,
    }
}

impl Spans {
    /// Reads a file in the OpenTelemetry file format: a `TracesData` a line.
    ///
    /// # Errors
    /// When the file cannot be read or a line is not what the format wants.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut spans = Self::default();
        for (number, line) in text.lines().enumerate() {
            let data: TracesData = serde_json::from_str(line)
                .with_context(|| format!("{}:{}: not a TracesData", file.display(), number + 1))?;
            spans.add(data.resource_spans);
        }
        Ok(spans)
    }

    /// Adds the spans of a request or a line.
    pub fn add(&mut self, groups: Vec<ResourceSpans>) {
        for group in groups {
            let resource = group.resource.map(|resource| resource.attributes).unwrap_or_default();
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.0.push(SpanRow { span, resource: resource.clone() });
            }
        }
    }

    /// Spans of a name.
    pub fn named<'spans>(&'spans self, name: &str) -> impl Iterator<Item = &'spans SpanRow> {
        self.0.iter().filter(move |row| row.span.name == name)
    }

    /// How many spans have a name.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.named(name).count()
    }

    /// How many spans ended in a way.
    #[must_use]
    pub fn ended(&self, ending: &str) -> usize {
        self.0.iter().filter(|row| row.ending() == ending).count()
    }

    /// Checks what must hold for any set of whole traces: ids of the right form and unique, parents present in the
    /// same trace and on time, children inside their parents, and the attributes that every span has.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self) -> Result<()> {
        let mut by_id = HashMap::new();
        for row in &self.0 {
            let span = &row.span;
            let name = &span.name;
            ensure!(!name.is_empty(), "a span has no name");
            ensure!(span.trace_id.len() == 16 && span.trace_id.iter().any(|byte| *byte != 0), "trace id of {name}");
            ensure!(span.span_id.len() == 8 && span.span_id.iter().any(|byte| *byte != 0), "span id of {name}");
            ensure!(span.start_time_unix_nano > 1_600_000_000_000_000_000, "{name} starts before 2020");
            ensure!(span.start_time_unix_nano <= span.end_time_unix_nano, "{name} ends before it starts");
            let is_call = !row.is_request() && row.ending() != "lost";
            for key in ["code.function.name", "ml.module", "ml.library", "ml.language"] {
                ensure!(!is_call || row.text(key).is_some(), "{name} has no {key}");
            }
            ensure!(row.integer("thread.id").is_some_and(|thread| thread > 0), "{name} has no thread.id");
            for key in ["service.name", "process.pid"] {
                ensure!(row.resource(key).is_some(), "the resource of {name} has no {key}");
            }
            ensure!(by_id.insert(&span.span_id, row).is_none(), "two spans have the id of {name}");
        }
        let mut roots = HashSet::new();
        for row in &self.0 {
            let span = &row.span;
            if span.parent_span_id.is_empty() {
                ensure!(roots.insert(&span.trace_id), "two roots in the trace of {}", span.name);
                continue;
            }
            let Some(around) = by_id.get(&span.parent_span_id) else { bail!("the parent of {} is missing", span.name) };
            let parent = &around.span;
            ensure!(parent.trace_id == span.trace_id, "{} and its parent are in different traces", span.name);
            ensure!(
                parent.start_time_unix_nano <= span.start_time_unix_nano
                    && span.end_time_unix_nano <= parent.end_time_unix_nano,
                "{} is not inside its parent {} in time: {row:?} in {around:?}",
                span.name,
                parent.name
            );
        }
        Ok(())
    }

    /// The trees of each thread, in the order of their start.
    #[must_use]
    pub fn trees(&self) -> BTreeMap<i64, Vec<Tree>> {
        let mut rows: Vec<&SpanRow> = self.0.iter().collect();
        rows.sort_by_key(|row| (row.span.start_time_unix_nano, std::cmp::Reverse(row.span.end_time_unix_nano)));
        let mut children: HashMap<&[u8], Vec<&SpanRow>> = HashMap::new();
        for row in &rows {
            children.entry(&row.span.parent_span_id).or_default().push(row);
        }
        let mut threads: BTreeMap<i64, Vec<Tree>> = BTreeMap::new();
        for root in children.get([].as_slice()).into_iter().flatten() {
            threads.entry(root.integer("thread.id").unwrap_or(0)).or_default().push(tree_of(root, &children));
        }
        threads
    }

    /// The tree of every root in one list, for targets with one thread.
    #[must_use]
    pub fn tree_lines(&self) -> Vec<String> {
        self.trees().into_values().flatten().map(|tree| tree.to_string()).collect()
    }
}

fn tree_of(row: &SpanRow, children: &HashMap<&[u8], Vec<&SpanRow>>) -> Tree {
    let inside = children.get(row.span.span_id.as_slice()).into_iter().flatten();
    Tree { name: row.span.name.clone(), children: inside.map(|child| tree_of(child, children)).collect() }
}

impl Tree {
    /// The tree without the calls inside `class`, as a map that does not look into that class has it.
    #[must_use]
    pub fn folded_in(&self, class: &str) -> Self {
        let inside = self.name.split('.').next() == Some(class);
        let children =
            if inside { Vec::new() } else { self.children.iter().map(|child| child.folded_in(class)).collect() };
        Self { name: self.name.clone(), children }
    }

    /// Calls in the tree.
    #[must_use]
    pub fn size(&self) -> usize {
        1 + self.children.iter().map(Self::size).sum::<usize>()
    }

    /// Reads the form that `Display` writes: `a(b,c(d))`.
    ///
    /// # Errors
    /// When the parentheses do not match.
    pub fn parse(text: &str) -> Result<Self> {
        let mut open = vec![Self { name: String::new(), children: Vec::new() }];
        let mut rest = text;
        while !rest.is_empty() {
            let length = rest.find(['(', ')', ',']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(length);
            let innermost = open.last_mut().context("a parenthesis too many")?;
            if !name.is_empty() {
                innermost.children.push(Self { name: name.to_owned(), children: Vec::new() });
            }
            match after.chars().next() {
                Some('(') => {
                    let last = innermost.children.pop().context("a parenthesis without a name")?;
                    open.push(last);
                }
                Some(')') => {
                    let closed = open.pop().context("a parenthesis too many")?;
                    open.last_mut().context("a parenthesis too many")?.children.push(closed);
                }
                _ => {}
            }
            rest = after.get(1..).unwrap_or_default();
        }
        ensure!(open.len() == 1, "an open parenthesis in {text}");
        let mut outside = open.pop().context("nothing in the line")?;
        ensure!(outside.children.len() == 1, "not one call in {text}");
        outside.children.pop().context("nothing in the line")
    }
}

impl std::fmt::Display for Tree {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)?;
        for (index, child) in self.children.iter().enumerate() {
            formatter.write_str(if index == 0 { "(" } else { "," })?;
            child.fmt(formatter)?;
        }
        if self.children.is_empty() { Ok(()) } else { formatter.write_str(")") }
    }
}

/// Reads a truth file, `THREAD TREE` a line: the trees of each thread in order.
///
/// # Errors
/// When it cannot be read or a line has another form.
pub fn read_truth(file: &Path) -> Result<BTreeMap<i64, Vec<Tree>>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut threads: BTreeMap<i64, Vec<Tree>> = BTreeMap::new();
    for line in text.lines() {
        let (thread, tree) = line.split_once(' ').with_context(|| format!("no thread in `{line}`"))?;
        threads.entry(thread.parse()?).or_default().push(Tree::parse(tree)?);
    }
    Ok(threads)
}

/// Compares trees thread by thread and call by call.
///
/// # Errors
/// The first difference.
pub fn same_trees(seen: &BTreeMap<i64, Vec<Tree>>, truth: &BTreeMap<i64, Vec<Tree>>) -> Result<()> {
    let threads = |trees: &BTreeMap<i64, Vec<Tree>>| trees.keys().copied().collect::<Vec<_>>();
    ensure!(threads(seen) == threads(truth), "threads seen {:?}, in truth {:?}", threads(seen), threads(truth));
    for (thread, trees) in truth {
        let seen = seen.get(thread).map_or(&[][..], Vec::as_slice);
        for (number, (one, other)) in seen.iter().zip(trees).enumerate() {
            ensure!(one == other, "thread {thread}, request {number}: seen {one}, in truth {other}");
        }
        ensure!(seen.len() == trees.len(), "thread {thread}: {} requests seen, {} in truth", seen.len(), trees.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_read_as_they_are_written() -> Result<()> {
        for line in ["a", "a(b)", "a(b,c)", "a(b(c,d),e(f))", "P.p(S.t,L.p(L.q))"] {
            assert_eq!(Tree::parse(line)?.to_string(), line);
        }
        for line in ["", "a(", "a)", "(a)", "a,b", "a((b))"] {
            assert!(Tree::parse(line).is_err(), "{line}");
        }
        Ok(())
    }

    #[test]
    fn folding_takes_the_inside_of_a_class() -> Result<()> {
        let folded = Tree::parse("P.p(F.p(T.p,T.p),S.t)")?.folded_in("F");
        assert_eq!(folded.to_string(), "P.p(F.p,S.t)");
        assert_eq!(folded.size(), 3);
        Ok(())
    }
}
