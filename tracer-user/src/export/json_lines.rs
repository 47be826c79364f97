//! The OpenTelemetry file format: one OTLP/JSON `TracesData` a line.
//! Source of the encoding: OTLP specification 1.x, "JSON Protobuf Encoding" (ids as hexadecimal digits, 64-bit integers
//! as strings, enumerations as numbers).

use std::collections::HashMap;
use std::sync::Arc;

use super::attribute_limits::{AttributeLimits, shorten_name};
use super::attributes::{visit_call_attributes, visit_function_attributes, visit_thread_attributes};
use super::background_writer::{BackgroundWriter, CHUNK_BYTES, Chunk, Place};
use super::described::Described;
use super::destination::JSON_LINES;
use super::error::ExportError;
use super::json::{push_hexadecimal, push_number, push_string};
use super::resource::{Resource, TRACER_NAME, TRACER_VERSION};
use super::sink::{Delivery, Sink, Summary};
use super::value_ref::ValueRef;
use crate::model::{FunctionDescription, Loss, Parent, Span, Subject};

const NAME: &str = JSON_LINES.word;
/// A line is ended at this size, bytes.
const LINE_BYTES: usize = 64 << 10;
/// `SPAN_KIND_INTERNAL` of opentelemetry-proto 1.x.
const KIND_INTERNAL: &str = "1";
/// `SPAN_KIND_SERVER`.
const KIND_SERVER: &str = "2";
/// `STATUS_CODE_ERROR` of opentelemetry-proto 1.x.
const STATUS_ERROR: &str = "2";
/// Sampled (W3C trace flags), and the parent is known not to be remote (`SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`).
const FLAGS: &str = "257";
/// The same, with a parent that is remote (`SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`).
const FLAGS_OF_REMOTE: &str = "769";
/// Functions whose text is remembered; with more they are made anew now and then, which does no harm.
const MAX_FUNCTION_TEXTS: usize = 2 * tracer_common::limits::MAX_FUNCTIONS as usize;
const LINE_END: &[u8] = b"]}]}]}\n";

/// Writes spans to a file.
pub struct JsonLines {
    writer: BackgroundWriter,
    place: String,
    chunk: Chunk,
    lines: Described<Line>,
    functions: FunctionTexts,
}

/// The line that is being filled for one process.
struct Line {
    resource: Arc<Resource>,
    /// Everything before the first span, while there are spans.
    head: Vec<u8>,
    text: Vec<u8>,
    spans: u64,
}

/// Texts of functions by the address of their description, which is kept so that no other takes its place. One Python
/// method has a description for each class that it is called on.
#[derive(Default)]
struct FunctionTexts {
    texts: HashMap<usize, FunctionJson>,
    limits: AttributeLimits,
}

/// The attributes of a function, as text.
struct FunctionJson {
    _description: Arc<FunctionDescription>,
    name: Vec<u8>,
    attributes: Vec<u8>,
}

impl JsonLines {
    /// Writes to `writer`; `place` names it to the user.
    ///
    /// # Errors
    /// [`ExportError::CannotStartThread`].
    pub fn new(writer: impl Place + 'static, place: String, limits: AttributeLimits) -> Result<Self, ExportError> {
        Ok(Self {
            writer: BackgroundWriter::start(NAME, writer)?,
            place,
            chunk: Chunk::default(),
            lines: Described::default(),
            functions: FunctionTexts { limits, ..FunctionTexts::default() },
        })
    }

    fn describe(&mut self, resource: Arc<Resource>) {
        let process = resource.process;
        let line = Line { resource, head: Vec::new(), text: Vec::new(), spans: 0 };
        if let Some(mut gone) = self.lines.insert(process, line) {
            gone.end(&mut self.chunk);
        }
    }
}

impl Line {
    /// Moves the line, if there is something in it, to the chunk.
    fn end(&mut self, chunk: &mut Chunk) {
        if self.spans > 0 {
            chunk.bytes.extend_from_slice(&self.text);
            chunk.bytes.extend_from_slice(LINE_END);
            chunk.spans += self.spans;
            self.text.clear();
            self.spans = 0;
        }
    }
}

