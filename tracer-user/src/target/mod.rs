//! Looks at /proc: a process id goes in, a `Target` (who runs, what is mapped) and later `TargetChange`s come out.

mod application;
mod connections;
mod descendants;
mod error;
mod foreign_code;
mod forks;
mod launch;
mod modules;
mod process;
mod selection;
mod source;
mod watch;
mod watched;

pub use application::application_of;
pub use connections::{listens, server_sockets};
pub use descendants::{children_are_told, descendants};
pub use error::TargetError;
pub use foreign_code::native_obstacle;
pub use launch::{find_program, modules_at_start};
pub use process::{
    address_space, has_ended, holder_of_registers, identify, is_our_child, look_at, stack_pointer, tracer_of,
};
pub use selection::Selection;
pub use source::TargetSource;
pub use watch::Watcher;
