//! What the rules say about Python classes.

use super::*;
use crate::model::Children;
use crate::symbol_map::{PythonRules, PythonVerdict, built_in};

fn rules(documents: &[&str]) -> PythonRules {
    let documents: Vec<String> = documents
        .iter()
        .enumerate()
        .map(|(index, rest)| format!("schema: ml-tracer/v1\nlibrary: l{index}\nlanguage: python\n{rest}"))
        .collect();
    PythonRules::new(&parsed(&documents.join("\n---\n")))
}

fn mro(classes: &[&str]) -> Vec<String> {
    classes.iter().map(|class| (*class).to_owned()).collect()
}

fn library<'rules>(rules: &'rules PythonRules, classes: &[&str]) -> Option<&'rules str> {
    rules.verdict(&mro(classes), false).map(|verdict| verdict.library)
}

fn verdict<'rules>(rules: &'rules PythonRules, classes: &[&str]) -> PythonVerdict<'rules> {
    rules.verdict(&mro(classes), false).unwrap_or_else(|| panic!("no map is about {classes:?}"))
}

const PIPELINE: &[&str] = &["sklearn.pipeline.Pipeline", "sklearn.base.BaseEstimator", "builtins.object"];
const COLUMNS: &[&str] = &[
    "sklearn.compose._column_transformer.ColumnTransformer",
    "sklearn.utils.metaestimators._BaseComposition",
    "sklearn.base.BaseEstimator",
    "builtins.object",
];
const TREE: &[&str] = &[
    "sklearn.tree._classes.DecisionTreeClassifier",
    "sklearn.tree._classes.BaseDecisionTree",
    "sklearn.base.BaseEstimator",
    "builtins.object",
];

#[test]
fn a_map_is_about_its_bases_and_their_subclasses() {
    let rules = rules(&["methods: [fit]\nbases: [sklearn.base.BaseEstimator, Trainer]"]);
    assert_eq!(library(&rules, PIPELINE), Some("l0"));
    assert_eq!(library(&rules, &["__main__.make.<locals>.Mine", "sklearn.base.BaseEstimator"]), Some("l0"));
    assert_eq!(library(&rules, &["a.b.Trainer", "builtins.object"]), Some("l0"), "a bare name is any module's");
    assert_eq!(library(&rules, &["a.Trainer.Inner", "builtins.object"]), None);
    assert_eq!(library(&rules, &["other.base.BaseEstimator", "builtins.object"]), None);
    assert_eq!(library(&rules, &[]), None);
    assert_eq!(verdict(&rules, PIPELINE).methods, ["fit"]);
}

#[test]
fn private_components_do_not_matter() {
    let is = |listed: &str, real: &str| {
        let rules = rules(&[&format!("methods: [fit]\nbases: ['{listed}']")]);
        rules.verdict(&mro(&[real, "builtins.object"]), false).is_some()
    };
    assert!(is("sklearn.compose.ColumnTransformer", "sklearn.compose._column_transformer.ColumnTransformer"));
    assert!(is("sklearn.compose._other.ColumnTransformer", "sklearn.compose._column_transformer.ColumnTransformer"));
    assert!(is("sklearn::pipeline::Pipeline", "sklearn.pipeline.Pipeline"));
    assert!(!is("sklearn.ColumnTransformer", "sklearn.compose._column_transformer.ColumnTransformer"));
    assert!(!is("compose.ColumnTransformer", "sklearn.compose._column_transformer.ColumnTransformer"));
    assert!(is("a._Base", "a._b._Base"), "the class itself is never left out");
    assert!(!is("a._Base", "a._b._Other"));
    assert!(is("__main__.Mine", "__main__.Mine"));
    assert!(!is("__main__.Mine", "other.Mine"));
    assert!(!is("__main__.Mine", "Mine"));
}

#[test]
fn the_more_special_map_wins_then_the_later_one() {
    let sklearn = "methods: [fit]\nbases: [sklearn.base.BaseEstimator, sklearn.base.ClassifierMixin]";
    let xgboost = "methods: [predict]\nbases: [xgboost.sklearn.XGBModel]";
    // The order of xgboost 3: a base of the general map stands before the one of the special map.
    let classifier = &[
        "xgboost.sklearn.XGBClassifier",
        "sklearn.base.ClassifierMixin",
        "xgboost.sklearn.XGBModel",
        "sklearn.base.BaseEstimator",
        "builtins.object",
    ];
    assert_eq!(library(&rules(&[sklearn, xgboost]), classifier), Some("l1"));
    assert_eq!(library(&rules(&[xgboost, sklearn]), classifier), Some("l0"));
    assert_eq!(library(&rules(&[sklearn, sklearn]), PIPELINE), Some("l1"));
    assert_eq!(verdict(&rules(&[sklearn, xgboost]), classifier).methods, ["predict"]);

    let general = "methods: [fit]";
    assert_eq!(library(&rules(&[sklearn, general]), PIPELINE), Some("l0"), "a map without bases comes last");
    assert_eq!(library(&rules(&[sklearn, general]), &["a.B", "builtins.object"]), Some("l1"));
    assert_eq!(library(&rules(&[general, general]), &["a.B", "builtins.object"]), Some("l1"));
    assert_eq!(library(&rules(&[general]), &["builtins.dict", "builtins.object"]), None);
}

