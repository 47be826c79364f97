//! Python calls through the assembler: names by class, steps, exceptions, and trees joined across threads.

use super::tests::{PROCESS, assembler, record, run};
use super::*;
use crate::model::{CallError, ContainerMember, ForeignCall, Join, Language, Parent, RemoteAddress};

const PIPELINE: RemoteAddress = RemoteAddress(0x100);
const SCALER: RemoteAddress = RemoteAddress(0x101);
const FOREST: RemoteAddress = RemoteAddress(0x102);
const PIPELINE_CLASS: RemoteAddress = RemoteAddress(0x200);
const SCALER_CLASS: RemoteAddress = RemoteAddress(0x201);

/// An assembler that knows one shared method, two classes and a pipeline of two steps.
fn python_assembler() -> Assembler {
    let mut assembler = assembler();
    assembler.add_function(Arc::new(FunctionDescription {
        id: FunctionId(5),
        span_name: "_SetOutputMixin.transform".into(),
        path: "sklearn.utils._set_output._wrap_method_output".into(),
        module: "/usr/bin/python3.11".into(),
        library: "scikit-learn".into(),
        language: Language::Python,
        attributes: Vec::new(),
        error: None,
        method: Some("transform".into()),
        source: Some(("_set_output.py".into(), 310)),
        shared_code: None,
    }));
    assembler.add_python_names(names(&[(PIPELINE_CLASS, "Pipeline"), (SCALER_CLASS, "StandardScaler")]));
    assembler
}

fn names(classes: &[(RemoteAddress, &str)]) -> PythonNames {
    let member = |child, step: &str| ContainerMember {
        container: PIPELINE,
        container_class: None,
        child,
        class: (child == SCALER).then_some(SCALER_CLASS),
        step: Some(step.into()),
    };
    PythonNames {
        containers: Vec::new(),
        process: 4200,
        is_first: false,
        classes: classes.iter().map(|(class, name)| (*class, (*name).into())).collect(),
        members: vec![member(SCALER, "scaler"), member(FOREST, "clf")],
        routes: Vec::new(),
    }
}

fn python_call(call: u64, parent: Option<u64>, sequence: u64, class: RemoteAddress, object: RemoteAddress) -> Call {
    Call {
        function: FunctionId(5),
        class: Some(class),
        object: Some(object),
        ..record(call, parent, u32::from(parent.is_some()), sequence)
    }
}

fn facts(span: &Span) -> &CallFacts {
    match &span.subject {
        Subject::Call(call) => call,
        Subject::LostCall | Subject::Request(_) => panic!("{span:?}"),
    }
}

/// The same call on thread 20, in a tree that hangs below call 3 of thread 9.
fn joined(call: Call) -> Call {
    let foreign = |call| ForeignCall { thread: ThreadId(9), first_seen: MonotonicNs(500), call };
    let join = Some(Join { parent: foreign(3), trace: foreign(1) });
    Call { thread: ThreadId(20), thread_first_seen: MonotonicNs(700), join, ..call }
}

#[test]
fn spans_are_named_after_the_class_of_the_object() {
    let calls = [
        python_call(2, Some(1), 1, SCALER_CLASS, SCALER),
        python_call(3, Some(1), 2, SCALER_CLASS, RemoteAddress(0x999)),
        python_call(4, Some(1), 3, RemoteAddress(0x777), FOREST),
        Call { class: None, ..python_call(5, Some(1), 4, SCALER_CLASS, FOREST) },
        // At the place of the scaler there is another object now.
        python_call(6, Some(1), 5, PIPELINE_CLASS, SCALER),
        python_call(1, None, 6, PIPELINE_CLASS, PIPELINE),
    ];
    let (spans, ..) = run(python_assembler(), &calls);
    let seen: Vec<_> =
        spans.iter().map(|span| (span.name(), facts(span).class_observed, facts(span).step.as_deref())).collect();
    assert_eq!(
        seen,
        [
            ("StandardScaler.transform", true, Some("scaler")),
            ("StandardScaler.transform", true, None),
            ("_SetOutputMixin.transform", false, Some("clf")),
            ("_SetOutputMixin.transform", false, Some("clf")),
            ("Pipeline.transform", true, None),
            ("Pipeline.transform", true, None),
        ]
    );
    let function = |index: usize| spans[index].function().cloned().expect("a known function");
    assert!(Arc::ptr_eq(&function(0), &function(1)), "made once for each class");
    assert!(spans.iter().all(|span| *function(0).path == *span.function().expect("known").path));
    assert_eq!(function(0).source, Some(("_set_output.py".into(), 310)));
}

#[test]
fn native_calls_are_named_as_before() {
    let native = Call { class: Some(SCALER_CLASS), object: Some(SCALER), ..record(2, Some(1), 1, 1) };
    let (spans, ..) = run(python_assembler(), &[native, python_call(1, None, 2, SCALER_CLASS, SCALER)]);
    assert_eq!((spans[0].name(), facts(&spans[0]).class_observed), ("Booster.predict", true));
    assert_eq!(spans[0].parent, Parent::Span(spans[1].span_id));
    // A call that nothing is around is on the object itself, not a step of anything.
    assert_eq!(facts(&spans[1]).step, None);
}

