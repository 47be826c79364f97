//! The YAML of a symbol map as it is written: what serde reads, and what the editors' JSON Schema is made from.

use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;
use tracer_common::limits::MAX_ARGUMENTS;

use crate::model::{ArgumentType, Language};

/// Text with the place where it stands.
pub(super) type Text = Spanned<String>;

/// A list with the place where it stands; `None` if nothing follows its key.
pub(super) type List<T> = Spanned<Option<Vec<T>>>;

/// Which functions of one library become spans of an ml-tracer trace. A file holds one or more documents, separated by
/// `---`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "ml-tracer symbol map")]
pub(super) struct Document {
    /// Version of the format.
    #[serde(rename = "schema")]
    pub _schema: SchemaVersion,
    /// Name of the library, as its users write it.
    #[schemars(with = "String", length(min = 1))]
    pub library: Text,
    /// Kind of code that the rules are about.
    #[schemars(with = "Language")]
    pub language: Spanned<Language>,
    /// Glob on the name of the mapped file, without directories, e.g. `libxgboost.so*`. Without it the rules are about
    /// every file that no other map names.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "String", length(min = 1))]
    pub module: Option<Text>,
    /// Names of methods that become spans. For C++ and Rust the case of letters does not matter.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<String>")]
    pub methods: Option<List<Text>>,
    /// Python only: classes that the rules are about, bare or dotted; their subclasses are meant too. Without it the rules
    /// are about every class that has one of the methods.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub bases: Option<List<Text>>,
    /// `all`: every matching call inside a span becomes a span (the default). Classes: only inside these.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "RecurseSchema")]
    pub recurse: Option<Spanned<Recursion>>,
    /// Classes whose inside is folded into their own span.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<String>")]
    pub leaf: Option<List<Text>>,
    /// Globs on classes and demangled paths that never become spans. For Python: on the dotted path of the class; a name
    /// without wildcards stands for its subclasses too.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<String>")]
    pub exclude: Option<List<Text>>,
    /// Single functions with a span name, attributes and an error rule of their own.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<Function>")]
    pub functions: Option<List<Spanned<Function>>>,
}

/// Version of the format.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) enum SchemaVersion {
    /// The first version.
    #[serde(rename = "ml-tracer/v1")]
    First,
}

/// Where a container keeps its children: names of its fields. `field.attribute` is an attribute of what the field holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ContainerFields {
    /// Fields with lists of (name, child) or dictionaries of children by name: each child span gets its name as `ml.step`.
    /// A field may also be one child, which is named after the field.
    #[schemars(with = "Vec<String>")]
    Named(List<Text>),
    /// Fields with plain lists of children, or with one child; `[]` for a class that is looked into and lists none.
    #[schemars(with = "Vec<String>")]
    Children(List<Text>),
    /// The same, of a class that is looked into only where its objects have 16 children at most: a call of one with more of them
    /// stays one span.
    #[schemars(with = "Vec<String>")]
    Few(List<Text>),
}

/// One function with a span of its own making.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Function {
    /// Symbol as the file has it, or a glob on the demangled path without parameters, e.g. `ml::Pipeline::predict`.
    #[schemars(with = "String", length(min = 1))]
    pub symbol: Text,
    /// Span name, `Class.method`. Without it the name is taken from the symbol.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "String", length(min = 1))]
    pub span: Option<Text>,
    /// Integer arguments that become span attributes, at most 4.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "std::collections::BTreeMap<String, Argument>", extend("maxProperties" = MAX_ARGUMENTS))]
    pub attributes: Option<Spanned<Option<Entries<Argument>>>>,
    /// Returned values that mean an error.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Failure")]
    pub error: Option<Failure>,
}

/// One argument of a function.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Argument {
    /// Position among the integer and pointer arguments, from 0. A method's object is argument 0.
    #[schemars(with = "u32", range(max = 11))]
    pub arg: Spanned<i64>,
    /// How its bits are read.
    #[serde(rename = "type")]
    pub kind: ArgumentType,
}

/// When a returned value means an error.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    /// `return`, a comparison, an integer: `return != 0`.
    #[schemars(with = "String", regex(pattern = r"^\s*return\s*(==|!=|<|<=|>|>=)\s*-?[0-9]+\s*$"))]
    pub when: Text,
    /// How the returned value is read; `i32`, a C `int`, unless told otherwise.
    #[serde(default, rename = "type", deserialize_with = "present")]
    #[schemars(with = "ArgumentType")]
    pub kind: Option<ArgumentType>,
}

/// A YAML mapping in the order of the file.
#[derive(Debug)]
pub(super) struct Entries<V>(pub Vec<(Text, V)>);

/// What stands under `recurse`.
#[derive(Debug)]
pub(super) enum Recursion {
    /// One word, which should be `all`.
    Word(String),
    /// Nothing follows the key.
    Nothing,
    /// A mapping of classes.
    Only(Entries<ContainerFields>),
}

/// The shape of [`Recursion`], for the JSON Schema only.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "describes the schema; values are read by `Recursion`")]
enum RecurseSchema {
    /// Everything nests.
    All(AllWord),
    /// Only inside these classes.
    Only(std::collections::BTreeMap<String, ContainerFields>),
}

/// The word `all`.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes the schema; values are read by `Recursion`")]
enum AllWord {
    /// The word.
    All,
}

/// Reads a key that is there: an empty value is then an error of its type, not the same as no key.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl<V> Entries<V> {
    fn collect<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error>
    where
        V: Deserialize<'de>,
    {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Self(entries))
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<V> {
            type Value = Entries<V>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Entries::collect(map)
            }
        }

        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Recursion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RecursionVisitor;

        impl<'de> Visitor<'de> for RecursionVisitor {
            type Value = Recursion;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`all` or a mapping of classes")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
                Ok(Recursion::Word(word.to_owned()))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Recursion::Nothing)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Entries::collect(map).map(Recursion::Only)
            }
        }

        deserializer.deserialize_any(RecursionVisitor)
    }
}
