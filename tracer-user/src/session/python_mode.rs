//! How the Python calls of a session are seen: as it was asked, or chosen by what was measured; and what that costs.

use serde::Serialize;

use super::settings::PythonSettings;
use crate::attach::{is_virtual_machine, kernel_version, measure_watchpoint_hit};
use crate::model::{PythonMode, Share};
use crate::plan::{Machine, PythonCost, choose_mode};

/// What was chosen.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// With the mode that was chosen.
    pub settings: PythonSettings,
    /// Why, for people; `None` where it was asked for.
    pub reason: Option<String>,
    /// Nanoseconds that a hit of a watchpoint takes, where that was measured.
    pub hit_ns: Option<f64>,
}

impl Chosen {
    /// As it was asked.
    pub fn as_asked(settings: PythonSettings) -> Self {
        Self { settings, reason: None, hit_ns: None }
    }

    /// Measures, if that is to decide.
    pub fn by_measuring(settings: PythonSettings) -> Self {
        if !settings.is_chosen {
            return Self::as_asked(settings);
        }
        let hit_ns = measure_watchpoint_hit();
        let choice = choose_mode(Machine { kernel: kernel_version(), is_virtual: is_virtual_machine(), hit_ns });
        let settings = PythonSettings { mode: choice.mode, may_go_over: choice.may_go_over, ..settings };
        Self { settings, reason: Some(choice.reason), hit_ns }
    }
}

/// How Python calls are seen, for the summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PythonModeReport {
    /// How.
    pub mode: PythonMode,
    /// Why, if it was chosen; `null`: it was asked for.
    pub chosen_because: Option<String>,
    /// What it costs the processes that were there at the start, as far as it was counted then.
    pub costs: Vec<CostReport>,
}

/// What was counted for a moment at the start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CostReport {
    /// How the calls of these processes are seen.
    pub mode: PythonMode,
    /// The processes.
    pub processes: Vec<u32>,
    /// Probes passed, or watchpoints hit, a second.
    pub passed_a_second: f64,
    /// Share of one processor, in per cent, if what one takes is known.
    pub percent_of_one_processor: Option<f64>,
    /// The same in words.
    #[serde(skip)]
    pub sentence: String,
}

impl PythonModeReport {
    /// What was chosen, and what it costs.
    pub fn new(chosen: &Chosen, costs: &[PythonCost]) -> Self {
        Self {
            mode: chosen.settings.mode,
            chosen_because: chosen.reason.clone(),
            costs: costs.iter().map(|cost| CostReport::new(cost, chosen.settings.share)).collect(),
        }
    }

    /// What to say of it before anything is recorded; `None`: nobody has asked, or there is no Python so far.
    pub fn sentence(&self) -> Option<String> {
        let costs: Vec<&str> = self.costs.iter().map(|cost| cost.sentence.as_str()).collect();
        let costs = costs.join("; ");
        match &self.chosen_because {
            _ if costs.is_empty() => None,
            // All have gone over to another mode meanwhile, which was told with the reason.
            Some(_) if self.costs.iter().all(|cost| cost.mode != self.mode) => Some(costs),
            Some(reason) => {
                // A process may have gone over to chain mode meanwhile.
                let when = if self.mode == PythonMode::Watch { " to begin with" } else { "" };
                Some(format!("--python auto: {} mode{when}, because {reason}; {costs}", word(self.mode)))
            }
            None => Some(costs),
        }
    }
}

impl CostReport {
    fn new(cost: &PythonCost, share: Share) -> Self {
        let mut sentence = cost.sentence();
        if let (PythonMode::Watch, Share::OfProcessor(most), Some(percent)) = (cost.mode, share, cost.percent())
            && percent > most * 100.0
        {
            sentence.push_str(", which --max-overhead does not bound: it bounds chain mode (--python chain)");
        }
        Self {
            mode: cost.mode,
            processes: cost.processes.iter().map(|process| process.pid).collect(),
            passed_a_second: cost.passed,
            percent_of_one_processor: cost.percent(),
            sentence,
        }
    }
}

fn word(mode: PythonMode) -> &'static str {
    match mode {
        PythonMode::Watch => "watch",
        PythonMode::Frames => "frames",
        PythonMode::Chain => "chain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessId;

    #[test]
    fn what_is_not_bounded_says_so() {
        let cost = |passed| PythonCost {
            mode: PythonMode::Watch,
            processes: vec![ProcessId { pid: 7, start_time: 1 }],
            passed,
            empty_ns: Some(9_000.0),
            exceptions: 0.0,
            exception_ns: None,
        };
        let told =
            |passed, share| CostReport::new(&cost(passed), share).sentence.contains("--max-overhead does not bound");
        assert!(told(10_000.0, Share::OfProcessor(0.05)));
        assert!(!told(1_000.0, Share::OfProcessor(0.05)), "it takes less than it may");
        assert!(!told(10_000.0, Share::Always));
    }

    #[test]
    fn what_was_chosen_is_one_sentence_with_its_cost() {
        let cost = PythonCost {
            mode: PythonMode::Chain,
            processes: vec![ProcessId { pid: 7, start_time: 1 }],
            passed: 25_000.0,
            empty_ns: Some(700.0),
            exceptions: 0.0,
            exception_ns: None,
        };
        let settings = PythonSettings { mode: PythonMode::Chain, is_chosen: true, ..PythonSettings::default() };
        let chosen = Chosen { settings, reason: Some("a hit takes 9.4 µs".to_owned()), hit_ns: Some(9_400.0) };
        let report = PythonModeReport::new(&chosen, &[cost]);
        assert_eq!(
            report.sentence().as_deref(),
            Some(
                "--python auto: chain mode, because a hit takes 9.4 µs; chain mode costs process 7 about 3.5 % of one \
                 processor: 25000 probes passed a second, 1400 ns each"
            )
        );
        assert_eq!(PythonModeReport::new(&chosen, &[]).sentence(), None, "there is no Python so far");
        let summary = serde_json::to_value(&report).expect("JSON");
        assert_eq!(summary["mode"], "chain");
        let percent = summary["costs"][0]["percent_of_one_processor"].as_f64().expect("a number");
        assert_eq!((percent * 10.0).round(), 35.0);
    }
}
