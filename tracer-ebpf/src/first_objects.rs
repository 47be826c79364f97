//! The first object of a class that is asked for: the process stops itself there, until user space knows the class and sees what is
//! called of it. For a program that was started to be traced; nobody else is ever stopped.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_NO_PREALLOC,
    helpers::{
        bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_probe_read_user_str_bytes,
        generated::{bpf_ktime_get_ns, bpf_send_signal},
    },
    macros::{map, uprobe},
    maps::HashMap,
    programs::ProbeContext,
};
use tracer_common::{
    cookie::Cookie,
    first_objects::{CLASS_NAME_BYTES, ITEM_COUNT, ITEMS, MAX_BASES, MAX_CLASS_NAMES, MAX_CLASSES, MRO, NAME, STOP},
    python::PythonKey,
    records::{ProcessChange, ProcessRecord, RecordHeader, RecordKind},
};

use crate::{
    maps::{NO_WAKEUP, PROCESSES, RECORDS},
    python_frame::read_u64,
};

/// Names of classes that are asked for: objects of these and of what is derived from them.
#[map]
static CLASS_NAMES: HashMap<[u8; CLASS_NAME_BYTES], u32> =
    HashMap::with_max_entries(MAX_CLASS_NAMES, BPF_F_NO_PREALLOC);

/// Classes of which there was an object, or that user space knows.
#[map]
static CLASSES_WITH_OBJECTS: HashMap<PythonKey, u32> = HashMap::with_max_entries(MAX_CLASSES, BPF_F_NO_PREALLOC);

/// Memory for an object is asked for: the class is the first argument (`PyType_GenericAlloc`, Objects/typeobject.c).
#[uprobe]
pub fn python_object(context: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(slot) = PROCESSES.get(cookie.process_slot()) else { return 0 };
    if slot.process != process {
        return 0;
    }
    // SAFETY: the program's context.
    let class = unsafe { core::ptr::read_volatile(&raw const (*context.regs).rdi) };
    let key = PythonKey { address: class, process, reserved: 0 };
    if CLASSES_WITH_OBJECTS.get_ptr(key).is_some() {
        return 0;
    }
    // What finds no room would be asked again and again.
    if CLASSES_WITH_OBJECTS.insert(key, 0, 0).is_err() || !is_asked_for(class) {
        return 0;
    }
    stop(process);
    0
}

/// Whether one of the bases of a class is asked for, or it itself.
#[inline(always)]
fn is_asked_for(class: u64) -> bool {
    let bases = read_u64(class + MRO);
    let count = read_u64(bases + ITEM_COUNT);
    // One more: where the tuple keeps its hash, that is the first word, and names nothing.
    for index in 0..=MAX_BASES {
        if index > count {
            break;
        }
        let base = read_u64(bases + ITEMS + 8 * index);
        let mut name = [0_u8; CLASS_NAME_BYTES];
        // SAFETY: the helper checks the address; a bad one is an error, not a fault.
        let read = unsafe { bpf_probe_read_user_str_bytes(read_u64(base + NAME) as *const u8, &mut name) };
        if read.is_ok() && CLASS_NAMES.get_ptr(name).is_some() {
            return true;
        }
    }
    false
}

/// Stops the process and tells it. One that could not be told of is not stopped, because nobody would let it go on.
#[inline(always)]
fn stop(process: u32) {
    let Some(mut entry) = RECORDS.reserve::<ProcessRecord>(0) else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved for this record.
    unsafe {
        (*record).header = RecordHeader::new(RecordKind::Process, size_of::<ProcessRecord>());
        (*record).process = process;
        (*record).change = ProcessChange::Stopped as u32;
        (*record).time_ns = bpf_ktime_get_ns();
        (*record).parent = 0;
        (*record).reserved = 0;
    }
    // Before it is told: what lets the process go on takes the signal back, if it is there by then.
    // SAFETY: the helper takes no pointers.
    if unsafe { bpf_send_signal(STOP) } == 0 {
        entry.submit(NO_WAKEUP);
    } else {
        entry.discard(NO_WAKEUP);
    }
}
