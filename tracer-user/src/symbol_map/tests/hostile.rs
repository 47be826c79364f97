//! Input that means harm: it must end soon, with an error and without a panic.

use std::time::{Duration, Instant};

use super::*;
use crate::model::{FunctionName, Language};
use crate::symbol_map::{MAX_FILE_BYTES, Matcher, Summary};

/// Far above what is needed in a debug build on a busy machine, far below a hang.
const LONGEST: Duration = Duration::from_secs(20);

const BUILT_IN_TEXTS: [&str; 3] = [
    include_str!("../../../../symbols/generic-cpp.yaml"),
    include_str!("../../../../symbols/lightgbm.yaml"),
    include_str!("../../../../symbols/xgboost.yaml"),
];

fn refused_soon(name: &str, text: &str) -> String {
    let begin = Instant::now();
    let refusal = refusal(text);
    assert!(begin.elapsed() < LONGEST, "{name} took {:?}", begin.elapsed());
    refusal
}

#[test]
fn files_without_content() {
    for text in ["", "# only\n# comments\n", "---\n---\n", "\n\n  \n", "~\n", "null\n", "\u{feff}"] {
        assert!(refused_soon("empty", text).starts_with("m.yaml: holds no symbol map"), "{text:?}");
    }
}

#[test]
fn a_nul_does_not_end_the_text() {
    let text = format!("{}\0methods: nonsense", document("cpp", "methods: [fit]\n"));
    assert_eq!(refused_soon("nul", &text), "m.yaml:5:1: character U+0000 has no place in a symbol map; remove it");
}

#[test]
fn alias_bombs_do_not_go_off() {
    let mut bomb =
        String::from("schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nexclude:\n  - &a0 x\n");
    for level in 1..=9 {
        let before = level - 1;
        bomb += &format!("  - &a{level} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}]\n");
    }
    refused_soon("laughs", &bomb);
    let wide = format!("exclude: [&x y{}]\nmethods: [fit]", ", *x".repeat(200_000));
    assert!(refused_soon("wide", &document("cpp", &wide)).contains("far beyond what a symbol map needs"));
    refused_soon("own tail", &document("cpp", "methods: &m [*m]"));
}

#[test]
fn long_runs_of_anything_end_soon() {
    // Time grows with the size; at the limit it is four times this.
    let size = MAX_FILE_BYTES as usize / 4;
    let heads = ["", "schema: ml-tracer/v1\nlibrary: ", "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: "];
    let repeated = [
        "[",
        "{",
        "{a: ",
        "[a, ",
        "- ",
        "? ",
        "a: ",
        "&a ",
        "!",
        "\"",
        "'",
        "|\n",
        "*a ",
        "---\n",
        "#",
        "x",
        "\\",
        "[]",
        ",",
        "\n",
        "- - a\n",
        "a:\n",
        "%A\n",
        "é",
        "--- a\n",
        "...\n",
        "--- {a: b}\n",
        "\"\\u0041\"",
    ];
    for head in heads {
        for piece in repeated {
            let text = format!("{head}{}", piece.repeat(size / piece.len()));
            refused_soon(&format!("{head:?} then {piece:?}"), &text);
        }
    }
    let stairs: String = (0..1400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    refused_soon("stairs", &stairs);
}

#[test]
fn a_flood_of_mistakes_is_cut_off() {
    for text in ["--- {a: b}\n".repeat(1_000), document("cpp", &format!("methods: [{}]", "a,".repeat(1_000)))] {
        let refusal = refused_soon("flood", &text);
        assert_eq!(refusal.lines().count(), 101);
        assert!(refusal.ends_with("m.yaml: there are more mistakes than these; mend them and check again"));
    }
}

#[test]
fn deep_nesting_is_refused_as_such() {
    let text = document("cpp", &format!("methods: {}{}", "[".repeat(10_000), "]".repeat(10_000)));
    refused_soon("deep", &text);
}

#[test]
fn more_than_the_limit_is_not_looked_at() {
    let text = "#".repeat(MAX_FILE_BYTES as usize + 1);
    assert!(refused_soon("big", &text).contains("is longer than 1024 KiB"));
}

#[test]
fn damaged_maps_do_no_harm() {
    let name = FunctionName {
        symbol: "_ZN7xgboost3gbm6GBTree12PredictBatchEv".into(),
        path: "xgboost::gbm::GBTree::PredictBatch".into(),
        class: Some("GBTree".into()),
        class_path: Some("xgboost::gbm::GBTree".into()),
        method: "PredictBatch".into(),
        language: Language::Cpp,
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut good, mut bad) = (0, 0);
    for round in 0..600 {
        let text = BUILT_IN_TEXTS[round % BUILT_IN_TEXTS.len()];
        let damaged = damage(text.as_bytes(), &mut random);
        let damaged = String::from_utf8_lossy(&damaged);
        match parse(&damaged, Path::new("m.yaml"), false) {
            Ok(maps) => {
                good += 1;
                for map in &maps {
                    assert!(!Summary(map).to_string().is_empty());
                }
                if let Some(matcher) = Matcher::new(&maps, "libxgboost.so") {
                    let _ = matcher.match_name(&name);
                }
            }
            Err(errors) => {
                bad += 1;
                assert!(errors.to_string().starts_with("m.yaml:"), "{errors}");
            }
        }
    }
    assert!(good > 50 && bad > 50, "both kinds are tried: {good} good, {bad} bad");
}

#[test]
fn a_list_of_any_length_is_in_force_soon() {
    let many: String = (0..90_000).map(|index| format!("m{index},")).collect();
    let name = FunctionName {
        symbol: "_ZN1A7predictEv".to_owned(),
        path: "A::predict".to_owned(),
        class: Some("A".to_owned()),
        class_path: Some("A".to_owned()),
        method: "predict".to_owned(),
        language: Language::Cpp,
    };
    for rest in [
        format!("methods: [{many}Predict]"),
        format!("methods: [predict]\nexclude: [{many}]"),
        format!("methods: [predict]\nleaf: [{many}]"),
    ] {
        let maps = parsed(&document("cpp", &rest));
        let begin = Instant::now();
        let matcher = Matcher::new(&maps, "libx.so").expect("there are rules");
        for _ in 0..10_000 {
            assert!(matcher.may_match(&name.symbol) && matcher.match_name(&name).is_some());
        }
        assert!(begin.elapsed() < LONGEST, "{:?}", begin.elapsed());
    }
}

/// Changes, doubles, moves or drops a few bytes.
fn damage(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    const SIGNIFICANT: &[u8] = b"[]{}:,-&*!|>'\"%@`#?\n\t \\\0~<=\xff\xc3a0";
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let place = random.below(bytes.len());
        let end = (place + random.below(40)).min(bytes.len());
        match random.below(5) {
            0 => bytes[place] = random.below(256) as u8,
            1 => bytes.insert(place, SIGNIFICANT[random.below(SIGNIFICANT.len())]),
            2 => drop(bytes.drain(place..end)),
            3 => {
                let piece = bytes[place..end].to_vec();
                let target = random.below(bytes.len());
                bytes.splice(target..target, piece);
            }
            _ => bytes[place] = SIGNIFICANT[random.below(SIGNIFICANT.len())],
        }
    }
    bytes
}

/// Marsaglia's xorshift64 (Journal of Statistical Software 8(14), 2003): the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}
