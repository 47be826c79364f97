//! Trees of calls, with and without losses, through the assembler.

use std::collections::{HashMap, HashSet};

use tracer_common::limits::MAX_ARGUMENTS;

use super::*;
use crate::model::{
    ArgumentRule, ArgumentType, CallError, CallersTrace, Comparison, ConnectionId, ErrorRule, Language, Parent,
    ProcessChange, RemoteAddress, RequestFacts, SpanId, TraceId, WallClockNs,
};

pub const CLOCK: ClockAnchor = ClockAnchor { monotonic: MonotonicNs(1_000), wall_clock: WallClockNs(1_000_000) };
pub const PROCESS: ProcessId = ProcessId { pid: 4200, start_time: 7 };

pub fn assembler() -> Assembler {
    let classes = |_, class| (class == RemoteAddress(0x900)).then(|| "ValueError".into());
    let mut assembler = Assembler::new(1, CLOCK, Box::new(classes));
    assembler.add_process(PROCESS);
    assembler.add_function(Arc::new(FunctionDescription {
        id: FunctionId(3),
        span_name: "Booster.predict".into(),
        path: "LGBM_BoosterPredictForMat".into(),
        module: "/lib/lib_lightgbm.so".into(),
        library: "lightgbm".into(),
        language: Language::C,
        attributes: vec![
            ArgumentRule { attribute: "ml.rows".into(), argument: 3, kind: ArgumentType::I32 },
            ArgumentRule { attribute: "ml.seed".into(), argument: 4, kind: ArgumentType::U64 },
            ArgumentRule { attribute: "ml.fast".into(), argument: 5, kind: ArgumentType::Bool },
        ],
        error: Some(ErrorRule { comparison: Comparison::NotEqual, value: 0, kind: ArgumentType::I32 }),
        method: None,
        source: None,
        shared_code: None,
    }));
    assembler
}

/// A record of thread 9: number of the call, its parent, depth, place in the sequence.
pub fn record(call: u64, parent: Option<u64>, depth: u32, sequence: u64) -> Call {
    Call {
        process: 4200,
        thread: ThreadId(9),
        thread_first_seen: MonotonicNs(500),
        function: FunctionId(3),
        depth,
        sequence,
        call,
        parent_call: parent,
        root_call: 1,
        start: MonotonicNs(2_000 + call * 10),
        end: MonotonicNs(3_000 + sequence * 10),
        ending: CallEnding::Returned { value: Some(0) },
        is_on_own_stack: true,
        object: None,
        folded_calls: 0,
        arguments: [None; MAX_ARGUMENTS],
        class: None,
        join: None,
        start_uncertainty_ns: 0,
        may_be_several: false,
        context: None,
        has_lost_span: false,
    }
}

pub fn run(assembler: Assembler, calls: &[Call]) -> (Vec<Span>, Vec<Loss>, StreamTotals) {
    let mut assembler = assembler;
    let (mut spans, mut losses) = (Vec::new(), Vec::new());
    let mut take = |output| match output {
        Output::Span(span) => spans.push(span),
        Output::Loss(loss) => losses.push(loss),
    };
    for call in calls {
        assembler.event(&Event::Call(call.clone()), &mut take);
    }
    let totals = assembler.finish(&mut take);
    (spans, losses, totals)
}

#[test]
fn a_whole_tree_keeps_its_shape() {
    let calls = [record(2, Some(1), 1, 1), record(3, Some(1), 1, 2), record(1, None, 0, 3)];
    let (spans, losses, totals) = run(assembler(), &calls);
    assert!(losses.is_empty());
    assert_eq!(totals, StreamTotals { spans: 3, ..StreamTotals::default() });
    let root = &spans[2];
    assert_eq!(root.parent, Parent::Root);
    assert_eq!(spans[0].parent, Parent::Span(root.span_id));
    assert_eq!(spans[1].parent, Parent::Span(root.span_id));
    assert!(spans.iter().all(|span| span.trace_id == root.trace_id && span.process == PROCESS));
    assert_eq!(root.name(), "Booster.predict");
    assert_eq!((root.start.0, root.end.0), (1_001_010, 1_002_030));
}

