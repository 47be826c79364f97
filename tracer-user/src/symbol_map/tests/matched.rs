//! Which functions a matcher picks, and how it says they nest.

use super::*;
use crate::model::{FunctionName, Language};
use crate::symbol_map::{Match, Matcher, Verdict, built_in};

fn name(language: Language, path: &str) -> FunctionName {
    let (class_path, method) = path.rsplit_once("::").map_or((None, path), |(class, method)| (Some(class), method));
    FunctionName {
        symbol: format!("_Z{path}"),
        path: path.to_owned(),
        class: class_path.map(|class| class.rsplit("::").next().unwrap_or(class).to_owned()),
        class_path: class_path.map(str::to_owned),
        method: method.to_owned(),
        language,
    }
}

fn matcher(maps: &[SymbolMap], file: &str) -> Matcher {
    Matcher::new(maps, file).expect("rules for this file")
}

fn traced<'m>(matcher: &'m Matcher, name: &FunctionName) -> Option<Match<'m>> {
    match matcher.match_name(name)? {
        Verdict::Traced(found) => Some(found),
        Verdict::Excluded { .. } => None,
    }
}

#[test]
fn generic_maps_take_whole_method_names_in_any_case() {
    let maps = built_in();
    let matcher = matcher(&maps, "server");
    for path in ["ml::Scaler::transform", "ml::Scaler::Fit", "ml::Model::PREDICT", "Model::predict_proba", "predict"] {
        let found = traced(&matcher, &name(Language::Cpp, path)).unwrap_or_else(|| panic!("{path}"));
        assert!(found.nests && found.rule.is_none() && found.attributes().is_empty() && found.error().is_none());
        assert_eq!(found.library(), "generic");
    }
    assert_eq!(traced(&matcher, &name(Language::Rust, "a::Tree::fit")).expect("Rust").span_name, "Tree.fit");
    for path in ["ml::Model::predict_one", "ml::Model::refit", "ml::Model::fitted", "fit::Model::run"] {
        assert_eq!(matcher.match_name(&name(Language::Cpp, path)), None, "{path}");
    }
    // Functions of C have these names as they are.
    assert_eq!(traced(&matcher, &name(Language::C, "predict")).expect("C").span_name, "predict");
    for symbol in ["score", "predict@@V1", "predict.constprop.0"] {
        assert!(matcher.may_match(symbol), "{symbol}");
    }
    for symbol in ["Predict", "predict_one", "my_score"] {
        assert!(matcher.match_name(&name(Language::C, symbol)).is_none() && !matcher.may_match(symbol), "{symbol}");
    }
}

#[test]
fn the_language_runtimes_are_excluded() {
    let maps = built_in();
    let matcher = matcher(&maps, "server");
    let excluded = |language, path| match matcher.match_name(&name(language, path)) {
        Some(Verdict::Excluded { pattern, library }) => Some((library, pattern)),
        _ => None,
    };
    assert_eq!(excluded(Language::Cpp, "std::_Function_handler::fit"), Some(("generic", "std::*")));
    assert_eq!(excluded(Language::Cpp, "__gnu_cxx::x::predict"), Some(("generic", "__gnu_cxx::*")));
    assert_eq!(excluded(Language::Rust, "core::ops::FnOnce::fit"), Some(("generic", "core::*")));
    assert_eq!(excluded(Language::Rust, "alloc::boxed::Box::predict"), Some(("generic", "alloc::*")));
    assert_eq!(excluded(Language::Cpp, "mystd::Model::fit"), None);
}

