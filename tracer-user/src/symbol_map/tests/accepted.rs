//! What a good map means.

use super::*;
use crate::model::{ArgumentType, Children, Comparison, Language, Recurse};
use crate::symbol_map::{Summary, built_in};

/// The example of the user's page, so that the page cannot go stale.
const PAGE: &str = include_str!("../../../../docs/symbol-maps.md");

fn page_examples() -> impl Iterator<Item = &'static str> {
    PAGE.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

#[test]
fn every_example_of_the_page_is_a_good_map() {
    assert!(page_examples().count() >= 3);
    for example in page_examples() {
        assert!(!parsed(example).is_empty());
    }
}

#[test]
fn the_errors_on_the_page_are_the_real_ones() {
    let shown = PAGE.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the errors");
    let map = "schema: ml-tracer/v1\nlibrary: my-models\nlanguage: cpp\nmetods: [predict]\n---\n\
               schema: ml-tracer/v1\nlibrary: my-models\nlanguage: c\nfunctions:\n  - symbol: my_predict\n    \
               attributes:\n      ml.rows: {arg: 12, type: i32}\n    error: {when: return =! 0}\n";
    let errors = parse(map, Path::new("symbols.yaml"), false).expect_err("mistakes");
    assert_eq!(shown.trim_end(), errors.to_string());
}

#[test]
fn every_key_reaches_the_model() {
    let maps = parsed(
        "schema: ml-tracer/v1\nlibrary: l\nlanguage: cpp\nmodule: 'lib*.so'\nmethods: [fit, Predict]\n\
         recurse:\n  ml::Pipeline: {named: [steps, more]}\n  Forest: {children: [trees]}\n  Bag: {few: [parts.model]}\n\
         leaf: [ml.Tree]\nexclude: ['std::*']\nfunctions:\n  - symbol: ml_run\n    span: Model.run\n    \
         attributes:\n      ml.rows: {arg: 3, type: i32}\n      ml.big: {arg: 11, type: bool}\n    \
         error: {when: return <= -1, type: i64}\n  - symbol: ml::Model::*\n",
    );
    let [map] = maps.as_slice() else { panic!("one map") };
    assert_eq!((map.library.as_str(), map.language, map.module.as_deref()), ("l", Language::Cpp, Some("lib*.so")));
    assert_eq!(map.methods, ["fit", "Predict"]);
    let Recurse::Only(containers) = &map.recurse else { panic!("containers") };
    assert_eq!(containers[0].children, Children::Named(vec!["steps".into(), "more".into()]));
    assert_eq!(
        (containers[1].class.as_str(), &containers[1].children),
        ("Forest", &Children::Plain(vec!["trees".into()]))
    );
    assert_eq!(containers[2].children, Children::Few(vec!["parts.model".into()]));
    assert_eq!((map.leaf.as_slice(), map.exclude.as_slice()), (&["ml.Tree".into()][..], &["std::*".into()][..]));
    let [run, rest] = map.functions.as_slice() else { panic!("two functions") };
    assert_eq!((run.symbol.as_str(), run.span.as_deref(), run.line), ("ml_run", Some("Model.run"), 13));
    assert_eq!((run.attributes[0].attribute.as_str(), run.attributes[0].argument), ("ml.rows", 3));
    assert_eq!((run.attributes[1].argument, run.attributes[1].kind), (11, ArgumentType::Bool));
    let error = run.error.expect("an error rule");
    assert_eq!((error.comparison, error.value, error.kind), (Comparison::LessOrEqual, -1, ArgumentType::I64));
    assert_eq!((rest.span.as_deref(), rest.attributes.len(), rest.error, rest.line), (None, 0, None, 19));
    assert_eq!((map.origin.line, map.origin.built_in), (1, false));
}

#[test]
fn recurse_has_three_forms() {
    let recurse = |text: &str| parsed(&document("cpp", &format!("methods: [fit]\n{text}"))).remove(0).recurse;
    assert_eq!(recurse(""), Recurse::All);
    assert_eq!(recurse("recurse: all\n"), Recurse::All);
    assert_eq!(recurse("recurse: {}\n"), Recurse::Only(vec![]));
}

