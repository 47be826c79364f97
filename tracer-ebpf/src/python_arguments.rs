//! The rows and columns of an array of numpy that a Python call is given.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{
    python::{PythonKey, Receiver},
    thread_stack::Frame,
};

use crate::{
    maps::{PYTHON_CODES, PYTHON_LAYOUTS, copy_of},
    python_frame::{code_of, field, read_u32, read_u64, reference},
};

/// `PyArrayObject_fields` (numpy 1.17 to 2.5, numpy/core/include/numpy/ndarraytypes.h): how many dimensions, and a pointer to them.
const DIMENSION_COUNT: u64 = 24;
const DIMENSIONS: u32 = 32;

/// Reads the shape of the argument after the receiver, if it is an array and the variable still holds what the call was given. As
/// captured arguments: the first dimension, and of two the second one. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_shape(call: *mut Frame, own_frame: u64, is_certain: u32) -> u64 {
    if call.is_null() {
        return 0;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let Some(layout) = PYTHON_LAYOUTS.get((*call).process_slot) else { return 0 };
        let code = (*call).code;
        let process = (bpf_get_current_pid_tgid() >> 32) as u32;
        let Some(rule) = copy_of(&PYTHON_CODES, &PythonKey { address: code, process, reserved: 0 }) else { return 0 };
        if rule.argument == Receiver::None as u32 {
            return 0;
        }
        // A frame that has been given up may hold another call already: its code tells.
        if is_certain == 0 && code_of(layout, own_frame) != code {
            return 0;
        }
        let start = code + u64::from(layout.code_instructions);
        let instruction = field(own_frame, layout.frame_instruction).wrapping_sub(start) as i64;
        if instruction >= i64::from(rule.argument_until) {
            return 0;
        }
        let mut given = reference(layout, own_frame, layout.frame_locals + rule.argument_offset);
        if rule.argument == Receiver::FirstOfTuple as u32 {
            if field(given, layout.object_type) != layout.tuple_type {
                return 0;
            }
            given = field(given, layout.tuple_items);
        }
        if field(given, layout.object_type) != layout.array_type {
            return 0;
        }
        let count = read_u32(given + DIMENSION_COUNT);
        let dimensions = field(given, DIMENSIONS);
        if count == 0 || dimensions == 0 {
            return 0;
        }
        (*call).arguments[0] = read_u64(dimensions);
        (*call).arguments_read = 1;
        if count == 2 {
            (*call).arguments[1] = read_u64(dimensions + 8);
            (*call).arguments_read = 3;
        }
    }
    0
}
