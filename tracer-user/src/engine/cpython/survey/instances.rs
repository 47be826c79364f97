//! A place that looks like an object of a class goes in; whether it is a live one comes out.

use super::super::Interpreter;
use super::scan::Candidate;
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Offsets in `PyGC_Head`, which lies before every object that the garbage collector knows (CPython 3.8 to 3.14,
/// Include/cpython/objimpl.h and Include/internal/pycore_gc.h), from the object.
const NEXT: isize = -16;
const PREVIOUS: u64 = 8;
/// Bytes of `PyGC_Head`.
const HEADER: u64 = 16;
/// Both words carry flags in their low bits.
const FLAGS: u64 = 7;

/// Whether a place holds an object that is referenced by someone, as far as its first word tells: freed memory keeps a
/// count of 0, and what is no object has mostly an address there. A count takes 32 bits from 3.12; none is larger in fact.
pub(super) fn is_referenced(candidate: &Candidate) -> bool {
    // From 3.14 the upper half holds flags (Include/refcount.h): the upper 16 bits of it are theirs.
    let count = candidate.word(0).map(|word| word & 0x0000_ffff_ffff_ffff);
    count.is_some_and(|count| (1..=u64::from(u32::MAX)).contains(&count))
}

/// Whether a place whose second word is a Python class holds a live object of it.
///
/// The garbage collector keeps all such objects in a doubly linked list: the next one must point back. While it is
/// collecting it uses these words otherwise; then the attributes must be readable.
pub(super) fn is_live<M: Memory>(interpreter: &Interpreter<M>, candidate: &Candidate) -> bool {
    is_referenced(candidate)
        && (is_linked(interpreter, candidate)
            || interpreter.instance_attributes(candidate.address).is_ok_and(|attributes| !attributes.is_empty()))
}

fn is_linked<M: Memory>(interpreter: &Interpreter<M>, candidate: &Candidate) -> bool {
    let own = candidate.address.0.wrapping_sub(HEADER);
    let Some(next) = candidate.word(NEXT).map(|next| next & !FLAGS).filter(|next| *next != 0 && *next != own) else {
        return false;
    };
    let mut word = [0; 8];
    let read = interpreter.memory().read(RemoteAddress(next.wrapping_add(PREVIOUS)), &mut word);
    read.is_ok() && u64::from_le_bytes(word) & !FLAGS == own
}
