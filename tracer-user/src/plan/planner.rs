//! Numbers native functions, drops what is asked for twice, and keeps to the budget.

use std::collections::HashSet;

use super::function_numbers::FunctionNumbers;
use crate::model::{
    FileNumber, KernelFeatures, ModuleFile, PlannedFunction, ProbePlan, ProbeRequest, ProcessId, ReturnMethod,
    SkipReason, Skipped, VirtualAddress,
};

/// Plans for one tracer; numbers go on where the last plan ended, so that a plan can be added to a running tracer.
pub struct Planner {
    features: KernelFeatures,
    planned: HashSet<(ModuleFile, VirtualAddress)>,
    pub(super) numbers: FunctionNumbers,
}

impl Planner {
    /// Begins with number 0.
    #[must_use]
    pub fn new(features: KernelFeatures) -> Self {
        Self { features, planned: HashSet::new(), numbers: FunctionNumbers::default() }
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
                None => self.numbers.of_native(&request).ok_or(SkipReason::OverBudget),
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
    use std::path::PathBuf;

    use super::*;
    use crate::model::{
        EntrySite, FileOffset, FunctionId, FunctionName, Language, ObjectLocation, ResolvedFunction, ReturnSite,
        UnwindProof,
    };

    fn request(address: u64, returns: ReturnMethod) -> ProbeRequest {
        ProbeRequest {
            module: ModuleFile {
                process: ProcessId { pid: 1, start_time: 2 },
                path: PathBuf::from("/lib/model.so"),
                access_path: PathBuf::from("/lib/model.so"),
                number: FileNumber::default(),
                mappings: Vec::new(),
                is_program: false,
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
