//! Records of this version, of others, and bytes that are none.

use std::mem::offset_of;

use tracer_common::limits::MAX_DEPTH;
use tracer_common::records::{
    CallRecord, ContextRecord, ContextState, CurrentSpanRecord, HAS_LOST, HAS_LOST_SPAN, Join as JoinRecord,
    NEVER_WAITS, ProcessChange as ChangeNumber, ProcessRecord, RecordEnding, SPAN_IS_SAMPLED, SPAN_IS_SERVER,
    SocketAction as ActionNumber, SocketRecord, ThreadRecord, WAS_BEFORE, WideCallRecord, WidePart,
};
use zerocopy::IntoBytes as _;

use super::*;
use crate::model::{
    Call, CallEnding, ConnectionId, ContextChange, ContextEvent, CurrentSpan, CurrentSpanEvent, ForeignCall,
    FunctionId, Join, MonotonicNs, ProcessChange, ProcessEvent, PythonContext, RemoteAddress, SocketAction,
    SocketEvent, SpanId, ThreadEvent, ThreadId, TraceId, WallClockNs,
};

fn native() -> CallRecord {
    CallRecord {
        header: RecordHeader::new(RecordKind::Call, size_of::<CallRecord>()),
        process: 41,
        thread: 42,
        function: 7,
        ending: RecordEnding::Returned as u32,
        depth: 1,
        arguments_read: 0b1010,
        thread_first_seen_ns: 43,
        sequence: 3,
        call: 9,
        parent_call: 8,
        root_call: 6,
        start_ns: 100,
        end_ns: 300,
        object: 0x44,
        return_value: 5,
        folded_calls: 2,
        arguments: [70, 77, 78, 79],
        ..CallRecord::default()
    }
}

fn wide() -> WideCallRecord {
    let join = JoinRecord {
        parent_thread: 50,
        trace_thread: 60,
        parent_first_seen_ns: 51,
        parent_call: 52,
        trace_first_seen_ns: 61,
        trace_call: 62,
    };
    WideCallRecord {
        call: CallRecord { header: RecordHeader::of_wide_call(), ..native() },
        wide: WidePart { class: 0x5000, join, start_uncertainty_ns: 70, calls_merged: 1, ..WidePart::default() },
    }
}

fn call_in(bytes: &[u8]) -> Call {
    match decode(&RawRecord(bytes)) {
        Ok(Event::Call(call)) => call,
        other => panic!("{other:?}"),
    }
}

fn decode_wide(record: &WideCallRecord) -> Result<Event, DecodeError> {
    decode(&RawRecord(record.as_bytes()))
}

/// The same bytes as another version would have written them: with fewer fields, or with more.
fn resized(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(size, 0xee);
    let size = (size as u32).to_ne_bytes();
    bytes[offset_of!(RecordHeader, size)..][..4].copy_from_slice(&size);
    bytes
}

#[test]
fn a_record_keeps_its_fields() {
    let call = call_in(native().as_bytes());
    assert_eq!((call.process, call.thread, call.thread_first_seen), (41, ThreadId(42), MonotonicNs(43)));
    assert_eq!((call.function, call.sequence, call.is_on_own_stack), (FunctionId(7), 3, true));
    assert_eq!((call.call, call.parent_call, call.root_call, call.depth), (9, Some(8), 6, 1));
    assert_eq!((call.start, call.end), (MonotonicNs(100), MonotonicNs(300)));
    assert_eq!(call.ending, CallEnding::Returned { value: Some(5) });
    assert_eq!((call.object, call.folded_calls), (Some(RemoteAddress(0x44)), 2));
    assert_eq!(call.arguments, [None, Some(77), None, Some(79)]);
    assert_eq!((call.class, call.join), (None, None));
}

#[test]
fn a_wide_record_says_class_exception_and_join() {
    let mut record = wide();
    let call = call_in(record.as_bytes());
    let foreign = |thread| ForeignCall {
        thread: ThreadId(thread),
        first_seen: MonotonicNs(u64::from(thread) + 1),
        call: u64::from(thread) + 2,
    };
    let join = Some(Join { parent: foreign(50), trace: foreign(60) });
    let wide_only = Call {
        class: Some(RemoteAddress(0x5000)),
        join,
        start_uncertainty_ns: 70,
        may_be_several: true,
        ..call_in(native().as_bytes())
    };
    assert_eq!(call, wide_only);

    record.wide.join.parent_thread = 0;
    record.wide.exception = 0x6000;
    record.call.ending = RecordEnding::Raised as u32;
    let call = call_in(record.as_bytes());
    let ending = CallEnding::Unwound { exception: Some(RemoteAddress(0x6000)), is_end_exact: true };
    assert_eq!((call.ending, call.join), (ending, None));
}

