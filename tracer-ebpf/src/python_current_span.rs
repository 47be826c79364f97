//! The span of OpenTelemetry's SDK in a traced interpreter that a thread is in. The SDK keeps it in a context variable; the program reads
//! that while the thread stands still, so that it is the span, and not the one before or after it. What cannot be read is no span.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::map, maps::Array};
use tracer_common::{
    counters::Counter,
    limits::MAX_PROCESSES,
    python::{AttributeForm, CurrentSpanLayout},
    records::{
        CurrentSpanRecord, RecordHeader, RecordKind, SPAN_HAS_LOCAL_PARENT, SPAN_IS_REMOTE, SPAN_IS_SAMPLED,
        SPAN_IS_SERVER,
    },
};

use crate::{
    maps::{NO_WAKEUP, RECORDS, count},
    python_frame::{field, read_byte, read_u32, read_u64},
};

/// How it is read, by process slot.
#[map]
static CURRENT_SPANS: Array<CurrentSpanLayout> = Array::with_max_entries(MAX_PROCESSES, 0);

/// In a context (`PyContext`): the mapping of its variables; in that (`PyHamtObject`): its root (CPython 3.8 to 3.15,
/// Include/internal/pycore_context.h and pycore_hamt.h).
const CONTEXT_VARIABLES: u32 = 24;
/// See above.
const MAPPING_ROOT: u32 = 16;

/// The nodes of such a mapping, by the first eight bytes of the names of their types: one with a bit for each of its entries, and one with
/// room for all. Those whose keys have the same hash are not looked into.
const BITMAP_NODE: u64 = u64::from_le_bytes(*b"hamt_bit");
/// See above.
const ARRAY_NODE: u64 = u64::from_le_bytes(*b"hamt_arr");
/// Where the bits of the first kind are, its entries, and those of the second kind (Python/hamt.c).
const NODE_BITS: u64 = 24;
/// See above.
const NODE_ENTRIES: u64 = 32;
/// See above.
const NODE_CHILDREN: u64 = 16;
/// Levels of such a mapping: five bits of a hash each.
const MOST_LEVELS: u32 = 7;

/// Entries of a dictionary that are looked at.
const MOST_ENTRIES: u64 = 64;

/// Flags of a type whose objects have attributes before or behind them (Include/object.h): `MANAGED_DICT` and `HEAPTYPE`, `INLINE_VALUES`.
const MANAGED: u64 = 1 << 4 | 1 << 9;
/// See above.
const INLINE: u64 = 1 << 2;

/// In an integer (`PyLongObject`): the word that tells how many digits it has, and the digits, of 30 bits each.
const INTEGER_SIZE: u64 = 16;
/// See above.
const INTEGER_DIGITS: u64 = 24;

/// Places in a span context (`SpanContext` of opentelemetry-api, which is a tuple).
const TRACE_ID: u32 = 0;
/// See above.
const SPAN_ID: u32 = 1;
/// See above.
const IS_REMOTE: u32 = 2;
/// See above.
const TRACE_FLAGS: u32 = 3;

