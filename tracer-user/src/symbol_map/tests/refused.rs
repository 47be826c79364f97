//! What is wrong with a bad map, word by word.

use super::*;

fn check(text: &str, expected: &str) {
    assert_eq!(refusal(text), expected, "\n{text}");
}

/// A mistake below the line `methods: [fit]`, which is line 4.
fn check_cpp(rest: &str, expected: &str) {
    check(&document("cpp", &format!("methods: [fit]\n{rest}")), expected);
}

/// A mistake in the entry of `functions` that begins on line 5.
fn check_function(rest: &str, expected: &str) {
    check(&document("c", &format!("functions:\n  - symbol: f\n{rest}")), expected);
}

#[test]
fn unknown_keys_and_words_get_the_nearest_right_one() {
    check(&document("cpp", "metods: [fit]\n"), "m.yaml:4:1: unknown key `metods`; did you mean `methods`?");
    check(&document("cp", ""), "m.yaml:3:11: unknown value `cp`; did you mean `cpp`?");
    check(&document("Rust", ""), "m.yaml:3:11: unknown value `Rust`; did you mean `rust`?");
    check(&document("fortran", ""), "m.yaml:3:11: unknown value `fortran`; known here: python, cpp, rust, c, cython");
    check_cpp("recurse: al", "m.yaml:5:10: unknown value `al`; did you mean `all`?");
    check_cpp("recurse:\n  P: {nmed: [a]}", "m.yaml:6:7: unknown value `nmed`; did you mean `named`?");
    check_function("    spann: a", "m.yaml:6:5: unknown key `spann`; did you mean `span`?");
    check_function("    error: {wen: return}", "m.yaml:6:13: unknown key `wen`; did you mean `when`?");
    check_function("    attributes: {a: {arg: 1, typ: i32}}", "m.yaml:6:30: unknown key `typ`; did you mean `type`?");
    check_function(
        "    attributes: {a: {arg: 1, type: int}}",
        "m.yaml:6:36: unknown value `int`; known here: i32, u32, i64, u64, bool",
    );
    check_cpp("<<: {a: b}", "m.yaml:5:1: unknown key `<<`; remove it");
}

#[test]
fn what_must_be_there() {
    check(
        "library: a\nlanguage: cpp\nmethods: [fit]\n",
        "m.yaml:3:1: key `schema` is missing; add it to this document or mapping",
    );
    assert!(refusal("schema: ml-tracer/v1\nlanguage: cpp\nmethods: [fit]\n").contains("key `library` is missing"));
    assert!(refusal("schema: ml-tracer/v1\nlibrary: a\nmethods: [fit]\n").contains("key `language` is missing"));
    assert!(refusal(&document("c", "functions: [{span: a}]")).contains("key `symbol` is missing"));
    check(
        "schema: ml-tracer/v2\nlibrary: a\nlanguage: cpp\nmethods: [fit]\n",
        "m.yaml:1:9: unknown value `ml-tracer/v2`; did you mean `ml-tracer/v1`?",
    );
    check(&document("c", ""), "m.yaml:1:1: there is nothing to trace; language c needs `functions`");
    check(&document("cpp", ""), "m.yaml:1:1: there is nothing to trace; language cpp needs `methods` or `functions`");
    check(
        &document("python", "functions: []"),
        "m.yaml:1:1: there is nothing to trace; language python needs `methods`",
    );
    check(
        &document("c", "methods: [fit]\nfunctions: []"),
        "m.yaml:4:10: C functions have no methods; list their symbols under `functions`",
    );
}

#[test]
fn keys_of_other_languages() {
    check_cpp(
        "bases: [A]",
        "m.yaml:5:8: key `bases` is not for language cpp; its classes are told by `module`, `methods` and `exclude`",
    );
    check(
        &document("c", "functions: []\nbases: [A]"),
        "m.yaml:5:8: key `bases` is not for language c; its functions are told by `module` and `functions`",
    );
    check(
        &document("python", "methods: [fit]\nmodule: a.so\nfunctions: []"),
        "m.yaml:5:9: key `module` is not for language python; name the classes under `bases`\n\
         m.yaml:6:12: key `functions` is not for language python; list `methods`, and the classes that have them under `bases`",
    );
}