#[test]
fn a_tree_is_whole_when_the_clocks_move_apart_in_the_middle_of_it() {
    let mut assembler = assembler();
    let mut inner = record(2, Some(1), 1, 1);
    inner.start = MonotonicNs(2_500);
    // The time was set while the outer call was open, before the inner one began.
    assembler.add_anchor(ClockAnchor { monotonic: MonotonicNs(2_200), wall_clock: WallClockNs(9_000_000) });
    let next = Call { root_call: 3, ..record(3, None, 0, 3) };
    let (spans, ..) = run(assembler, &[inner, record(1, None, 0, 2), next]);
    let [inner, outer, next] = &spans[..] else { panic!("{spans:?}") };
    assert!(outer.start <= inner.start && inner.end <= outer.end, "{inner:?} is outside {outer:?}");
    assert_eq!((inner.start.0, outer.start.0), (9_000_300, 8_999_810));
    assert!(next.start.0 < 2_000_000, "{next:?} began before");
}

#[test]
fn arguments_and_return_value_are_read_by_their_rules() {
    let mut call = record(1, None, 0, 1);
    call.arguments = [Some(0xffff_ffff_ffff_fff6), Some(u64::MAX), None, Some(1)];
    call.ending = CallEnding::Returned { value: Some(0xffff_ffff) };
    let (spans, ..) = run(assembler(), &[call]);
    assert_eq!(
        spans[0].attributes,
        [
            ("ml.rows".into(), AttributeValue::Integer(-10)),
            ("ml.seed".into(), AttributeValue::Text("18446744073709551615".into()))
        ]
    );
    assert_eq!(spans[0].ending.error().map(|error| error.to_string()).as_deref(), Some("return -1"));
}

#[test]
fn endings_become_errors_only_where_the_call_failed() {
    let mut unwound = record(2, Some(1), 1, 1);
    unwound.ending = CallEnding::Unwound { exception: None, is_end_exact: false };
    let mut cut_off = record(3, Some(1), 1, 2);
    cut_off.ending = CallEnding::ThreadEnded;
    let mut open = record(1, None, 0, 3);
    open.ending = CallEnding::Open;
    open.end = MonotonicNs(0);
    let (spans, _, totals) = run(assembler(), &[unwound, cut_off, open]);
    assert_eq!(spans[0].ending.error(), Some(CallError::Unwound(None)));
    assert_eq!(spans[1].ending.error(), Some(CallError::ThreadEnded));
    assert_eq!((spans[2].ending.error(), spans[2].start), (None, spans[2].end));
    assert_eq!(totals, StreamTotals { spans: 2, open: 1, ..StreamTotals::default() });
}

#[test]
fn what_is_not_known_is_said_not_guessed() {
    let mut call = record(1, None, 0, 1);
    call.function = FunctionId(77);
    call.process = 5;
    let (spans, ..) = run(assembler(), &[call]);
    assert_eq!(spans[0].name(), "(unknown function)");
    assert_eq!(spans[0].process, ProcessId { pid: 5, start_time: 0 });
}

#[test]
fn a_lost_parent_gets_a_placeholder_with_its_proven_parent() {
    // 1 ( 2 ( 3 4 ) ), the record of 2 is lost.
    let calls = [record(3, Some(2), 2, 1), record(4, Some(2), 2, 2), record(1, None, 0, 4)];
    let (spans, losses, totals) = run(assembler(), &calls);
    assert_eq!(losses, [Loss { process: PROCESS, thread: ThreadId(9), calls: 1 }]);
    assert_eq!(totals, StreamTotals { spans: 3, missing: 1, placeholders: 1, ..StreamTotals::default() });
    let [third, fourth, placeholder, root] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((&placeholder.ending, &placeholder.subject), (&Ending::Lost, &Subject::LostCall));
    assert_eq!((placeholder.depth, placeholder.name()), (1, "(lost)"));
    assert_eq!(placeholder.parent, Parent::Span(root.span_id));
    assert_eq!((placeholder.start, placeholder.end), (third.start, fourth.end));
    assert_eq!(third.parent, Parent::Span(placeholder.span_id));
    assert_eq!(root.lost_before, 1);
}

