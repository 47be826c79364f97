//! Programs that copy their own code to other memory and run it there.
//!
//! A copy that is made while probes are live holds their breakpoints, and no probe belongs to these: the next call ends
//! the program with SIGTRAP. Whoever does that to have its code on huge pages leaves functions with well-known names in the file.

use aho_corasick::AhoCorasick;

/// Parts of the names of functions that move the code of the file that they are in.
const SIGNS: [&str; 5] = [
    // BOLT's `-hugify` (`__bolt_hugify_self`), HHVM (`hugifyText`) and others.
    "hugify",
    // ClickHouse (`remap_executable`).
    "remapExecutable",
    // Node.js (`--use-largepages`) and Intel's iodlr: `MapStaticCodeToLargePages`, `MapDSOToLargePages`.
    "ToLargePages",
    // Chromium: `InitHugepagesAndMlockSelf`, `ReloadElfTextInHugePages`.
    "HugepagesAndMlock",
    "ElfTextInHugePages",
];

/// Looks for the signs.
pub(super) struct Signs(Option<AhoCorasick>);

impl Signs {
    pub fn new() -> Self {
        // Built from constants: it is there.
        Self(AhoCorasick::new(SIGNS).ok())
    }

    /// Whether a symbol is one of the signs.
    pub fn are_in(&self, symbol: &str) -> bool {
        self.0.as_ref().is_some_and(|signs| signs.is_match(symbol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_names_are_signs() {
        let signs = Signs::new();
        for symbol in ["__bolt_hugify_self", "_ZN2DB15remapExecutableEv", "_ZN4node25MapStaticCodeToLargePagesEv"] {
            assert!(signs.are_in(symbol), "{symbol}");
        }
        // BOLT's marks of hot code say only that it could be moved.
        assert!(!signs.are_in("__hot_start") && !signs.are_in("_ZN5Model7predictEd"));
    }
}
