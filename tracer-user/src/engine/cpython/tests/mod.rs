//! The reader against what Python says of itself: in running interpreters, in recorded ones, and in damaged ones.

mod damaged;
mod frames;
mod live;
mod recorded;
mod routes;
mod survey;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{BuiltinTypes, Interpreter, ReadProblem, SlotKind};
use crate::memory::Memory;
use crate::model::{Receiver, RemoteAddress};

/// What `objects.py` prints.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Document {
    version: (u8, u8, u8),
    expected: Vec<Fact>,
    modules: BTreeMap<String, u64>,
    types: BTreeMap<String, u64>,
    threads: Vec<u64>,
    native_threads: Vec<u64>,
}

/// One object, and what is to be found there.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Fact {
    address: u64,
    #[serde(flatten)]
    says: Says,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Says {
    Text { value: serde_json::Value },
    TooLarge {},
    Tuple { items: Vec<u64> },
    List { items: Vec<u64> },
    Dict { entries: Vec<(u64, u64)> },
    Attributes { attributes: BTreeMap<String, u64> },
    Class { name: String, qualified_name: String, module: String, mro: Vec<u64> },
    Function { code: u64, name: String, qualified_name: String, module: String, globals: u64, closure: u64 },
    Code(Box<CodeFact>),
    Method { function: u64, receiver: u64 },
    Cell { content: u64 },
    Held { callable: u64 },
    NotFunction {},
}

#[derive(Clone, Debug, Deserialize)]
struct CodeFact {
    name: String,
    qualified_name: Option<String>,
    file: String,
    line: u32,
    flags: u32,
    argument_count: u32,
    keyword_only_count: u32,
    locals: Vec<String>,
    cells: Vec<String>,
    free: Vec<String>,
    stack_size: u32,
    receiver: String,
}

/// JSON has no lone surrogates: the one of the script reads as what Rust's strings have in its place.
pub(super) fn document(line: &str) -> Document {
    let line = line.replace("\\udc80", "\\ufffd");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {}", &line[..line.len().min(300)]))
}

/// Compares everything.
pub(super) fn check<M: Memory>(interpreter: &Interpreter<M>, document: &Document) {
    assert_eq!(interpreter.version(), document.version);
    for fact in &document.expected {
        check_fact(interpreter, fact);
    }
    let modules: BTreeMap<String, u64> =
        interpreter.modules().expect("modules").into_iter().map(|(name, dict)| (name, dict.0)).collect();
    assert_eq!(modules, document.modules);
    check_types(interpreter.types(), &document.types);
    let threads = interpreter.threads().expect("threads");
    let mut identifiers: Vec<u64> = threads.iter().map(|thread| thread.identifier).collect();
    identifiers.reverse();
    assert_eq!(identifiers, document.threads, "the latest thread is first");
    let native: Vec<u64> = threads.iter().rev().filter_map(|thread| thread.native_identifier).collect();
    assert!(native == document.native_threads || (native.is_empty() && document.version < (3, 11, 0)), "{native:?}");
    check_kernel_layout(interpreter, document);
}

