//! Says to the loader which types may be keys and values of maps.

use crate::chain::{ProbesPassed, WitnessedCalls};
use crate::python::{
    CurrentSpanLayout, OpenContainer, PythonClassRule, PythonCodeRule, PythonCount, PythonFunctionRule, PythonKey,
    PythonLayout, PythonLoops, PythonWanted, PythonWatched, WaitingContainer,
};
use crate::tables::{CaptureSpec, ConnectionKey, ConnectionState, ProcessSlot};
use crate::thread_stack::{OtherStackCall, OtherStackKey, ThreadStack};

// SAFETY: `#[repr(C)]`, only integers, no padding (sizes asserted beside the type): every bit pattern is a value.
unsafe impl aya::Pod for ThreadStack {}
// SAFETY: as above.
unsafe impl aya::Pod for ProcessSlot {}
// SAFETY: as above.
unsafe impl aya::Pod for ProbesPassed {}
// SAFETY: as above.
unsafe impl aya::Pod for WitnessedCalls {}
// SAFETY: as above.
unsafe impl aya::Pod for OtherStackKey {}
// SAFETY: as above.
unsafe impl aya::Pod for OtherStackCall {}
// SAFETY: as above.
unsafe impl aya::Pod for CaptureSpec {}
// SAFETY: as above.
unsafe impl aya::Pod for PythonLayout {}
// SAFETY: as above.
unsafe impl aya::Pod for CurrentSpanLayout {}
// SAFETY: as above.
unsafe impl aya::Pod for PythonKey {}
// SAFETY: as above.
unsafe impl aya::Pod for PythonCodeRule {}
// SAFETY: as above.
unsafe impl aya::Pod for PythonCount {}
// SAFETY: as above.
unsafe impl aya::Pod for PythonLoops {}
// SAFETY: as above.
unsafe impl aya::Pod for PythonWanted {}
// SAFETY: as above.
unsafe impl aya::Pod for PythonWatched {}
// SAFETY: as above.
unsafe impl aya::Pod for PythonFunctionRule {}
// SAFETY: as above.
unsafe impl aya::Pod for PythonClassRule {}
// SAFETY: as above.
unsafe impl aya::Pod for OpenContainer {}
// SAFETY: as above.
unsafe impl aya::Pod for WaitingContainer {}
// SAFETY: as above.
unsafe impl aya::Pod for ConnectionKey {}
// SAFETY: as above.
unsafe impl aya::Pod for ConnectionState {}
