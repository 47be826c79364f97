//! Numbers functions, drops what is asked for twice, and keeps to the budget.

use std::collections::HashSet;

use tracer_common::limits::MAX_FUNCTIONS;

use crate::model::{
    FunctionId, KernelFeatures, ModuleFile, PlannedFunction, ProbePlan, ProbeRequest, ReturnMethod, SkipReason,
    Skipped, VirtualAddress,
};

/// Plans for one tracer; numbers go on where the last plan ended, so that a plan can be added to a running tracer.
pub struct Planner {
    features: KernelFeatures,
    next: u32,
    planned: HashSet<(ModuleFile, VirtualAddress)>,
}

impl Planner {
    /// Begins with number 0.
    #[must_use]
    pub fn new(features: KernelFeatures) -> Self {
        Self { features, next: 0, planned: HashSet::new() }
    }

    /// Plans these requests. `skipped` are candidates that the engines gave up on already.
    pub fn plan(&mut self, requests: Vec<ProbeRequest>, skipped: Vec<Skipped>) -> ProbePlan {
        let mut plan = ProbePlan { functions: Vec::new(), skipped };
        for mut request in requests {
            if self.next >= MAX_FUNCTIONS {
                plan.skipped.push(Skipped {
                    name: request.function.name,
                    module: request.module.path.to_string_lossy().into_owned(),
                    reason: SkipReason::OverBudget,
                });
                continue;
            }
            if !self.planned.insert((request.module.clone(), request.function.address)) {
                continue;
            }
            self.prefer_safe_returns(&mut request);
            plan.functions.push(PlannedFunction { id: FunctionId(self.next), request });
            self.next += 1;
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