#[test]
fn fields_that_an_older_version_did_not_have_are_not_there() {
    let whole = call_in(native().as_bytes());
    let mut without = whole.clone();
    // From the last field to the first one that may be missing.
    for size in (size_of::<RecordHeader>()..size_of::<CallRecord>()).rev().filter(|size| size % 8 == 0) {
        let bytes = resized(native().as_bytes(), size);
        if size < offset_of!(CallRecord, stack_pointer) {
            assert!(matches!(decode(&RawRecord(&bytes)), Err(DecodeError::TooShort { .. })), "{size} bytes");
            continue;
        }
        if let Some(index) = size.checked_sub(offset_of!(CallRecord, arguments)) {
            without.arguments[index / 8] = None;
        } else if size == offset_of!(CallRecord, folded_calls) {
            without.folded_calls = 0;
        } else if size == offset_of!(CallRecord, return_value) {
            without.ending = CallEnding::Returned { value: None };
        } else if size == offset_of!(CallRecord, object) {
            without.object = None;
        }
        assert_eq!(call_in(&bytes), without, "{size} bytes");
    }
    assert_eq!((without.object, without.arguments), (None, [None; 4]));
}

#[test]
fn the_second_part_of_a_wide_record_may_be_shorter_too() {
    let least = offset_of!(CallRecord, stack_pointer);
    for size in (least..size_of::<WideCallRecord>()).filter(|size| size % 8 == 0) {
        let result = decode(&RawRecord(&resized(wide().as_bytes(), size)));
        let second = size.saturating_sub(size_of::<CallRecord>());
        let join = offset_of!(WidePart, join);
        let after_join = join + size_of::<JoinRecord>();
        if second > join && second < after_join {
            // All of the join came with the first version; a part of one contradicts itself.
            assert!(matches!(result, Err(DecodeError::Contradiction { .. })), "{size} bytes");
        } else {
            let Ok(Event::Call(call)) = result else { panic!("{size} bytes: {result:?}") };
            assert_eq!(
                (call.class.is_some(), call.join.is_some()),
                (second >= 8, second >= after_join),
                "{size} bytes"
            );
            let start = offset_of!(WidePart, start_uncertainty_ns);
            assert_eq!(call.start_uncertainty_ns, if second >= start + 8 { 70 } else { 0 }, "{size} bytes");
            assert_eq!(call.may_be_several, second >= offset_of!(WidePart, context_state), "{size} bytes");
        }
    }
}

#[test]
fn what_a_newer_version_says_in_addition_is_left_alone() {
    for more in [8, 16, 800] {
        let bytes = resized(native().as_bytes(), size_of::<CallRecord>() + more);
        assert_eq!(call_in(&bytes), call_in(native().as_bytes()));
        let bytes = resized(wide().as_bytes(), size_of::<WideCallRecord>() + more);
        assert_eq!(call_in(&bytes), call_in(wide().as_bytes()));
        // Both parts have grown.
        let (first, second) = (wide(), wide());
        let mut bytes = first.call.as_bytes().to_vec();
        bytes.extend(std::iter::repeat_n(0xee, more));
        let first_part = (bytes.len() as u16).to_ne_bytes();
        bytes[offset_of!(RecordHeader, first_part)..][..2].copy_from_slice(&first_part);
        bytes.extend_from_slice(second.wide.as_bytes());
        let bytes = resized(&bytes, bytes.len() + more);
        assert_eq!(call_in(&bytes), call_in(wide().as_bytes()));
    }
}

#[test]
fn a_wide_record_of_the_first_version_did_not_say_where_its_second_part_is() {
    let mut record = wide();
    record.call.header.first_part = 0;
    assert_eq!(call_in(record.as_bytes()), call_in(wide().as_bytes()));
}

#[test]
fn processes_and_threads_are_told() {
    let mut record = ProcessRecord {
        header: RecordHeader::new(RecordKind::Process, size_of::<ProcessRecord>()),
        process: 7,
        change: 0,
        time_ns: 8,
        parent: 6,
        reserved: 0,
    };
    for (number, change) in [
        (ChangeNumber::Forked, ProcessChange::Forked(6)),
        (ChangeNumber::Executed, ProcessChange::Executed),
        (ChangeNumber::Ended, ProcessChange::Ended),
    ] {
        record.change = number as u32;
        let event = Event::Process(ProcessEvent { process: 7, time: MonotonicNs(8), change });
        assert_eq!(decode(&RawRecord(record.as_bytes())), Ok(event));
    }
    record.change = 99;
    assert_eq!(decode(&RawRecord(record.as_bytes())), Err(DecodeError::UnknownChange { change: 99 }));

    for (name, known) in
        [(*b"worker\0ret/3\0\0\0\0", Some("worker")), (*b"0123456789abcdef", Some("0123456789abcdef")), ([0; 16], None)]
    {
        let header = RecordHeader::new(RecordKind::Thread, size_of::<ThreadRecord>());
        let record = ThreadRecord { header, process: 7, thread: 9, first_seen_ns: 10, name };
        let event =
            ThreadEvent { process: 7, thread: ThreadId(9), first_seen: MonotonicNs(10), name: known.map(Into::into) };
        assert_eq!(decode(&RawRecord(record.as_bytes())), Ok(Event::Thread(event)));
    }
}

