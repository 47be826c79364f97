//! Classes and methods that are named on the command line go in; a symbol map that says the same, and its text, come out.

use std::path::PathBuf;

use super::check::{is_class_name, is_method_name};
use super::problem::printable;
use crate::model::{Language, MODEL_METHODS, Origin, Recurse, SymbolMap};

/// Library of these maps, for `ml.library`.
pub const APPLICATION: &str = "application";

/// Classes that are asked for by an option instead of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedClasses {
    /// Their names, bare or with their modules.
    pub classes: Vec<String>,
    /// Which methods of theirs; none: those that models have.
    pub methods: Vec<String>,
    /// Every class of the application's own as well that no map is about.
    pub all: bool,
}

/// What is wrong with such a name, and the nearest right one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskedProblem {
    /// No name of a class.
    #[error("`{name}` is not the name of a class{}", meant(.near))]
    Class {
        /// What was written.
        name: String,
        /// What may be meant.
        near: Option<String>,
    },
    /// No name of a method.
    #[error("`{name}` is not the name of a method{}", meant(.near))]
    Method {
        /// What was written.
        name: String,
        /// What may be meant.
        near: Option<String>,
    },
    /// Methods of no class.
    #[error(
        "--methods is about the classes of --class and --all-classes; name one of them, e.g. `--class app.PriceModel`"
    )]
    MethodsAlone,
}

impl AskedClasses {
    /// The maps that ask for the same, for the end of all others.
    ///
    /// # Errors
    /// A name is none.
    pub fn maps(&self) -> Result<Vec<SymbolMap>, AskedProblem> {
        for name in &self.classes {
            if !is_class_name(name) {
                return Err(AskedProblem::Class { name: printable(name), near: near_class(name) });
            }
        }
        for name in &self.methods {
            if !is_method_name(name) {
                return Err(AskedProblem::Method { name: printable(name), near: near_method(name) });
            }
        }
        if self.classes.is_empty() && !self.all {
            return if self.methods.is_empty() { Ok(Vec::new()) } else { Err(AskedProblem::MethodsAlone) };
        }
        let named = (!self.classes.is_empty()).then(|| self.map(self.classes.clone(), false));
        let all = self.all.then(|| self.map(Vec::new(), true));
        // Of two that are about a class, the one that names it decides, wherever it stands.
        Ok(all.into_iter().chain(named).collect())
    }

    fn map(&self, bases: Vec<String>, of_application: bool) -> SymbolMap {
        let of_models = || MODEL_METHODS.map(str::to_owned).into();
        SymbolMap {
            library: APPLICATION.to_owned(),
            language: Language::Python,
            module: None,
            methods: if self.methods.is_empty() { of_models() } else { self.methods.clone() },
            bases,
            recurse: Recurse::All,
            leaf: Vec::new(),
            exclude: Vec::new(),
            functions: Vec::new(),
            of_application,
            origin: Origin { file: PathBuf::from("the command line"), line: 1, built_in: false },
        }
    }
}

/// The YAML of a map about classes, to be changed and kept.
#[must_use]
pub fn yaml_of_classes(classes: &[&str], methods: &[&str]) -> String {
    format!(
        "schema: ml-tracer/v1\nlibrary: {APPLICATION}\nlanguage: python\nbases: [{}]\nmethods: [{}]\n",
        classes.join(", "),
        methods.join(", ")
    )
}

/// `app.PriceModel` for `app:PriceModel`, `app/models.py:PriceModel`, `app::PriceModel` and `PriceModel()`.
fn near_class(name: &str) -> Option<String> {
    let plain = name.replace(".py:", ".").replace("::", ".").replace([':', '/'], ".");
    let plain = plain.split('(').next().unwrap_or_default().trim().trim_matches('.');
    is_class_name(plain).then(|| plain.to_owned())
}

/// `predict` for `predict()` and `PriceModel.predict`.
fn near_method(name: &str) -> Option<String> {
    let plain = name.split('(').next().unwrap_or_default().trim();
    let plain = plain.rsplit(['.', ':']).next().unwrap_or_default();
    is_method_name(plain).then(|| plain.to_owned())
}

fn meant(near: &Option<String>) -> String {
    let near = near.as_ref();
    near.map_or_else(
        || "; write it as Python does, e.g. `app.PriceModel`, `predict`".to_owned(),
        |near| format!("; did you mean `{near}`?"),
    )
}

