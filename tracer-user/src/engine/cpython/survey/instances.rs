//! A place that looks like an object of a class goes in; whether it is a live one comes out.

use super::super::Interpreter;
use super::scan::Candidate;
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Offsets in `PyGC_Head`, which lies before every object that the garbage collector knows (CPython 3.8 to 3.15,
/// Include/cpython/objimpl.h and Include/internal/pycore_gc.h), from the object.
const NEXT: isize = -16;
const PREVIOUS: u64 = 8;
/// Bytes of `PyGC_Head`.
const HEADER: u64 = 16;
/// Both fields carry flags in their low bits.
const FLAGS: u64 = 7;

/// Whether a place holds an object that is referenced by someone, as far as its first eight bytes tell: freed memory keeps a
/// count of 0, and what is no object has mostly an address there. A count takes 32 bits from 3.12; none is larger in fact.
pub(super) fn is_referenced(candidate: &Candidate) -> bool {
    // From 3.14 the upper half holds flags (Include/refcount.h): the upper 16 bits of it are theirs.
    let count = candidate.u64(0).map(|number| number & 0x0000_ffff_ffff_ffff);
    count.is_some_and(|count| (1..=u64::from(u32::MAX)).contains(&count))
}

/// What the list of the garbage collector says about a place.
///
/// The collector keeps all objects of Python classes, and these classes themselves, in a doubly linked list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The next object points back: this one is alive.
    Linked,
    /// There is a next object, which does not point back. So it is while the collector is at work, when it uses that field
    /// otherwise (Python/gc.c and Modules/gcmodule.c, `update_refs`); or this is no object.
    Unclear,
    /// There is no object.
    Nothing,
}

/// Whether a place holds an object that the garbage collector knows.
pub(super) fn standing<M: Memory>(interpreter: &Interpreter<M>, candidate: &Candidate) -> Standing {
    let own = candidate.address.0.wrapping_sub(HEADER);
    let next = candidate.u64(NEXT).map(|next| next & !FLAGS).filter(|next| *next != 0 && *next != own);
    let Some(next) = next.filter(|_| is_referenced(candidate)) else { return Standing::Nothing };
    let mut number = [0; 8];
    if interpreter.memory().read(RemoteAddress(next.wrapping_add(PREVIOUS)), &mut number).is_err() {
        return Standing::Nothing;
    }
    if u64::from_le_bytes(number) & !FLAGS == own {
        return Standing::Linked;
    }
    let is_object = interpreter.type_of(RemoteAddress(next.wrapping_add(HEADER))).is_ok();
    if is_object { Standing::Unclear } else { Standing::Nothing }
}

/// Whether a place whose second eight bytes are a Python class holds a live object of it: in doubt its attributes must be
/// readable.
pub(super) fn is_live<M: Memory>(interpreter: &Interpreter<M>, candidate: &Candidate) -> bool {
    let has_attributes = || {
        let attributes = interpreter.instance_attributes(candidate.address);
        attributes.is_ok_and(|attributes| !attributes.is_empty())
    };
    match standing(interpreter, candidate) {
        Standing::Linked => true,
        Standing::Unclear => has_attributes(),
        Standing::Nothing => false,
    }
}