/// The record of a read of ten bytes, of which the first three were captured.
fn socket_bytes(change: impl FnOnce(&mut SocketRecord)) -> Vec<u8> {
    let header = RecordHeader {
        kind: RecordKind::Request as u16,
        first_part: size_of::<SocketRecord>() as u16,
        size: size_of::<SocketRecord>() as u32 + 8,
    };
    let mut record = SocketRecord {
        header,
        process: 7,
        thread: 9,
        descriptor: 5,
        action: ActionNumber::Read as u32,
        time_ns: 20,
        opened_ns: 10,
        length: 10,
        captured: 3,
        flags: WAS_BEFORE,
        ..SocketRecord::default()
    };
    change(&mut record);
    [record.as_bytes(), b"GET\0\0\0\0\0"].concat()
}

#[test]
fn what_is_done_with_connections_is_told() {
    let decoded = |change: fn(&mut SocketRecord)| decode(&RawRecord(&socket_bytes(change)));
    let read = SocketEvent {
        connection: ConnectionId { process: 7, descriptor: 5, opened: MonotonicNs(10) },
        thread: ThreadId(9),
        time: MonotonicNs(20),
        was_before: true,
        has_lost: false,
        context: None,
        waits: true,
        action: SocketAction::Read { length: 10, bytes: b"GET".as_slice().into() },
    };
    assert_eq!(decoded(|_| ()), Ok(Event::Socket(read.clone())));
    let closed = SocketEvent { action: SocketAction::Closed, ..read };
    assert_eq!(decoded(|record| record.action = ActionNumber::Closed as u32), Ok(Event::Socket(closed)));
    assert_eq!(decoded(|record| record.action = 77), Err(DecodeError::UnknownAction { action: 77 }));
    assert!(matches!(decoded(|record| record.length = 2), Err(DecodeError::OddConnection { .. })));
    let Ok(Event::Socket(event)) = decoded(|record| record.flags = HAS_LOST) else { panic!("no event") };
    assert!(event.has_lost && !event.was_before);
    let Ok(Event::Socket(event)) = decoded(|record| record.flags = NEVER_WAITS) else { panic!("no event") };
    assert!(!event.waits);
    assert!(matches!(decoded(|record| record.captured = 9), Err(DecodeError::TooShort { .. })));
    let bytes = socket_bytes(|_| ());
    assert!((0..bytes.len()).all(|length| decode(&RawRecord(&bytes[..length])).is_err()));
    let entered = |record: &mut SocketRecord| {
        (record.context, record.context_state) = (0x60, ContextState::Entered as u32);
    };
    let Ok(Event::Socket(event)) = decoded(entered) else { panic!("no event") };
    let context = PythonContext { address: Some(RemoteAddress(0x60)), is_entered: true };
    assert_eq!(event.context, Some(context));
    let unknown = decoded(|record| record.context_state = 9);
    assert_eq!(unknown, Err(DecodeError::UnknownContextState { state: 9 }));
}

#[test]
fn contexts_are_told_with_what_they_were_copied_from() {
    let mut record = ContextRecord {
        header: RecordHeader::new(RecordKind::Context, size_of::<ContextRecord>()),
        process: 7,
        is_made: 1,
        time_ns: 20,
        context: 0x60,
        current: 0x40,
        lost: 3,
    };
    let context = RemoteAddress(0x60);
    let made = ContextChange::Made { context, current: Some(RemoteAddress(0x40)) };
    let event = ContextEvent { process: 7, time: MonotonicNs(20), lost: 3, change: made };
    assert_eq!(decode(&RawRecord(record.as_bytes())), Ok(Event::Context(event)));
    record.is_made = 0;
    let event = ContextEvent { change: ContextChange::Freed { context }, ..event };
    assert_eq!(decode(&RawRecord(record.as_bytes())), Ok(Event::Context(event)));
}

#[test]
fn joins_that_cannot_be_are_errors() {
    let breaks: [fn(&mut JoinRecord); 4] = [
        |join| join.trace_thread = 0,
        |join| join.parent_call = 0,
        |join| join.trace_call = 0,
        // Its own thread.
        |join| (join.parent_thread, join.parent_first_seen_ns) = (42, 43),
    ];
    for break_it in breaks {
        let mut record = wide();
        break_it(&mut record.wide.join);
        assert!(matches!(decode_wide(&record), Err(DecodeError::Contradiction { call: 9, .. })));
    }
}

