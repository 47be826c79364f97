//! Numbers functions, drops what is asked for twice, and keeps to the budget.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use tracer_common::limits::MAX_FUNCTIONS;

use super::python::KnownFunctions;
use crate::model::{
    FileNumber, FunctionId, KernelFeatures, ModuleFile, PlannedFunction, ProbePlan, ProbeRequest, ProcessId,
    ReturnMethod, SkipReason, Skipped, VirtualAddress,
};

/// Numbers of Python functions begin here, beyond all that the cookie of a native probe can hold: neither kind uses up the
/// numbers of the other.
const FIRST_PYTHON: u32 = 1 << 24;

/// Python functions that one tracer can tell apart.
pub const MOST_PYTHON: u32 = 1 << 18;

/// Plans for one tracer; numbers go on where the last plan ended, so that a plan can be added to a running tracer. The same
/// function of the same file has one number in all processes: workers that come and go use none up.
pub struct Planner {
    features: KernelFeatures,
    next: u32,
    next_python: u32,
    planned: HashSet<(ModuleFile, VirtualAddress)>,
    numbers: HashMap<NativeFunctionKey, FunctionId>,
    pub(super) python: KnownFunctions,
}

/// What a function's number stands for: file as processes name it, address in it, symbol.
type NativeFunctionKey = (PathBuf, VirtualAddress, String);

impl Planner {
    /// Begins with number 0.
    #[must_use]
    pub fn new(features: KernelFeatures) -> Self {
        Self {
            features,
            next: 0,
            next_python: FIRST_PYTHON,
            planned: HashSet::new(),
            numbers: HashMap::new(),
            python: KnownFunctions::default(),
        }
    }

    /// Forgets what was planned for a process: nothing of it is probed any more.
    pub fn forget(&mut self, process: ProcessId) {
        self.planned.retain(|(module, _)| module.process != process);
    }

    /// Forgets what was planned for these files: nothing of them is probed in their process any more.
    pub fn forget_file(&mut self, process: ProcessId, file: FileNumber) {
        self.planned.retain(|(module, _)| (module.process, module.number) != (process, file));
    }

    /// Plans these requests. `skipped` are candidates that the engines gave up on already.
    pub fn plan(&mut self, requests: Vec<ProbeRequest>, skipped: Vec<Skipped>) -> ProbePlan {
        let mut plan = ProbePlan { functions: Vec::new(), skipped };
        for mut request in requests {
            if !self.planned.insert((request.module.clone(), request.function.address)) {
                continue;
            }
            self.prefer_safe_returns(&mut request);
            let planned = match obstacle(&request) {
                Some(reason) => Err(reason),
                None => self.number_of(&request).ok_or(SkipReason::OverBudget),
            };
            match planned {
                Ok(id) => plan.functions.push(PlannedFunction { id, request }),
                Err(reason) => plan.skipped.push(Skipped {
                    name: request.function.name,
                    module: request.module.path.to_string_lossy().into_owned(),
                    reason,
                }),
            }
        }
        plan
    }

    fn number_of(&mut self, request: &ProbeRequest) -> Option<FunctionId> {
        let function = &request.function;
        let key = (request.module.path.clone(), function.address, function.name.symbol.clone());
        if let Some(known) = self.numbers.get(&key) {
            return Some(*known);
        }
        let new = self.number()?;
        self.numbers.insert(key, new);
        Some(new)
    }

    /// The next number of a Python function; `None` once they are used up.
    pub(super) fn number_of_new_python(&mut self) -> Option<FunctionId> {
        (self.next_python < FIRST_PYTHON + MOST_PYTHON).then(|| {
            self.next_python += 1;
            FunctionId(self.next_python - 1)
        })
    }

    /// The next number of a native function; `None` once they are used up.
    fn number(&mut self) -> Option<FunctionId> {
        (self.next < MAX_FUNCTIONS).then(|| {
            self.next += 1;
            FunctionId(self.next - 1)
        })
    }

    /// Where a return through the trampoline could be killed by a seccomp filter, return sites are used instead.
    fn prefer_safe_returns(&self, request: &mut ProbeRequest) {
        if self.features.uretprobe_is_seccomp_safe {
            return;
        }
        if let ReturnMethod::Uretprobe { sites, .. } = &mut request.function.returns {
            request.function.returns = ReturnMethod::ReturnSites { sites: std::mem::take(sites) };
        }
    }
}

