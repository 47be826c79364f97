//! The machine that figures belong to, in one line.

use std::fs;
use std::process::Command;

use crate::provision;

/// Processor, how many, virtual or not, kernel, and the bpftrace beside which things are measured.
pub fn describe() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let lines = processors.lines().filter_map(|line| line.split_once(':'));
        let value = lines.clone().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned());
        value.unwrap_or_else(|| "unknown".to_owned())
    };
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let kind =
        if field("flags").split(' ').any(|flag| flag == "hypervisor") { "virtual machine" } else { "bare metal" };
    let output = |program: &str, argument: &str| {
        provision::output_of(Command::new(program).arg(argument)).unwrap_or_else(|_| format!("unknown {program}"))
    };
    format!(
        "{} (family {}, model {}), {count} processors, {kind}, Linux {}, {}",
        field("model name"),
        field("cpu family"),
        field("model"),
        output("uname", "-r"),
        output("bpftrace", "--version"),
    )
}