impl Sink for JsonLines {
    fn name(&self) -> &'static str {
        NAME
    }

    fn process(&mut self, resource: &Arc<Resource>) {
        self.describe(Arc::clone(resource));
    }

    fn span(&mut self, span: &Span) {
        if self.lines.get(span.process).is_none() {
            self.describe(Arc::new(Resource::unknown(span.process, &|_| None)));
        }
        let Some(line) = self.lines.get(span.process) else { return };
        if line.head.is_empty() {
            line.head = line_head(&line.resource);
        }
        if line.spans == 0 {
            line.text.extend_from_slice(&line.head);
        } else {
            line.text.push(b',');
        }
        push_span(&mut line.text, span, &mut self.functions);
        line.spans += 1;
        if line.text.len() >= LINE_BYTES + line.head.len() {
            line.end(&mut self.chunk);
            if self.chunk.bytes.len() >= CHUNK_BYTES - LINE_BYTES {
                self.writer.pass_on(&mut self.chunk);
            }
        }
    }

    /// The loss itself is not repeated here: the next span of the thread carries `ml.lost_before`.
    fn loss(&mut self, _loss: &Loss) {}

    fn flush(&mut self) {
        for line in self.lines.values_mut() {
            if line.spans == 0 {
                (line.head, line.text) = (Vec::new(), Vec::new()); // a process that is silent keeps no memory
            }
            line.end(&mut self.chunk);
        }
        self.writer.pass_on(&mut self.chunk);
    }

    fn is_gone(&self) -> bool {
        self.writer.reader_is_gone()
    }

    fn finish(mut self: Box<Self>, _summary: &Summary) -> Delivery {
        self.flush();
        let report = self.writer.finish();
        let problem = report.problem(&self.place);
        Delivery { sink: NAME, delivered: report.written, lost: report.lost, problem }
    }
}

