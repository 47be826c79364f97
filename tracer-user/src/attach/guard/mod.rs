//! A process and a virtual machine's debug exceptions go in; signals that are not the process's own are kept from it.
//!
//! A watchpoint is told from the program's own breakpoint by what the processor says in `DR6`. Some hypervisors lose that,
//! once in very many hits; the kernel then sends SIGTRAP, which ends the process. So where the processor is a virtual one,
//! a guard stands between the kernel and the process: a process of its own that is told of every signal by ptrace(2),
//! keeps those back that come from such a hit, and passes on all others unchanged.

mod dead_man_switch;
mod handle;
mod isolation;
mod protocol;
mod ptrace;
mod signal_filter;

pub use handle::Guard;
pub use signal_filter::run_guard;
