//! `--python auto`: what was measured on this machine, and what is possible in a process, go in; how its Python calls are seen
//! comes out, and why.

use crate::model::PythonMode;

/// From so many nanoseconds on a hit of a watchpoint is dear. A call makes two. In a virtual machine the processor leaves the
/// guest several times at each: 9,000 to 19,000 were measured, which makes a prediction of three steps about as dear in watch mode
/// as in chain mode, where it is seen whole. Without one it is a trap and a program, one or two thousand: then chain mode, which
/// passes some hundred probes in such a prediction, is many times dearer.
const DEAR_HIT_NS: f64 = 3_000.0;

/// Kernels before this one verify the functions of the programs for themselves, whether anybody calls them or not, and have not
/// been seen to take those of chain mode.
const CHAIN_KERNEL: (u32, u32) = (6, 8);

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
    /// How.
    pub mode: PythonMode,
    /// Why, for people.
    pub reason: String,
}

/// Chooses for a session.
#[must_use]
pub fn choose_mode(machine: Machine) -> ModeChoice {
    let place = if machine.is_virtual { "in this virtual machine" } else { "here" };
    let hit = |ns: f64| format!("a hit of a watchpoint takes {:.1} µs {place}", ns / 1e3);
    let chosen = |mode, reason| ModeChoice { mode, reason };
    match machine.hit_ns {
        Some(ns) if ns < DEAR_HIT_NS => chosen(PythonMode::Watch, hit(ns)),
        dear if machine.kernel < CHAIN_KERNEL => {
            let (major, minor) = CHAIN_KERNEL;
            let dear = dear.map_or_else(|| format!("no watchpoint could be tried {place}"), hit);
            chosen(PythonMode::Watch, format!("{dear}, and chain mode needs Linux {major}.{minor}"))
        }
        Some(ns) => chosen(PythonMode::Chain, hit(ns)),
        None => chosen(PythonMode::Chain, format!("no watchpoint can be set {place}")),
    }
}

/// Chooses for one process of a session for which this mode was chosen, given the version of its interpreter and whether it has
/// places for chain mode's probes.
#[must_use]
pub fn mode_in_process(chosen: PythonMode, (major, minor, _): (u8, u8, u8), has_places: bool) -> PythonMode {
    match chosen {
        PythonMode::Chain if !has_places || (major, minor) < CHAIN_PYTHON => PythonMode::Watch,
        mode => mode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(kernel: (u32, u32), hit_ns: Option<f64>) -> Machine {
        Machine { kernel, is_virtual: true, hit_ns }
    }

    #[test]
    fn where_a_hit_is_dear_the_frames_are_walked() {
        let dear = choose_mode(machine((6, 18), Some(9_400.0)));
        let reason = "a hit of a watchpoint takes 9.4 µs in this virtual machine".to_owned();
        assert_eq!(dear, ModeChoice { mode: PythonMode::Chain, reason });
        let cheap = choose_mode(Machine { is_virtual: false, ..machine((6, 18), Some(900.0)) });
        let reason = "a hit of a watchpoint takes 0.9 µs here".to_owned();
        assert_eq!(cheap, ModeChoice { mode: PythonMode::Watch, reason });
        assert_eq!(choose_mode(machine((6, 18), None)).mode, PythonMode::Chain);
    }

    #[test]
    fn old_kernels_and_interpreters_are_watched() {
        for hit_ns in [Some(9_400.0), None] {
            let old = choose_mode(machine((6, 1), hit_ns));
            assert_eq!(old.mode, PythonMode::Watch);
            assert!(old.reason.ends_with("and chain mode needs Linux 6.8"), "{}", old.reason);
        }
        let in_process = |version, has_places| mode_in_process(PythonMode::Chain, version, has_places);
        assert_eq!(in_process((3, 11, 7), true), PythonMode::Chain);
        assert_eq!(in_process((3, 14, 0), false), PythonMode::Watch);
        assert_eq!(in_process((3, 10, 13), true), PythonMode::Watch);
        assert_eq!(mode_in_process(PythonMode::Watch, (3, 13, 0), true), PythonMode::Watch);
    }
}
