//! How many spans each Python method has got: what is watched is not always called, and shared code does not tell for whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::{FunctionDescription, ProcessId};

/// Methods of all processes that are counted.
const MOST_METHODS: usize = 8_192;

/// Spans by process and method.
#[derive(Debug, Default)]
pub struct Tally {
    /// By process, and by the address of the method's description, which is kept so that it stays its own.
    methods: FxHashMap<(u32, u64), Counted>,
}

#[derive(Debug)]
struct Counted {
    description: Arc<FunctionDescription>,
    spans: u64,
}

impl Tally {
    /// Counts a span.
    pub fn add(&mut self, process: ProcessId, description: &Arc<FunctionDescription>) {
        let key = (process.pid, Arc::as_ptr(description).addr() as u64);
        if let Some(counted) = self.methods.get_mut(&key) {
            counted.spans += 1;
        } else if self.methods.len() < MOST_METHODS {
            self.methods.insert(key, Counted { description: Arc::clone(description), spans: 1 });
        }
    }

    /// The spans by process and name.
    pub fn by_name(self) -> BTreeMap<(u32, Arc<str>), u64> {
        let mut names = BTreeMap::new();
        for ((process, _), Counted { description, spans }) in self.methods {
            *names.entry((process, Arc::clone(&description.span_name))).or_default() += spans;
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FunctionId, Language};

    fn description(name: &str) -> Arc<FunctionDescription> {
        Arc::new(FunctionDescription {
            id: FunctionId(1),
            span_name: name.into(),
            path: name.into(),
            module: "module".into(),
            library: "library".into(),
            language: Language::Python,
            attributes: Vec::new(),
            error: None,
            method: None,
            source: None,
            shared_code: None,
        })
    }

    #[test]
    fn spans_are_counted_by_process_and_name_and_nothing_grows_without_bound() {
        let process = |pid| ProcessId { pid, start_time: 1 };
        let mut tally = Tally::default();
        let (scaler, again) = (description("Scaler.transform"), description("Scaler.transform"));
        for (pid, description) in [(1, &scaler), (1, &again), (1, &scaler), (2, &scaler)] {
            tally.add(process(pid), description);
        }
        for _ in 0..MOST_METHODS {
            tally.add(process(3), &description("other"));
        }
        assert_eq!(tally.methods.len(), MOST_METHODS);
        let names = tally.by_name();
        assert_eq!((names[&(1, "Scaler.transform".into())], names[&(2, "Scaler.transform".into())]), (3, 1));
    }
}