fn check_fact<M: Memory>(interpreter: &Interpreter<M>, fact: &Fact) {
    let object = RemoteAddress(fact.address);
    let context = || format!("{:?} {fact:?}", interpreter.version());
    let addresses = |found: Result<Vec<RemoteAddress>, ReadProblem>| -> Vec<u64> {
        found.unwrap_or_else(|problem| panic!("{problem}: {}", context())).into_iter().map(|item| item.0).collect()
    };
    match &fact.says {
        Says::Text { value } => {
            let found = interpreter.text(object).unwrap_or_else(|problem| panic!("{problem}: {}", context()));
            assert_eq!(Some(found.as_str()), value.as_str());
            assert_eq!(interpreter.text_is(object, &found), Ok(found.is_ascii()), "{found:?}");
            assert_eq!(interpreter.text_is(object, "no such text"), Ok(false));
        }
        Says::TooLarge {} => {
            assert!(matches!(interpreter.text(object), Err(ReadProblem::TooLarge { .. })), "{}", context());
        }
        Says::Tuple { items } => assert_eq!(&addresses(interpreter.tuple_items(object)), items, "{}", context()),
        Says::List { items } => assert_eq!(&addresses(interpreter.list_items(object)), items, "{}", context()),
        Says::Dict { entries } => {
            let found = interpreter.dict_entries(object).unwrap_or_else(|problem| panic!("{problem}: {}", context()));
            let found: Vec<(u64, u64)> = found.into_iter().map(|(key, value)| (key.0, value.0)).collect();
            assert_eq!(&found, entries);
        }
        Says::Attributes { attributes } => {
            let found = interpreter.instance_attributes(object);
            let found = found.unwrap_or_else(|problem| panic!("{problem}: {}", context()));
            let found: BTreeMap<String, u64> = found.into_iter().map(|(name, value)| (name, value.0)).collect();
            assert_eq!(&found, attributes, "{}", context());
            for (name, value) in attributes.iter().filter(|(name, _)| name.is_ascii()).take(3) {
                assert_eq!(interpreter.instance_attribute(object, name), Ok(Some(RemoteAddress(*value))));
            }
            assert_eq!(interpreter.instance_attribute(object, "no_such_name"), Ok(None));
        }
        Says::Class { name, qualified_name, module, mro } => {
            let found = interpreter.class(object).unwrap_or_else(|problem| panic!("{problem}: {}", context()));
            assert_eq!((&found.name, &found.qualified_name, &found.module), (name, qualified_name, module));
            assert_eq!(&addresses(Ok(found.mro)), mro);
            assert_eq!(interpreter.is_class(object), Ok(true));
        }
        Says::Function { code, name, qualified_name, module, globals, closure } => {
            let found = interpreter.function(object).unwrap_or_else(|problem| panic!("{problem}: {}", context()));
            assert_eq!((&found.name, &found.qualified_name, &found.module), (name, qualified_name, module));
            let closure_found = found.closure.map_or(0, |closure| closure.0);
            assert_eq!((found.code.0, found.globals.0, closure_found), (*code, *globals, *closure));
        }
        Says::Code(fact) => check_code(interpreter, object, fact),
        Says::Method { function, receiver } => {
            let found = interpreter.method(object).unwrap_or_else(|problem| panic!("{problem}: {}", context()));
            assert_eq!((found.function.0, found.receiver.0), (*function, *receiver));
        }
        Says::Cell { content } => assert_eq!(interpreter.cell(object), Ok(Some(RemoteAddress(*content)))),
        Says::Held { callable } => {
            let expected = (*callable != 0).then_some(RemoteAddress(*callable));
            assert_eq!(interpreter.held_callable(object), Ok(expected), "{}", context());
        }
        Says::NotFunction {} => {
            assert!(matches!(interpreter.function(object), Err(ReadProblem::WrongType { .. })), "{}", context());
            assert!(matches!(interpreter.method(object), Err(ReadProblem::WrongType { .. })));
            assert!(matches!(interpreter.code(object), Err(ReadProblem::WrongType { .. })));
        }
    }
}