#[test]
fn a_call_on_another_stack_has_no_known_parent_and_shows_nothing_of_the_others() {
    // 1 ( 2 ) on the thread's own stack, 3 on another one ends between them.
    let elsewhere = Call { root_call: 3, is_on_own_stack: false, ..record(3, None, 0, 0) };
    let (spans, losses, totals) = run(assembler(), &[record(2, Some(1), 1, 1), elsewhere, record(1, None, 0, 2)]);
    assert_eq!((losses.len(), totals), (0, StreamTotals { spans: 3, ..StreamTotals::default() }));
    let [inner, elsewhere, root] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!(
        [inner.parent, elsewhere.parent, root.parent],
        [Parent::Span(root.span_id), Parent::Unknown, Parent::Root]
    );
    assert!(elsewhere.trace_id != root.trace_id && elsewhere.parent.begins_trace());
}

#[test]
fn a_longer_gap_names_the_nearest_proven_ancestor() {
    // 1 ( 2 ( 3 ( 4 ) ) ), the records of 2 and 3 are lost.
    let (spans, ..) = run(assembler(), &[record(4, Some(3), 3, 1), record(1, None, 0, 4)]);
    let [_, placeholder, root] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((placeholder.depth, placeholder.parent), (2, Parent::Ancestor(root.span_id)));
}

#[test]
fn a_lost_root_is_found_when_the_next_tree_begins_and_at_the_end() {
    let mut other_tree = record(4, Some(3), 1, 4);
    other_tree.root_call = 3;
    let (spans, _, totals) = run(assembler(), &[record(2, Some(1), 1, 1), other_tree]);
    let [child, lost_root, other_child, other_root] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((lost_root.parent, &lost_root.ending), (Parent::Root, &Ending::Lost));
    assert_eq!(child.parent, Parent::Span(lost_root.span_id));
    assert_eq!(other_child.parent, Parent::Span(other_root.span_id));
    assert_eq!((totals.placeholders, totals.missing), (2, 2));
}

#[test]
fn threads_have_the_names_that_records_or_old_tapes_tell() {
    let mut assembler = assembler();
    let seen = |thread, name: Option<&str>| {
        let (thread, first_seen) = (ThreadId(thread), MonotonicNs(500));
        Event::Thread(ThreadEvent { process: 4200, thread, first_seen, name: name.map(Into::into) })
    };
    let on_thread = |thread| Event::Call(Call { thread: ThreadId(thread), ..record(1, None, 0, 1) });
    let mut names = Vec::new();
    let mut take = |output| match output {
        Output::Span(span) => names.push((span.process, span.thread_name)),
        Output::Loss(loss) => panic!("{loss:?}"),
    };
    assembler.add_thread_name(ThreadId(10), "old".into());
    for event in [seen(9, Some("worker")), on_thread(9), on_thread(10), seen(11, None), on_thread(11), on_thread(12)] {
        assembler.event(&event, &mut take);
    }
    assembler.finish(&mut take);
    assert_eq!(names, [Some("worker"), Some("old"), None, None].map(|name| (PROCESS, name.map(Into::into))));
}

#[test]
fn what_happens_to_processes_makes_no_span() {
    let mut assembler = assembler();
    for change in [ProcessChange::Forked(4200), ProcessChange::Executed, ProcessChange::Ended] {
        let event = Event::Process(ProcessEvent { process: 4201, time: MonotonicNs(1), change });
        assembler.event(&event, &mut |output| panic!("{output:?}"));
    }
    assert_eq!(assembler.finish(&mut |output| panic!("{output:?}")), StreamTotals::default());
}

