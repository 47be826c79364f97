//! Calls that were counted here and in other processes go in; what to expect of code that is not watched here comes out.

use std::collections::HashMap;

use super::call_counts::Weights;
use super::python_choice::worth_of_calls;
use crate::model::{PythonSurvey, RemoteAddress};

/// What is worth so many times as much as something else takes its place.
const MUCH_MORE: u64 = 2;

/// What calls in other processes have shown at the choices so far.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    /// Code that was chosen among, and the calls that were expected of it then.
    considered: Weights,
}

impl Elsewhere {
    /// Whether calls elsewhere show what to watch here: there is room and code was not heard of before, or it is worth much more
    /// than something that is watched, and more than when that was asked last. `recent`: calls of what is watched.
    #[must_use]
    pub fn knows_more(
        &self,
        survey: &PythonSurvey,
        has_room: bool,
        (watched, recent): (&[RemoteAddress], &Weights),
        elsewhere: &Weights,
    ) -> bool {
        let expected = expected(recent, elsewhere);
        let calls_of = |code: &RemoteAddress| recent.get(code).or_else(|| expected.get(code)).copied().unwrap_or(0);
        let worth = survey.codes.iter().map(|code| (code.address, worth_of_calls(code, calls_of(&code.address))));
        let worth: HashMap<RemoteAddress, u64> = worth.collect();
        let worth_of = |code: &RemoteAddress| worth.get(code).copied().unwrap_or(0);
        let least = watched.iter().map(worth_of).min().unwrap_or(0);
        elsewhere.keys().filter(|code| !watched.contains(code)).any(|code| {
            let before = self.considered.get(code);
            let is_worth_more = worth_of(code) > MUCH_MORE.saturating_mul(least);
            let is_news = calls_of(code) > MUCH_MORE.saturating_mul(before.copied().unwrap_or(0));
            (has_room && before.is_none()) || (is_worth_more && is_news)
        })
    }

    /// Adds what is expected of other code to the calls that were counted here, and remembers that it was told.
    pub fn add_to(&mut self, here: &mut Weights, elsewhere: &Weights) {
        let expected = expected(here, elsewhere);
        let considered = elsewhere.keys().map(|code| (*code, expected.get(code).copied().unwrap_or(0)));
        self.considered.extend(considered);
        here.extend(expected);
    }
}

/// Calls here of code that is not watched here, in proportion to the calls of what is called both here and elsewhere. Nothing
/// where nothing is.
fn expected(here: &Weights, elsewhere: &Weights) -> Weights {
    let (mut counted, mut there) = (0_u128, 0_u128);
    for (code, calls) in here.iter().filter(|(_, calls)| **calls > 0) {
        if let Some(known) = elsewhere.get(code) {
            counted += u128::from(*calls);
            there += u128::from(*known);
        }
    }
    if there == 0 {
        return Weights::new();
    }
    let unknown = elsewhere.iter().filter(|(code, _)| !here.contains_key(code));
    let scaled = |calls: &u64| u64::try_from(u128::from(*calls) * counted / there).unwrap_or(u64::MAX);
    unknown.map(|(code, calls)| (*code, scaled(calls))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CodeUser, PythonCode, Receiver};

    fn weights(calls: &[(u64, u64)]) -> Weights {
        calls.iter().map(|(code, calls)| (RemoteAddress(*code), *calls)).collect()
    }

    /// Codes 1 to 5; 5 is that of a model that no other one holds.
    fn survey() -> PythonSurvey {
        let code = |address| PythonCode {
            address: RemoteAddress(address),
            name: "code".into(),
            frame_bytes: 80,
            receiver: Receiver::Local,
            receiver_offset: 0,
            users: vec![CodeUser {
                address: RemoteAddress(address + 100),
                class: "Model".into(),
                method: "predict".into(),
                instances: 1,
                in_models: 1,
                roots: u32::from(address == 5),
            }],
            loops: None,
            first_argument: None,
            wraps: Vec::new(),
        };
        PythonSurvey { codes: (1..=5).map(code).collect(), ..PythonSurvey::default() }
    }

    #[test]
    fn calls_elsewhere_are_in_proportion_to_those_here() {
        let elsewhere = weights(&[(1, 1_000), (2, 3_000), (3, 500), (4, 8_000)]);
        let mut here = weights(&[(1, 10), (2, 30), (5, 7)]);
        Elsewhere::default().add_to(&mut here, &elsewhere);
        assert_eq!(here, weights(&[(1, 10), (2, 30), (5, 7), (3, 5), (4, 80)]));
        let mut strange = weights(&[(5, 7)]);
        Elsewhere::default().add_to(&mut strange, &elsewhere);
        assert_eq!(strange, weights(&[(5, 7)]), "nothing is called in both");
    }

    #[test]
    fn what_is_worth_much_more_is_told_once_and_again_if_it_is_called_more() {
        let mut known = Elsewhere::default();
        let watched: Vec<RemoteAddress> = (1..=4).map(RemoteAddress).collect();
        let recent = weights(&[(1, 10), (2, 10), (3, 10), (4, 10)]);
        let asked = |known: &Elsewhere, calls: u64| {
            let elsewhere = weights(&[(1, 100), (5, calls)]);
            known.knows_more(&survey(), false, (&watched, &recent), &elsewhere)
        };
        assert!(!asked(&known, 10), "its one call is worth 16, and that is less than twice 10");
        assert!(asked(&known, 20));
        known.add_to(&mut recent.clone(), &weights(&[(1, 100), (5, 20)]));
        assert!(!asked(&known, 30));
        assert!(asked(&known, 50));
    }
}
