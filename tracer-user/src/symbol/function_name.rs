//! A symbol as the file has it to the names of the function behind it.

use super::suffix::{self, Body};
use super::{cpp_name, cython_name, rust_name};
use crate::model::{FunctionName, Language};

/// A demangled name in its parts; see `FunctionName` for their meaning.
pub(super) struct Path {
    pub path: String,
    pub class: Option<String>,
    pub class_path: Option<String>,
    pub method: String,
}

/// Names of a function by its symbol, and whether the symbol stands for all of it. `None` for symbols that are no
/// function a caller could mean: thunks, tables, split-off cold code, outlined loop bodies, static initialisers.
pub(super) fn function_name(symbol: &str) -> Option<(FunctionName, Body)> {
    let (base, body) = suffix::split(symbol);
    if matches!(body, Body::Cold | Body::Helper) || base.starts_with("_GLOBAL__") {
        return None;
    }
    let (language, path) = if rust_name::is_rust(base) {
        (Language::Rust, rust_name::demangle(base)?)
    } else if base.starts_with("_Z") {
        (Language::Cpp, cpp_name::demangle(base)?)
    } else {
        let name = base.to_owned();
        (Language::C, Path { path: name.clone(), class: None, class_path: None, method: name })
    };
    // Cython writes C or C++; what it writes has the names of the Python side in one long identifier.
    let cython = (language != Language::Rust && path.class.is_none()).then(|| cython_name::demangle(&path.method));
    let (language, path) = cython.flatten().map_or((language, path), |path| (Language::Cython, path));
    let Path { path, class, class_path, method } = path;
    Some((FunctionName { symbol: symbol.to_owned(), path, class, class_path, method, language }, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_carry_the_base_name_and_their_own_symbol() {
        let (name, body) = function_name("_ZN2ml5Model7predictEv.isra.0").expect("a function");
        assert_eq!((name.path.as_str(), body), ("ml::Model::predict", Body::Whole));
        assert_eq!(name.symbol, "_ZN2ml5Model7predictEv.isra.0");
        let (name, _) = function_name("XGBoosterPredict").expect("a function");
        assert_eq!((name.language, name.method.as_str(), name.class), (Language::C, "XGBoosterPredict", None));
        assert_eq!(function_name("_ZN2ml5Model7predictEv.part.0").expect("a function").1, Body::Part);
    }

    #[test]
    fn cython_is_known_behind_c_and_behind_cpp() {
        let symbols = [
            "__pyx_pw_7sklearn_4tree_5_tree_4Tree_11predict",
            "_ZL46__pyx_pw_7sklearn_4tree_5_tree_4Tree_11predictP7_objectPKS0_lS0_",
        ];
        for symbol in symbols {
            let (name, body) = function_name(symbol).expect("a function");
            assert_eq!((name.language, body, name.symbol.as_str()), (Language::Cython, Body::Whole, symbol));
            assert_eq!(
                (name.path.as_str(), name.span_name()),
                ("sklearn.tree._tree.Tree.predict", "Tree.predict".into())
            );
        }
        let (name, _) = function_name("__pyx_f_7sklearn_4tree_5_tree_4Tree_predict").expect("a function");
        assert_eq!((name.language, name.class), (Language::C, None));
    }

    #[test]
    fn pieces_of_functions_are_no_functions() {
        for symbol in [
            "__pyx_pw_3mod_1evaluate_2d.cold",
            "_ZN2ml5Model7predictEv.cold",
            "predict._omp_fn.0",
            "_GLOBAL__sub_I_predict.cc",
        ] {
            assert!(function_name(symbol).is_none(), "{symbol}");
        }
    }
}
