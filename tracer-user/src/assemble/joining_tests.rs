//! Trees that take their place inside requests, and those that do not.

use super::super::assembler::tests::{assembler, record, run};
use super::*;
use crate::model::{CallersTrace, ConnectionId, MonotonicNs, RequestStart, SpanId};

/// A call with two calls inside, as it comes: the outer one last.
fn tree() -> Vec<Span> {
    run(assembler(), &[record(2, Some(1), 1, 1), record(3, Some(1), 1, 2), record(1, None, 0, 3)]).0
}

fn request(is_sampled: bool) -> CallParent {
    let trace = CallersTrace { trace_id: TraceId([9; 16]), parent: SpanId([8; 8]), is_sampled, state: None };
    let connection = ConnectionId { process: 4200, descriptor: 5, opened: MonotonicNs(1) };
    let start = RequestStart { connection, number: 1, begun: MonotonicNs(2), trace: Some(trace) };
    CallParent::Request(Box::new(start))
}

/// What comes out when the parent of a tree is known after so many of its spans.
fn joined(after: usize, parent: &CallParent) -> (Vec<Span>, JoinedCalls) {
    let mut joining = Joining::new(1, true);
    let mut spans = Vec::new();
    let tree = tree();
    let trace = tree[0].trace_id;
    for (number, span) in tree.into_iter().enumerate() {
        if number == after {
            joining.settle(trace, parent, &mut |span| spans.push(span));
        }
        assert!(number >= after || spans.is_empty(), "nothing comes before it is known");
        joining.span(span, &mut |span| spans.push(span));
    }
    joining.settle(trace, parent, &mut |span| spans.push(span));
    let totals = joining.finish(&mut |span| spans.push(span));
    (spans, totals)
}

#[test]
fn a_tree_takes_its_place_inside_its_request() {
    let before = tree();
    // Known at the end, as always; and earlier, as for trees of other threads that come later.
    for after in [3, 1] {
        let (spans, totals) = joined(after, &request(true));
        assert_eq!(totals, JoinedCalls { joined: 1, ..JoinedCalls::default() });
        assert_eq!(spans.len(), 3);
        assert!(spans.iter().all(|span| span.trace_id == TraceId([9; 16])));
        let ids = |spans: &[Span]| spans.iter().map(|span| span.span_id).collect::<Vec<_>>();
        assert_eq!(ids(&spans), ids(&before), "their own ids stay");
        let CallParent::Request(start) = request(true) else { panic!("a request") };
        assert_eq!(spans[2].parent, Parent::Span(RequestIdentity::new(1, &start).span_id));
        assert_eq!(spans[0].parent, before[0].parent);
    }
}

#[test]
fn what_nobody_records_is_marked_and_what_is_not_known_says_so() {
    let (spans, totals) = joined(3, &request(false));
    assert_eq!((spans.len(), totals.not_sampled), (3, 1));
    assert!(spans.iter().all(|span| !span.is_recorded && span.trace_id == TraceId([9; 16])));
    let (spans, totals) = joined(3, &CallParent::None(NoParent::NotShown));
    assert_eq!(totals.own_root, [(NoParent::NotShown, 1)].into());
    let text = |text: &str| AttributeValue::Text(text.into());
    let unknown = [("ml.parent".into(), text("unknown")), ("ml.parent_reason".into(), text("not_shown"))];
    assert!(spans[2].attributes.ends_with(&unknown), "{:?}", spans[2].attributes);
    assert_eq!((spans[2].parent, spans[2].trace_id), (Parent::Root, tree()[2].trace_id));
    assert_eq!(spans[0], tree()[0]);
    // Where no request was there, there is nothing to say.
    let (spans, _) = joined(3, &CallParent::None(NoParent::NoRequest));
    assert_eq!(spans, tree());
}

#[test]
fn what_is_never_settled_comes_at_the_end_and_too_much_comes_at_once() {
    let mut joining = Joining::new(1, true);
    let mut spans = Vec::new();
    let tree = tree();
    for number in 0..MOST_HELD + 10 {
        let mut trace = tree[0].trace_id;
        trace.0[..8].copy_from_slice(&(number as u64).to_be_bytes());
        joining.span(Span { trace_id: trace, ..tree[0].clone() }, &mut |span| spans.push(span));
    }
    assert_eq!((spans.len(), joining.count), (10, MOST_HELD));
    let totals = joining.finish(&mut |span| spans.push(span));
    assert_eq!(spans.len(), MOST_HELD + 10);
    assert_eq!(totals.own_root.values().sum::<u64>() as usize, MOST_HELD + 10);
}

