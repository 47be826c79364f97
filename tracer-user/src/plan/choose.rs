//! Numbers functions, drops what is asked for twice, and keeps to the budget.

use std::collections::HashSet;

use tracer_common::limits::MAX_FUNCTIONS;

use super::python::KnownFunctions;
use crate::model::{
    FunctionId, KernelFeatures, ModuleFile, PlannedFunction, ProbePlan, ProbeRequest, ReturnMethod, SkipReason,
    Skipped, VirtualAddress,
};

/// Plans for one tracer; numbers go on where the last plan ended, so that a plan can be added to a running tracer.
pub struct Planner {
    features: KernelFeatures,
    next: u32,
    planned: HashSet<(ModuleFile, VirtualAddress)>,
    pub(super) python: KnownFunctions,
}

impl Planner {
    /// Begins with number 0.
    #[must_use]
    pub fn new(features: KernelFeatures) -> Self {
        Self { features, next: 0, planned: HashSet::new(), python: KnownFunctions::default() }
    }

    /// Plans these requests. `skipped` are candidates that the engines gave up on already.
    pub fn plan(&mut self, requests: Vec<ProbeRequest>, skipped: Vec<Skipped>) -> ProbePlan {
        let mut plan = ProbePlan { functions: Vec::new(), skipped };
        for mut request in requests {
            if !self.planned.insert((request.module.clone(), request.function.address)) {
                continue;
            }
            self.prefer_safe_returns(&mut request);
            if let Some(reason) = self.obstacle(&request) {
                plan.skipped.push(Skipped {
                    name: request.function.name,
                    module: request.module.path.to_string_lossy().into_owned(),
                    reason,
                });
                continue;
            }
            plan.functions.push(PlannedFunction { id: FunctionId(self.next), request });
            self.next += 1;
        }
        plan
    }

    /// The next number; `None` once they are used up.
    pub(super) fn number(&mut self) -> Option<FunctionId> {
        (self.next < MAX_FUNCTIONS).then(|| {
            self.next += 1;
            FunctionId(self.next - 1)
        })
    }

    fn obstacle(&self, request: &ProbeRequest) -> Option<SkipReason> {
        if self.next >= MAX_FUNCTIONS {
            return Some(SkipReason::OverBudget);
        }
        match &request.function.returns {
            ReturnMethod::ReturnSites { sites } if sites.is_empty() => Some(SkipReason::NoReturnSite),
            _ => None,
        }
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::{
        EntrySite, FileOffset, FunctionName, Language, ObjectLocation, ProcessId, ResolvedFunction, ReturnSite,
        UnwindProof,
    };

    fn request(address: u64, returns: ReturnMethod) -> ProbeRequest {
        ProbeRequest {
            module: ModuleFile {
                process: ProcessId { pid: 1, start_time: 2 },
                path: PathBuf::from("/lib/model.so"),
                access_path: PathBuf::from("/lib/model.so"),
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
    fn where_the_trampoline_can_be_killed_sites_are_used_or_the_function_is_left_out() {
        let mut planner =
            Planner::new(KernelFeatures { uretprobe_is_seccomp_safe: false, ..KernelFeatures::default() });
        let plan = planner.plan(vec![request(1, uretprobe(vec![SITE])), request(2, uretprobe(vec![]))], Vec::new());
        assert_eq!(plan.functions.len(), 1);
        assert_eq!(plan.functions[0].request.function.returns, ReturnMethod::ReturnSites { sites: vec![SITE] });
        assert_eq!(plan.skipped[0].reason, SkipReason::NoReturnSite);
    }
}
