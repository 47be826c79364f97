//! Which instructions of CPython's bytecode begin and end calls, by version: `symbols/cpython/opcodes.yaml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::model::InterpreterStyle;

/// Name in the source tree and text.
const DATA: &str = include_str!("../../../symbols/cpython/opcodes.yaml");

static VERSIONS: LazyLock<BTreeMap<String, VersionOpcodes>> = LazyLock::new(|| {
    let data: Data = serde_saphyr::from_str(DATA).expect("a unit test reads symbols/cpython/opcodes.yaml");
    data.versions
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    versions: BTreeMap<String, VersionOpcodes>,
}

/// What is known of the bytecode of one minor version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionOpcodes {
    style: Style,
    /// Numbers without an instruction, as (first, last).
    unassigned: Vec<(u8, u8)>,
    /// Instructions that a call runs first once its frame is set up.
    #[serde(default)]
    pub entries: BTreeMap<String, u8>,
    /// Instructions by which a call returns.
    pub returns: BTreeMap<String, u8>,
    /// Which argument of `_PyEval_EvalFrameDefault` is the frame.
    pub frame_argument: Option<usize>,
    /// Offset in the frame of the pointer to the instruction.
    pub frame_instruction: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Style {
    WholeFrames,
    Opcodes,
}

impl VersionOpcodes {
    /// What is known of a version, given as major and minor.
    pub fn of((major, minor): (u8, u8)) -> Option<&'static Self> {
        VERSIONS.get(&format!("{major}.{minor}"))
    }

    /// How calls are run.
    pub fn style(&self) -> InterpreterStyle {
        match self.style {
            Style::WholeFrames => InterpreterStyle::WholeFrames,
            Style::Opcodes => InterpreterStyle::Opcodes,
        }
    }

    /// Numbers without an instruction.
    pub fn unassigned(&self) -> impl Iterator<Item = u8> {
        self.unassigned.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Numbers with an instruction that stand next to one without.
    pub fn borders(&self) -> impl Iterator<Item = u8> {
        let borders = self.unassigned.iter().flat_map(|(first, last)| [first.checked_sub(1), last.checked_add(1)]);
        borders.flatten()
    }

    /// Numbers of the instructions that matter.
    pub fn wanted(&self) -> impl Iterator<Item = u8> {
        self.entries.values().chain(self.returns.values()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_whole() {
        let versions: Vec<(u8, u8)> = (8..=15).map(|minor| (3, minor)).collect();
        assert_eq!(VERSIONS.len(), versions.len());
        for version in versions {
            let opcodes = VersionOpcodes::of(version).expect("a version that is supported");
            assert!(opcodes.returns.contains_key("RETURN_VALUE"), "{version:?}");
            assert!(opcodes.unassigned().count() >= 20, "{version:?}: few numbers tell little about a table");
            assert!(opcodes.wanted().all(|wanted| opcodes.unassigned().all(|number| number != wanted)), "{version:?}");
            assert!(opcodes.borders().all(|border| opcodes.unassigned().all(|number| number != border)), "{version:?}");
            match opcodes.style() {
                InterpreterStyle::WholeFrames => {
                    assert!(opcodes.entries.is_empty() && opcodes.frame_argument.is_some())
                }
                InterpreterStyle::Opcodes => {
                    assert!(opcodes.entries.contains_key("RESUME") && opcodes.frame_instruction.is_some());
                }
            }
        }
        assert!(VersionOpcodes::of((3, 7)).is_none());
    }
}
