//! Rust symbols, legacy and v0, to path, class and method.

use std::fmt::{self, Write};

use super::name_parts::NameParts;

/// Longest demangled name that is kept, bytes.
const NAME_LIMIT: usize = 16 << 10;
/// Bytes of the hash component at the end of a legacy name: `17h`, 16 hexadecimal digits, `E`.
const LEGACY_HASH: usize = 20;

/// Whether a symbol was mangled by rustc.
pub(super) fn is_rust(symbol: &str) -> bool {
    symbol.starts_with("_R") || is_legacy(symbol)
}

fn is_legacy(symbol: &str) -> bool {
    let Some(hash) = symbol.len().checked_sub(LEGACY_HASH).and_then(|start| symbol.get(start..)) else { return false };
    symbol.starts_with("_ZN")
        && hash
            .strip_prefix("17h")
            .and_then(|hash| hash.strip_suffix('E'))
            .is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit)))
}

/// Demangles a symbol for which [`is_rust`] holds; `None` where it is malformed or too long.
pub(super) fn demangle(symbol: &str) -> Option<NameParts> {
    let demangled = rustc_demangle::try_demangle(symbol).ok()?;
    let mut name = Limited(String::new());
    write!(name, "{demangled:#}").ok()?;
    let name = name.0;
    let components = split(&name, "::");
    // `predict::<f64>` is `predict`: generic arguments in value position are a component of their own.
    let named: Vec<&str> = components
        .iter()
        .enumerate()
        .filter(|(index, component)| *index == 0 || !component.starts_with('<') || component.starts_with("<impl "))
        .map(|(_, component)| *component)
        .collect();
    let (method, prefix) = named.split_last()?;
    let class_path = prefix.last().and_then(|last| class_path(last, prefix));
    let class = class_path.as_ref().and_then(|path| path.rsplit("::").next()).map(str::to_owned);
    Some(NameParts { method: without_generics(method), class, class_path, path: name })
}

/// NameParts of the type that a method belongs to, or of its trait where the type is a type parameter.
fn class_path(last: &str, prefix: &[&str]) -> Option<String> {
    if let Some(inside) = last.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
        let (of_type, of_trait) = match inside.strip_prefix("impl ") {
            Some(rest) => match split(rest, " for ").as_slice() {
                [of_trait, of_type] => (*of_type, Some(*of_trait)),
                _ => (rest, None),
            },
            None => match split(inside, " as ").as_slice() {
                [of_type, of_trait] => (*of_type, Some(*of_trait)),
                _ => (inside, None),
            },
        };
        return type_path(of_type).or_else(|| of_trait.and_then(type_path));
    }
    // Modules are written in lower case, types in upper case; the compiler warns of anything else. Where a script knows no
    // case, it may be either, as in C++.
    let class = without_generics(last);
    let may_be_class = |first: char| first.is_uppercase() || (first.is_alphabetic() && !first.is_lowercase());
    if !class.starts_with(may_be_class) {
        return None;
    }
    let modules: Vec<String> = prefix.iter().map(|component| without_generics(component)).collect();
    Some(modules.join("::"))
}

/// NameParts of a concrete type. A name without a path is a type parameter or a primitive type.
fn type_path(text: &str) -> Option<String> {
    let mut text = text.trim();
    while let Some(rest) = ["&", "mut ", "*const ", "*mut ", "dyn "].iter().find_map(|prefix| text.strip_prefix(prefix))
    {
        text = rest.trim_start();
    }
    let path = without_generics(text);
    let is_path = path.contains("::") && !path.contains(['(', '[', ' ', '&', '{']);
    is_path.then_some(path)
}

/// Splits at a separator outside all brackets.
fn split<'text>(text: &'text str, separator: &str) -> Vec<&'text str> {
    let mut pieces = Vec::new();
    let (mut start, mut depth, mut previous) = (0, 0_usize, ' ');
    let mut skip_to = 0;
    for (index, character) in text.char_indices() {
        if index < skip_to {
            continue;
        }
        if depth == 0 && text[index..].starts_with(separator) {
            pieces.push(&text[start..index]);
            start = index + separator.len();
            skip_to = start;
        } else {
            depth = depth_after(depth, previous, character);
        }
        previous = character;
    }
    pieces.push(&text[start..]);
    pieces
}

fn depth_after(depth: usize, previous: char, character: char) -> usize {
    match character {
        '<' | '(' | '[' | '{' => depth + 1,
        '>' if previous == '-' => depth,
        '>' | ')' | ']' | '}' => depth.saturating_sub(1),
        _ => depth,
    }
}