#[test]
fn conditions_have_all_comparisons_and_an_int_by_default() {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let signs =
        [("==", Equal), ("!=", NotEqual), ("<", Less), ("<=", LessOrEqual), (">", Greater), (">=", GreaterOrEqual)];
    for (sign, comparison) in signs {
        for text in [format!("return {sign} -7"), format!("return{sign}-7"), format!("'  return  {sign}  -7 '")] {
            let map = parsed(&document("c", &format!("functions: [{{symbol: f, error: {{when: {text}}}}}]"))).remove(0);
            let rule = map.functions[0].error.expect("a rule");
            assert_eq!((rule.comparison, rule.value, rule.kind), (comparison, -7, ArgumentType::I32), "{text}");
            assert_eq!(comparison.to_string(), sign);
        }
    }
}

#[test]
fn python_maps_are_read() {
    let map =
        parsed(&document("python", "methods: [fit, Fit]\nrecurse:\n  sklearn.pipeline.Pipeline: {named: [steps]}"));
    assert_eq!(map[0].language, Language::Python);
    assert!(map[0].bases.is_empty());
    let map = parsed(&document("python", "methods: [fit]\nbases: [a.b.C, '__main__.f.<locals>.D', 'e::F', Größe]"));
    assert_eq!(map[0].bases, ["a.b.C", "__main__.f.<locals>.D", "e::F", "Größe"]);
}

#[test]
fn a_container_may_list_no_children() {
    let map = parsed(&document("python", "methods: [fit]\nrecurse:\n  A: {children: []}\n  B: {named: []}")).remove(0);
    let Recurse::Only(containers) = &map.recurse else { panic!("containers") };
    assert_eq!(containers[0].children, Children::Plain(vec![]));
    assert_eq!(containers[1].children, Children::Named(vec![]));
}

#[test]
fn empty_lists_switch_a_map_off() {
    assert!(parsed(&document("c", "functions: []"))[0].functions.is_empty());
    assert!(parsed(&document("cpp", "methods: []"))[0].methods.is_empty());
}

#[test]
fn documents_know_their_lines() {
    let text = format!("# first\n{}\n---\n{}", document("cpp", "methods: [fit]"), document("rust", "methods: [fit]"));
    let lines: Vec<u64> = parsed(&text).iter().map(|map| map.origin.line).collect();
    assert_eq!(lines, [2, 7]);
}

#[test]
fn built_in_maps_are_good_and_say_so() {
    let maps = built_in();
    let libraries: Vec<&str> = maps.iter().map(|map| map.library.as_str()).collect();
    let native = [
        "generic",
        "generic",
        "generic",
        "xgboost",
        "xgboost",
        "lightgbm",
        "lightgbm",
        "opencv-ml",
        "llama.cpp",
        "llama.cpp",
    ];
    let python = [
        "scikit-learn",
        "imbalanced-learn",
        "xgboost",
        "lightgbm",
        "catboost",
        "torch",
        "statsmodels",
        "onnxruntime",
        "prophet",
        "keras",
        "spacy",
        "spacy",
        "tokenizers",
        "transformers",
        "sentence-transformers",
        "llama-cpp-python",
        "vllm",
    ];
    assert_eq!(libraries, [&native[..], &python[..]].concat());
    assert!(maps.iter().all(|map| map.origin.built_in && map.origin.file.starts_with("symbols")));
}

#[test]
fn a_summary_names_every_rule() {
    let text = document(
        "c",
        "module: libx.so\nfunctions: [{symbol: f, span: A.b, attributes: {ml.rows: {arg: 2, type: i32}}, error: {when: return < 0}}]",
    );
    let expected = "a (C, in libx.so)\n  recurse: everything nests\n  function: f as A.b, ml.rows = argument 2, error when return < 0";
    assert_eq!(Summary(&parsed(&text)[0]).to_string(), expected);
}

#[test]
fn a_summary_says_which_classes_a_python_map_is_about() {
    let summary = |text: &str| Summary(&parsed(&document("python", text))[0]).to_string();
    assert_eq!(
        summary("methods: [fit]"),
        "a (Python, in every class that has one of the methods)\n  methods: fit\n  recurse: everything nests"
    );
    assert_eq!(
        summary("methods: [fit]\nbases: [a.B, C]\nrecurse:\n  D: {children: []}\n  E: {named: [f, g]}"),
        "a (Python, in these classes and their subclasses)\n  bases: a.B, C\n  methods: fit\n  \
         recurse: D (children none)\n  recurse: E (named f, g)"
    );
}