/// Tells of the span that a Python thread is in, if it is in one; what of the record is not about the span is there already. Gives 1 if
/// it is in one and that could not be told. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_current_span(record: *mut CurrentSpanRecord, process_slot: u32, python_thread: u64) -> u64 {
    if record.is_null() {
        return 0;
    }
    let Some(layout) = CURRENT_SPANS.get(process_slot) else { return 0 };
    if layout.variable == 0 || python_thread == 0 {
        return 0;
    }
    let variables = field(field(python_thread, layout.thread_context), CONTEXT_VARIABLES);
    let values = value_of_variable(process_slot, field(variables, MAPPING_ROOT));
    let keys = field(values, layout.dictionary_keys);
    let span = entry_of(process_slot, keys, field(values, layout.dictionary_values), layout.span_key);
    // SAFETY: a part of a checked map value, which belongs to this thread or processor.
    unsafe {
        if read_ids(record, process_slot, attribute_of(process_slot, span, layout.context_name)) == 0 {
            return 0;
        }
        let kind = attribute_of(process_slot, span, layout.kind_name);
        if kind != 0 && kind == layout.server_kind {
            (*record).flags |= SPAN_IS_SERVER;
        }
        // Where there is none, this is Python's `None`.
        let parent = attribute_of(process_slot, span, layout.parent_name);
        let is_parent = parent != 0 && field(parent, layout.object_type) == (*record).started_ns;
        if is_parent && low_bits(process_slot, field(parent, layout.tuple_items + 8 * IS_REMOTE)) == 0 {
            (*record).flags |= SPAN_HAS_LOCAL_PARENT;
        }
        (*record).started_ns = low_bits(process_slot, attribute_of(process_slot, span, layout.start_name));
        let identity = bpf_get_current_pid_tgid();
        (*record).header = RecordHeader::new(RecordKind::CurrentSpan, size_of::<CurrentSpanRecord>());
        (*record).process = (identity >> 32) as u32;
        (*record).thread = identity as u32;
        (*record).reserved = 0;
        if RECORDS.output::<CurrentSpanRecord>(&*record, NO_WAKEUP).is_err() {
            count(Counter::LostSpanRecords, 1);
            return 1;
        }
    }
    0
}

/// Reads the ids and flags of a span from its context, and (in the place of its beginning) the type of that. Gives 0 if there are
/// none. A global function, likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_ids(record: *mut CurrentSpanRecord, process_slot: u32, context: u64) -> u64 {
    if record.is_null() || context == 0 {
        return 0;
    }
    let Some(layout) = CURRENT_SPANS.get(process_slot) else { return 0 };
    let item = |index: u32| field(context, layout.tuple_items + 8 * index);
    // SAFETY: as above.
    unsafe {
        (*record).trace_id_high = high_bits(process_slot, item(TRACE_ID));
        (*record).trace_id_low = low_bits(process_slot, item(TRACE_ID));
        (*record).span_id = low_bits(process_slot, item(SPAN_ID));
        (*record).flags = if low_bits(process_slot, item(TRACE_FLAGS)) & 1 != 0 { SPAN_IS_SAMPLED } else { 0 };
        if low_bits(process_slot, item(IS_REMOTE)) != 0 {
            (*record).flags |= SPAN_IS_REMOTE;
        }
        (*record).started_ns = field(context, layout.object_type);
        let is_valid = (*record).trace_id_high | (*record).trace_id_low != 0 && (*record).span_id != 0;
        u64::from(is_valid)
    }
}

/// The value of the SDK's variable in a mapping with this root, 0 if it has none. A global function, so that the loop has one way
/// around it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn value_of_variable(process_slot: u32, root: u64) -> u64 {
    let Some(layout) = CURRENT_SPANS.get(process_slot) else { return 0 };
    let mut node = root;
    let mut hash = layout.hash;
    for _ in 0..=MOST_LEVELS {
        let kind = field(field(field(node, layout.object_type), layout.type_name), 0);
        let place = hash & 31;
        hash >>= 5;
        if kind == ARRAY_NODE {
            node = read_u64(node + NODE_CHILDREN + 8 * u64::from(place));
            continue;
        }
        let bits = if kind == BITMAP_NODE { read_u32(node + NODE_BITS) } else { 0 };
        if bits & 1 << place == 0 {
            return 0;
        }
        let before = (bits & ((1 << place) - 1)).count_ones();
        let entry = node + NODE_ENTRIES + 16 * u64::from(before);
        let (key, value) = (read_u64(entry), read_u64(entry + 8));
        if key != 0 {
            return if key == layout.variable { value } else { 0 };
        }
        node = value;
    }
    0
}