fn without_generics(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let (mut depth, mut previous) = (0_usize, ' ');
    for character in text.chars() {
        match character {
            '<' => depth += 1,
            '>' if previous != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
        previous = character;
    }
    plain.trim_end_matches("::").to_owned()
}

struct Limited(String);

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > NAME_LIMIT {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(symbol: &str) -> (String, Option<String>, Option<String>, String) {
        assert!(is_rust(symbol), "{symbol}");
        let path = demangle(symbol).expect("the symbol is well-formed");
        (path.path, path.class, path.class_path, path.method)
    }

    /// A legacy symbol of these components.
    fn legacy(components: &[&str]) -> String {
        let components: String = components.iter().map(|text| format!("{}{text}", text.len())).collect();
        format!("_ZN{components}17h0123456789abcdefE")
    }

    #[test]
    fn a_trait_method_belongs_to_the_concrete_type() {
        let implementation = "_$LT$smartcore..preprocessing..numerical..StandardScaler$LT$T$GT$$u20$as$u20$smartcore..\
                              api..Transformer$LT$M$GT$$GT$";
        let (path, class, class_path, method) = parts(&legacy(&[implementation, "transform"]));
        assert!(path.ends_with(">::transform"), "{path}");
        assert_eq!(class.as_deref(), Some("StandardScaler"));
        assert_eq!(class_path.as_deref(), Some("smartcore::preprocessing::numerical::StandardScaler"));
        assert_eq!(method, "transform");
    }

    #[test]
    fn a_type_parameter_gives_way_to_the_trait() {
        let implementation =
            "_$LT$impl$u20$linfa..traits..Predict$LT$$RF$ArrayBase$LT$D$C$DM$GT$$C$T$GT$$u20$for$u20$O$GT$";
        let (_, class, _, method) = parts(&legacy(&["linfa", "dataset", "impl_dataset", implementation, "predict"]));
        assert_eq!((class.as_deref(), method.as_str()), (Some("Predict"), "predict"));
    }

    #[test]
    fn inherent_methods_modules_and_closures() {
        let (_, class, class_path, _) = parts("_ZN2ml6linear8Logistic3fit17h0123456789abcdefE");
        assert_eq!((class.as_deref(), class_path.as_deref()), (Some("Logistic"), Some("ml::linear::Logistic")));
        let (path, class, _, method) = parts("_ZN2ml6linear3fit17h0123456789abcdefE");
        assert_eq!((path.as_str(), class, method.as_str()), ("ml::linear::fit", None, "fit"));
        let closure = "_ZN2ml6linear8Logistic3fit28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE";
        assert_eq!(parts(closure).3, "{{closure}}");
    }

    #[test]
    fn v0_names_keep_concrete_types_out_of_the_class() {
        // <ml::Model<f64>>::predict::<i32>
        let (path, class, class_path, method) = parts("_RINvMCs1234_2mlINtB3_5ModeldE7predictlEB3_");
        assert!(path.starts_with("<ml::Model<f64>>::predict"), "{path}");
        assert_eq!((class.as_deref(), class_path.as_deref()), (Some("Model"), Some("ml::Model")));
        assert_eq!(method, "predict");
    }

    #[test]
    fn identifiers_of_any_script_are_names() {
        for (symbol, path, class, method) in [
            ("_ZN1u15_$u6a21$$u578b$7predict17h6adef78d53c5bc21E", "u::模型::predict", "模型", "predict"),
            (
                "_ZN47_$LT$u..W$ue4$ld$u20$as$u20$u..Sch$ue4$tzer$GT$3fit17hb04712a3c7b37744E",
                "<u::Wäld as u::Schätzer>::fit",
                "Wäld",
                "fit",
            ),
            ("_RNvMCsayYDP3hoOQQ_1uNtB2_u7xgs754b7predict", "<u::模型>::predict", "模型", "predict"),
            (
                "_RNvXs_CsayYDP3hoOQQ_1uNtB4_u7Wld_qlaNtB4_u11Schtzer_7wa3fit",
                "<u::Wäld as u::Schätzer>::fit",
                "Wäld",
                "fit",
            ),
        ] {
            let (found, found_class, _, found_method) = parts(symbol);
            assert_eq!((found.as_str(), found_class.as_deref(), found_method.as_str()), (path, Some(class), method));
        }
    }

    #[test]
    fn itanium_names_are_not_rust() {
        assert!(!is_rust("_ZN2ml5Model7predictEv"));
        assert!(!is_rust("_ZN2ml5Model17hello_world_abcdefE"));
        assert!(!is_rust("predict"));
    }
}
