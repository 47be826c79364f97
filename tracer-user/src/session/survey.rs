//! Asks the engines about every module of a process: what could be traced, and what not and why.

use crate::engine::native;
use crate::model::{Module, ModuleFile, ProbeRequest, Skipped, SymbolMap, Target};

/// What the engines found in some modules.
#[derive(Debug, Default)]
pub struct Survey {
    /// Functions to probe.
    pub requests: Vec<ProbeRequest>,
    /// Candidates that cannot be probed.
    pub skipped: Vec<Skipped>,
    /// Modules that could not be read, one sentence each.
    pub unreadable: Vec<String>,
}

/// Looks into these modules of a target.
#[must_use]
pub fn survey(engine: &mut native::NativeEngine, target: &Target, modules: &[Module], maps: &[SymbolMap]) -> Survey {
    let mut found = Survey::default();
    for module in modules {
        let file =
            ModuleFile { process: target.process, path: module.path.clone(), access_path: module.access_path.clone() };
        match engine.requests(&file, maps) {
            Ok((requests, skipped)) => {
                found.requests.extend(requests);
                found.skipped.extend(skipped);
            }
            Err(error) => found.unreadable.push(error.to_string()),
        }
    }
    found
}

impl Survey {
    /// Adds what was found elsewhere.
    pub fn extend(&mut self, other: Self) {
        self.requests.extend(other.requests);
        self.skipped.extend(other.skipped);
        self.unreadable.extend(other.unreadable);
    }
}