fn current(number: u8) -> CurrentSpan {
    CurrentSpan {
        trace_id: TraceId([number; 16]),
        span_id: SpanId([number; 8]),
        is_sampled: true,
        is_remote: false,
        is_server: false,
        has_local_parent: false,
        started: None,
    }
}

/// What comes out of a tree that begins in a span, if its process is asked something and its request is this one; and whether the
/// SDK is known to tell of the request then.
fn in_span(span: CurrentSpan, request_of: Option<&CallParent>) -> (Vec<Span>, JoinedCalls, bool) {
    let mut joining = Joining::new(1, true);
    let mut spans = Vec::new();
    let tree = tree();
    let (trace, last) = (tree[0].trace_id, tree.last().expect("a tree").clone());
    let call = record(1, None, 0, 3);
    let event = CurrentSpanEvent {
        process: call.process,
        thread: call.thread,
        thread_first_seen: call.thread_first_seen,
        call: Some(call.call),
        span,
    };
    joining.begins_in(&event, call.call);
    let mut is_told = false;
    for one in tree {
        match request_of {
            None => joining.span_alone(one, &mut |span| spans.push(span)),
            Some(_) => joining.span(one, &mut |span| spans.push(span)),
        }
    }
    if let Some(parent) = request_of {
        joining.settle(trace, parent, &mut |span| spans.push(span));
        if let CallParent::Request(start) = parent {
            is_told = joining.told_requests.shown_by(&(start.connection, start.number), start.trace.as_ref()).is_some();
        }
    }
    assert!(spans.iter().all(|span| span.trace_id != last.trace_id), "it begins no trace");
    (spans, joining.finish(&mut |span| panic!("{span:?} comes late")), is_told)
}

#[test]
fn a_tree_takes_its_place_inside_the_span_of_an_sdk() {
    for asked in [None, Some(CallParent::None(NoParent::NotShown))] {
        let (spans, totals, _) = in_span(current(5), asked.as_ref());
        assert_eq!(totals, JoinedCalls { in_spans: 1, ..JoinedCalls::default() });
        assert!(spans.iter().all(|span| span.trace_id == TraceId([5; 16]) && span.link.is_none()));
        let parents: Vec<Parent> = spans.iter().map(|span| span.parent).collect();
        let before: Vec<Parent> = tree().iter().map(|span| span.parent).collect();
        assert_eq!(parents, [before[0], before[1], Parent::Sdk(SpanId([5; 8]))]);
    }
    let unsampled = CurrentSpan { is_sampled: false, ..current(5) };
    let (spans, totals, _) = in_span(unsampled, None);
    assert_eq!((spans.len(), totals), (3, JoinedCalls { not_sampled: 1, ..JoinedCalls::default() }));
    assert!(spans.iter().all(|span| !span.is_recorded));
}

#[test]
fn what_an_sdk_and_a_request_say_of_a_call_is_held_together() {
    // The request is in trace 9; the SDK's span as well, or in another one.
    let (spans, totals, is_told) = in_span(current(9), Some(&request(true)));
    assert_eq!((spans[2].link, totals.contradicted, is_told), (None, 0, true));
    let (spans, totals, is_told) = in_span(current(5), Some(&request(true)));
    assert_eq!(spans[2].link, Some(SpanLink { trace_id: TraceId([9; 16]), span_id: SpanId([8; 8]) }));
    assert_eq!((spans[2].parent, totals.contradicted, is_told), (Parent::Sdk(SpanId([5; 8])), 1, false));
    let server = CurrentSpan { is_server: true, ..current(5) };
    assert!(in_span(server, Some(&request(true))).2, "its span is one of a request");
}

#[test]
fn below_the_span_of_a_caller_comes_the_request() {
    let remote = CurrentSpan { is_remote: true, ..current(9) };
    let CallParent::Request(start) = request(true) else { panic!("a request") };
    let (spans, totals, is_told) = in_span(remote, Some(&request(true)));
    assert_eq!(spans[2].parent, Parent::Span(RequestIdentity::new(1, &start).span_id));
    assert_eq!((totals.joined, is_told), (1, false));
    for asked in [None, Some(CallParent::None(NoParent::NotShown))] {
        let (spans, ..) = in_span(remote, asked.as_ref());
        assert_eq!((spans[2].parent, spans[2].trace_id), (Parent::Remote(SpanId([9; 8])), TraceId([9; 16])));
    }
}
