//! A tape of Python calls replays to the spans of the live session, however late its names were learned.

use std::path::Path;
use std::sync::mpsc::channel;

use tracer_common::records::{
    CallRecord, Join, RecordEnding, RecordHeader, RecordKind, THREAD_NAME_BYTES, ThreadRecord, WideCallRecord, WidePart,
};
use zerocopy::IntoBytes as _;

use super::*;
use crate::export::Destination;
use crate::model::{ClockAnchor, ContainerMember, FunctionId, Language, MonotonicNs, ProcessId, Target, WallClockNs};
use crate::ring::TapeHeader;
use crate::session::replay::replay;

const PROCESS: u32 = 4200;
const SCALER_CLASS: u64 = 0x201;
const LATE_CLASS: u64 = 0x202;
const ERROR_CLASS: u64 = 0x900;

/// What the record of one call says; the rest is the same for all.
#[derive(Clone, Copy, Default)]
struct Sample {
    thread: u32,
    ending: u32,
    depth: u32,
    sequence: u64,
    call: u64,
    parent_call: u64,
    class: u64,
    object: u64,
    exception: u64,
    /// Thread, when it was first seen, and call of the parent; the trace begins with call 1 there.
    join: Option<(u32, u64, u64)>,
}

impl Sample {
    fn record(self) -> WideCallRecord {
        let start_ns = 1_000 + 100 * self.call;
        let (thread, first_seen, parent_call) = self.join.unwrap_or_default();
        WideCallRecord {
            call: CallRecord {
                header: RecordHeader::of_wide_call(),
                process: PROCESS,
                thread: self.thread,
                function: 5,
                ending: self.ending,
                depth: self.depth,
                thread_first_seen_ns: u64::from(self.thread) * 10,
                sequence: self.sequence,
                call: self.call,
                parent_call: self.parent_call,
                root_call: 1,
                start_ns,
                end_ns: start_ns + 50,
                stack_pointer: 0x7f00,
                object: self.object,
                ..CallRecord::default()
            },
            wide: WidePart {
                class: self.class,
                exception: self.exception,
                join: Join {
                    parent_thread: thread,
                    trace_thread: thread,
                    parent_first_seen_ns: first_seen,
                    parent_call,
                    trace_first_seen_ns: first_seen,
                    trace_call: u64::from(self.join.is_some()),
                },
                ..WidePart::default()
            },
        }
    }
}

fn header() -> TapeHeader {
    let process = ProcessId { pid: PROCESS, start_time: 7 };
    TapeHeader {
        seed: 3,
        anchor: ClockAnchor { monotonic: MonotonicNs(0), wall_clock: WallClockNs(1_000_000) },
        targets: vec![Target {
            process,
            command_line: vec!["python3".into()],
            executable: "/usr/bin/python3".into(),
            modules: Vec::new(),
            container_id: None,
            image: crate::model::ProgramImage::default(),
            service: crate::model::Service::default(),
        }],
    }
}

fn method() -> FunctionDescription {
    FunctionDescription {
        id: FunctionId(5),
        span_name: "_SetOutputMixin.transform".into(),
        path: "sklearn.utils._set_output.wrapped".into(),
        module: "/usr/bin/python3".into(),
        library: "scikit-learn".into(),
        language: Language::Python,
        attributes: Vec::new(),
        error: None,
        method: Some("transform".into()),
        source: None,
        shared_code: None,
    }
}

fn names(classes: &[(u64, &str)], step: &str) -> PythonNames {
    let (container, child) = (RemoteAddress(0x100), RemoteAddress(0x101));
    PythonNames {
        containers: Vec::new(),
        process: PROCESS,
        is_first: false,
        classes: classes.iter().map(|(class, name)| (RemoteAddress(*class), (*name).into())).collect(),
        members: vec![ContainerMember {
            container,
            container_class: None,
            child,
            class: None,
            step: Some(step.into()),
        }],
        routes: Vec::new(),
    }
}

