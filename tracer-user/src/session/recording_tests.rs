//! A tape of Python calls replays to the spans of the live session, however late its names were learned.

use std::path::Path;
use std::sync::mpsc::channel;

use tracer_common::records::{RecordEnding, RecordKind, WideCallRecord};

use super::*;
use crate::export::Destination;
use crate::model::{
    ClockAnchor, ContainerMember, Ending, FunctionId, Language, MonotonicNs, ProcessId, Target, ThreadId, WallClockNs,
};
use crate::ring::TapeHeader;
use crate::session::replay::replay;
use crate::session::wiring::Names;

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
    /// Thread, incarnation and call of the parent; the trace begins with call 1 there.
    join: Option<(u32, u64, u64)>,
}

impl Sample {
    /// The bytes of a [`WideCallRecord`], field by field.
    fn bytes(self) -> Vec<u8> {
        let words = [
            RecordKind::WideCall as u32,
            WideCallRecord::SIZE as u32,
            PROCESS,
            self.thread,
            5,
            self.ending,
            self.depth,
            0,
        ];
        let start = 1_000 + 100 * self.call;
        let incarnation = u64::from(self.thread) * 10;
        let call =
            [incarnation, self.sequence, self.call, self.parent_call, 1, start, start + 50, 0x7f00, self.object, 0, 0];
        let (thread, parent_incarnation, parent_call) = self.join.unwrap_or_default();
        let trace_call = u64::from(self.join.is_some());
        let join = [parent_incarnation, parent_call, parent_incarnation, trace_call];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend(
            call.iter().chain(&[0; 4]).chain(&[self.class, self.exception]).flat_map(|word| word.to_ne_bytes()),
        );
        bytes.extend([thread, thread].iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(join.iter().flat_map(|word| word.to_ne_bytes()));
        assert_eq!(bytes.len(), WideCallRecord::SIZE);
        bytes
    }
}

fn header() -> TapeHeader {
    let process = ProcessId { pid: 42, start_time: 7 };
    TapeHeader {
        seed: 3,
        anchor: ClockAnchor { monotonic: MonotonicNs(0), wall_clock: WallClockNs(1_000_000) },
        targets: vec![Target {
            process,
            kernel_pid: PROCESS,
            command_line: vec!["python3".into()],
            executable: "/usr/bin/python3".into(),
            modules: Vec::new(),
            container_id: None,
            image: crate::model::ProgramImage::default(),
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
        process: PROCESS,
        is_first: false,
        classes: classes.iter().map(|(class, name)| (RemoteAddress(*class), (*name).into())).collect(),
        members: vec![ContainerMember { container, child, class: None, step: Some(step.into()) }],
    }
}

/// Runs a session as the drain thread does. Each time a class is asked for, the answer is another one.
fn live(tape: &Path, spans: &Path) {
    let (tell, learned) = channel();
    let tell_thread = tell.clone();
    let mut asked = 0;
    let lookup = Names {
        threads: Box::new(move |_, thread| {
            let name: Arc<str> = format!("worker {}", thread.0).into();
            tell_thread.send(Learned::Thread(thread.0, Arc::clone(&name))).expect("a tape is recorded");
            Some(name)
        }),
        python_classes: Box::new(move |process, class| {
            asked += 1;
            let name: Option<Arc<str>> = (asked % 2 == 0).then(|| format!("Answer{asked}").into());
            tell.send(Learned::PythonClass(process, class, name.clone())).expect("a tape is recorded");
            name
        }),
    };
    let pipeline = Pipeline::open(&header(), lookup, &[Destination::JsonLines(spans.to_owned())]).expect("a file");
    let file = BufWriter::new(File::create(tape).expect("a file"));
    let writer = TapeWriter::new(file, &header()).expect("a file");
    let recording = Recording { path: tape.to_owned(), writer, learned };
    let mut pipeline = RecordedPipeline::new(pipeline, Some(recording));
    let record = |pipeline: &mut RecordedPipeline, sample: Sample| pipeline.record(&RawRecord(&sample.bytes()));

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
    let open = Call {
        process: PROCESS,
        thread: ThreadId(21),
        function: FunctionId(5),
        ending: Ending::StillOpen,
        thread_ended: false,
        depth: 0,
        incarnation: MonotonicNs(210),
        sequence: 1,
        call: 1,
        parent_call: None,
        root_call: 1,
        start: MonotonicNs(5_000),
        end: MonotonicNs(6_000),
        end_observed: false,
        let_go: false,
        is_on_own_stack: true,
        same_stack: None,
        is_python: false,
        stack_pointer: RemoteAddress(0x7f00),
        object: None,
        return_value: None,
        folded_calls: 0,
        arguments: [None; 4],
        class: Some(RemoteAddress(0x999)), // Answer6
        exception: None,
        join: None,
    };
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
            expect("_SetOutputMixin", None, None, "worker 9"),
            expect("Answer2", None, None, "worker 9"),
            expect("_SetOutputMixin", Some("scaler"), None, "worker 9"),
            expect("StandardScaler", Some("scaler"), None, "worker 9"),
            expect("StandardScaler", Some("scaler"), Some("Answer4"), "worker 9"),
            expect("LateScaler", Some("first"), None, "worker 9"),
            expect("StandardScaler", Some("first"), Some("_OTHER"), "worker 9"),
            expect("StandardScaler", Some("first"), None, "worker 20"),
            expect("Answer6", None, None, "worker 21"),
            // The stand-in for the outermost call of the first thread.
            expect("(lost)", None, None, "worker 9"),
        ]
    );
    let cut = |span: &serde_json::Value| span["attributes"].to_string().contains("ml.children_observed");
    let cut: Vec<usize> = spans.iter().enumerate().filter(|(_, span)| cut(span)).map(|(place, _)| place).collect();
    assert_eq!(cut, [3], "the one call that was open in the gap");
    assert_eq!(spans[7]["parentSpanId"], spans[9]["spanId"], "joined across threads");
    assert!(spans.iter().take(8).all(|span| span["traceId"] == spans[9]["traceId"]));
}