#[test]
fn every_ending_is_told() {
    let unwound = |is_end_exact| CallEnding::Unwound { exception: None, is_end_exact };
    for (number, ending) in [
        (RecordEnding::Returned, CallEnding::Returned { value: Some(5) }),
        (RecordEnding::Jumped, CallEnding::Returned { value: None }),
        (RecordEnding::Unwound, unwound(false)),
        (RecordEnding::ThreadEnded, CallEnding::ThreadEnded),
        (RecordEnding::Raised, unwound(true)),
        (RecordEnding::Unobserved, CallEnding::Unobserved),
        (RecordEnding::Open, CallEnding::Open),
        (RecordEnding::Vanished, CallEnding::Vanished { uncertainty_ns: 0 }),
    ] {
        let record = CallRecord { ending: number as u32, ..native() };
        assert_eq!(call_in(record.as_bytes()).ending, ending);
    }
}

#[test]
fn a_call_without_a_place_among_the_others_was_made_on_another_stack() {
    for (sequence, is_on_own_stack) in [(1, true), (0, false)] {
        let record = CallRecord { sequence, ..native() };
        assert_eq!(call_in(record.as_bytes()).is_on_own_stack, is_on_own_stack);
    }
}

#[test]
fn every_cut_is_an_error() {
    for bytes in [native().as_bytes(), wide().as_bytes()] {
        for length in 0..bytes.len() {
            assert!(decode(&RawRecord(&bytes[..length])).is_err(), "{length} bytes");
        }
        for size in (size_of::<RecordHeader>()..2 * bytes.len()).filter(|size| size % 8 != 0) {
            let odd = decode(&RawRecord(&resized(bytes, size)));
            assert!(matches!(odd, Err(DecodeError::OddSize { .. } | DecodeError::TooShort { .. })), "{size} bytes");
        }
    }
}

#[test]
fn unknown_numbers_are_errors() {
    for kind in [0, 4, 5, 99] {
        let mut record = native();
        record.header.kind = kind;
        assert_eq!(decode(&RawRecord(record.as_bytes())), Err(DecodeError::UnknownKind { kind }));
    }
    let record = CallRecord { ending: 77, ..native() };
    assert_eq!(decode(&RawRecord(record.as_bytes())), Err(DecodeError::UnknownEnding { ending: 77 }));
}

#[test]
fn random_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200_000 {
        let mut bytes = if round % 2 == 0 { native().as_bytes().to_vec() } else { wide().as_bytes().to_vec() };
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let position = (state % bytes.len() as u64) as usize;
            bytes[position] = (state >> 32) as u8;
        }
        if let Ok(Event::Call(call)) = decode(&RawRecord(&bytes)) {
            assert!(call.call > 0 && (call.depth as usize) < MAX_DEPTH);
            assert!(call.join.is_none_or(|join| join.parent.call > 0 && join.trace.call > 0));
        }
    }
}

#[test]
fn spans_of_an_sdk_are_told_with_what_began_in_them() {
    let record = CurrentSpanRecord {
        header: RecordHeader::new(RecordKind::CurrentSpan, size_of::<CurrentSpanRecord>()),
        process: 7,
        thread: 8,
        thread_first_seen_ns: 9,
        call: 10,
        trace_id_high: 0x0102_0304_0506_0708,
        trace_id_low: 0x090a_0b0c_0d0e_0f10,
        span_id: 0x1112_1314_1516_1718,
        started_ns: 11,
        flags: SPAN_IS_SAMPLED | SPAN_IS_SERVER,
        reserved: 0,
    };
    let span = CurrentSpan {
        trace_id: TraceId(std::array::from_fn(|index| index as u8 + 1)),
        span_id: SpanId(std::array::from_fn(|index| index as u8 + 0x11)),
        is_sampled: true,
        is_remote: false,
        is_server: true,
        has_local_parent: false,
        started: Some(WallClockNs(11)),
    };
    let (thread, thread_first_seen) = (ThreadId(8), MonotonicNs(9));
    let event = CurrentSpanEvent { process: 7, thread, thread_first_seen, call: Some(10), span };
    assert_eq!(decode(&RawRecord(record.as_bytes())), Ok(Event::CurrentSpan(event)));
    let of_answer = CurrentSpanRecord { call: 0, started_ns: 0, flags: 0, ..record };
    let Ok(Event::CurrentSpan(event)) = decode(&RawRecord(of_answer.as_bytes())) else { panic!("a span") };
    assert_eq!((event.call, event.span.started, event.span.is_sampled), (None, None, false));
    // A call says that its span was lost.
    let mut call = wide();
    call.wide.context_state = ContextState::Entered as u32 | HAS_LOST_SPAN;
    let call = call_in(call.as_bytes());
    assert!(call.has_lost_span && call.context.is_some_and(|context| context.is_entered));
}