/// The likeliest of some names for one that is not among them.
#[must_use]
pub fn nearest<'name>(name: &str, known: impl Iterator<Item = &'name str>) -> Option<&'name str> {
    const NEAR: f64 = 0.8;
    let bare = |name: &str| name.rsplit('.').next().unwrap_or_default().to_lowercase();
    let own = bare(name);
    let likeness = |known: &str| strsim::jaro_winkler(&own, &bare(known));
    let nearest = known.map(|known| (likeness(known), known)).max_by(|left, right| left.0.total_cmp(&right.0));
    nearest.filter(|(likeness, _)| *likeness >= NEAR).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::symbol_map::{PythonRules, parse};

    fn asked(classes: &[&str], methods: &[&str], all: bool) -> Result<Vec<SymbolMap>, AskedProblem> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        AskedClasses { classes: owned(classes), methods: owned(methods), all }.maps()
    }

    fn library<'rules>(rules: &'rules PythonRules, mro: &[&str], of_application: bool) -> Option<(&'rules str, usize)> {
        let mro: Vec<String> = mro.iter().map(|path| (*path).to_owned()).collect();
        rules.verdict(&mro, of_application).map(|verdict| (verdict.library, verdict.methods.len()))
    }

    const ESTIMATOR: [&str; 3] = ["app.Estimator", "sklearn.base.BaseEstimator", "builtins.object"];

    #[test]
    fn named_classes_and_what_is_derived_from_them_are_asked_for() {
        let maps = asked(&["app.PriceModel", "Ranker"], &["predict", "preprocess"], false).expect("good names");
        let rules = PythonRules::new(&maps);
        for (mro, is_asked) in [
            (["app.PriceModel", "builtins.object"], true),
            (["other.Ranker", "builtins.object"], true),
            (["app.Cheap", "app.PriceModel"], true),
            (["lib.PriceModel", "builtins.object"], false),
        ] {
            assert_eq!(library(&rules, &mro, false), is_asked.then_some((APPLICATION, 2)), "{mro:?}");
        }
        // Whoever names a class wants it, whatever a map says of its bases.
        let mut maps = crate::symbol_map::built_in();
        maps.extend(asked(&["app.Estimator"], &[], false).expect("good names"));
        assert_eq!(library(&PythonRules::new(&maps), &ESTIMATOR, true), Some((APPLICATION, MODEL_METHODS.len())));
    }

    #[test]
    fn all_classes_are_those_of_the_application_that_no_map_is_about() {
        let mut maps = crate::symbol_map::built_in();
        maps.extend(asked(&["app.PriceModel"], &[], true).expect("nothing to be wrong"));
        let rules = PythonRules::new(&maps);
        let plain = ["app.Handler", "builtins.object"];
        assert_eq!(library(&rules, &plain, true), Some((APPLICATION, MODEL_METHODS.len())));
        assert_eq!(library(&rules, &plain, false), None, "a class of what is installed");
        assert_eq!(library(&rules, &ESTIMATOR, true).map(|(library, _)| library), Some("scikit-learn"));
    }

    #[test]
    fn mistakes_are_told_with_the_nearest_right_word() {
        let class = |name: &str| asked(&[name], &[], false).expect_err("no name").to_string();
        for (wrong, right) in [
            ("app:PriceModel", "app.PriceModel"),
            ("app/models.py:PriceModel", "app.models.PriceModel"),
            ("app::PriceModel", "app.PriceModel"),
            ("PriceModel()", "PriceModel"),
        ] {
            assert!(class(wrong).ends_with(&format!("did you mean `{right}`?")), "{}", class(wrong));
        }
        assert!(class("*").contains("write it as Python does"));
        let method = asked(&["A"], &["A.predict()"], false).expect_err("no name").to_string();
        assert_eq!(method, "`A.predict()` is not the name of a method; did you mean `predict`?");
        assert_eq!(asked(&[], &["predict"], false), Err(AskedProblem::MethodsAlone));
        assert_eq!(asked(&[], &[], false), Ok(Vec::new()));
        let known = ["__main__.PriceModel", "app.Ranker"];
        assert_eq!(nearest("app.PriceModl", known.into_iter()), Some(known[0]));
        assert_eq!(nearest("app.Zebra", known.into_iter()), None);
    }

    #[test]
    fn the_text_of_a_map_is_one() {
        let text = yaml_of_classes(&["app.PriceModel", "app.make.<locals>.Ranker"], &["predict", "__call__"]);
        let maps = parse(&text, Path::new("mine.yaml"), false).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(maps.first().map(|map| map.bases.len()), Some(2));
    }
}