#[test]
fn times_are_told_by_the_anchor_in_force() {
    let mut assembler = assembler();
    // The machine slept for 5,000 before the second call.
    let (before, later) = (record(1, None, 0, 1), Call { root_call: 2, ..record(2, None, 0, 2) });
    assembler.add_anchor(ClockAnchor { monotonic: MonotonicNs(2_015), wall_clock: WallClockNs(1_006_015) });
    let (spans, ..) = run(assembler, &[before.clone(), later.clone()]);
    let times = spans.iter().map(|span| (span.start.0, span.duration_ns())).collect::<Vec<_>>();
    assert_eq!(times, [(1_001_010, before.end.0 - before.start.0), (1_006_020, later.end.0 - later.start.0)]);
}

#[test]
fn a_reused_thread_number_is_another_thread() {
    let mut later = record(1, None, 0, 1);
    later.thread_first_seen = MonotonicNs(900);
    let (spans, losses, _) = run(assembler(), &[record(1, None, 0, 1), later]);
    assert!(losses.is_empty());
    assert_ne!(spans[0].span_id, spans[1].span_id);
    assert_ne!(spans[0].trace_id, spans[1].trace_id);
}

#[test]
fn greenlets_of_one_thread_come_by_turns_and_lose_nothing() {
    let on_greenlet = |first_seen: u64, mut call: Call| {
        call.thread_first_seen = MonotonicNs(first_seen);
        call
    };
    let calls = [
        on_greenlet(500, record(2, Some(1), 1, 1)),
        on_greenlet(700, record(2, Some(1), 1, 1)),
        on_greenlet(500, record(1, None, 0, 2)),
        on_greenlet(700, record(1, None, 0, 2)),
    ];
    let (spans, losses, totals) = run(assembler(), &calls);
    assert!(losses.is_empty() && spans.iter().all(|span| span.ending != Ending::Lost && span.lost_before == 0));
    assert_eq!(totals, StreamTotals { spans: 4, ..StreamTotals::default() });
    assert_eq!([spans[0].parent, spans[1].parent], [Parent::Span(spans[2].span_id), Parent::Span(spans[3].span_id)]);
    assert_ne!(spans[0].trace_id, spans[1].trace_id);
}

#[test]
fn forgotten_threads_come_back_without_an_invented_loss() {
    let mut assembler = assembler();
    assembler.max_threads = 4;
    let on_thread = |thread: u32, sequence| {
        let mut call = record(sequence, None, 0, sequence);
        call.thread = ThreadId(thread);
        call.thread_first_seen = MonotonicNs(u64::from(thread));
        call.root_call = sequence;
        call.end = MonotonicNs(u64::from(thread) + sequence * 1_000);
        call
    };
    let mut calls: Vec<Call> = (0..6).map(|thread| on_thread(thread, 1)).collect();
    calls.push(on_thread(0, 40)); // forgotten above
    calls.push(on_thread(0, 42));
    calls.push(on_thread(7, 3)); // new: its first two records are missing
    let mut losses = Vec::new();
    for call in calls {
        assembler.event(&Event::Call(call), &mut |output| {
            if let Output::Loss(loss) = output {
                losses.push((loss.thread.0, loss.calls));
            }
        });
        assert!(assembler.threads.len() <= 4);
    }
    assert_eq!(losses, [(0, 1), (7, 2)]);
}

/// Grows a random tree of calls; `out` gets the records in the order in which the calls end.
fn grow(
    random: &mut impl FnMut(u64) -> u64,
    next: &mut u64,
    parent: Option<(u64, u32)>,
    root: u64,
    out: &mut Vec<Call>,
) {
    let number = *next;
    *next += 1;
    let depth = parent.map_or(0, |(_, depth)| depth + 1);
    let root = if parent.is_none() { number } else { root };
    let start = out.len() as u64 + number; // calls begun and ended so far: a clock that never stands still
    if depth < 6 {
        for _ in 0..random(4) {
            grow(random, next, Some((number, depth)), root, out);
        }
    }
    let mut call = record(number, parent.map(|(parent, _)| parent), depth, out.len() as u64 + 1);
    call.root_call = root;
    call.start = MonotonicNs(start);
    call.end = MonotonicNs(out.len() as u64 + *next);
    out.push(call);
}

