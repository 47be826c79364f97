//! Reads what the programs counted and which calls are still open.

use aya::Ebpf;
use tracer_common::counters::Counter;
use tracer_common::limits::{MAX_OTHER_STACK_CALLS, THREAD_KEY_BITS};
use tracer_common::records::{CallRecord, RecordEnding, RecordHeader, WideCallRecord, WidePart};
use tracer_common::thread_stack::{Frame, FrameKind, OtherStackCall, OtherStackKey, ThreadStack};

use super::error::AttachError;
use super::object::{hash_map, hash_map_to_read, map_error, per_processor};
use crate::model::{FunctionId, LossCounts, LossOfReason, OpenCall, RemoteAddress};

/// Calls on other stacks than their threads' own, by the name of the map.
const OTHER_STACKS: &str = "OTHER_STACK_CALLS";

/// What was counted, and the calls that are open. `left`: what [`take_elsewhere`] has taken.
pub fn read(ebpf: &Ebpf, left: &[OpenCall]) -> Result<(LossCounts, Vec<OpenCall>), AttachError> {
    let mut counted = [0_u64; Counter::COUNT as usize];
    let counters = per_processor(ebpf, "COUNTERS")?;
    for (sum, counter) in counted.iter_mut().zip(Counter::ALL) {
        let values = counters.get(&(counter as u32), 0).map_err(|error| map_error("COUNTERS", &error))?;
        *sum = values.iter().sum();
    }
    let mut open_calls = Vec::new();
    for element in hash_map_to_read::<u64, ThreadStack>(ebpf, "THREADS")?.iter() {
        let (key, stack) = element.map_err(|error| map_error("THREADS", &error))?;
        counted[Counter::Entries as usize] += stack.entries.saturating_sub(stack.excluded);
        counted[Counter::Spans as usize] += stack.spans;
        counted[Counter::Folded as usize] += stack.folded;
        counted[Counter::LostRingFull as usize] += stack.lost_ring_full;
        counted[Counter::LostStackFull as usize] += stack.lost_stack_full;
        counted[Counter::ReturnsWithoutEntry as usize] += stack.returns_without_entry;
        counted[Counter::LostUnknownFunction as usize] += stack.lost_unknown_function;
        counted[Counter::LostUnclear as usize] += stack.lost_unclear;
        counted[Counter::LostOtherStacksFull as usize] += stack.lost_other_stacks_full;
        open_calls.extend(open_calls_of(key, &stack));
    }
    for element in hash_map_to_read::<OtherStackKey, OtherStackCall>(ebpf, OTHER_STACKS)?.iter() {
        let (key, call) = element.map_err(|error| map_error(OTHER_STACKS, &error))?;
        open_calls.push(open_call_elsewhere(&key, &call));
    }
    open_calls.extend_from_slice(left);
    let lost = Counter::ALL
        .into_iter()
        .filter(|counter| counter.is_loss())
        .map(|counter| LossOfReason { reason: counter as u32, calls: counted[counter as usize] })
        .filter(|loss| loss.calls > 0)
        .collect();
    let totals = LossCounts {
        entries: counted[Counter::Entries as usize],
        spans: counted[Counter::Spans as usize],
        folded: counted[Counter::Folded as usize],
        open: open_calls.len() as u64,
        lost,
        returns_without_entry: counted[Counter::ReturnsWithoutEntry as usize],
        hits_without_cause: counted[Counter::HitsWithoutCause as usize],
        socket_records_lost: counted[Counter::LostSocketRecords as usize],
        connections_lost: counted[Counter::LostConnections as usize],
        context_records_lost: counted[Counter::LostContextRecords as usize],
        span_records_lost: counted[Counter::LostSpanRecords as usize],
    };
    Ok((totals, open_calls))
}

