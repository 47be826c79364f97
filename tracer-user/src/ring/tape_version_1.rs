//! Tapes of version 1 held the calls that were open at their end in the last item, as JSON, and not as records.

use std::collections::VecDeque;

use serde::Deserialize;
use tracer_common::limits::MAX_ARGUMENTS;
use tracer_common::records::{CallRecord, Join, RecordEnding, RecordHeader, WideCallRecord, WidePart};

use crate::model::LossCounts;

/// The last item of such a tape.
#[derive(Debug, Deserialize)]
pub struct EndOfVersion1 {
    /// What the kernel side counted.
    pub totals: LossCounts,
    open_calls: Vec<OpenCall>,
}

#[derive(Debug, Deserialize)]
struct OpenCall {
    process: u32,
    thread: u32,
    function: u32,
    ending: Ending,
    depth: u32,
    incarnation: u64,
    sequence: u64,
    call: u64,
    parent_call: Option<u64>,
    root_call: u64,
    start: u64,
    end: u64,
    stack_pointer: u64,
    object: Option<u64>,
    folded_calls: u64,
    arguments: [Option<u64>; MAX_ARGUMENTS],
    #[serde(default)]
    class: Option<u64>,
    #[serde(default)]
    join: Option<JoinedTo>,
}

/// How a call had ended by then.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    Unwound,
    StillOpen,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct JoinedTo {
    parent: ForeignCall,
    trace: ForeignCall,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct ForeignCall {
    thread: u32,
    incarnation: u64,
    call: u64,
}

impl EndOfVersion1 {
    /// The open calls as records.
    pub fn records(&self) -> VecDeque<WideCallRecord> {
        self.open_calls.iter().map(record).collect()
    }
}

fn record(call: &OpenCall) -> WideCallRecord {
    let ending = match call.ending {
        Ending::Unwound => RecordEnding::Unwound,
        Ending::StillOpen => RecordEnding::Open,
    };
    let arguments_read =
        (0..).zip(&call.arguments).map(|(index, argument)| u32::from(argument.is_some()) << index).sum();
    WideCallRecord {
        call: CallRecord {
            header: RecordHeader::of_wide_call(),
            process: call.process,
            thread: call.thread,
            function: call.function,
            ending: ending as u32,
            depth: call.depth,
            arguments_read,
            thread_first_seen_ns: call.incarnation,
            sequence: call.sequence,
            call: call.call,
            parent_call: call.parent_call.unwrap_or(0),
            root_call: call.root_call,
            start_ns: call.start,
            end_ns: call.end,
            stack_pointer: call.stack_pointer,
            object: call.object.unwrap_or(0),
            return_value: 0,
            folded_calls: call.folded_calls,
            arguments: call.arguments.map(Option::unwrap_or_default),
        },
        wide: WidePart {
            class: call.class.unwrap_or(0),
            join: call.join.map(join).unwrap_or_default(),
            ..WidePart::default()
        },
    }
}

fn join(JoinedTo { parent, trace }: JoinedTo) -> Join {
    Join {
        parent_thread: parent.thread,
        trace_thread: trace.thread,
        parent_first_seen_ns: parent.incarnation,
        parent_call: parent.call,
        trace_first_seen_ns: trace.incarnation,
        trace_call: trace.call,
    }
}