/// An attribute of an object, by the address of its name; 0 if it has none. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn attribute_of(process_slot: u32, object: u64, name: u64) -> u64 {
    let Some(layout) = CURRENT_SPANS.get(process_slot) else { return 0 };
    let class = field(object, layout.object_type);
    if class == 0 || name == 0 {
        return 0;
    }
    let flags = field(class, layout.type_flags);
    let form = layout.attribute_form;
    let mut values = 0;
    let dictionary;
    if form == AttributeForm::Dictionary as u32 || flags & MANAGED != MANAGED {
        let offset = field(class, layout.type_dictionary_offset);
        // What is counted from the end of an object is none of a span.
        if offset == 0 || offset > u64::from(u32::MAX) {
            return 0;
        }
        dictionary = read_u64(object + offset);
    } else {
        dictionary = read_u64(object - u64::from(layout.dictionary_before));
        if form == AttributeForm::ValuesPointer as u32 {
            values = read_u64(object - u64::from(layout.values_before));
        } else if form == AttributeForm::TaggedPointer as u32 {
            if dictionary & 1 == 1 {
                values = dictionary + 1;
            }
        } else if dictionary == 0 && flags & INLINE != 0 {
            let inline = object + field(class, layout.type_basic_size);
            if read_byte(inline + u64::from(layout.values_valid)) != 0 {
                values = inline;
            }
        }
    }
    let mut keys = field(class, layout.type_cached_keys);
    if values == 0 {
        keys = field(dictionary, layout.dictionary_keys);
        values = field(dictionary, layout.dictionary_values);
    }
    entry_of(process_slot, keys, values, name)
}

/// The value of a key, by its address, in a table of keys; `values` is where the values are, 0 if beside the keys. 0 if it has none. A
/// global function, so that the loop has one way around it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn entry_of(process_slot: u32, keys: u64, values: u64, key: u64) -> u64 {
    let Some(layout) = CURRENT_SPANS.get(process_slot) else { return 0 };
    if keys == 0 || key == 0 {
        return 0;
    }
    let entries = field(keys, layout.keys_entries);
    let index_bytes = if layout.keys_log2_index_bytes != 0 {
        1 << (read_byte(keys + u64::from(layout.keys_log2_index_bytes)) & 31)
    } else {
        // Objects/dictobject.c, DK_IXSIZE, CPython 3.8 to 3.10. A larger one is not looked into.
        let size = field(keys, layout.keys_size);
        if size <= 0xff { size } else { 2 * size }
    };
    let has_hash = layout.keys_kind == 0 || read_byte(keys + u64::from(layout.keys_kind)) == 0;
    let mut entry = keys + u64::from(layout.keys_indices) + index_bytes + if has_hash { 8 } else { 0 };
    for index in 0..MOST_ENTRIES {
        if index >= entries {
            return 0;
        }
        if read_u64(entry) == key {
            let beside = values + u64::from(layout.values_items) + 8 * index;
            return read_u64(if values != 0 { beside } else { entry + 8 });
        }
        entry += if has_hash { 24 } else { 16 };
    }
    0
}

/// The lowest 64 bits of an integer that is not negative. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn low_bits(process_slot: u32, integer: u64) -> u64 {
    let count = digits_of(process_slot, integer);
    digit(integer, count, 0) | digit(integer, count, 1) << 30 | digit(integer, count, 2) << 60
}

/// The 64 bits above those. A global function, likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn high_bits(process_slot: u32, integer: u64) -> u64 {
    let count = digits_of(process_slot, integer);
    digit(integer, count, 2) >> 4 | digit(integer, count, 3) << 26 | digit(integer, count, 4) << 56
}

#[inline(always)]
fn digits_of(process_slot: u32, integer: u64) -> u64 {
    let Some(layout) = CURRENT_SPANS.get(process_slot) else { return 0 };
    if integer == 0 { 0 } else { read_u64(integer + INTEGER_SIZE) >> (layout.digits_shift & 63) }
}

#[inline(always)]
fn digit(integer: u64, count: u64, index: u64) -> u64 {
    if index < count { u64::from(read_u32(integer + INTEGER_DIGITS + 4 * index)) } else { 0 }
}
