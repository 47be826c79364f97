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
fn what_nobody_records_is_not_told_and_what_is_not_known_says_so() {
    let (spans, totals) = joined(3, &request(false));
    assert_eq!((spans.len(), totals.not_sampled), (0, 1));
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
