//! The symbols of functions that Cython makes for Python to call: to module, class and method.

use super::name_parts::NameParts;

/// Reads `__pyx_pw_7sklearn_4tree_5_tree_4Tree_11predict`: each scope with its length before it, then the function with a
/// counter before it, which changes whenever the source does. `None` for every other name, also for those of the C
/// functions behind (`__pyx_pf_`, `__pyx_f_`).
///
/// A function is told from a scope by what follows: a name as long as its counter says, with `_` and a digit behind it,
/// would be taken for a scope. That needs a `dot_3d` which is the second function of its module.
pub(super) fn demangle(symbol: &str) -> Option<NameParts> {
    let mut rest = match symbol.strip_prefix("__pyx_fuse_") {
        // A copy for one combination of types, `__pyx_fuse_0_1__pyx_pw_`.
        Some(copy) => copy
            .trim_start_matches(|character: char| character.is_ascii_digit() || character == '_')
            .strip_prefix("pyx_pw_")?,
        None => symbol.strip_prefix("__pyx_pw_")?,
    };
    let mut scopes = Vec::new();
    let method = loop {
        let (number, text) = counted(rest)?;
        match scope(text, number) {
            Some((scope, behind)) => {
                scopes.push(scope);
                rest = behind;
            }
            None => break text,
        }
    };
    let class = (*scopes.last()?).to_owned();
    let class_path = scopes.join(".");
    Some(NameParts {
        path: format!("{class_path}.{method}"),
        class: Some(class),
        class_path: Some(class_path),
        method: method.to_owned(),
    })
}

/// `4Tree_11predict` as 4 and `Tree_11predict`.
fn counted(text: &str) -> Option<(usize, &str)> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, text) = text.split_at(digits);
    Some((number.parse().ok()?, text))
}

/// `Tree_11predict` as `Tree` and `11predict`, where so many characters are a name.
fn scope(text: &str, length: usize) -> Option<(&str, &str)> {
    let (name, behind) = text.split_at_checked(length)?;
    let behind = behind.strip_prefix('_')?;
    behind.starts_with(|character: char| character.is_ascii_digit()).then_some((name, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(symbol: &str) -> Option<(String, String, String)> {
        let path = demangle(symbol)?;
        Some((path.path, path.class?, path.method))
    }

    fn found(path: &str, class: &str, method: &str) -> Option<(String, String, String)> {
        Some((path.to_owned(), class.to_owned(), method.to_owned()))
    }

    #[test]
    fn the_counter_is_no_part_of_the_name() {
        let expected = found("sklearn.tree._tree.Tree.predict", "Tree", "predict");
        for counter in ["1", "11", "131"] {
            assert_eq!(parts(&format!("__pyx_pw_7sklearn_4tree_5_tree_4Tree_{counter}predict")), expected);
        }
    }

    #[test]
    fn functions_of_a_module_have_the_module_before_them() {
        let symbol = "__pyx_pw_7sklearn_4tree_5_tree_15ccp_pruning_path";
        assert_eq!(parts(symbol), found("sklearn.tree._tree.ccp_pruning_path", "_tree", "ccp_pruning_path"));
        // A counter that could be a length, and a name with digits.
        assert_eq!(parts("__pyx_pw_3mod_3fit_transform"), found("mod.fit_transform", "mod", "fit_transform"));
        assert_eq!(parts("__pyx_pw_3mod_1linear_2d"), found("mod.linear_2d", "mod", "linear_2d"));
    }

    #[test]
    fn copies_for_types_have_one_name() {
        let symbol = "__pyx_fuse_0_1__pyx_pw_7sklearn_5utils_4_seq_7Dataset_3next";
        assert_eq!(parts(symbol), found("sklearn.utils._seq.Dataset.next", "Dataset", "next"));
    }

    #[test]
    fn other_names_are_left_alone() {
        let others = [
            "__pyx_f_7sklearn_4tree_5_tree_4Tree_predict",
            "__pyx_pf_7sklearn_4tree_5_tree_4Tree_10predict",
            "__pyx_fuse_0__pyx_f_5numpy_check",
            "__pyx_pw___pyx_array_1__reduce_cython__",
            "__pyx_pw_15View_dot_MemoryView_1__pyx_unpickle_Enum",
            "__pyx_pw_",
            "__pyx_pw_7",
            "__pyx_pw_99999999999999999999999predict",
            "__pyx_pw_1\u{e9}_1f",
            "predict",
        ];
        for symbol in others {
            assert_eq!(parts(symbol), None, "{symbol}");
        }
    }
}