#[test]
fn maps_of_other_languages_and_maps_without_methods_say_nothing() {
    let maps = parsed(&document("cpp", "methods: [fit]"));
    assert!(PythonRules::new(&maps).is_empty());
    assert!(rules(&["methods: []\nbases: [A]"]).is_empty());
    assert!(!rules(&["methods: [fit]"]).is_empty());
}

#[test]
fn the_classes_that_maps_are_about_are_told_by_their_last_components() {
    let names = |documents: &[&str]| rules(documents).base_names();
    let one = "methods: [fit]\nbases: [a.b.Model, Model, _private._Base]";
    assert_eq!(names(&[one]), (vec!["Model".to_owned(), "_Base".to_owned()], true));
    let (of_all, are_all) = names(&[one, "methods: [predict]"]);
    assert!(of_all.len() == 2 && !are_all, "the second one is about every class: {of_all:?}");
}

#[test]
fn named_containers_are_inherited_and_plain_ones_are_not() {
    let rules = rules(&["methods: [fit]\nbases: [sklearn.base.BaseEstimator]\nrecurse:\n  \
         sklearn.pipeline.Pipeline: {named: [steps]}\n  sklearn.compose.ColumnTransformer: {named: [transformers_]}\n  \
         Forest: {children: [estimators_]}\n  Bag: {few: [estimators_]}\n  my.Special: {named: [parts]}\n  Blas: {children: []}"]);
    let named = |fields: &[&str]| Some(Children::Named(fields.iter().map(|field| (*field).to_owned()).collect()));
    let plain = |fields: &[&str]| Some(Children::Plain(fields.iter().map(|field| (*field).to_owned()).collect()));
    let of = |classes: &[&str]| {
        let verdict = verdict(&rules, classes);
        assert_eq!(verdict.nests, verdict.children.is_some());
        verdict.children.cloned()
    };
    assert_eq!(of(PIPELINE), named(&["steps"]));
    assert_eq!(of(COLUMNS), named(&["transformers_"]));
    assert_eq!(of(TREE), None);
    let mut subclass = vec!["__main__.Mine"];
    subclass.extend(PIPELINE);
    assert_eq!(of(&subclass), named(&["steps"]));
    subclass.insert(1, "my.Special");
    assert_eq!(of(&subclass), named(&["parts"]), "the nearest base decides");
    assert_eq!(of(&["a.Forest", "sklearn.base.BaseEstimator"]), plain(&["estimators_"]));
    assert_eq!(of(&["a.Deep", "a.Forest", "sklearn.base.BaseEstimator"]), None);
    assert_eq!(of(&["a.Bag", "sklearn.base.BaseEstimator"]), Some(Children::Few(vec!["estimators_".into()])));
    assert_eq!(of(&["a.Deep", "a.Bag", "sklearn.base.BaseEstimator"]), None);
    assert_eq!(of(&["a.Blas", "sklearn.base.BaseEstimator"]), plain(&[]), "looked into, with no children listed");
}

#[test]
fn without_containers_everything_nests_except_in_leaves_and_their_subclasses() {
    let nesting = rules(&["methods: [fit]\nleaf: [sklearn.tree.BaseDecisionTree]"]);
    assert!(verdict(&nesting, PIPELINE).nests);
    assert_eq!(verdict(&nesting, PIPELINE).children, None);
    assert!(!verdict(&nesting, TREE).nests);
    let nothing = rules(&["methods: [fit]\nrecurse: {}"]);
    assert!(!verdict(&nothing, PIPELINE).nests);
}

#[test]
fn an_excluded_class_takes_its_subclasses_along_and_a_glob_does_not() {
    let excluded = |patterns: &str, classes: &[&str]| {
        let rules = rules(&[&format!("methods: [fit]\nexclude: [{patterns}]")]);
        rules.verdict(&mro(classes), false).expect("a verdict").excluded.map(str::to_owned)
    };
    let said = |pattern: &str| Some(pattern.to_owned());
    assert_eq!(excluded("sklearn.tree.BaseDecisionTree", TREE), said("sklearn.tree.BaseDecisionTree"));
    assert_eq!(excluded("a.B, BaseDecisionTree", TREE), said("BaseDecisionTree"));
    assert_eq!(excluded("sklearn.tree.BaseDecisionTree", PIPELINE), None);
    let mine = &["__main__.Mine", "sklearn.base.BaseEstimator", "builtins.object"];
    assert_eq!(excluded("'sklearn.*'", mine), None, "only its base is of sklearn");
    assert_eq!(excluded("sklearn.base.BaseEstimator", mine), said("sklearn.base.BaseEstimator"));
    assert_eq!(excluded("'sklearn.*'", PIPELINE), said("sklearn.*"));
    assert_eq!(excluded("'sklearn.tree.Dec*'", TREE), said("sklearn.tree.Dec*"), "the path as users write it");
    assert_eq!(excluded("'*._classes.*'", TREE), said("*._classes.*"));
    assert_eq!(excluded("'Decision*'", TREE), said("Decision*"));
}

