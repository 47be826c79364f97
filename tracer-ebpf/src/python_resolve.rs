//! What a Python call is: its receiver and class, and with them whether it is a span, part of the call around it, or of
//! an excluded class. Known once its frame is complete, that is at the next event of its thread.

use tracer_common::{
    python::{PythonKey, PythonLayout},
    thread_stack::{Frame, FrameKind, ThreadStack},
};

use crate::{
    maps::{PYTHON_CLASSES, PYTHON_LAYOUTS, copy_of, count_folded},
    python_arguments,
    python_frame::{code_of, field, receiver_of},
    python_join, stack,
};

/// Resolves the innermost open call if it is pending. Its frame is at `own_frame`, 0 if that is not known. A frame that
/// may have been given up is looked at only if its code still tells that it is the call's; `is_certain` says that it is. A
/// global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn resolve(thread: *mut ThreadStack, process: u32, own_frame: u64, is_certain: u32) -> u64 {
    if thread.is_null() {
        return 0;
    }
    innermost(thread, process, own_frame, is_certain);
    0
}

#[inline(always)]
fn innermost(thread: *mut ThreadStack, process: u32, own_frame: u64, is_certain: u32) {
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        if depth == 0 {
            return;
        }
        let frame = stack::frame(thread, depth - 1);
        if (*frame).kind != FrameKind::PythonPending as u32 {
            return;
        }
        let Some(layout) = PYTHON_LAYOUTS.get((*frame).process_slot) else { return };
        (*frame).kind = FrameKind::Python as u32;
        if (*frame).object == 0 {
            (*frame).object = object_of(layout, frame, own_frame, is_certain);
        }
        (*frame).class = field((*frame).object, layout.object_type);
        let class = PythonKey { address: (*frame).class, process, reserved: 0 };
        let (mut excluded, mut is_container) = (0, 0);
        if let Some(rule) = copy_of(&PYTHON_CLASSES, &class) {
            (*frame).nests = rule.nests;
            excluded = rule.excluded;
            is_container = rule.is_container;
        }
        if excluded != 0 {
            python_join::forget_container(frame, process);
            (*thread).depth = depth - 1;
            (*thread).excluded += 1;
            count_folded((*frame).code, process);
            return;
        }
        if depth >= 2 {
            let around = stack::frame(thread, depth - 2);
            let same_object = (*frame).object != 0 && (*frame).object == (*around).object;
            if (*around).nests == 0 && !same_object {
                (*frame).kind = FrameKind::PythonFolded as u32;
                (*frame).folded_into = depth - 2;
                (*around).folded_calls += 1;
                (*thread).folded += 1;
                count_folded((*frame).code, process);
                python_join::forget_container(frame, process);
                return;
            }
        } else {
            python_join::to_open_container(thread, process, (*frame).object);
        }
        if is_container != 0 {
            python_join::container_opens(thread, frame, process);
        }
        if layout.array_type != 0 && own_frame != 0 {
            python_arguments::read_shape(frame, own_frame, is_certain);
        }
    }
}

/// # Safety
/// `frame` must be checked.
#[inline(always)]
unsafe fn object_of(layout: &PythonLayout, frame: *mut Frame, own_frame: u64, is_certain: u32) -> u64 {
    // SAFETY: promised by the caller.
    unsafe {
        // A frame that has been given up may hold another call already: its code tells.
        if own_frame == 0 || (is_certain == 0 && code_of(layout, own_frame) != (*frame).code) {
            return 0;
        }
        receiver_of(layout, own_frame, (*frame).receiver, (*frame).receiver_offset)
    }
}
