//! Itanium-mangled C++ symbols to path, class and method.

use std::fmt;

use cpp_demangle::{BorrowedSymbol, DemangleNodeType, DemangleOptions, DemangleWrite, ParseOptions};

use super::cpp_path;
use super::name_parts::NameParts;

/// Longest path that is kept, bytes. Demangling can multiply the length of a symbol; what is longer than this is an
/// instantiation that nobody reads by name.
const PATH_LIMIT: usize = 8 << 10;
/// Deepest nesting that is followed, in the parser and the printer of `cpp_demangle`; keeps the stack small.
const RECURSION_LIMIT: u32 = 96;

/// Symbols longer than this are read by [`cpp_path`] alone, which takes no more time than it has bytes to read.
const FULL_LIMIT: usize = 16 << 10;

/// Whether a symbol is a special name (`_ZT`: tables, type information; `_ZG`: guards, references), which stands for no
/// function. A thunk is one too: see [`behind_thunk`].
pub(super) fn is_special(symbol: &str) -> bool {
    symbol.starts_with("_ZT") || symbol.starts_with("_ZG")
}

/// The symbol of the function behind a thunk (`_ZThn16_N6Forest7predictEd`, `_ZTv0_n24_...`, `_ZTch0_h16_...`).
pub(super) fn behind_thunk(symbol: &str) -> Option<String> {
    let rest = symbol.strip_prefix("_ZT")?;
    let behind = match rest.strip_prefix('c') {
        Some(rest) => behind_offset(behind_offset(rest)?)?,
        None => behind_offset(rest)?,
    };
    Some(format!("_Z{behind}"))
}

/// What follows `h16_`, `hn16_` or `v0_n24_`.
fn behind_offset(text: &str) -> Option<&str> {
    let number = |text: &'_ str| -> Option<usize> {
        let digits = text.strip_prefix('n').unwrap_or(text);
        let end = digits.find(|character: char| !character.is_ascii_digit()).filter(|end| *end > 0)?;
        digits.get(end..)?.starts_with('_').then_some(text.len() - digits.len() + end + 1)
    };
    match text.strip_prefix('h') {
        Some(rest) => rest.get(number(rest)?..),
        None => {
            let rest = text.strip_prefix('v')?;
            let rest = rest.get(number(rest)?..)?;
            rest.get(number(rest)?..)
        }
    }
}

/// Demangles the symbol of a function, which begins with `_Z`; `None` where it cannot be understood.
pub(super) fn demangle(symbol: &str) -> Option<NameParts> {
    if symbol.len() <= FULL_LIMIT
        && let Some(path) = demangle_in_full(symbol)
    {
        return Some(path);
    }
    let mut components = cpp_path::components(symbol)?;
    let path = components.join("::");
    let method = components.pop()?;
    let class = components.last().filter(|class| !class.starts_with('(')).cloned();
    Some(NameParts { path, class_path: class.as_ref().map(|_| components.join("::")), class, method })
}

fn demangle_in_full(symbol: &str) -> Option<NameParts> {
    let parse = ParseOptions::default().recursion_limit(RECURSION_LIMIT);
    let parsed = BorrowedSymbol::new_with_options(symbol.as_bytes(), &parse).ok()?;
    let options = DemangleOptions::new().no_params().no_return_type().recursion_limit(RECURSION_LIMIT);
    let mut writer = PathWriter::default();
    parsed.structured_demangle(&mut writer, &options).ok()?;
    let path = without_qualifiers(&writer.path).to_owned();
    let components = components(without_qualifiers(&writer.plain));
    let (method, prefix) = components.split_last()?;
    let method = method.split("[abi:").next().unwrap_or(method);
    let class = prefix.last().filter(|class| !class.starts_with('('));
    Some(NameParts {
        path,
        class: class.map(|class| (*class).to_owned()),
        class_path: class.map(|_| prefix.join("::")),
        method: method.to_owned(),
    })
}

/// Whether the mangled name is that of a member function with a qualifier (`const`, `volatile`, `&`, `&&`), which only
/// a function with an object can have.
pub(super) fn has_object_qualifier(symbol: &str) -> bool {
    symbol.strip_prefix("_ZN").is_some_and(|rest| rest.starts_with(['K', 'V', 'r', 'R', 'O']))
}