/// Runs a session as the drain thread does. Each time a class is asked for, the answer is another one.
fn live(tape: &Path, spans: &Path) {
    let (tell, learned) = channel();
    let mut asked = 0;
    let classes = move |process, class| {
        asked += 1;
        let name: Option<Arc<str>> = (asked % 2 == 0).then(|| format!("Answer{asked}").into());
        tell.send(LearnedClass { process, class, name: name.clone() }).expect("a tape is recorded");
        name
    };
    let destination = Destination::JsonLines(spans.to_owned());
    let pipeline = Pipeline::open(&header(), Box::new(classes), &[destination]).expect("a file");
    let file = BufWriter::new(File::create(tape).expect("a file"));
    let writer = TapeWriter::new(file, &header()).expect("a file");
    let recording = Recording { path: tape.to_owned(), writer, learned };
    let mut pipeline = RecordedPipeline::new(pipeline, Some(recording));
    let record = |pipeline: &mut RecordedPipeline, sample: Sample| {
        pipeline.record(&RawRecord(sample.record().as_bytes()));
    };
    for thread in [9, 20, 21] {
        let mut name = [0; THREAD_NAME_BYTES];
        name[..9].copy_from_slice(format!("worker {thread:>2}").as_bytes());
        let header = RecordHeader::new(RecordKind::Thread, size_of::<ThreadRecord>());
        let first_seen_ns = u64::from(thread) * 10;
        let seen = ThreadRecord { header, process: PROCESS, thread, first_seen_ns, name };
        pipeline.record(&RawRecord(seen.as_bytes()));
    }

    let returned = RecordEnding::Returned as u32;
    let inner = Sample { thread: 9, ending: returned, depth: 1, parent_call: 1, object: 0x101, ..Sample::default() };
    pipeline.add_functions(vec![method()]);
    // Before any names: the class is asked for, in vain.
    record(&mut pipeline, Sample { sequence: 1, call: 2, class: LATE_CLASS, ..inner });
    record(&mut pipeline, Sample { sequence: 2, call: 3, class: SCALER_CLASS, ..inner }); // Answer2
    pipeline.add_python_names(names(&[(SCALER_CLASS, "StandardScaler")], "scaler"));
    record(&mut pipeline, Sample { sequence: 3, call: 4, class: LATE_CLASS, ..inner }); // asked again, in vain
    // The call 5 is open from 1,500 to 1,550.
    pipeline.add_gap(Gap { process: Some(PROCESS), from: MonotonicNs(1_520), to: None });
    record(&mut pipeline, Sample { sequence: 4, call: 5, class: SCALER_CLASS, ..inner });
    pipeline.add_gap(Gap { process: Some(PROCESS), from: MonotonicNs(1_520), to: Some(MonotonicNs(1_580)) });
    let failed = Sample { ending: 4, class: SCALER_CLASS, exception: ERROR_CLASS, ..inner };
    record(&mut pipeline, Sample { sequence: 5, call: 6, ..failed }); // Answer4
    pipeline.add_python_names(names(&[(LATE_CLASS, "LateScaler")], "first"));
    record(&mut pipeline, Sample { sequence: 6, call: 7, class: LATE_CLASS, ..inner });
    record(&mut pipeline, Sample { sequence: 7, call: 8, ..failed }); // asked again, in vain
    let joined = Sample { thread: 20, depth: 0, parent_call: 0, join: Some((9, 90, 1)), ..inner };
    record(&mut pipeline, Sample { sequence: 1, call: 1, class: SCALER_CLASS, ..joined });
    let open = Sample { thread: 21, ending: RecordEnding::Open as u32, sequence: 1, call: 1, ..Sample::default() };
    let record = Sample { class: 0x999, ..open }.record(); // Answer6
    let open = OpenCall { record, is_python: true, same_stack: RemoteAddress(0)..RemoteAddress(0) };
    // The clocks have moved apart.
    pipeline.add_anchor(ClockAnchor { monotonic: MonotonicNs(1_050), wall_clock: WallClockNs(9_000_000) });
    let counts = LossCounts { entries: 9, spans: 8, open: 1, ..LossCounts::default() };
    pipeline.finish(counts, vec![open]);
}

#[test]
fn a_tape_with_python_names_replays_to_the_same_spans() {
    let folder = tempfile::tempdir().expect("a folder");
    let [tape, live_spans, replayed] =
        ["run.tape", "live.jsonl", "replayed.jsonl"].map(|name| folder.path().join(name));
    live(&tape, &live_spans);
    let report = replay(&tape, &[Destination::JsonLines(replayed.clone())]).expect("a whole tape");
    assert!(report.identity_holds, "{report:?}");
    let [live_spans, replayed] = [live_spans, replayed].map(|path| std::fs::read_to_string(path).expect("text"));
    assert_eq!(live_spans, replayed);

    let trace: serde_json::Value = serde_json::from_str(live_spans.lines().next().expect("a line")).expect("JSON");
    let spans = trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans");
    let attribute = |span: &serde_json::Value, key: &str| {
        let attributes = span["attributes"].as_array()?;
        let found = attributes.iter().find(|attribute| attribute["key"] == key)?;
        found["value"]["stringValue"].as_str().map(str::to_owned)
    };
    let seen: Vec<_> = spans
        .iter()
        .map(|span| {
            let name = span["name"].as_str().expect("a name").replace(".transform", "");
            (name, attribute(span, "ml.step"), attribute(span, "error.type"), attribute(span, "thread.name"))
        })
        .collect();
    let expect = |name: &str, step: Option<&str>, error: Option<&str>, thread: &str| {
        (name.to_owned(), step.map(str::to_owned), error.map(str::to_owned), Some(thread.to_owned()))
    };
    assert_eq!(
        seen,
        [
            expect("_SetOutputMixin", None, None, "worker  9"),
            expect("Answer2", None, None, "worker  9"),
            expect("_SetOutputMixin", Some("scaler"), None, "worker  9"),
            expect("StandardScaler", Some("scaler"), None, "worker  9"),
            expect("StandardScaler", Some("scaler"), Some("Answer4"), "worker  9"),
            expect("LateScaler", Some("first"), None, "worker  9"),
            expect("StandardScaler", Some("first"), Some("_OTHER"), "worker  9"),
            expect("StandardScaler", Some("first"), None, "worker 20"),
            expect("Answer6", None, None, "worker 21"),
            // The placeholder for the outermost call of the first thread.
            expect("(lost)", None, None, "worker  9"),
        ]
    );
    let cut = |span: &serde_json::Value| span["attributes"].to_string().contains("ml.children_observed");
    let cut: Vec<usize> = spans.iter().enumerate().filter(|(_, span)| cut(span)).map(|(place, _)| place).collect();
    assert_eq!(cut, [3], "the one call that was open in the gap");
    assert_eq!(spans[8]["startTimeUnixNano"], "9000050", "by the anchor that came last");
    assert_eq!(spans[7]["parentSpanId"], spans[9]["spanId"], "joined across threads");
    assert!(spans.iter().take(8).all(|span| span["traceId"] == spans[9]["traceId"]));
}
