//! What the BPF programs and user space must agree on: records, cookies, limits, counters and numbered loss reasons.
//!
//! Every type is `#[repr(C)]` without implicit padding, without `bool` and without `usize`; sizes are asserted at
//! compile time, so that a layout change cannot go unnoticed on one side of the kernel boundary.
#![no_std]

pub mod chain;
pub mod cookie;
pub mod counters;
pub mod first_objects;
pub mod limits;
#[cfg(feature = "user")]
mod plain_data;
pub mod python;
pub mod records;
pub mod tables;
pub mod thread_stack;
