//! Tests of the room: what is accepted, what is refused and in which words, and that no input does harm.

use super::*;
use std::path::Path;

#[test]
fn try_out() {
    let texts = [
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmetods: [fit]\n",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cp\n",
        "schema: ml-tracer/v2\nlibrary: a\nlanguage: cpp\n",
        "library: a\nlanguage: cpp\nmethods: [fit]",
        "schema: ml-tracer/v1\nlibrary: 5\nlanguage: cpp\nmethods: [fit]",
        "schema: ml-tracer/v1\nlibrary: [a]\nlanguage: cpp\nmethods: [fit]",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: [cpp]\nmethods: [fit]",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: fit",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods:",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nmethods: [a]",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nrecurse: al",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nrecurse: 5",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nrecurse: [al]",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nrecurse:\n  P: {nmed: [a]}",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nrecurse:\n  P: {named: [a], children: [b]}",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nrecurse:\n  P: {named: a}",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nrecurse:\n  P: named",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nrecurse:\n  P: {named: [a]}\n  P: {named: [b]}",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit]\nrecurse: {}",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: c\nfunctions:\n  - symbol: x\n    attributes: {a: {arg: 1, type: f64}}\n",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: c\nfunctions:\n  - symbol: x\n    attributes: {a: {arg: 1.5, type: i32}}\n",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: c\nfunctions:\n  - symbol: x\n    attributes: {a: {arg: 12, type: i32}, b: {arg: -1, type: i32}}\n    error: {when: return = 0}\n",
        "schema: ml-tracer/v1\nlibrary: a\nlanguage: c\nfunctions:\n  - symbol: x\n    attributes: {a: {arg: 1, typ: i32}}\n---\nschema: ml-tracer/v1\nlibrary: a\nlanguage: c\nfunctions:\n  - symbol: x\n    symbl: y\n",
        "schema: ml-tracer/v1\nlibrary: *x\nlanguage: cpp\nmethods: [fit]",
        "schema: ml-tracer/v1\nlibrary: !!foo x\nlanguage: cpp\nmethods: [fit]",
        "schema: ml-tracer/v1\nlibrary: x\nlanguage: cpp\nmethods: [fit\nb: c",
        "schema: ml-tracer/v1\nlibrary: x\nlanguage: cpp\nmethods: [fit]\n<<: {a: b}\n",
        "- a\n- b\n",
        "hello\n",
        "# nothing\n",
        "---\n---\n",
        "",
        "a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        "schema: ml-tracer/v1\nlibrary: a\0\nlanguage: cpp\n",
        "schema: ml-tracer/v1\nlibrary: \"a\\0\"\nlanguage: cpp\nmethods: [fit]",
        "schema: ml-tracer/v1\nlibrary: yes\nlanguage: cpp\nmethods: [null]",
        "{schema: ml-tracer/v1, library: a, language: cpp, methods: [fit]}",
        "schema: &a ml-tracer/v1\nlibrary: *a\nlanguage: cpp\nmethods: [fit, *a]",
    ];
    for text in texts {
        eprintln!(
            "{text:?}\n   -> {}",
            match parse(text, Path::new("m.yaml"), false) {
                Ok(maps) => format!("OK {maps:?}"),
                Err(e) => e.to_string(),
            }
        );
    }
}