#[test]
fn bases_are_names_of_classes() {
    let check_python =
        |rest: &str, expected: &str| check(&document("python", &format!("methods: [fit]\n{rest}")), expected);
    check_python("baes: [A]", "m.yaml:5:1: unknown key `baes`; did you mean `bases`?");
    check_python("base: [A]", "m.yaml:5:1: unknown key `base`; did you mean `bases`?");
    check_python(
        "bases: []",
        "m.yaml:5:8: `bases` names no class; name one, or leave the key out for every class that has one of the methods",
    );
    check_python("bases:", "m.yaml:5:6: wrong type of value: expected a list (`[]` for an empty one), found nothing");
    check_python("bases: A", "m.yaml:5:8: wrong type of value: expected a list");
    check_python("bases: ['']", "m.yaml:5:9: base class is empty; write a name");
    check_python("bases: [a.B, 'a::B']", "m.yaml:5:14: base class `a::B` is listed already on line 5; keep one");
    for bad in ["sklearn.*", "a..B", "a b", ".A", "a/B"] {
        let expected = format!(
            "m.yaml:5:9: base class `{bad}` is not the name of one class; write it bare or dotted, without wildcards, as \
             in `sklearn.base.BaseEstimator`"
        );
        check_python(&format!("bases: ['{bad}']"), &expected);
    }
}

#[test]
fn wrong_types() {
    check(&document("cpp", "methods: fit"), "m.yaml:4:10: wrong type of value: expected a list");
    check(
        &document("cpp", "methods:"),
        "m.yaml:4:8: wrong type of value: expected a list (`[]` for an empty one), found nothing",
    );
    check(&document("cpp", "methods: [[fit]]"), "m.yaml:4:11: wrong type of value: expected a text");
    check(&document("cpp", "methods: [1]"), "m.yaml:4:11: `1` must be a text here; put it in quotes");
    check(&document("cpp", "methods: [true]"), "m.yaml:4:11: `true` must be a text here; put it in quotes");
    check(&document("cpp", "methods: [null]"), "m.yaml:4:11: wrong type of value: expected a text, found nothing");
    check(&document("[cpp]", ""), "m.yaml:3:11: wrong type of value: expected one word or a mapping");
    check_cpp(
        "recurse: 5",
        "m.yaml:5:1: wrong type of value: expected `all` or a mapping of classes, found integer `5`",
    );
    check_cpp(
        "recurse:",
        "m.yaml:5:8: wrong type of value: expected `all` or a mapping of classes (`{}` for none), found nothing",
    );
    check_cpp("recurse:\n  P: {named: a}", "m.yaml:6:14: wrong type of value: expected a list");
    check_cpp(
        "recurse:\n  P: {named: [a], children: [b]}",
        "m.yaml:6:19: wrong type of value: expected only one of `named`, `children` and `few`",
    );
    check_function(
        "    attributes: {a: {arg: 1.5, type: i32}}",
        "m.yaml:6:27: wrong type of value: expected an integer",
    );
    check("- a\n", "m.yaml:1:1: wrong type of value: expected a mapping");
    check("hello\n", "m.yaml:1:1: wrong type of value: expected a mapping");
}

#[test]
fn nothing_is_said_twice() {
    check_cpp("methods: [a]", "m.yaml:5:1: key `methods` stands twice; keep one");
    check_cpp("recurse:\n  P: {named: [a]}\n  P: {named: [b]}", "m.yaml:7:3: key `P` stands twice; keep one");
    check_cpp(
        "recurse:\n  a.P: {named: [a]}\n  a::P: {named: [b]}",
        "m.yaml:7:3: container `a::P` is listed already on line 6; keep one",
    );
    check(
        &document("rust", "methods:\n  - fit\n  - predict\n  - FIT"),
        "m.yaml:7:5: method `FIT` is listed already on line 5; keep one",
    );
    check(
        &document("python", "methods: [fit, Fit, fit]"),
        "m.yaml:4:21: method `fit` is listed already on line 4; keep one",
    );
    check_function("  - symbol: f", "m.yaml:6:13: function `f` is listed already on line 5; keep one");
    check_cpp("leaf: [A, A]", "m.yaml:5:11: leaf class `A` is listed already on line 5; keep one");
    check_cpp("exclude: ['a*', 'a*']", "m.yaml:5:17: exclude pattern `a*` is listed already on line 5; keep one");
    let twice = format!("{}\n---\n{}", document("cpp", "methods: [a]"), document("cpp", "methods: [b]"));
    check(
        &twice,
        "m.yaml:6:1: the document on line 1 is about the same library, language and module; put the rules into one document",
    );
}

