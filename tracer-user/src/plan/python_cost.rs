//! What it costs processes that their Python calls are seen: what was counted and measured goes in, a sentence comes out.

use crate::model::{ProcessId, PythonMode, counted};

/// What a look at the frames of a thread takes besides the probe, nanoseconds (docs/benchmarks.md).
const LOOK_NS: f64 = 700.0;

/// What a look at all frames of a thread takes besides the probe, nanoseconds: `kernel.bpf_stats_enabled` on a saturated FastAPI server
/// (docs/cpython-engine.md, "Few witnesses").
const WHOLE_LOOK_NS: f64 = 2_200.0;

/// What the program of watch mode takes at a hit besides the hit itself, nanoseconds (docs/benchmarks.md).
const WATCH_NS: f64 = 1_200.0;

/// What the program takes that exceptions pass, nanoseconds (`kernel.bpf_stats_enabled` on a saturated FastAPI server).
const EXCEPTION_NS: f64 = 600.0;

/// What was counted for a moment, and what one of it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct PythonCost {
    /// How the calls are seen.
    pub mode: PythonMode,
    /// The processes.
    pub processes: Vec<ProcessId>,
    /// Probes passed, or watchpoints hit, a second in all of them.
    pub passed: f64,
    /// Nanoseconds that an empty program takes at one, if that could be measured.
    pub empty_ns: Option<f64>,
    /// Exceptions that pass a probe besides, a second in all of them.
    pub exceptions: f64,
    /// Nanoseconds that an empty program takes at that probe.
    pub exception_ns: Option<f64>,
}

impl PythonCost {
    /// Nanoseconds for each.
    fn each_ns(&self) -> Option<f64> {
        self.empty_ns.map(|empty| each_ns(self.mode, empty))
    }

    /// Nanoseconds for each exception, if there are any.
    fn exception_each_ns(&self) -> Option<f64> {
        self.exception_ns.filter(|_| self.exceptions >= 1.0).map(|empty| empty + EXCEPTION_NS)
    }

    /// Share of one processor, in per cent.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        let exceptions = self.exceptions * self.exception_each_ns().unwrap_or_default();
        self.each_ns().map(|each| (self.passed * each + exceptions) / 1e9 * 100.0)
    }

    /// What to say of it.
    #[must_use]
    pub fn sentence(&self) -> String {
        let (mode, passed) = match self.mode {
            PythonMode::Watch => ("watch", "watchpoints hit"),
            PythonMode::Chain => ("chain", "probes passed"),
            PythonMode::Frames => ("frames", "probes passed"),
        };
        let processes = match self.processes.as_slice() {
            [process] => format!("process {process}"),
            several => counted(several.len() as u64, "process", "processes"),
        };
        let exceptions = self.exception_each_ns().map_or_else(String::new, |each| {
            format!(
                ", and {:.0} exceptions that are not caught where they are raised, {each:.0} ns each",
                self.exceptions
            )
        });
        match (self.percent(), self.each_ns()) {
            (Some(percent), Some(each)) => format!(
                "{mode} mode costs {processes} about {percent:.1} % of one processor: {:.0} {passed} a second, {each:.0} ns \
                 each{exceptions}",
                self.passed
            ),
            _ => format!("{mode} mode: {:.0} {passed} a second in {processes}", self.passed),
        }
    }
}

/// Nanoseconds that a call takes which passes one probe of frames mode at its entry and one at its end, or what chain mode or watch mode
/// takes each time, where an empty program takes so many.
#[must_use]
pub fn each_ns(mode: PythonMode, empty: f64) -> f64 {
    match mode {
        PythonMode::Watch => empty + WATCH_NS,
        PythonMode::Chain => empty + LOOK_NS,
        PythonMode::Frames => 2.0 * empty,
    }
}

/// What to say where probes are placed at few of the places that chain mode may take: so many are passed a second, and would be at all.
#[must_use]
pub fn few_witnesses_sentence(process: ProcessId, (few, all): (f64, f64), empty_ns: Option<f64>) -> String {
    let passed = format!("{few:.0} probes passed a second");
    let why = "the probes at few places saw all calls of its last seconds";
    let Some(empty) = empty_ns else { return format!("chain mode: {passed} in process {process}; {why}") };
    let each = empty + WHOLE_LOOK_NS;
    let percent = |passed: f64, each: f64| passed * each / 1e9 * 100.0;
    format!(
        "chain mode costs process {process} about {:.1} % of one processor: {passed}, {each:.0} ns each; {why}, those at all \
         places would take {:.1} % and give narrower bounds (`--python chain`)",
        percent(few, each),
        percent(all, each_ns(PythonMode::Chain, empty))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_told_of_one_process_and_of_several() {
        let process = |pid| ProcessId { pid, start_time: 1 };
        let one = PythonCost {
            mode: PythonMode::Chain,
            processes: vec![process(7)],
            passed: 20_000.0,
            empty_ns: Some(700.0),
            exceptions: 0.0,
            exception_ns: Some(700.0),
        };
        assert_eq!(
            one.sentence(),
            "chain mode costs process 7 about 2.8 % of one processor: 20000 probes passed a second, 1400 ns each"
        );
        let several = PythonCost { mode: PythonMode::Watch, processes: vec![process(7), process(8)], ..one.clone() };
        assert_eq!(
            several.sentence(),
            "watch mode costs 2 processes about 3.8 % of one processor: 20000 watchpoints hit a second, 1900 ns each"
        );
        let raising = PythonCost { exceptions: 10_000.0, ..several };
        let told = raising.sentence();
        assert!(told.starts_with("watch mode costs 2 processes about 5.1 % of one processor"), "{told}");
        assert!(
            told.ends_with(
                "1900 ns each, and 10000 exceptions that are not caught where they are raised, 1300 ns each"
            ),
            "{told}"
        );
        assert_eq!(
            PythonCost { empty_ns: None, ..one }.sentence(),
            "chain mode: 20000 probes passed a second in process 7"
        );
    }
}
