//! Spans for the tests of the sinks, and what the official protobuf types make of them.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as ProtoSpan, Status};

use super::background_writer::Place;
use super::resource::{Resource, TRACER_NAME, TRACER_VERSION};
use crate::model::{
    ArgumentType, AttributeValue, CallError, CallFacts, CallersTrace, Ending, FunctionDescription, FunctionId,
    HostAndPort, Language, Parent, ProcessId, RequestFacts, ReturnedError, RouteTaken, Span, SpanId, Subject, ThreadId,
    TraceId, UnwatchedSteps, WallClockNs,
};

/// The traced process.
pub const PROCESS: ProcessId = ProcessId { pid: 4242, start_time: 99 };
/// 2026-11-20 12:00:00 UTC.
pub const NOON: u64 = 1_795_176_000_000_000_000;

/// A file in memory.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Place for Shared {}

impl Shared {
    /// What was written.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text")
    }

    /// Waits until at least this much was written.
    pub fn wait_for(&self, bytes: usize) {
        let begin = Instant::now();
        while self.0.lock().expect("not poisoned").len() < bytes {
            assert!(begin.elapsed() < Duration::from_secs(5), "nothing was written");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Description of a function.
pub fn function(id: u32, class: &str, method: &str) -> Arc<FunctionDescription> {
    Arc::new(FunctionDescription {
        id: FunctionId(id),
        span_name: format!("{class}.{method}").into(),
        path: format!("ml::{class}<\"quoted\">::{method}").into(),
        module: "/opt/lib/libml \\ ü.so".into(),
        library: "generic-cpp".into(),
        language: Language::Cpp,
        attributes: Vec::new(),
        error: None,
        method: None,
        source: None,
        shared_code: None,
    })
}

/// A span of the sample trace; times in microseconds after noon.
pub fn span(
    number: u8,
    parent: Parent,
    depth: u32,
    function: Option<&Arc<FunctionDescription>>,
    times: (u64, u64),
) -> Span {
    Span {
        trace_id: TraceId([0xab; 16]),
        span_id: SpanId([0, 0, 0, 0, 0, 0, 0, number]),
        parent,
        parent_thread: None,
        depth,
        process: PROCESS,
        thread: ThreadId(4243),
        thread_name: Some("worker \"1\"".into()),
        start: WallClockNs(NOON + times.0 * 1_000),
        end: WallClockNs(NOON + times.1 * 1_000),
        subject: Subject::Call(CallFacts {
            function: function.cloned(),
            class_observed: true,
            step: None,
            children_observed: true,
            unwatched_steps: UnwatchedSteps::none(),
            folded_calls: 0,
            start_uncertainty_ns: 0,
            may_be_several: false,
        }),
        ending: Ending::Returned { error: None },
        lost_before: 0,
        link: None,
        is_recorded: true,
        attributes: Vec::new(),
    }
}

/// Requests: one in its caller's trace, one that the server could not answer, and one whose answer nobody saw.
pub fn request_spans() -> Vec<Span> {
    let trace =
        CallersTrace { trace_id: TraceId([0xcd; 16]), parent: id(9), is_sampled: true, state: Some("a=1".into()) };
    let facts = RequestFacts {
        method: "POST".into(),
        path: "/predict/7".into(),
        route: Some(Box::new(RouteTaken {
            template: "/predict/{model}".into(),
            span_name: "POST /predict/{model}".into(),
        })),
        query: Some("x=1".into()),
        scheme: "https".into(),
        version: "1.1",
        server: Some(HostAndPort { host: "models".into(), port: Some(81) }),
        client: Some("192.0.2.1".into()),
        user_agent: Some("curl/8".into()),
        status: Some(200),
        trace: Some(trace.clone()),
        request_bytes: 5,
        answer_bytes: Some(7),
    };
    let bare = RequestFacts { route: None, query: None, server: None, client: None, ..facts.clone() };
    let bare = RequestFacts { user_agent: None, trace: None, ..bare };
    let failed = RequestFacts { status: Some(500), answer_bytes: None, ..bare.clone() };
    let unanswered = RequestFacts { method: "BREW".into(), status: None, ..bare };
    let of = |number, parent, facts| {
        let mut span = span(number, parent, 0, None, (0, 1_000));
        span.subject = Subject::Request(Box::new(facts));
        span
    };
    let mut spans =
        vec![of(1, Parent::Remote(trace.parent), facts), of(2, Parent::Root, failed), of(3, Parent::Root, unanswered)];
    spans[2].ending = Ending::Unanswered;
    spans
}

/// What a sample span says of its call.
pub fn facts(span: &mut Span) -> &mut CallFacts {
    match &mut span.subject {
        Subject::Call(call) => call,
        Subject::LostCall | Subject::Request(_) => panic!("no call"),
    }
}

/// Id of a sample span.
pub fn id(number: u8) -> SpanId {
    SpanId([0, 0, 0, 0, 0, 0, 0, number])
}

/// A trace with every ending and kind of attribute; children before parents.
pub fn spans() -> Vec<Span> {
    let pipeline = function(0, "Pipeline", "predict");
    let scaler = function(1, "StandardScaler", "transform");
    let forest = function(2, "RandomForest", "predict");
    let mut scale = span(2, Parent::Span(id(1)), 1, Some(&scaler), (10, 220));
    scale.attributes = vec![
        ("ml.rows".into(), AttributeValue::Integer(-1)),
        ("ml.fast".into(), AttributeValue::Boolean(true)),
        ("ml.seed".into(), AttributeValue::Text("18446744073709551615".into())),
    ];
    let mut failed = span(4, Parent::Span(id(3)), 2, Some(&scaler), (300, 310));
    failed.ending = Ending::Returned { error: Some(ReturnedError { bits: u64::MAX, kind: ArgumentType::I32 }) };
    let mut forest_span = span(3, Parent::Span(id(1)), 1, Some(&forest), (230, 1_200));
    facts(&mut forest_span).folded_calls = 100;
    forest_span.ending = Ending::Unwound { exception: None, is_end_exact: false };
    let mut lost = span(5, Parent::Ancestor(id(1)), 2, None, (1_210, 1_220));
    (lost.subject, lost.ending) = (Subject::LostCall, Ending::Lost);
    let mut open = span(6, Parent::Span(id(1)), 1, Some(&scaler), (1_225, 1_230));
    open.ending = Ending::StillOpen;
    let mut ended = span(7, Parent::Span(id(1)), 1, Some(&scaler), (1_231, 1_232));
    ended.ending = Ending::ThreadEnded;
    ended.thread_name = None;
    let mut root = span(1, Parent::Root, 0, Some(&pipeline), (0, 1_234));
    root.lost_before = 2;
    vec![scale, failed, forest_span, lost, open, ended, root]
}

/// Description of a Python method, as it is named for objects of one class.
pub fn python_function(id: u32, class: &str, method: &str) -> Arc<FunctionDescription> {
    Arc::new(FunctionDescription {
        path: format!("sklearn.base.Mixin.{method}").into(),
        module: "/usr/lib/libpython3.11.so.1.0".into(),
        library: "scikit-learn".into(),
        language: Language::Python,
        method: Some(method.into()),
        source: Some(("/usr/lib/python3/sklearn/base.py".into(), 117)),
        shared_code: None,
        ..FunctionDescription::clone(&function(id, class, method))
    })
}

/// A trace of Python calls on three threads; children before parents. The parts of the union run side by side, and the
/// forest fails.
pub fn python_spans() -> Vec<Span> {
    let failed = |is_end_exact| Ending::Unwound { exception: Some("NotFittedError".into()), is_end_exact };
    let transform = |class| python_function(11, class, "transform");
    let mut scale = span(0x11, Parent::Span(id(0x10)), 1, Some(&transform("StandardScaler")), (10, 210));
    facts(&mut scale).step = Some("scaler".into());
    let joined = |number, thread, class, step: &str, times| {
        let mut part = span(number, Parent::Span(id(0x12)), 0, Some(&transform(class)), times);
        (part.thread, part.parent_thread) = (ThreadId(thread), Some(ThreadId(4243)));
        part.thread_name = Some("python3".into());
        facts(&mut part).step = Some(step.into());
        part
    };
    let reduce = joined(0x13, 4250, "PCA", "pca", (240, 700));
    let mut select = joined(0x14, 4251, "SelectKBest", "kbest", (250, 800));
    facts(&mut select).folded_calls = 2;
    let mut unknown = span(0x17, Parent::Span(id(0x14)), 1, Some(&transform("TransformerMixin")), (260, 300));
    unknown.thread = select.thread;
    facts(&mut unknown).class_observed = false;
    let mut union = span(0x12, Parent::Span(id(0x10)), 1, Some(&transform("FeatureUnion")), (220, 820));
    facts(&mut union).step = Some("features".into());
    let mut forest = span(
        0x15,
        Parent::Span(id(0x10)),
        1,
        Some(&python_function(12, "RandomForestClassifier", "predict")),
        (830, 1_200),
    );
    facts(&mut forest).step = Some("clf".into());
    facts(&mut forest).folded_calls = 100;
    forest.ending = failed(true);
    let mut root = span(0x10, Parent::Root, 0, Some(&python_function(10, "Pipeline", "predict")), (0, 1_210));
    root.ending = failed(false);
    let mut spans = vec![scale, reduce, unknown, select, union, forest, root];
    spans.iter_mut().for_each(|span| span.trace_id = TraceId([0xcd; 16]));
    spans
}

/// The resource of [`PROCESS`].
pub fn resource() -> Arc<Resource> {
    let environment = |name: &str| (name == "OTEL_SERVICE_NAME").then(|| "prices".to_owned());
    Arc::new(Resource::unknown(PROCESS, &environment))
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, any_value::Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    pair(key, any_value::Value::IntValue(value))
}

fn boolean(key: &str, value: bool) -> KeyValue {
    pair(key, any_value::Value::BoolValue(value))
}

fn captured((name, value): &(Arc<str>, AttributeValue)) -> KeyValue {
    match value {
        AttributeValue::Integer(value) => number(name, *value),
        AttributeValue::Boolean(value) => boolean(name, *value),
        AttributeValue::Text(value) => text(name, value),
    }
}

/// What a span must look like in OTLP.
pub fn expected_span(span: &Span) -> ProtoSpan {
    let mut attributes = Vec::new();
    if let Some(function) = span.function() {
        attributes.push(text("code.function.name", &function.path));
        if let Some((file, line)) = &function.source {
            attributes.push(text("code.file.path", file));
            attributes.push(number("code.line.number", i64::from(*line)));
        }
        attributes.push(text("ml.library", &function.library));
        attributes.push(text("ml.language", if function.method.is_some() { "python" } else { "cpp" }));
        attributes.push(text("ml.module", &function.module));
    }
    attributes.push(number("thread.id", i64::from(span.thread.0)));
    attributes.extend(span.thread_name.as_ref().map(|name| text("thread.name", name)));
    let (ending, start_observed, end_observed) = match span.ending {
        Ending::Returned { .. } => ("returned", true, true),
        Ending::Unwound { is_end_exact, .. } => ("unwound", true, is_end_exact),
        Ending::ThreadEnded => ("unwound", true, false),
        Ending::Vanished { .. } => ("returned", true, false),
        Ending::StillOpen | Ending::Unobserved => ("still_open", true, false),
        Ending::Unanswered => ("unobserved", true, false),
        Ending::Lost => ("lost", false, false),
    };
    attributes.push(text("ml.ending", ending));
    attributes.extend((!start_observed).then(|| boolean("ml.start_observed", false)));
    attributes.extend((!end_observed).then(|| boolean("ml.end_observed", false)));
    attributes.extend(
        matches!(span.parent, Parent::Ancestor(_) | Parent::Unknown).then(|| boolean("ml.parent_observed", false)),
    );
    let call = match &span.subject {
        Subject::Call(call) => Some(call),
        Subject::LostCall | Subject::Request(_) => None,
    };
    if let Some(call) = call {
        attributes.extend(call.step.as_ref().map(|step| text("ml.step", step)));
        attributes.extend((!call.children_observed).then(|| boolean("ml.children_observed", false)));
        attributes.extend((!call.class_observed).then(|| boolean("ml.class_observed", false)));
    }
    if let Subject::Request(facts) = &span.subject {
        attributes.extend(expected_of_request(facts));
    }
    attributes.extend((span.ending == Ending::ThreadEnded).then(|| boolean("ml.thread_ended", true)));
    let folded_calls = call.map_or(0, |call| call.folded_calls);
    attributes.extend((folded_calls > 0).then(|| number("ml.folded_calls", folded_calls as i64)));
    attributes.extend((span.lost_before > 0).then(|| number("ml.lost_before", span.lost_before as i64)));
    attributes.extend(span.attributes.iter().map(captured));
    let (kind, message) = match span.error() {
        None => (None, ""),
        Some(CallError::Unwound(None)) => (Some("_OTHER"), "unwound"),
        Some(CallError::Unwound(Some(_))) => (Some("NotFittedError"), "raised NotFittedError"),
        Some(CallError::ThreadEnded) => (Some("_OTHER"), "thread ended"),
        Some(CallError::Returned(_)) => (Some("-1"), "return -1"),
        Some(CallError::Status(_)) => (Some("500"), ""),
    };
    attributes.extend(kind.map(|kind| text("error.type", kind)));
    ProtoSpan {
        trace_id: span.trace_id.0.to_vec(),
        span_id: span.span_id.0.to_vec(),
        parent_span_id: span.parent.named().map(|parent| parent.0.to_vec()).unwrap_or_default(),
        flags: if matches!(span.parent, Parent::Remote(_)) { 0x301 } else { 0x101 },
        trace_state: span.trace_state().unwrap_or_default().to_owned(),
        name: span.name().to_owned(),
        kind: if matches!(span.subject, Subject::Request(_)) { 2 } else { 1 },
        start_time_unix_nano: span.start.0,
        end_time_unix_nano: span.end.0,
        attributes,
        status: kind.map(|_| Status { message: message.to_owned(), code: StatusCode::Error as i32 }),
        ..ProtoSpan::default()
    }
}

/// What a sample request must look like.
fn expected_of_request(facts: &RequestFacts) -> Vec<KeyValue> {
    let mut attributes = vec![text("http.request.method", facts.known_method().unwrap_or("_OTHER"))];
    attributes.extend(facts.known_method().is_none().then(|| text("http.request.method_original", "BREW")));
    attributes.extend(facts.route.as_ref().map(|route| text("http.route", &route.template)));
    attributes.push(text("url.path", &facts.path));
    attributes.extend(facts.query.as_ref().map(|query| text("url.query", query)));
    attributes.push(text("url.scheme", &facts.scheme));
    attributes.push(text("network.protocol.version", facts.version));
    attributes.extend(facts.server.as_ref().map(|_| text("server.address", "models")));
    attributes.extend(facts.client.as_ref().map(|client| text("client.address", client)));
    attributes.extend(facts.user_agent.as_ref().map(|agent| text("user_agent.original", agent)));
    attributes.extend(facts.server.as_ref().map(|_| number("server.port", 81)));
    attributes.extend(facts.status.map(|status| number("http.response.status_code", i64::from(status))));
    attributes.push(number("http.request.body.size", facts.request_bytes as i64));
    let answer = facts.answer_bytes.filter(|_| facts.status.is_some());
    attributes.extend(answer.map(|bytes| number("http.response.body.size", bytes as i64)));
    attributes
}

/// What the spans of one process must look like in OTLP.
pub fn expected_resource_spans(resource: &Resource, spans: &[Span]) -> ResourceSpans {
    ResourceSpans {
        resource: Some(opentelemetry_proto::tonic::resource::v1::Resource {
            attributes: resource.attributes.iter().map(captured).collect(),
            ..Default::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: TRACER_NAME.to_owned(),
                version: TRACER_VERSION.to_owned(),
                ..InstrumentationScope::default()
            }),
            spans: spans.iter().map(expected_span).collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }
}