fn obstacle(request: &ProbeRequest) -> Option<SkipReason> {
    match &request.function.returns {
        ReturnMethod::ReturnSites { sites } if sites.is_empty() => Some(SkipReason::NoReturnSite),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        EntrySite, FileOffset, FunctionName, Language, ObjectLocation, ResolvedFunction, ReturnSite, UnwindProof,
    };

    fn request(address: u64, returns: ReturnMethod) -> ProbeRequest {
        ProbeRequest {
            module: ModuleFile {
                process: ProcessId { pid: 1, start_time: 2 },
                path: PathBuf::from("/lib/model.so"),
                access_path: PathBuf::from("/lib/model.so"),
                number: FileNumber::default(),
                mappings: Vec::new(),
            },
            function: ResolvedFunction {
                name: FunctionName {
                    symbol: "predict".into(),
                    path: "predict".into(),
                    class: None,
                    class_path: None,
                    method: "predict".into(),
                    language: Language::C,
                },
                aliases: Vec::new(),
                address: VirtualAddress(address),
                size: 16,
                entry: EntrySite {
                    offset: FileOffset(address),
                    stack_delta: 0,
                    emulated: true,
                    instruction: "push rbp".into(),
                },
                returns,
                object: ObjectLocation::None,
            },
            span_name: "predict".into(),
            library: "test".into(),
            nests: true,
            attributes: Vec::new(),
            error: None,
            shared_code: Vec::new(),
        }
    }

    fn uretprobe(sites: Vec<ReturnSite>) -> ReturnMethod {
        ReturnMethod::Uretprobe { proof: UnwindProof::CallsNothing, sites }
    }

    const SITE: ReturnSite = ReturnSite { offset: FileOffset(9), condition: None, tail_jump: false };

    #[test]
    fn a_function_is_planned_once_and_numbers_go_on() {
        let mut planner = Planner::new(KernelFeatures { uretprobe_is_seccomp_safe: true, ..KernelFeatures::default() });
        let first = planner.plan(vec![request(1, uretprobe(vec![])), request(1, uretprobe(vec![]))], Vec::new());
        assert_eq!(first.functions.len(), 1);
        let second = planner.plan(vec![request(1, uretprobe(vec![])), request(2, uretprobe(vec![]))], Vec::new());
        assert_eq!(second.functions.iter().map(|function| function.id).collect::<Vec<_>>(), [FunctionId(1)]);
    }

    #[test]
    fn processes_share_the_numbers_of_the_functions_of_a_file() {
        let mut planner = Planner::new(KernelFeatures { uretprobe_is_seccomp_safe: true, ..KernelFeatures::default() });
        let of = |pid: u32| {
            let mut request = request(1, uretprobe(vec![]));
            request.module.process.pid = pid;
            request
        };
        for pid in 1..100_000 {
            let plan = planner.plan(vec![of(pid)], Vec::new());
            assert_eq!(plan.functions.iter().map(|function| function.id).collect::<Vec<_>>(), [FunctionId(0)]);
            planner.forget(ProcessId { pid, start_time: 2 });
        }
        assert!(planner.planned.is_empty());
        let mut elsewhere = of(1);
        elsewhere.module.path = PathBuf::from("/lib/other.so");
        assert_eq!(planner.plan(vec![elsewhere], Vec::new()).functions[0].id, FunctionId(1));
    }

    #[test]
    fn where_the_trampoline_can_be_killed_sites_are_used_or_the_function_is_left_out() {
        let mut planner =
            Planner::new(KernelFeatures { uretprobe_is_seccomp_safe: false, ..KernelFeatures::default() });
        let plan = planner.plan(vec![request(1, uretprobe(vec![SITE])), request(2, uretprobe(vec![]))], Vec::new());
        assert_eq!(plan.functions.len(), 1);
        assert_eq!(plan.functions[0].request.function.returns, ReturnMethod::ReturnSites { sites: vec![SITE] });
        assert_eq!(plan.skipped[0].reason, SkipReason::NoReturnSite);
    }
}
