//! `--python auto`: what was measured on this machine, and what is possible in a process, go in; how its Python calls are seen
//! comes out, and why.

use crate::model::{CHAIN_KERNEL, DEBUG_REGISTERS, PythonMode};

/// Up to 3.10 every Python call passes chain mode's probe, from this version on one in six.
const CHAIN_PYTHON: (u8, u8) = (3, 11);

/// What is known of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Its kernel.
    pub kernel: (u32, u32),
    /// Whether its processor is a virtual one.
    pub is_virtual: bool,
    /// Nanoseconds that a hit of a watchpoint takes; `None`: none can be set.
    pub hit_ns: Option<f64>,
}

/// How Python calls are seen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChoice {
    /// How, to begin with.
    pub mode: PythonMode,
    /// Whether a process goes over to chain mode that calls more than can be watched.
    pub may_go_over: bool,
    /// Why, for people.
    pub reason: String,
}

/// Chooses for a session. Watchpoints are exact, and cost other code nothing: they are taken as long as there are enough of them. Chain
/// mode sees the rest.
#[must_use]
pub fn choose_mode(machine: Machine) -> ModeChoice {
    let place = if machine.is_virtual { "in this virtual machine" } else { "here" };
    let (major, minor) = CHAIN_KERNEL;
    let has_chain = machine.kernel >= CHAIN_KERNEL;
    let chosen = |mode, may_go_over, reason| ModeChoice { mode, may_go_over, reason };
    match machine.hit_ns {
        Some(ns) => {
            let hit = format!("watchpoints can be set (a hit takes {:.1} µs {place})", ns / 1e3);
            let rest = match has_chain {
                true => format!("a process that calls more than {DEBUG_REGISTERS} methods goes over to chain mode"),
                false => format!("chain mode needs Linux {major}.{minor}"),
            };
            chosen(PythonMode::Watch, has_chain, format!("{hit}, and {rest}"))
        }
        None if has_chain => chosen(PythonMode::Chain, false, format!("no watchpoint can be set {place}")),
        None => {
            let reason = format!("no watchpoint could be tried {place}, and chain mode needs Linux {major}.{minor}");
            chosen(PythonMode::Watch, false, reason)
        }
    }
}

/// Whether chain mode is an answer in a process, given the version of its interpreter.
#[must_use]
pub fn suits_chain((major, minor, _): (u8, u8, u8)) -> bool {
    (major, minor) >= CHAIN_PYTHON
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(kernel: (u32, u32), hit_ns: Option<f64>) -> Machine {
        Machine { kernel, is_virtual: true, hit_ns }
    }

    #[test]
    fn watchpoints_are_taken_as_long_as_they_suffice() {
        let choice = choose_mode(machine((6, 18), Some(9_400.0)));
        let reason = "watchpoints can be set (a hit takes 9.4 µs in this virtual machine), and a process that calls more than 4 \
                      methods goes over to chain mode"
            .to_owned();
        assert_eq!(choice, ModeChoice { mode: PythonMode::Watch, may_go_over: true, reason });
        let none = choose_mode(Machine { is_virtual: false, ..machine((6, 18), None) });
        assert_eq!((none.mode, none.may_go_over), (PythonMode::Chain, false));
        assert_eq!(none.reason, "no watchpoint can be set here");
    }

    #[test]
    fn old_kernels_and_interpreters_are_watched() {
        for hit_ns in [Some(9_400.0), None] {
            let old = choose_mode(machine((6, 1), hit_ns));
            assert_eq!((old.mode, old.may_go_over), (PythonMode::Watch, false));
            assert!(old.reason.ends_with("and chain mode needs Linux 6.8"), "{}", old.reason);
        }
        assert!(suits_chain((3, 11, 7)) && suits_chain((3, 14, 0)) && !suits_chain((3, 10, 13)));
    }
}