#[test]
fn later_names_count_for_later_records() {
    let mut assembler = python_assembler();
    let mut spans = Vec::new();
    let mut give = |assembler: &mut Assembler, sequence| {
        let call = Event::Call(python_call(sequence, None, sequence, SCALER_CLASS, SCALER));
        assembler.event(&call, &mut |output| {
            if let Output::Span(span) = output {
                spans.push(span.name().to_owned());
            }
        });
    };
    give(&mut assembler, 1);
    assembler.add_python_names(names(&[(SCALER_CLASS, "MinMaxScaler")]));
    give(&mut assembler, 2);
    assembler.add_process(PROCESS);
    give(&mut assembler, 3);
    // The number belongs to another process now.
    assembler.add_process(ProcessId { start_time: PROCESS.start_time + 1, ..PROCESS });
    give(&mut assembler, 4);
    assert_eq!(
        spans,
        ["StandardScaler.transform", "MinMaxScaler.transform", "MinMaxScaler.transform", "_SetOutputMixin.transform"]
    );
}

#[test]
fn an_exception_is_told_by_its_class() {
    let raised = |sequence, exception, is_end_exact| Call {
        ending: CallEnding::Unwound { exception: Some(RemoteAddress(exception)), is_end_exact },
        ..python_call(sequence, None, sequence, SCALER_CLASS, SCALER)
    };
    let ended = Call { ending: CallEnding::ThreadEnded, ..raised(3, 0x900, false) };
    let (spans, ..) = run(python_assembler(), &[raised(1, 0x900, true), raised(2, 0x901, false), ended]);
    let known = spans[0].ending.error().expect("an error");
    assert_eq!((known.kind().as_ref(), known.to_string().as_str()), ("ValueError", "raised ValueError"));
    assert!(spans[0].ending.is_end_observed() && spans[0].ending.as_str() == "unwound");
    let unknown = spans[1].ending.error().expect("an error");
    assert_eq!((unknown.kind().as_ref(), unknown.to_string().as_str()), ("_OTHER", "unwound"));
    assert!(!spans[1].ending.is_end_observed());
    assert_eq!(spans[2].ending.error(), Some(CallError::ThreadEnded));
}

#[test]
fn a_joined_tree_is_part_of_the_trace_of_the_other_thread() {
    // Thread 9: 1 ( 3 ); thread 20: 1 ( 2 ), below 3 of thread 9.
    let calls = [
        joined(python_call(2, Some(1), 1, SCALER_CLASS, SCALER)),
        joined(python_call(1, None, 2, SCALER_CLASS, SCALER)),
        python_call(3, Some(1), 1, PIPELINE_CLASS, PIPELINE),
        python_call(1, None, 2, PIPELINE_CLASS, PIPELINE),
    ];
    let (spans, losses, totals) = run(python_assembler(), &calls);
    let [inner, outermost, parent, root] = &spans[..] else { panic!("{spans:#?}") };
    assert!(losses.is_empty() && totals.placeholders == 0);
    assert!(spans.iter().all(|span| span.trace_id == root.trace_id));
    assert_eq!((inner.parent, inner.parent_thread), (Parent::Span(outermost.span_id), None));
    assert_eq!((outermost.parent, outermost.parent_thread), (Parent::Span(parent.span_id), Some(ThreadId(9))));
    assert_eq!((parent.parent, parent.parent_thread), (Parent::Span(root.span_id), None));
    assert_eq!(facts(outermost).step.as_deref(), Some("scaler"), "it was made by a call of another thread");
    assert_ne!(outermost.span_id, root.span_id, "the first call of each thread");
}

#[test]
fn placeholders_of_a_joined_tree_hang_where_the_tree_does() {
    // Thread 20: 1 ( 2 ( 3 ) ) below 3 of thread 9; the records of its 1 and 2 are lost.
    let mut deepest = joined(python_call(3, Some(2), 1, SCALER_CLASS, SCALER));
    deepest.depth = 2;
    let others =
        [python_call(3, Some(1), 1, PIPELINE_CLASS, PIPELINE), python_call(1, None, 2, PIPELINE_CLASS, PIPELINE)];
    // Found out at the end, and found out by the next tree of the thread.
    let next_tree = Call {
        thread: ThreadId(20),
        thread_first_seen: MonotonicNs(700),
        root_call: 4,
        ..python_call(4, None, 4, SCALER_CLASS, SCALER)
    };
    for later in [None, Some(next_tree)] {
        let calls: Vec<Call> = [deepest.clone()].into_iter().chain(others.clone()).chain(later).collect();
        let (spans, _, totals) = run(python_assembler(), &calls);
        assert_eq!(totals.placeholders, 2);
        let placeholders: Vec<&Span> = spans.iter().filter(|span| span.ending == Ending::Lost).collect();
        let [middle, outermost] = &placeholders[..] else { panic!("{spans:#?}") };
        let root = spans.iter().find(|span| span.parent == Parent::Root && span.thread == ThreadId(9)).expect("a root");
        assert_eq!(spans[0].parent, Parent::Span(middle.span_id));
        assert_eq!(middle.parent, Parent::Span(outermost.span_id));
        assert_eq!((outermost.parent, outermost.parent_thread), (Parent::Span(spans[1].span_id), Some(ThreadId(9))));
        assert!([spans[0].trace_id, middle.trace_id, outermost.trace_id].iter().all(|trace| *trace == root.trace_id));
        assert!(placeholders.iter().all(|span| span.subject == Subject::LostCall && !span.ending.is_end_observed()));
    }
}
