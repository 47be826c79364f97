//! What takes the kernel long and nobody has to wait for, until the end.

use std::thread::JoinHandle;

/// Threads that take probes away. Waits for them when dropped: if the program ended while one of them is in the middle of
/// it, the kernel would leave its probes registered for good, and with them the file that they are in.
#[derive(Default)]
pub struct Removals(Vec<JoinHandle<()>>);

impl Removals {
    /// Does something on a thread of its own, if there is something to do.
    pub fn begin_if(&mut self, is_any: bool, work: impl FnOnce() + Send + 'static) {
        if is_any {
            self.begin(work);
        }
    }

    /// Does something on a thread of its own.
    pub fn begin(&mut self, work: impl FnOnce() + Send + 'static) {
        self.0.retain(|thread| !thread.is_finished());
        self.0.push(std::thread::spawn(work));
    }
}

impl Drop for Removals {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // What a panic there left undone, the kernel does when the program ends.
            let _ = thread.join();
        }
    }
}