/// The mro of classes of real packages (scikit-learn 1.9.1, xgboost-cpu 3.4.1, lightgbm 4.7.0, imbalanced-learn 0.14.2,
/// catboost 1.2.10, torch 1.13.1), without the mixins at the end.
const REAL: [(&str, bool, &str); 13] = [
    (
        "scikit-learn",
        false,
        "sklearn.preprocessing._data.StandardScaler sklearn.base.OneToOneFeatureMixin \
      sklearn.base.TransformerMixin sklearn.utils._set_output._SetOutputMixin sklearn.base.BaseEstimator",
    ),
    (
        "scikit-learn",
        true,
        "__main__.Audited sklearn.pipeline.Pipeline sklearn.utils.metaestimators._BaseComposition \
      sklearn.base.BaseEstimator",
    ),
    (
        "scikit-learn",
        true,
        "sklearn.compose._column_transformer.ColumnTransformer sklearn.base.TransformerMixin \
      sklearn.utils.metaestimators._BaseComposition sklearn.base.BaseEstimator",
    ),
    (
        "scikit-learn",
        true,
        "sklearn.ensemble._stacking.StackingClassifier sklearn.base.ClassifierMixin \
      sklearn.ensemble._stacking._BaseStacking sklearn.base.TransformerMixin \
      sklearn.ensemble._base._BaseHeterogeneousEnsemble sklearn.base.BaseEstimator",
    ),
    (
        "scikit-learn",
        true,
        "sklearn.model_selection._search_successive_halving.HalvingGridSearchCV \
      sklearn.model_selection._search_successive_halving.BaseSuccessiveHalving \
      sklearn.model_selection._search.BaseSearchCV sklearn.base.MetaEstimatorMixin sklearn.base.BaseEstimator",
    ),
    ("scikit-learn", false, "__main__.Doubler sklearn.base.TransformerMixin"),
    (
        "scikit-learn",
        false,
        "imblearn.ensemble._forest.BalancedRandomForestClassifier \
      sklearn.ensemble._forest.RandomForestClassifier sklearn.ensemble._forest.ForestClassifier \
      sklearn.base.ClassifierMixin sklearn.ensemble._forest.BaseForest sklearn.base.BaseEstimator",
    ),
    (
        "imbalanced-learn",
        true,
        "imblearn.pipeline.Pipeline sklearn.pipeline.Pipeline \
      sklearn.utils.metaestimators._BaseComposition sklearn.base.BaseEstimator",
    ),
    (
        "imbalanced-learn",
        false,
        "imblearn.over_sampling._smote.base.SMOTE imblearn.over_sampling._smote.base.BaseSMOTE \
      imblearn.over_sampling.base.BaseOverSampler imblearn.base.BaseSampler imblearn.base.SamplerMixin \
      sklearn.base.OneToOneFeatureMixin sklearn.base.BaseEstimator",
    ),
    (
        "xgboost",
        true,
        "xgboost.sklearn.XGBClassifier xgboost.sklearn.XGBClassifierMixIn sklearn.base.ClassifierMixin \
      xgboost.sklearn.XGBModel sklearn.base.BaseEstimator",
    ),
    (
        "lightgbm",
        true,
        "lightgbm.sklearn.LGBMClassifier sklearn.base.ClassifierMixin lightgbm.sklearn.LGBMModel \
      sklearn.base.BaseEstimator",
    ),
    ("catboost", true, "catboost.core.CatBoostClassifier catboost.core.CatBoost catboost.core._CatBoostBase"),
    ("torch", true, "torch.nn.modules.linear.Linear torch.nn.modules.module.Module"),
];

#[test]
fn the_built_in_maps_know_the_classes_of_real_packages() {
    let rules = PythonRules::new(&built_in());
    for (library, nests, classes) in REAL {
        let mut classes: Vec<&str> = classes.split_whitespace().collect();
        classes.push("builtins.object");
        let verdict = verdict(&rules, &classes);
        assert_eq!((verdict.library, verdict.nests, verdict.excluded), (library, nests, None), "{classes:?}");
    }
    assert_eq!(verdict(&rules, TREE).excluded, Some("sklearn.tree.BaseDecisionTree"));
    assert_eq!(library(&rules, &["fastapi.applications.FastAPI", "builtins.object"]), None);
}