#[test]
fn cython_is_asked_for_by_its_dotted_path() {
    let cython = |symbol: &str, class_path: &str, method: &str| FunctionName {
        symbol: symbol.to_owned(),
        path: format!("{class_path}.{method}"),
        class: class_path.rsplit('.').next().map(str::to_owned),
        class_path: Some(class_path.to_owned()),
        method: method.to_owned(),
        language: Language::Cython,
    };
    let predict = cython("__pyx_pw_1a_4Tree_11predict", "a.Tree", "predict");
    for rules in [
        "methods: [predict]",
        "functions: [{symbol: a.Tree.predict}]",
        "functions: [{symbol: 'a.*.predict'}]",
        "functions: [{symbol: 'a.{Tree.predict,Tree.apply}'}]",
        "functions: [{symbol: 'a.*'}]",
        "functions: [{symbol: __pyx_pw_1a_4Tree_11predict}]",
    ] {
        let maps = parsed(&document("cython", rules));
        let matcher = matcher(&maps, "a.so");
        assert!(matcher.may_match(&predict.symbol), "{rules}");
        assert_eq!(traced(&matcher, &predict).expect(rules).span_name, "Tree.predict");
        // Python tells letters of either case apart, and so does Cython.
        assert_eq!(matcher.match_name(&cython("__pyx_pw_1b_4Tree_1Predict", "b.Tree", "Predict")), None, "{rules}");
    }
    let maps = parsed(&document("cython", "methods: [predict]\nexclude: [a.Tree]\nleaf: [b.Tree]"));
    let matcher = matcher(&maps, "a.so");
    assert!(matches!(matcher.match_name(&predict), Some(Verdict::Excluded { pattern: "a.Tree", .. })));
    let leaf = cython("__pyx_pw_1b_4Tree_1predict", "b.Tree", "predict");
    assert!(!traced(&matcher, &leaf).expect("a method").nests);
    let maps = parsed(&document("cpp", "methods: [predict]"));
    assert_eq!(super::matched::matcher(&maps, "a.so").match_name(&predict), None);
}

#[test]
fn constructors_destructors_and_pieces_are_not_methods() {
    let maps = parsed(&document("cpp", "methods: [predict]\nfunctions: [{symbol: 'ml::*'}]"));
    let matcher = matcher(&maps, "x");
    assert_eq!(matcher.match_name(&name(Language::Cpp, "ml::predict::predict")), None);
    assert_eq!(matcher.match_name(&name(Language::Cpp, "ml::Model::~Model")), None);
    assert!(matcher.match_name(&name(Language::Cpp, "ml::Predict::predict")).is_some());
    let mut piece = name(Language::Cpp, "ml::Model::predict");
    piece.symbol.push_str(".cold");
    assert_eq!(matcher.match_name(&piece), None);
    let rust = parsed(&document("rust", "methods: [predict]"));
    assert!(super::matched::matcher(&rust, "x").match_name(&name(Language::Rust, "ml::predict::predict")).is_some());
}

#[test]
fn a_map_for_the_file_silences_general_methods() {
    let maps = built_in();
    let matcher = matcher(&maps, "libxgboost.so");
    assert_eq!(matcher.match_name(&name(Language::Cpp, "xgboost::Anything::Predict")), None);
    let found = traced(&matcher, &name(Language::Cpp, "xgboost::LearnerImpl::Predict")).expect("a rule");
    assert_eq!((found.span_name.as_str(), found.nests), ("LearnerImpl.Predict", true));
    assert!(super::matched::matcher(&maps, "libother.so").match_name(&name(Language::Cpp, "x::A::Predict")).is_some());
}

#[test]
fn a_general_function_rule_holds_everywhere() {
    let mut maps = built_in();
    maps.extend(parsed(&document("c", "functions: [{symbol: my_predict, span: Mine.predict}]")));
    for file in ["libxgboost.so", "libother.so"] {
        let matcher = matcher(&maps, file);
        let mut mine = name(Language::C, "my_predict");
        mine.symbol = "my_predict".into();
        assert_eq!(traced(&matcher, &mine).expect("my rule").span_name, "Mine.predict");
    }
}