#[test]
fn random_trees_with_random_losses_stay_true() {
    let mut state = 0x1234_5678_u64;
    let mut random = move |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    for round in 0..300 {
        let mut all = Vec::new();
        let mut next = 1;
        for _ in 0..5 {
            grow(&mut random, &mut next, None, 0, &mut all);
        }
        let kept: Vec<Call> = all.iter().filter(|_| round == 0 || random(10) >= round % 9).cloned().collect();
        let (spans, losses, totals) = run(assembler(), &kept);

        let identity = ThreadIdentity::new(1, ThreadId(9), MonotonicNs(500));
        let numbers: HashMap<SpanId, &Call> = all.iter().map(|call| (identity.span_id(call.call), call)).collect();
        let shown: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
        assert_eq!(shown.len(), spans.len(), "a call was shown twice");
        let parent_of = |call: &Call| call.parent_call.map(|parent| identity.span_id(parent));
        for span in &spans {
            let truth = numbers[&span.span_id];
            assert_eq!(span.trace_id, identity.trace_id(truth.root_call));
            assert!(span.parent.span_id().is_none_or(|parent| shown.contains(&parent)), "a parent was never shown");
            match span.parent {
                Parent::Root | Parent::Unknown => assert_eq!(truth.parent_call, None),
                Parent::Span(parent) => assert_eq!(Some(parent), parent_of(truth)),
                Parent::Ancestor(ancestor) => {
                    let mut above = std::iter::successors(parent_of(truth), |above| parent_of(numbers[above]));
                    assert!(above.any(|above| above == ancestor), "not an ancestor");
                }
                Parent::Remote(_) | Parent::Sdk(_) => panic!("{span:?}"),
            }
            let (start, end) = (CLOCK.wall_clock_of(truth.start), CLOCK.wall_clock_of(truth.end));
            assert!(span.start >= start && span.end <= end && span.start <= span.end);
        }
        let lost: u64 = losses.iter().map(|loss| loss.calls).sum();
        assert_eq!((lost, totals.spans), (totals.missing, kept.len() as u64));
        // What is missing after the last record of a thread cannot be seen in the sequence.
        let last = kept.last().map_or(0, |call| call.sequence);
        assert_eq!(lost, last - kept.len() as u64);
        assert_eq!(totals.placeholders, spans.len() as u64 - kept.len() as u64);
    }
}

#[test]
fn forged_records_do_no_harm() {
    let mut calls = Vec::new();
    for number in [0, 1, 2, u64::MAX] {
        for depth in [0, 1, 70, u32::MAX] {
            for parent in [None, Some(0), Some(u64::MAX)] {
                for sequence in [0, 1, u64::MAX] {
                    let mut call = record(2, parent, depth, 1);
                    call.call = number;
                    call.sequence = sequence;
                    call.root_call = number ^ 1;
                    call.start = MonotonicNs(u64::MAX - number);
                    calls.push(call);
                }
            }
        }
    }
    for depth in 0..500 {
        calls.push(record(1_000 - u64::from(depth), Some(u64::from(depth)), depth * 2, 5));
    }
    let (spans, ..) = run(assembler(), &calls);
    assert!(spans.iter().all(|span| span.start <= span.end));
}

fn request(trace: Option<CallersTrace>, ending: RequestEnding) -> Request {
    Request {
        connection: ConnectionId { process: 4200, descriptor: 5, opened: MonotonicNs(1_500) },
        number: 2,
        thread: ThreadId(9),
        start: MonotonicNs(2_000),
        end: MonotonicNs(5_000),
        ending,
        facts: RequestFacts { trace, answer_bytes: Some(0), ..RequestFacts::plain("GET", "/", 200) },
    }
}

