//! A symbol as the file has it to the names of the function behind it.

use super::name_parts::NameParts;
use super::suffix::{self, Body};
use super::{cpp_name, cython_name, rust_name};
use crate::model::{FunctionName, Language};

/// What a symbol tells of the code behind it.
#[derive(Debug)]
pub(super) enum Reading {
    /// A function that a caller could mean, and what of it the symbol stands for.
    Function(FunctionName, Body),
    /// The code behind a pointer to another class of the object: it corrects the pointer and goes on to the function of this name, or
    /// is a copy of it that does so first.
    Thunk {
        /// The function, but with the symbol of the thunk.
        name: FunctionName,
        /// Symbol of the function.
        behind: String,
    },
    /// Nothing of that kind: split-off code, outlined loop bodies, static initialisers, tables.
    Other,
    /// A mangled name that cannot be understood.
    NotUnderstood,
}

/// Reads a symbol.
pub(super) fn read(symbol: &str) -> Reading {
    let (base, body) = suffix::split(symbol);
    if matches!(body, Body::Cold | Body::Helper | Body::CoroutinePart) || base.starts_with("_GLOBAL__") {
        return Reading::Other;
    }
    if cpp_name::is_special(base) {
        let Some(behind) = cpp_name::behind_thunk(base) else { return Reading::Other };
        return match named(symbol, &behind) {
            Some(name) => Reading::Thunk { name, behind },
            None => Reading::NotUnderstood,
        };
    }
    match named(symbol, base) {
        Some(name) => Reading::Function(name, body),
        None => Reading::NotUnderstood,
    }
}

fn named(symbol: &str, base: &str) -> Option<FunctionName> {
    let (language, path) = if rust_name::is_rust(base) {
        (Language::Rust, rust_name::demangle(base)?)
    } else if base.starts_with("_Z") {
        (Language::Cpp, cpp_name::demangle(base)?)
    } else if is_mangled_otherwise(base) {
        return None;
    } else {
        let name = base.to_owned();
        (Language::C, NameParts { path: name.clone(), class: None, class_path: None, method: name })
    };
    // Cython writes C or C++; what it writes has the names of the Python side in one long identifier.
    let cython = (language != Language::Rust && path.class.is_none()).then(|| cython_name::demangle(&path.method));
    let (language, path) = cython.flatten().map_or((language, path), |path| (Language::Cython, path));
    let NameParts { path, class, class_path, method } = path;
    Some(FunctionName { symbol: symbol.to_owned(), path, class, class_path, method, language })
}

/// Names by compilers of D (`_D5model`) and Swift (`$s5model`), whose identifiers have their lengths before them as well.
fn is_mangled_otherwise(symbol: &str) -> bool {
    ["_D", "$s", "$S", "_$s", "_$S", "_T0"].iter().any(|prefix| {
        symbol.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|character: char| character.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function_name(symbol: &str) -> Option<(FunctionName, Body)> {
        match read(symbol) {
            Reading::Function(name, body) => Some((name, body)),
            _ => None,
        }
    }

    #[test]
    fn a_thunk_has_the_name_of_the_function_behind_it() {
        let symbol = "_ZTv0_n24_N7Diamond7predictEd.localalias";
        let Reading::Thunk { name, behind } = read(symbol) else { panic!("a thunk") };
        assert_eq!((name.symbol.as_str(), name.path.as_str()), (symbol, "Diamond::predict"));
        assert_eq!(behind, "_ZN7Diamond7predictEd");
    }

    #[test]
    fn what_cannot_be_understood_is_not_taken_for_nothing() {
        for symbol in ["_ZN5Model7predict", "_RNvNtB9_7predict", "_D5model5Model7predictMFdZd", "$s5model7predictyySdF"]
        {
            assert!(matches!(read(symbol), Reading::NotUnderstood), "{symbol}");
        }
    }

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
