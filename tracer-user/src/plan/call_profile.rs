//! Which code is called, by its name: what the calls in some processes say about others that run the same program.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{PythonCode, PythonSurvey, RemoteAddress};

/// Names of code that are remembered; a program has a few hundred that a map asks for.
const MOST_NAMES: usize = 4_096;

/// Calls that were counted, by the qualified name of the code: where it is in memory differs from process to process.
#[derive(Clone, Debug, Default)]
pub struct CallProfile(HashMap<Arc<str>, u64>);

impl CallProfile {
    /// Adds calls of a code object.
    pub fn add(&mut self, code: &PythonCode, calls: u64) {
        if calls > 0 && (self.0.len() < MOST_NAMES || self.0.contains_key(&code.name)) {
            let known = self.0.entry(Arc::clone(&code.name)).or_default();
            *known = known.saturating_add(calls);
        }
    }

    /// Whether no call was counted so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The calls of the code of one process, as far as others have called the same.
    pub fn of(&self, survey: &PythonSurvey) -> HashMap<RemoteAddress, u64> {
        let known = survey.codes.iter().filter_map(|code| Some((code.address, *self.0.get(&code.name)?)));
        known.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Receiver;

    fn code(address: u64, name: &str) -> PythonCode {
        PythonCode {
            address: RemoteAddress(address),
            name: name.into(),
            frame_bytes: 0,
            receiver: Receiver::Local,
            receiver_offset: 0,
            users: Vec::new(),
            loops: None,
            first_argument: None,
            wraps: Vec::new(),
        }
    }

    #[test]
    fn calls_in_one_process_are_known_in_another() {
        let mut profile = CallProfile::default();
        for calls in [3, 4] {
            profile.add(&code(1, "Pipeline.predict"), calls);
        }
        profile.add(&code(2, "Pipeline.fit"), 0);
        let survey = PythonSurvey {
            codes: vec![code(11, "Pipeline.predict"), code(12, "Pipeline.fit"), code(13, "SVC.predict")],
            ..PythonSurvey::default()
        };
        assert_eq!(profile.of(&survey), HashMap::from([(RemoteAddress(11), 7)]));
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let mut profile = CallProfile::default();
        for number in 0..10_000 {
            profile.add(&code(1, &format!("Model{number}.predict")), 1);
            profile.add(&code(1, "Model1.predict"), 1);
        }
        assert_eq!(profile.0.len(), MOST_NAMES);
        assert_eq!(profile.0["Model1.predict"], 10_001);
    }
}