fn without_qualifiers(name: &str) -> &str {
    let mut name = name.trim();
    while let Some(rest) = [" const", " volatile", " &&", " &"].iter().find_map(|suffix| name.strip_suffix(suffix)) {
        name = rest;
    }
    name
}

/// Splits at `::`, but not inside brackets, and takes an operator name as one component.
fn components(plain: &str) -> Vec<&str> {
    let bytes = plain.as_bytes();
    let mut components = Vec::new();
    let (mut start, mut index, mut depth) = (0, 0, 0_usize);
    while let Some(byte) = bytes.get(index) {
        if index == start && is_operator(&plain[start..]) {
            break;
        }
        match byte {
            b'(' | b'{' | b'[' => depth += 1,
            b')' | b'}' | b']' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && bytes.get(index + 1) == Some(&b':') => {
                components.push(&plain[start..index]);
                index += 1;
                start = index + 1;
            }
            _ => {}
        }
        index += 1;
    }
    components.push(&plain[start..]);
    components
}

fn is_operator(text: &str) -> bool {
    text.strip_prefix("operator").is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Collects the whole path, and the path without template arguments.
#[derive(Default)]
struct PathWriter {
    path: String,
    plain: String,
    nodes: Vec<bool>,
    template_depth: usize,
    swallow_bracket: bool,
}

impl DemangleWrite for PathWriter {
    fn push_demangle_node(&mut self, node: DemangleNodeType) {
        let is_arguments = node == DemangleNodeType::TemplateArgs;
        if is_arguments {
            // The opening bracket is written before the node begins, the closing one after it has ended.
            if self.template_depth == 0 && self.plain.ends_with('<') {
                self.plain.pop();
            }
            self.template_depth += 1;
        }
        self.nodes.push(is_arguments);
    }

    fn write_string(&mut self, text: &str) -> fmt::Result {
        if self.path.len() + text.len() > PATH_LIMIT {
            return Err(fmt::Error);
        }
        self.path.push_str(text);
        if self.template_depth == 0 && !text.is_empty() {
            let skip = std::mem::take(&mut self.swallow_bracket) && text.starts_with('>');
            self.plain.push_str(text.get(usize::from(skip)..).unwrap_or_default());
        }
        Ok(())
    }

    fn pop_demangle_node(&mut self) {
        if self.nodes.pop() == Some(true) {
            self.template_depth = self.template_depth.saturating_sub(1);
            self.swallow_bracket = self.template_depth == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(symbol: &str) -> (String, Option<String>, Option<String>, String) {
        let path = demangle(symbol).expect("the symbol is well-formed");
        (path.path, path.class, path.class_path, path.method)
    }

    fn method(symbol: &str) -> String {
        parts(symbol).3
    }

    #[test]
    fn a_method_is_its_class_and_its_name() {
        let (path, class, class_path, method) = parts("_ZNK2ml8Pipeline7predictERKSt6vectorIdSaIdEE");
        assert_eq!(path, "ml::Pipeline::predict");
        assert_eq!((class.as_deref(), class_path.as_deref()), (Some("Pipeline"), Some("ml::Pipeline")));
        assert_eq!(method, "predict");
    }

    #[test]
    fn template_arguments_are_kept_in_the_path_alone() {
        // ml::Scaler<std::vector<double> >::transform<ml::Dense>(int)
        let (path, class, class_path, method) = parts("_ZN2ml6ScalerISt6vectorIdSaIdEEE9transformINS_5DenseEEEvi");
        assert!(path.starts_with("ml::Scaler<std::vector<double"), "{path}");
        assert!(path.ends_with("transform<ml::Dense>"), "{path}");
        assert_eq!((class.as_deref(), class_path.as_deref()), (Some("Scaler"), Some("ml::Scaler")));
        assert_eq!(method, "transform");
    }

    #[test]
    fn free_functions_and_anonymous_namespaces_have_no_class() {
        assert_eq!(parts("_Z7predictPKd").1, None);
        // (anonymous namespace)::predict(int)
        let (path, class, class_path, method) = parts("_ZN12_GLOBAL__N_17predictEi");
        assert_eq!((path.as_str(), method.as_str()), ("(anonymous namespace)::predict", "predict"));
        assert_eq!((class, class_path), (None, None));
        // (anonymous namespace)::Model::predict()
        assert_eq!(parts("_ZN12_GLOBAL__N_15Model7predictEv").1.as_deref(), Some("Model"));
    }

    #[test]
    fn what_is_inside_predict_is_not_predict() {
        // Foo::predict(int)::{lambda(int)#1}::operator()(int) const
        assert_eq!(method("_ZZN3Foo7predictEiENKUliE_clEi"), "operator()");
        // Foo::predict(int)::Local::run()
        let (_, class, _, method) = parts("_ZZN3Foo7predictEiEN5Local3runEv");
        assert_eq!((class.as_deref(), method.as_str()), (Some("Local"), "run"));
    }

    #[test]
    fn operators_constructors_and_tags() {
        assert_eq!(method("_ZN2mllsERSoRKNS_5ModelE"), "operator<<");
        assert_eq!(method("_ZN2ml5ModelltERKS0_"), "operator<");
        assert_eq!(method("_ZN2ml5ModelclEi"), "operator()");
        assert_eq!(method("_ZNK2ml5ModelcvSt6vectorIdSaIdEEEv"), "operator std::vector");
        assert_eq!(method("_ZN2ml5ModelC1Ev"), "Model");
        assert_eq!(method("_ZN2ml5ModelD0Ev"), "~Model");
        assert_eq!(method("_ZN2ml5Model4nameB5cxx11Ev"), "name");
    }

    #[test]
    fn special_names_are_no_functions() {
        for symbol in
            ["_ZThn16_N2ml5Model7predictEv", "_ZTv0_n24_N2ml5Model7predictEv", "_ZTch0_h16_N2ml5Model7predictEv"]
        {
            assert!(is_special(symbol));
            assert_eq!(behind_thunk(symbol).as_deref(), Some("_ZN2ml5Model7predictEv"), "{symbol}");
        }
        for symbol in ["_ZTV5Model", "_ZTI5Model", "_ZGVZ7predictvE5cache", "_ZTh", "_ZTv0_N1A", "_ZThn_N1A7predictEv"]
        {
            assert!(is_special(symbol) && behind_thunk(symbol).is_none(), "{symbol}");
        }
        assert!(demangle("_Z").is_none() && demangle("_ZN").is_none());
    }

    #[test]
    fn exploding_names_are_given_up() {
        // Each template argument pair names the one before it twice: 2^n characters.
        let mut symbol = String::from("_Z1fI1A");
        for _ in 0..30 {
            symbol.insert_str(3, "I1BIS_");
        }
        let _ = demangle(&symbol);
        // What follows the name may be of any depth, the name itself may not.
        let nested = "P".repeat(100_000);
        assert_eq!(method(&format!("_Z7predict{nested}")), "predict");
        assert!(demangle(&format!("_ZN5ModelI{nested}dE7predictEv")).is_none());
    }

    #[test]
    fn names_beyond_the_demangler_keep_class_and_method() {
        let long = format!("_ZN5ModelI6SchemaIJ{}EEE7predictEd", "11Feature_col".repeat(2_000));
        for (symbol, class, method) in [
            ("_ZN6模型7predictEd", "模型", "predict"),
            ("_ZN9schätzer4Wald3fitEd", "Wald", "fit"),
            ("_ZN6Linear7predictITkSt14floating_pointdEEdT_", "Linear", "predict"),
            ("_ZN6ScalerIdE9transformEdQsr3stdE16floating_point_vIT_E", "Scaler", "transform"),
            (&long, "Model", "predict"),
        ] {
            let (_, found, _, name) = parts(symbol);
            assert_eq!((found.as_deref(), name.as_str()), (Some(class), method), "{symbol}");
        }
    }

    #[test]
    fn only_members_have_qualifiers() {
        assert!(has_object_qualifier("_ZNK2ml5Model7predictEv"));
        assert!(!has_object_qualifier("_ZN2ml5Model7predictEv"));
    }
}
