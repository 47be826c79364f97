//! The BPF programs. Thin: read registers, keep the thread's stack of open calls, fill a record, submit. Names,
//! libraries and policy stay in user space; what a program must know arrives by cookie and by map.
#![no_std]
#![no_main]

mod arguments;
mod empty;
mod endings;
mod first_objects;
mod forks;
mod maps;
mod native;
mod other_stacks;
mod own_stack;
mod python_arguments;
mod python_calls;
mod python_chain;
mod python_chain_calls;
mod python_chain_merged;
mod python_chain_quick;
mod python_chain_sparse;
mod python_contexts;
mod python_current_span;
mod python_frame;
mod python_frames;
mod python_greenlets;
mod python_join;
mod python_loops;
mod python_missed_hit;
mod python_push;
mod python_resolve;
mod python_walk;
mod python_watch;
mod registers;
mod socket_calls;
mod socket_events;
mod sockets;
mod stack;
mod thread_end;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