fn line_head(resource: &Resource) -> Vec<u8> {
    let mut head = br#"{"resourceSpans":[{"resource":{"attributes":["#.to_vec();
    let mut list = AttributeList::begin(&mut head);
    for (name, value) in &resource.attributes {
        list.push(name, value.into());
    }
    head.extend_from_slice(br#"]},"scopeSpans":[{"scope":{"name":"#);
    push_string(&mut head, TRACER_NAME);
    head.extend_from_slice(br#","version":"#);
    push_string(&mut head, TRACER_VERSION);
    head.extend_from_slice(br#"},"spans":["#);
    head
}

fn push_span(text: &mut Vec<u8>, span: &Span, functions: &mut FunctionTexts) {
    text.extend_from_slice(br#"{"traceId":""#);
    push_hexadecimal(text, &span.trace_id.0);
    text.extend_from_slice(br#"","spanId":""#);
    push_hexadecimal(text, &span.span_id.0);
    if let Some(parent) = span.parent.named() {
        text.extend_from_slice(br#"","parentSpanId":""#);
        push_hexadecimal(text, &parent.0);
    }
    text.extend_from_slice(br#"","flags":"#);
    let is_remote = matches!(span.parent, Parent::Remote(_));
    text.extend_from_slice(if is_remote { FLAGS_OF_REMOTE } else { FLAGS }.as_bytes());
    if let Some(state) = span.trace_state() {
        text.extend_from_slice(br#","traceState":"#);
        push_string(text, state);
    }
    text.extend_from_slice(br#","name":"#);
    let function = span.function().map(|function| functions.of(function, span));
    match function {
        Some(function) => text.extend_from_slice(&function.name),
        None => push_string(text, span.name()),
    }
    text.extend_from_slice(br#","kind":"#);
    let is_request = matches!(span.subject, Subject::Request(_));
    text.extend_from_slice(if is_request { KIND_SERVER } else { KIND_INTERNAL }.as_bytes());
    text.extend_from_slice(br#","startTimeUnixNano":""#);
    push_number(text, span.start.0);
    text.extend_from_slice(br#"","endTimeUnixNano":""#);
    push_number(text, span.end.0);
    text.extend_from_slice(br#"","attributes":["#);
    if let Some(function) = function {
        text.extend_from_slice(&function.attributes);
    }
    let mut list = AttributeList { text, first: function.is_none() };
    visit_thread_attributes(span, functions.limits, |name, value| list.push(name, value));
    visit_call_attributes(span, functions.limits, |name, value| list.push(name, value));
    text.push(b']');
    if let Some(link) = span.link {
        text.extend_from_slice(br#","links":[{"traceId":""#);
        push_hexadecimal(text, &link.trace_id.0);
        text.extend_from_slice(br#"","spanId":""#);
        push_hexadecimal(text, &link.span_id.0);
        text.extend_from_slice(br#"","flags":"#);
        text.extend_from_slice(FLAGS_OF_REMOTE.as_bytes());
        text.extend_from_slice(b"}]");
    }
    if let Some(error) = span.error() {
        text.extend_from_slice(br#","status":{"code":"#);
        text.extend_from_slice(STATUS_ERROR.as_bytes());
        if let Some(message) = error.message() {
            text.extend_from_slice(br#","message":"#);
            push_string(text, &message);
        }
        text.push(b'}');
    }
    text.push(b'}');
}

impl FunctionTexts {
    /// The text for a function, made at its first span.
    fn of(&mut self, function: &Arc<FunctionDescription>, span: &Span) -> &FunctionJson {
        let address = Arc::as_ptr(function).addr();
        if self.texts.len() >= MAX_FUNCTION_TEXTS && !self.texts.contains_key(&address) {
            self.texts.clear();
        }
        self.texts.entry(address).or_insert_with(|| {
            let mut made =
                FunctionJson { _description: Arc::clone(function), name: Vec::new(), attributes: Vec::new() };
            push_string(&mut made.name, shorten_name(span.name()));
            let mut list = AttributeList::begin(&mut made.attributes);
            visit_function_attributes(span, self.limits, |name, value| list.push(name, value));
            made
        })
    }
}

/// A list of OTLP `KeyValue`s under construction.
struct AttributeList<'text> {
    text: &'text mut Vec<u8>,
    first: bool,
}

impl<'text> AttributeList<'text> {
    fn begin(text: &'text mut Vec<u8>) -> Self {
        Self { text, first: true }
    }

    fn push(&mut self, name: &str, value: ValueRef<'_>) {
        if !std::mem::take(&mut self.first) {
            self.text.push(b',');
        }
        self.text.extend_from_slice(br#"{"key":"#);
        push_string(self.text, name);
        match value {
            ValueRef::Integer(number) => {
                self.text.extend_from_slice(br#","value":{"intValue":""#);
                push_number(self.text, number);
                self.text.push(b'"');
            }
            ValueRef::Boolean(true) => self.text.extend_from_slice(br#","value":{"boolValue":true"#),
            ValueRef::Boolean(false) => self.text.extend_from_slice(br#","value":{"boolValue":false"#),
            ValueRef::Text(value) => {
                self.text.extend_from_slice(br#","value":{"stringValue":"#);
                push_string(self.text, value);
            }
        }
        self.text.extend_from_slice(b"}}");
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::TracesData;

    use super::super::samples::{self, Shared};
    use super::*;
    use crate::model::ProcessId;

    fn lines_of(spans: &[Span], describe: bool) -> (Vec<TracesData>, Delivery) {
        let file = Shared::default();
        let mut sink = Box::new(
            JsonLines::new(file.clone(), "test.jsonl".to_owned(), AttributeLimits::default()).expect("a thread"),
        );
        if describe {
            sink.process(&samples::resource());
        }
        for span in spans {
            sink.span(span);
        }
        let delivery = sink.finish(&Summary::default());
        let text = file.text();
        assert!(text.is_empty() || text.ends_with('\n'));
        (text.lines().map(|line| serde_json::from_str(line).expect(line)).collect(), delivery)
    }

    #[test]
    fn a_line_is_what_the_official_types_read() {
        let spans = samples::spans();
        let (lines, delivery) = lines_of(&spans, true);
        assert_eq!(delivery, Delivery { sink: "jsonl", delivered: spans.len() as u64, lost: 0, problem: None });
        let expected = samples::expected_resource_spans(&samples::resource(), &spans);
        assert_eq!(lines, [TracesData { resource_spans: vec![expected] }]);
    }

    #[test]
    fn requests_are_of_kind_server_and_in_the_trace_of_their_callers() {
        let spans = samples::request_spans();
        let (lines, _) = lines_of(&spans, true);
        let expected = samples::expected_resource_spans(&samples::resource(), &spans);
        assert_eq!(lines, [TracesData { resource_spans: vec![expected] }]);
    }

    #[test]
    fn python_methods_keep_the_name_of_each_class() {
        let spans: Vec<Span> = samples::python_spans().into_iter().chain(samples::python_spans()).collect();
        let (lines, _) = lines_of(&spans, true);
        let expected = samples::expected_resource_spans(&samples::resource(), &spans);
        assert_eq!(lines, [TracesData { resource_spans: vec![expected] }]);
    }

    #[test]
    fn functions_without_end_are_not_all_kept() {
        let mut texts = FunctionTexts::default();
        for number in 0..3 * MAX_FUNCTION_TEXTS {
            let function = samples::python_function(1, &format!("Class{number}"), "fit");
            let span = samples::span(1, crate::model::Parent::Root, 0, Some(&function), (0, 1));
            assert_eq!(texts.of(&function, &span).name, format!("\"Class{number}.fit\"").as_bytes());
            assert!(texts.texts.len() <= MAX_FUNCTION_TEXTS);
        }
    }

    #[test]
    fn each_process_has_lines_of_its_own() {
        let mut spans = samples::spans();
        for (index, span) in spans.iter_mut().enumerate() {
            span.process.pid = index as u32 % 2;
        }
        let (lines, _) = lines_of(&spans, false);
        assert_eq!(lines.len(), 2);
        for pid in [0, 1] {
            let resource = Resource::unknown(ProcessId { pid, ..spans[0].process }, &|_| None);
            let own: Vec<Span> = spans.iter().filter(|span| span.process.pid == pid).cloned().collect();
            let expected = [samples::expected_resource_spans(&resource, &own)];
            assert!(lines.iter().any(|line| line.resource_spans == expected));
        }
    }

    #[test]
    fn many_spans_make_lines_of_bounded_length() {
        let spans: Vec<Span> = samples::spans().into_iter().cycle().take(10_000).collect();
        let file = Shared::default();
        let mut sink = Box::new(
            JsonLines::new(file.clone(), "test.jsonl".to_owned(), AttributeLimits::default()).expect("a thread"),
        );
        for span in &spans {
            sink.span(span);
        }
        assert_eq!(sink.finish(&Summary::default()).delivered, 10_000);
        let text = file.text();
        assert!(text.lines().all(|line| line.len() < LINE_BYTES + 4_096));
        let total: usize = text
            .lines()
            .map(|line| {
                let line: TracesData = serde_json::from_str(line).expect(line);
                line.resource_spans[0].scope_spans[0].spans.len()
            })
            .sum();
        assert_eq!(total, 10_000);
    }

    #[test]
    fn a_full_disk_is_told_once() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut sink =
            Box::new(JsonLines::new(full, "/dev/full".to_owned(), AttributeLimits::default()).expect("a thread"));
        let spans = samples::spans();
        for _ in 0..3 {
            spans.iter().for_each(|span| sink.span(span));
            sink.flush();
        }
        let delivery = sink.finish(&Summary::default());
        assert_eq!((delivery.delivered, delivery.lost), (0, 3 * spans.len() as u64));
        assert!(delivery.problem.expect("a problem").contains("/dev/full failed: No space left"));
    }
}
