//! What the suffixes that compilers add to a symbol say about its code.

/// What a symbol stands for, by its suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The function, or a copy of it for known arguments (`.isra.0`, `.constprop.0`, `.lto_priv.0`, `.llvm.123`).
    Whole,
    /// What was left when the beginning of the function was copied into its callers (`.part.0`).
    Part,
    /// A piece of a function that was moved away from it (`.cold`, and `.warm` by BOLT).
    Cold,
    /// Code with a calling convention of its own (`._omp_fn.0`, `.resolver`).
    Helper,
    /// A part of a coroutine (`.actor`, `.destroy` by gcc; `.resume`, `.destroy`, `.cleanup` by llvm): what the function of the
    /// name does is done there.
    CoroutinePart,
}

/// Splits a symbol into the part that the source language has made and what its suffixes mean.
///
/// A version (`@@LIBRARY_1.0`) is dropped. Source of the suffixes: gcc `clone_function_name`, llvm `.llvm.`,
/// `.cold`, `.part`.
pub(super) fn split(symbol: &str) -> (&str, Body) {
    let symbol = symbol.split('@').next().unwrap_or(symbol);
    // A leading dot belongs to the name; Rust legacy names may hold dots (`..` for `::`) before the closing `E`.
    let start = symbol.starts_with("_ZN").then(|| symbol.rfind("17h")).flatten().unwrap_or(1);
    let Some(dot) = symbol.get(start..).and_then(|rest| rest.find('.')).map(|dot| dot + start) else {
        return (symbol, Body::Whole);
    };
    let (base, suffixes) = symbol.split_at(dot);
    let mut body = Body::Whole;
    for suffix in suffixes.split('.').filter(|suffix| !suffix.is_empty()) {
        match suffix {
            "cold" | "warm" => return (base, Body::Cold),
            "_omp_fn" | "_omp_cpyfn" | "resolver" | "tramp" => return (base, Body::Helper),
            "actor" | "destroy" | "resume" | "cleanup" => return (base, Body::CoroutinePart),
            "part" => body = Body::Part,
            _ => {}
        }
    }
    (base, body)
}

/// The symbol of the function that makes the coroutine which a symbol is a part of.
pub(super) fn maker_of_coroutine(symbol: &str) -> Option<&str> {
    let (base, Body::CoroutinePart) = split(symbol) else { return None };
    // gcc gives the parts a parameter whose type it names after the function: `_ZN1A3fitEPZ...25_ZN1A3fitEv.Frame.actor`.
    let named = symbol.split_once(".Frame.").and_then(|(named, _)| named.get(named.rfind("_Z")?..));
    Some(named.unwrap_or(base))
}

/// Symbols without the suffixes of copies, each once.
pub(super) fn bases<'symbol>(symbols: impl Iterator<Item = &'symbol str>) -> Vec<&'symbol str> {
    let mut bases: Vec<&str> = symbols.map(|symbol| split(symbol).0).collect();
    bases.sort_unstable();
    bases.dedup();
    bases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_coroutine_name_its_maker() {
        let maker = "_ZN5Model7predictEd";
        for part in [
            "_ZN5Model7predictEd.resume",
            "_ZN5Model7predictEd.destroy",
            "_ZN5Model7predictEd.cleanup.llvm.77",
            "_ZN5Model7predictEPZNS_7predictEdE25_ZN5Model7predictEd.Frame.actor",
            "_ZN5Model7predictEPZNS_7predictEdE25_ZN5Model7predictEd.Frame.destroy",
        ] {
            assert_eq!(maker_of_coroutine(part), Some(maker), "{part}");
        }
        assert_eq!(maker_of_coroutine("_ZN5Model7predictEd.isra.0"), None);
    }

    #[test]
    fn suffixes_tell_copies_from_parts() {
        assert_eq!(split("_ZN1A7predictEv"), ("_ZN1A7predictEv", Body::Whole));
        assert_eq!(split("_ZN1A7predictEv.isra.0"), ("_ZN1A7predictEv", Body::Whole));
        assert_eq!(split("svm_predict.constprop.0.part.2"), ("svm_predict", Body::Part));
        assert_eq!(split("_ZN1A7predictEv.isra.0.cold"), ("_ZN1A7predictEv", Body::Cold));
        assert_eq!(split("_ZN1A7predictEv._omp_fn.3"), ("_ZN1A7predictEv", Body::Helper));
        assert_eq!(split("predict@@LIBML_2.0"), ("predict", Body::Whole));
        assert_eq!(split(".hidden"), (".hidden", Body::Whole));
    }

    #[test]
    fn dots_inside_rust_names_are_no_suffix() {
        let symbol = "_ZN67_$LT$ml..Scaler$u20$as$u20$ml..Model$GT$7predict17h0123456789abcdefE";
        assert_eq!(split(symbol), (symbol, Body::Whole));
        let promoted = format!("{symbol}.llvm.123");
        assert_eq!(split(&promoted), (symbol, Body::Whole));
    }
}