/// Takes the open calls of a process that were made on other stacks than their threads' own: no thread's end ends them.
/// They stay where they are once there are as many as the programs have room for.
pub fn take_elsewhere(ebpf: &mut Ebpf, process: u32, left: &mut Vec<OpenCall>) -> Result<(), AttachError> {
    let mut others = hash_map::<OtherStackKey, OtherStackCall>(ebpf, OTHER_STACKS)?;
    let its_own: Vec<_> = others.iter().filter_map(Result::ok).filter(|(key, _)| key.process == process).collect();
    for (key, call) in its_own {
        if left.len() < MAX_OTHER_STACK_CALLS as usize && others.remove(&key).is_ok() {
            left.push(open_call_elsewhere(&key, &call));
        }
    }
    Ok(())
}

/// Whether a call is open on a thread of a process.
pub fn has_open_calls(ebpf: &Ebpf, process: u32) -> Result<bool, AttachError> {
    for element in hash_map_to_read::<u64, ThreadStack>(ebpf, "THREADS")?.iter() {
        let (key, stack) = element.map_err(|error| map_error("THREADS", &error))?;
        if process_of(key) == process && stack.depth > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The process of a thread, by the key of its stack.
fn process_of(key: u64) -> u32 {
    ((key & ((1 << THREAD_KEY_BITS) - 1)) >> 32) as u32
}

/// Calls of these functions so far, folded ones included.
pub fn calls_of(ebpf: &Ebpf, functions: &[FunctionId]) -> Result<Vec<u64>, AttachError> {
    let calls = per_processor(ebpf, "CALLS")?;
    functions
        .iter()
        .map(|function| {
            let values = calls.get(&function.0, 0).map_err(|error| map_error("CALLS", &error))?;
            Ok(values.iter().sum())
        })
        .collect()
}

/// The open calls of one thread, innermost first as if they ended now.
fn open_calls_of(key: u64, stack: &ThreadStack) -> Vec<OpenCall> {
    let frames = stack.frames.get(..stack.depth as usize).unwrap_or(&stack.frames);
    let root_call = frames.first().map_or(0, |frame| frame.call);
    let own_end = RemoteAddress(stack.own_start.saturating_add(stack.own_size));
    frames
        .iter()
        .enumerate()
        .rev()
        // What is folded makes no record, and is counted as folded already.
        .filter(|(_, frame)| frame.kind != FrameKind::PythonFolded as u32)
        .zip(1..)
        .map(|((depth, frame), position)| {
            let mut record = open_record(frame);
            record.call.process = process_of(key);
            record.call.thread = key as u32;
            record.call.depth = depth as u32;
            record.call.thread_first_seen_ns = stack.first_seen_ns;
            record.call.sequence = stack.sequence + position;
            record.call.root_call = root_call;
            record.wide.join = stack.join;
            let is_python = frame.kind != FrameKind::Native as u32;
            if depth == 0 && is_python {
                (record.wide.context_state, record.wide.context) = (stack.context_state, stack.context);
            }
            OpenCall { record, is_python, same_stack: RemoteAddress(stack.own_start)..own_end }
        })
        .collect()
}

/// An open call on another stack than its thread's own: nothing tells where that stack ends.
fn open_call_elsewhere(key: &OtherStackKey, call: &OtherStackCall) -> OpenCall {
    let mut record = open_record(&call.frame);
    record.call.process = key.process;
    record.call.thread = call.thread;
    record.call.thread_first_seen_ns = call.first_seen_ns;
    OpenCall { record, is_python: false, same_stack: RemoteAddress(0)..RemoteAddress(0) }
}

/// What the frame of an open call says of it: a root on a stack of its own, as if it ended now.
fn open_record(frame: &Frame) -> WideCallRecord {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    WideCallRecord {
        call: CallRecord {
            header: RecordHeader::of_wide_call(),
            function: frame.function,
            ending: RecordEnding::Open as u32,
            arguments_read: frame.arguments_read,
            call: frame.call,
            parent_call: frame.parent_call,
            root_call: frame.call,
            start_ns: frame.start_ns,
            end_ns: now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs(),
            stack_pointer: frame.stack_pointer,
            object: frame.object,
            folded_calls: frame.folded_calls,
            arguments: frame.arguments,
            ..CallRecord::default()
        },
        wide: WidePart {
            class: frame.class,
            start_uncertainty_ns: frame.start_uncertainty_ns,
            calls_merged: frame.calls_merged,
            ..WidePart::default()
        },
    }
}
