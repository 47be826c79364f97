//! Names of threads, from /proc.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::recording::Learned;
use super::wiring::ThreadNames;
use crate::target::thread_name;

/// Gives the names of running threads; the tape is told as well.
pub fn thread_names(tell: Sender<Learned>) -> ThreadNames {
    Box::new(move |process, thread| {
        let name: Arc<str> = thread_name(process.pid, thread.0)?.into();
        let _ = tell.send(Learned::Thread(thread.0, Arc::clone(&name)));
        Some(name)
    })
}