#[test]
fn xgboost_is_nested_down_to_its_predictor() {
    let maps = built_in();
    let matcher = matcher(&maps, "libxgboost.so.3");
    let mut entry = name(Language::C, "XGBoosterPredictFromCSR");
    entry.symbol = "XGBoosterPredictFromCSR".into();
    let found = traced(&matcher, &entry).expect("the C interface");
    assert_eq!((found.span_name.as_str(), found.nests), ("Booster.predict", true));
    assert_eq!((found.attributes()[0].attribute.as_str(), found.attributes()[0].argument), ("ml.columns", 4));
    assert!(found.error().expect("an error rule").matches(u64::from(u32::MAX)));
    let leaf =
        traced(&matcher, &name(Language::Cpp, "xgboost::predictor::CPUPredictor::PredictBatch")).expect("a rule");
    assert!(!leaf.nests);
    let mut gradient = name(Language::Cpp, "xgboost::obj::RegLossObj::GetGradient");
    gradient.path = "xgboost::obj::RegLossObj<xgboost::obj::LogisticRegression>::GetGradient".into();
    assert_eq!(traced(&matcher, &gradient).expect("a pattern").span_name, "RegLossObj.GetGradient");
}

#[test]
fn functions_beat_methods_and_later_maps_beat_earlier_ones() {
    let first = document("cpp", "methods: [predict]\nfunctions: [{symbol: 'a::*', span: First.any}]");
    let second = document("cpp", "methods: [predict]\nexclude: [b]\n").replace("library: a", "library: b");
    let maps = [parsed(&first), parsed(&second)].concat();
    let matcher = matcher(&maps, "x");
    assert_eq!(
        traced(&matcher, &name(Language::Cpp, "a::M::predict")).expect("a function rule").span_name,
        "First.any"
    );
    assert_eq!(traced(&matcher, &name(Language::Cpp, "c::M::predict")).expect("a method").library(), "b");
    assert!(matches!(
        matcher.match_name(&name(Language::Cpp, "x::b::predict")),
        Some(Verdict::Excluded { library: "b", pattern: "b" })
    ));
    let third =
        document("cpp", "functions: [{symbol: 'a::M::predict', span: Third.one}]").replace("library: a", "library: c");
    let maps = [maps, parsed(&third)].concat();
    let matcher = super::matched::matcher(&maps, "x");
    assert_eq!(traced(&matcher, &name(Language::Cpp, "a::M::predict")).expect("later").span_name, "Third.one");
}

#[test]
fn a_module_beats_no_module_whatever_the_order() {
    let specific = document("cpp", "module: 'lib*.so'\nfunctions: [{symbol: 'a::f', span: Specific.f}]");
    let general = document("cpp", "functions: [{symbol: 'a::f', span: General.f}]");
    let maps = [parsed(&specific), parsed(&general)].concat();
    let found = matcher(&maps, "libx.so");
    assert_eq!(traced(&found, &name(Language::Cpp, "a::f")).expect("a rule").span_name, "Specific.f");
    let found = matcher(&maps, "server");
    assert_eq!(traced(&found, &name(Language::Cpp, "a::f")).expect("a rule").span_name, "General.f");
}

#[test]
fn exclusion_spares_what_is_named_outright() {
    let text = "exclude: [Noise]\nfunctions:\n  - symbol: 'ml::*::run'\n  - symbol: ml::Noise::stop\n";
    let maps = parsed(&document("cpp", text));
    let matcher = matcher(&maps, "x");
    assert!(matcher.match_name(&name(Language::Cpp, "ml::Model::run")).is_some());
    assert!(matcher.match_name(&name(Language::Cpp, "ml::Noise::run")).is_none());
    assert!(matcher.match_name(&name(Language::Cpp, "ml::Noise::stop")).is_some());
}

