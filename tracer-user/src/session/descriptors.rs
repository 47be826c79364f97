//! How many file descriptors this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::SessionError;
use crate::model::DEBUG_REGISTERS;

/// The maps, programs and destinations of a small session, and some probes that the kernel takes one by one.
const LEAST: u64 = 160;

/// Raises the limit as far as it goes: watchpoints take a descriptor for each thread. Processes that this one starts
/// afterwards inherit it, so a command that is to be traced must have been started before.
///
/// # Errors
/// It stays too low for any session.
pub fn raise_descriptor_limit() -> Result<(), SessionError> {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, what finds no descriptor is told.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    enough(limit.maximum)
}

/// Whether a session is possible under the hard limit.
///
/// # Errors
/// It is not.
pub fn enough_descriptors() -> Result<(), SessionError> {
    enough(getrlimit(Resource::Nofile).maximum)
}

fn enough(hard_limit: Option<u64>) -> Result<(), SessionError> {
    match hard_limit {
        Some(limit) if limit < LEAST => Err(SessionError::FewDescriptors { limit, least: LEAST }),
        _ => Ok(()),
    }
}

/// What to say where the limit allows to watch so many code objects only; all take `needed` descriptors.
#[must_use]
pub fn few_descriptors(watched: usize, (needed, limit): (u64, u64)) -> String {
    format!(
        "every thread takes a file descriptor for each watched code object; the limit of {limit} open files allows {watched} of them at \
         one time, all {DEBUG_REGISTERS} need {needed}: raise it (`ulimit -n {needed}`)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_named() {
        let Err(error) = enough(Some(12)) else { panic!("12 descriptors are too few") };
        let sentence = error.to_string();
        assert!(sentence.contains("12 files") && sentence.contains("ulimit -n 160"), "{sentence}");
        assert!(enough(Some(1_024)).is_ok() && enough(None).is_ok());
    }
}