fn check_code<M: Memory>(interpreter: &Interpreter<M>, object: RemoteAddress, fact: &CodeFact) {
    let found = interpreter.code(object).unwrap_or_else(|problem| panic!("{problem}: {fact:?}"));
    assert_eq!((&found.name, &found.qualified_name, &found.file), (&fact.name, &fact.qualified_name, &fact.file));
    assert_eq!((found.first_line, found.flags), (fact.line, fact.flags));
    assert_eq!(
        (found.argument_count, found.keyword_only_count, found.is_resumed()),
        (fact.argument_count, fact.keyword_only_count, fact.flags & 0x2a0 != 0)
    );
    let named = |kind| -> Vec<&str> {
        let of_kind = found.variables.iter().filter(|variable| variable.kind == kind);
        of_kind.map(|variable| variable.name.as_str()).collect()
    };
    assert_eq!(named(SlotKind::Free), fact.free);
    let mut cells = named(SlotKind::Cell);
    let mut expected: Vec<&str> = fact.cells.iter().map(String::as_str).collect();
    cells.sort_unstable();
    expected.sort_unstable();
    assert_eq!(cells, expected);
    let names: Vec<&str> = found.variables.iter().map(|variable| variable.name.as_str()).collect();
    assert!(names.starts_with(&fact.locals.iter().map(String::as_str).collect::<Vec<_>>()));
    let receiver = match fact.receiver.as_str() {
        "local" => Receiver::Local,
        "cell" => Receiver::Cell,
        "first_of_tuple" => Receiver::FirstOfTuple,
        _ => Receiver::None,
    };
    assert_eq!(found.receiver, receiver, "{fact:?}");
    let slot =
        found.variables.get((found.receiver_offset / 8) as usize).map(|variable| (&variable.name, variable.kind));
    let first = fact.locals.get(fact.keyword_only_count as usize * usize::from(fact.argument_count == 0));
    match receiver {
        Receiver::None => {}
        Receiver::Cell => assert_eq!(slot, first.map(|name| (name, SlotKind::Cell)), "{fact:?}"),
        Receiver::Local | Receiver::FirstOfTuple => {
            assert_eq!(slot, first.map(|name| (name, SlotKind::Local)), "{fact:?}")
        }
    }
    if interpreter.version() < (3, 11, 0) {
        assert_eq!(found.frame_bytes, 0);
    } else {
        let words = names.len() + fact.stack_size as usize;
        let specials = found.frame_bytes as usize / 8 - words;
        assert_eq!(specials, if interpreter.version() < (3, 14, 0) { 9 } else { 10 }, "sizeof(_PyInterpreterFrame)");
    }
}

fn check_types(types: &BuiltinTypes, expected: &BTreeMap<String, u64>) {
    let found = [
        ("class", Some(types.class)),
        ("object", Some(types.object)),
        ("module", Some(types.module)),
        ("text", Some(types.text)),
        ("bytes", Some(types.bytes)),
        ("integer", Some(types.integer)),
        ("tuple", Some(types.tuple)),
        ("list", Some(types.list)),
        ("dict", Some(types.dict)),
        ("set", Some(types.set)),
        ("frozen_set", Some(types.frozen_set)),
        ("property", Some(types.property)),
        ("static_method", Some(types.static_method)),
        ("class_method", Some(types.class_method)),
        ("function", Some(types.function)),
        ("code", Some(types.code)),
        ("method", types.method),
        ("cell", types.cell),
        ("partial", types.partial),
    ];
    let found: BTreeMap<String, u64> =
        found.into_iter().map(|(name, address)| (name.to_owned(), address.map_or(0, |address| address.0))).collect();
    assert_eq!(&found, expected);
}

/// The main thread waits for input and was the last to run Python code.
fn check_kernel_layout<M: Memory>(interpreter: &Interpreter<M>, document: &Document) {
    let layout = interpreter.kernel_layout().expect("a layout");
    let mut word = [0; 8];
    interpreter.memory().read(RemoteAddress(layout.current_thread), &mut word).expect("it is mapped");
    let current = RemoteAddress(u64::from_le_bytes(word));
    let main = interpreter.threads().expect("threads").last().map(|thread| thread.address);
    // While the main thread waits in a system call no thread runs: to 3.11 the word is then NULL.
    assert!(Some(current) == main || (current.0 == 0 && document.version < (3, 12, 0)), "{current} is not {main:?}");
    assert_eq!(layout.tuple_type, document.types["tuple"]);
    assert_eq!(layout.exits_are_prompt == 1, document.version >= (3, 12, 0));
    assert_eq!(layout.exception_is_type == 1, document.version < (3, 12, 0));
}