#[test]
fn nesting_follows_recurse_and_leaf() {
    let nests = |text: &str, path: &str| {
        let maps = parsed(&document("cpp", &format!("methods: [fit]\n{text}")));
        traced(&matcher(&maps, "x"), &name(Language::Cpp, path)).expect("a match").nests
    };
    assert!(nests("", "ml::Pipeline::fit") && nests("", "fit"));
    assert!(!nests("recurse: {}", "ml::Pipeline::fit") && !nests("recurse: {}", "fit"));
    for class in ["Pipeline", "ml.Pipeline", "'ml::Pipeline'"] {
        let only = format!("recurse:\n  {class}: {{children: [steps]}}");
        assert!(nests(&only, "ml::Pipeline::fit") && !nests(&only, "ml::Forest::fit"));
        let leaf = format!("leaf: [{class}]");
        assert!(!nests(&leaf, "ml::Pipeline::fit") && nests(&leaf, "ml::Forest::fit"));
    }
    assert!(!nests("recurse:\n  other.Pipeline: {children: [steps]}", "ml::Pipeline::fit"));
}

#[test]
fn the_class_of_a_function_rule_is_in_its_span_name() {
    let text = "leaf: [Booster]\nfunctions:\n  - {symbol: f, span: Booster.run}\n  - {symbol: g, span: Other.run}\n  - {symbol: h}\n";
    let maps = parsed(&document("c", text));
    let matcher = matcher(&maps, "x");
    let nests = |symbol: &str| traced(&matcher, &name(Language::C, symbol)).expect("a rule").nests;
    assert_eq!((nests("f"), nests("g"), nests("h")), (false, true, true));
}

#[test]
fn symbols_are_sifted_before_demangling() {
    let maps = built_in();
    let generic = matcher(&maps, "server");
    for method in ["3fit", "7predict", "9transform", "13predict_proba"] {
        assert!(generic.may_match(&format!("_ZN2ml8Pipeline{method}Ev")), "{method}");
    }
    assert!(!generic.may_match("_ZN2ml9predictor3runEv") && !generic.may_match("_ZN2ml12PredictBatchEv"));
    assert!(generic.may_match("_ZN2ml8Pipeline7PREDICTEv") && !generic.may_match("_ZN2ml8Pipeline3runEv"));
    let xgboost = matcher(&maps, "libxgboost.so");
    assert!(xgboost.may_match("_ZNK7xgboost3gbm6GBTree14InplacePredictESt10shared_ptr"));
    assert!(!xgboost.may_match("_ZN4dmlc6StreamD0Ev"));
    let update = name(Language::C, "XGBoosterUpdateOneIter");
    let found = traced(&xgboost, &FunctionName { symbol: update.path.clone(), ..update }).expect("an exact rule");
    assert_eq!((found.library(), found.span_name.as_str()), ("xgboost", "Booster.update"));
    assert!(traced(&xgboost, &name(Language::C, "XGBoosterFree")).is_none());
    let all = parsed(&document("cpp", "functions: [{symbol: 'ml::*'}]"));
    assert!(matcher(&all, "x").may_match("anything"));
}

#[test]
fn files_without_rules_have_no_matcher() {
    let maps = parsed(&document("c", "module: libx.so\nfunctions: [{symbol: f}]"));
    assert!(Matcher::new(&maps, "liby.so").is_none());
    assert!(Matcher::new(&parsed(&document("python", "methods: [fit]")), "libx.so").is_none());
    assert!(Matcher::new(&[], "libx.so").is_none());
}

#[test]
fn a_map_of_the_users_takes_the_place_of_the_generic_one() {
    let mut maps = built_in();
    let text = "schema: ml-tracer/v1\nlibrary: mine\nlanguage: cpp\nmethods: [predict]\nrecurse: {}\n";
    maps.extend(parse(text, Path::new("mine.yaml"), false).expect("a good map"));
    let matcher = matcher(&maps, "server");
    let found = name(Language::Cpp, "ml::Model::predict");
    assert_eq!(traced(&matcher, &found).expect("listed").library(), "mine");
    assert_eq!(matcher.match_name(&name(Language::Cpp, "ml::Model::fit")), None, "only the generic map has it");
    let runtime = name(Language::Cpp, "std::collate::predict");
    assert!(matches!(matcher.match_name(&runtime), Some(Verdict::Excluded { .. })), "the runtime stays excluded");
    assert!(traced(&matcher, &name(Language::Rust, "a::Tree::fit")).is_some(), "other languages are not touched");
}
