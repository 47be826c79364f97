//! Where one probe goes, which program runs there, and for which process.

/// Which program runs at a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// At the beginning of a function.
    Entry,
    /// At an instruction that leaves a function.
    Exit,
    /// In the return trampoline.
    Return,
}

/// One probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Offset of the instruction in the file.
    pub offset: u64,
    /// What the program gets to know.
    pub cookie: u64,
}

/// For which process the kernel is to place probes, 0 for all. It finds the memory of a process through its first thread:
/// where that has ended and others go on, probes go into every process that maps the file, and the programs do nothing in the
/// others.
pub fn scope_of(process: u32) -> u32 {
    if first_thread_has_ended(process) { 0 } else { process }
}

/// Whether the first thread of a process has ended, be it that others go on or that the whole process is ending.
fn first_thread_has_ended(process: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    // The name may hold anything; the state follows its last bracket (proc(5)).
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}