#[test]
fn classes_are_looked_into_or_not() {
    check_cpp(
        "leaf: ['ml::P']\nrecurse:\n  ml.P: {named: [a]}",
        "m.yaml:7:3: class `ml.P` is under `recurse` and under `leaf`; keep it in one of them",
    );
}

#[test]
fn patterns_are_checked() {
    assert!(refusal(&document("c", "functions: [{symbol: 'a[b'}]")).starts_with("m.yaml:4:22: bad glob `a[b`: "));
    assert!(refusal(&document("cpp", "methods: [a]\nexclude: ['{a']")).starts_with("m.yaml:5:11: bad glob `{a`: "));
    assert!(refusal(&document("c", "module: 'x[]'\nfunctions: []")).starts_with("m.yaml:4:9: bad glob `x[]`: "));
    check(
        &document("c", "module: lib/x.so\nfunctions: []"),
        "m.yaml:4:9: module `lib/x.so` has a `/`; write the name of the file without directories",
    );
    let long = format!("functions: [{{symbol: '*{}'}}]", "a".repeat(600));
    assert!(refusal(&document("c", &long)).contains("it is longer than 512 bytes"));
    let many: String = (0..600).map(|number| format!("  - symbol: '*{number}'\n")).collect();
    assert!(refusal(&document("c", &format!("functions:\n{many}"))).contains("600 patterns with wildcards"));
}

#[test]
fn names_are_checked() {
    check(
        &document("cpp", "methods: ['a::fit']"),
        "m.yaml:4:11: method `a::fit` is not one plain name; write the last part of the path, or use `functions` for a path",
    );
    check(&document("cpp", "methods: ['']"), "m.yaml:4:11: method is empty; write a name");
    check_function("    span: a..b", "m.yaml:6:11: span `a..b` has an empty part; write `Class.method`");
    check(
        "schema: ml-tracer/v1\nlibrary: \"a\\e[31m\"\nlanguage: cpp\nmethods: [fit]",
        "m.yaml:2:10: character U+001B has no place in a symbol map; remove it",
    );
}

#[test]
fn arguments_and_conditions_are_checked() {
    check_function(
        "    attributes: {a: {arg: 12, type: i32}, b: {arg: -1, type: i32}}",
        "m.yaml:6:27: argument 12 is out of reach; integer and pointer arguments are counted from 0 to 11\n\
         m.yaml:6:52: argument -1 is out of reach; integer and pointer arguments are counted from 0 to 11",
    );
    for float in ["f32", "f64", "float", "Double"] {
        check_function(
            &format!("    attributes: {{a: {{arg: 1, type: {float}}}}}"),
            &format!(
                "m.yaml:6:36: type `{float}` is not available: only integer registers are read; use i32, u32, i64, u64 or bool"
            ),
        );
    }
    let five: String = (0..5).map(|number| format!("      a{number}: {{arg: {number}, type: i32}}\n")).collect();
    check_function(
        &format!("    attributes:\n{five}"),
        "m.yaml:11:7: 5 attributes are more than the 4 that one call can carry; remove some",
    );
    let wrong =
        ["return = 0", "return != x", "return != 1.5", "returned != 0", "return !=", "retrn < 0", "return < +1", "x"];
    for condition in wrong {
        check_function(
            &format!("    error: {{when: {condition}}}"),
            &format!(
                "m.yaml:6:19: `{condition}` is not a condition; write `return`, one of == != < <= > >=, and an integer, as in `return != 0`"
            ),
        );
    }
    assert!(
        refusal(&document("c", "functions: [{symbol: f, error: {when: return > 99999999999999999999}}]"))
            .contains("is not a condition")
    );
}

#[test]
fn mistakes_are_reported_together() {
    let text = format!(
        "{}\n---\n{}\n---\n{}",
        document("cpp", "metods: [a]"),
        document("c", "functions:\n  - symbol: '['\n    span: ''"),
        document("rust", "methods: [a, A]"),
    );
    let refusal = refusal(&text);
    let places: Vec<&str> = refusal.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["m.yaml:4:1", "m.yaml:10:13", "m.yaml:11:11", "m.yaml:16:14"]);
}

#[test]
fn errors_are_values_too() {
    let MapErrors(errors) = parse("", Path::new("m.yaml"), false).expect_err("empty");
    assert_eq!((errors.len(), errors[0].position), (1, None));
}
