//! What the machine does to watched processes, and no tracer can prevent.

use anyhow::Result;

/// Runs a test, and once more if its target has ended with SIGTRAP in a virtual machine: some hosts lose the cause of a
/// watchpoint once in very many hits (docs/cpython-engine.md, "Watchpoints in virtual machines"). It is said when that
/// happens; twice in a row is a failure.
#[expect(clippy::print_stderr, reason = "the log of the suite is where it is looked for")]
pub fn tested(test: impl Fn() -> Result<()>) -> Result<()> {
    match test() {
        Err(error) if is_lost_cause(&format!("{error:?}")) => {
            eprintln!("the target ended with SIGTRAP, as some hosts of virtual machines make it: once more. {error:#}");
            test()
        }
        result => result,
    }
}

fn is_lost_cause(error: &str) -> bool {
    is_virtual() && (error.contains("SIGTRAP") || error.contains("Some(5)"))
}

/// Whether this is a virtual machine: there a watched process has a guard, which no other debugger must keep away.
pub fn is_virtual() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" hypervisor"))
}