fn spans_of_requests(assembler: Assembler, requests: Vec<Request>) -> (Vec<Span>, StreamTotals) {
    let mut assembler = assembler;
    let mut spans = Vec::new();
    let out = &mut |output| match output {
        Output::Span(span) => spans.push(span),
        Output::Loss(loss) => panic!("{loss:?}"),
    };
    requests.into_iter().for_each(|request| assembler.request(request, None, out));
    let totals = assembler.finish(out);
    (spans, totals)
}

#[test]
fn a_request_is_in_its_caller_s_trace_or_begins_one() {
    let trace = CallersTrace { trace_id: TraceId([7; 16]), parent: SpanId([8; 8]), is_sampled: true, state: None };
    let requests = vec![request(Some(trace), RequestEnding::Answered), request(None, RequestEnding::Answered)];
    let (spans, totals) = spans_of_requests(assembler(), requests);
    assert_eq!((spans[0].trace_id, spans[0].parent), (TraceId([7; 16]), Parent::Remote(SpanId([8; 8]))));
    assert_eq!((spans[1].parent, spans[0].process), (Parent::Root, PROCESS));
    assert_eq!((spans[0].start, spans[0].end), (WallClockNs(1_001_000), WallClockNs(1_004_000)));
    assert_eq!(spans[0].span_id, spans[1].span_id, "the same request of the same connection");
    assert_ne!(spans[1].trace_id, TraceId([7; 16]));
    assert_eq!((totals.requests.requests, totals.requests.unanswered, totals.spans), (2, 0, 0));
}

#[test]
fn a_request_ends_as_it_was_seen_to() {
    let endings = [
        (RequestEnding::Answered, Ending::Returned { error: None }),
        (RequestEnding::Closed, Ending::Unanswered),
        (RequestEnding::OutOfStep, Ending::Unanswered),
        (RequestEnding::ProcessEnded, Ending::ThreadEnded),
        (RequestEnding::StillOpen, Ending::StillOpen),
    ];
    let requests = endings.iter().map(|(ending, _)| request(None, *ending)).collect();
    let (spans, totals) = spans_of_requests(assembler(), requests);
    let found: Vec<&Ending> = spans.iter().map(|span| &span.ending).collect();
    assert_eq!(found, endings.iter().map(|(_, ending)| ending).collect::<Vec<_>>());
    assert_eq!((totals.requests.requests, totals.requests.unanswered), (5, 4));
}

#[test]
fn what_a_caller_does_not_record_is_marked_unless_all_is_asked_for() {
    let trace = CallersTrace { trace_id: TraceId([7; 16]), parent: SpanId([8; 8]), is_sampled: false, state: None };
    let unsampled = || vec![request(Some(trace.clone()), RequestEnding::Answered)];
    let (spans, totals) = spans_of_requests(assembler(), unsampled());
    assert_eq!((spans[0].is_recorded, totals.requests.requests, totals.requests.not_sampled), (false, 1, 1));
    let (spans, totals) = spans_of_requests(assembler().following_callers(false), unsampled());
    assert_eq!((spans[0].is_recorded, totals.requests.not_sampled), (true, 0));
    // The SDK makes the span, or throws it away.
    for (is_sampled, expected) in [(true, (0, 1)), (false, (1, 0))] {
        let mut assembler = assembler();
        let span = CurrentSpan {
            trace_id: TraceId([5; 16]),
            span_id: SpanId([5; 8]),
            is_sampled,
            is_remote: false,
            is_server: true,
            has_local_parent: false,
            started: None,
        };
        let mut told = Vec::new();
        assembler.request(request(None, RequestEnding::Answered), Some(span), &mut |output| told.push(output));
        let totals = assembler.finish(&mut |output| panic!("{output:?}")).requests;
        assert_eq!((told.len(), totals.told_by_sdk), expected);
    }
}
