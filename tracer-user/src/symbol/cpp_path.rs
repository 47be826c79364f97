//! The path of an Itanium-mangled C++ symbol, for names that `cpp_demangle` does not read: identifiers in UTF-8, constraints
//! (`requires`), modules, members of friends, explicit object parameters. Template arguments are stepped over, not understood.
//!
//! Source: the Itanium C++ ABI, 5.1 "External Names", with the additions that clang and gcc make for C++20 and C++23.

/// Deepest nesting that is followed; keeps the stack small.
const DEPTH_LIMIT: usize = 96;
/// Most components of a path.
const COMPONENT_LIMIT: usize = 64;
/// Names of the standard library that have an abbreviation of one letter.
const ABBREVIATIONS: &[(u8, &str)] = &[
    (b'a', "allocator"),
    (b'b', "basic_string"),
    (b's', "string"),
    (b'i', "istream"),
    (b'o', "ostream"),
    (b'd', "iostream"),
];
/// Operators of expressions by the number of their operands.
const UNARY: &[&[u8; 2]] =
    &[b"ps", b"ng", b"ad", b"de", b"co", b"nt", b"sz", b"az", b"te", b"nx", b"sp", b"tw", b"dl", b"da", b"aw"];
const BINARY: &[&[u8; 2]] = &[
    b"pl", b"mi", b"ml", b"dv", b"rm", b"an", b"or", b"eo", b"aS", b"pL", b"mI", b"mL", b"dV", b"rM", b"aN", b"oR",
    b"eO", b"ls", b"rs", b"lS", b"rS", b"eq", b"ne", b"lt", b"gt", b"le", b"ge", b"ss", b"aa", b"oo", b"cm", b"pm",
    b"ix", b"ds", b"dt", b"pt", b"di", b"dx",
];

/// The components of the path of a symbol that begins with `_Z`, template arguments left out; `None` where the name does not
/// follow the grammar, or is no function's.
pub(super) fn components(symbol: &str) -> Option<Vec<String>> {
    let mut reader = Reader { rest: symbol.strip_prefix("_Z")?.as_bytes(), depth: 0 };
    let components = reader.name()?;
    (!components.is_empty()).then_some(components)
}

struct Reader<'symbol> {
    rest: &'symbol [u8],
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn take(&mut self, text: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Steps one level down.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let result = if self.depth > DEPTH_LIMIT { None } else { read(self) };
        self.depth -= 1;
        result
    }

    /// Reads until an `E`, which is taken too.
    fn until_end(&mut self, mut read: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        while !self.take(b"E") {
            read(self)?;
        }
        Some(())
    }

    fn number(&mut self) -> Option<usize> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    /// `3fit`, as it stands.
    fn identifier(&mut self) -> Option<String> {
        let length = self.number()?;
        let (name, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let name = std::str::from_utf8(name).ok()?;
        Some(if name.starts_with("_GLOBAL__N") { "(anonymous namespace)".to_owned() } else { name.to_owned() })
    }

    /// `_`, `0_`, `A_`: what follows `S` and `T`, and the number of an unnamed type.
    fn sequence(&mut self) -> Option<()> {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()) {
            self.next();
        }
        self.take(b"_").then_some(())
    }

    fn name(&mut self) -> Option<Vec<String>> {
        self.deeper(|reader| match reader.peek()? {
            b'N' => reader.nested(),
            b'Z' => reader.local(),
            _ => {
                let mut components = Vec::new();
                while components.is_empty() {
                    reader.component(&mut components)?;
                }
                // `St` is but the beginning of a name.
                if components.len() == 1 && components.first().is_some_and(|first| first == "std") {
                    reader.component(&mut components)?;
                }
                while matches!(reader.peek(), Some(b'I' | b'B')) {
                    reader.component(&mut components)?;
                }
                Some(components)
            }
        })
    }

    fn nested(&mut self) -> Option<Vec<String>> {
        self.next();
        while matches!(self.peek(), Some(b'r' | b'V' | b'K' | b'R' | b'O' | b'H')) {
            self.next();
        }
        let mut components = Vec::new();
        self.until_end(|reader| reader.component(&mut components))?;
        Some(components)
    }

    /// What is declared inside a function.
    fn local(&mut self) -> Option<Vec<String>> {
        self.next();
        let mut components = self.name()?;
        self.until_end(Self::type_or_clause)?;
        if let Some(function) = components.last_mut() {
            function.push_str("()");
        }
        if self.take(b"s") {
            return Some(components);
        }
        if self.take(b"d") {
            let _ = self.number();
            self.take(b"_").then_some(())?;
        }
        components.extend(self.name()?);
        if self.take(b"_") {
            let _ = self.take(b"_");
            let _ = self.number();
        }
        Some(components)
    }

    /// One piece of a path: adds a component, or is something about the one before.
    fn component(&mut self, components: &mut Vec<String>) -> Option<()> {
        if components.len() > COMPONENT_LIMIT {
            return None;
        }
        match (self.peek()?, self.rest.get(1).copied()) {
            (b'0'..=b'9', _) => components.push(self.identifier()?),
            (b'S', Some(b't')) => {
                self.rest = self.rest.get(2..)?;
                components.push("std".to_owned());
            }
            (b'S', Some(letter)) if letter.is_ascii_lowercase() => {
                let (_, name) = ABBREVIATIONS.iter().find(|(known, _)| *known == letter)?;
                self.rest = self.rest.get(2..)?;
                components.extend(["std".to_owned(), (*name).to_owned()]);
            }
            // Which name it stands for is not kept count of: such a path is known from there on.
            (b'S' | b'T', _) => {
                self.next();
                self.sequence()?;
                components.push("_".to_owned());
            }
            (b'I', _) => self.template_arguments()?,
            (b'B', _) => {
                self.next();
                self.identifier()?;
            }
            (b'W', _) => {
                self.next();
                let _ = self.take(b"P");
                self.identifier()?;
            }
            (b'L' | b'M' | b'F', _) => {
                self.next();
            }
            (b'C', Some(kind)) => {
                self.rest = self.rest.get(2..)?;
                if kind == b'I' {
                    self.next();
                    self.of_type()?;
                }
                components.push(components.last()?.clone());
            }
            (b'D', Some(b'0'..=b'9')) => {
                self.rest = self.rest.get(2..)?;
                components.push(format!("~{}", components.last()?));
            }
            (b'D', Some(b'C')) => {
                self.rest = self.rest.get(2..)?;
                self.until_end(|reader| reader.identifier().map(drop))?;
                components.push("[bindings]".to_owned());
            }
            (b'D', _) => {
                self.of_type()?;
                components.push("decltype".to_owned());
            }
            (b'U', Some(b'l')) => {
                self.rest = self.rest.get(2..)?;
                self.until_end(Self::type_or_clause)?;
                self.sequence()?;
                components.push("{lambda}".to_owned());
            }
            (b'U', Some(b't')) => {
                self.rest = self.rest.get(2..)?;
                self.sequence()?;
                components.push("{unnamed type}".to_owned());
            }
            (b'a'..=b'z', _) => {
                self.operator()?;
                // No rule asks for this one.
                components.push("operator ?".to_owned());
            }
            _ => return None,
        }
        Some(())
    }

    fn operator(&mut self) -> Option<()> {
        let (first, second) = (self.next()?, self.next()?);
        match (first, second) {
            (b'c', b'v') => self.of_type(),
            (b'l', b'i') | (b'v', b'0'..=b'9') => self.identifier().map(drop),
            (_, b'a'..=b'z' | b'A'..=b'Z') => Some(()),
            _ => None,
        }
    }

    fn template_arguments(&mut self) -> Option<()> {
        self.take(b"I").then_some(())?;
        self.deeper(|reader| reader.until_end(Self::argument))
    }

    fn argument(&mut self) -> Option<()> {
        self.deeper(|reader| match (reader.peek()?, reader.rest.get(1).copied()) {
            (b'L', _) => reader.expression(),
            (b'X', _) => {
                reader.next();
                reader.expression()?;
                reader.take(b"E").then_some(())
            }
            (b'J', _) => {
                reader.next();
                reader.until_end(Self::argument)
            }
            (b'Q', _) => {
                reader.next();
                reader.expression()
            }
            (b'T', Some(b'y' | b'k' | b'n' | b't' | b'p')) => reader.parameter(),
            _ => reader.of_type(),
        })
    }

    /// The declaration of a template parameter, where an argument alone does not tell it.
    fn parameter(&mut self) -> Option<()> {
        self.deeper(|reader| {
            reader.next();
            match reader.next()? {
                b'y' => Some(()),
                b'k' => {
                    reader.name()?;
                    if reader.peek() == Some(b'I') { reader.template_arguments() } else { Some(()) }
                }
                b'n' => reader.of_type(),
                b't' => reader.until_end(|reader| match reader.peek()? {
                    b'Q' => {
                        reader.next();
                        reader.expression()
                    }
                    _ => reader.parameter(),
                }),
                b'p' => reader.parameter(),
                _ => None,
            }
        })
    }

    /// A type of a function's, or the constraint behind them.
    fn type_or_clause(&mut self) -> Option<()> {
        match (self.peek()?, self.rest.get(1).copied()) {
            (b'Q', _) => {
                self.next();
                self.expression()
            }
            (b'T', Some(b'y' | b'k' | b'n' | b't' | b'p')) => self.parameter(),
            _ => self.of_type(),
        }
    }

    fn of_type(&mut self) -> Option<()> {
        self.deeper(|reader| match (reader.peek()?, reader.rest.get(1).copied()) {
            (b'r' | b'V' | b'K' | b'P' | b'R' | b'O' | b'C' | b'G', _) => {
                reader.next();
                reader.of_type()
            }
            (b'u', _) => {
                reader.next();
                reader.identifier()?;
                reader.optional_arguments()
            }
            (b'a'..=b'z', _) => reader.next().map(drop),
            (b'D', Some(kind)) => reader.long_type(kind),
            (b'F', _) => {
                reader.next();
                let _ = reader.take(b"Y");
                reader.until_end(|reader| match reader.rest {
                    [b'R' | b'O', b'E', ..] => reader.next().map(drop),
                    _ => reader.of_type(),
                })
            }
            (b'A', _) => {
                reader.next();
                if reader.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                    reader.number()?;
                } else if reader.peek() != Some(b'_') {
                    reader.expression()?;
                }
                reader.take(b"_").then_some(())?;
                reader.of_type()
            }
            (b'M', _) => {
                reader.next();
                reader.of_type()?;
                reader.of_type()
            }
            (b'U', Some(kind)) if !matches!(kind, b'l' | b't') => {
                reader.next();
                reader.identifier()?;
                reader.optional_arguments()?;
                reader.of_type()
            }
            (b'T', Some(b's' | b'u' | b'e')) => {
                reader.rest = reader.rest.get(2..)?;
                reader.name().map(drop)
            }
            _ => reader.name().map(drop),
        })
    }

    fn long_type(&mut self, kind: u8) -> Option<()> {
        self.rest = self.rest.get(2..)?;
        match kind {
            b't' | b'T' | b'O' => {
                self.expression()?;
                self.take(b"E").then_some(())?;
                if kind == b'O' { self.of_type() } else { Some(()) }
            }
            b'p' | b'o' | b'x' => self.of_type(),
            b'w' => {
                self.until_end(Self::of_type)?;
                self.of_type()
            }
            b'v' => {
                if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                    self.number()?;
                } else if self.take(b"_") {
                    self.expression()?;
                }
                self.take(b"_").then_some(())?;
                self.of_type()
            }
            b'F' | b'B' | b'U' => {
                self.number()?;
                self.next().filter(|last| matches!(last, b'_' | b'b' | b'x')).map(drop)
            }
            b'a'..=b'z' => Some(()),
            _ => None,
        }
    }

    fn optional_arguments(&mut self) -> Option<()> {
        if self.peek() == Some(b'I') { self.template_arguments() } else { Some(()) }
    }

    fn expression(&mut self) -> Option<()> {
        self.deeper(Self::expression_here)
    }

    fn expressions(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.expression())
    }

    fn expression_here(&mut self) -> Option<()> {
        let _ = self.take(b"gs");
        let (first, second) = (self.peek()?, self.rest.get(1).copied().unwrap_or(0));
        match (first, second) {
            (b'L', _) => return self.literal(),
            (b'T', _) => {
                self.next();
                if self.take(b"L") {
                    let _ = self.number();
                    self.take(b"_").then_some(())?;
                }
                self.sequence()?;
                return self.optional_arguments();
            }
            (b'0'..=b'9', _) => {
                self.identifier()?;
                return self.optional_arguments();
            }
            (b'u', _) => {
                self.next();
                self.identifier()?;
                return self.until_end(Self::argument);
            }
            _ => {}
        }
        self.rest = self.rest.get(2..)?;
        let code = [first, second];
        if UNARY.contains(&&code) {
            return self.expression();
        }
        if BINARY.contains(&&code) {
            return self.expressions(2);
        }
        match &code {
            b"pp" | b"mm" => {
                let _ = self.take(b"_");
                self.expression()
            }
            b"qu" | b"dX" => self.expressions(3),
            b"fp" => self.function_parameter(),
            b"fL" if self.peek().is_some_and(|byte| byte.is_ascii_digit()) => {
                self.number()?;
                self.take(b"p").then_some(())?;
                self.function_parameter()
            }
            b"fl" | b"fr" => {
                self.operator()?;
                self.expression()
            }
            b"fL" | b"fR" => {
                self.operator()?;
                self.expressions(2)
            }
            b"il" | b"cl" | b"cp" => self.until_end(Self::expression),
            b"sP" => self.until_end(Self::argument),
            b"tl" => {
                self.of_type()?;
                self.until_end(Self::expression)
            }
            b"cv" => {
                self.of_type()?;
                if self.take(b"_") { self.until_end(Self::expression) } else { self.expression() }
            }
            b"st" | b"at" | b"ti" => self.of_type(),
            b"dc" | b"sc" | b"cc" | b"rc" => {
                self.of_type()?;
                self.expression()
            }
            b"sZ" => self.expression(),
            b"tr" => Some(()),
            b"nw" | b"na" => {
                while !self.take(b"_") {
                    self.expression()?;
                }
                self.of_type()?;
                let _ = self.take(b"pi");
                self.until_end(Self::expression)
            }
            b"sr" => self.scoped(),
            b"on" => {
                self.operator()?;
                self.optional_arguments()
            }
            b"dn" => self.of_type(),
            b"rq" => self.until_end(Self::requirement),
            b"rQ" => {
                while !self.take(b"_") {
                    self.of_type()?;
                }
                self.until_end(Self::requirement)
            }
            _ => None,
        }
    }

    fn literal(&mut self) -> Option<()> {
        self.next();
        if self.take(b"_Z") {
            self.name()?;
            return self.until_end(Self::type_or_clause);
        }
        self.of_type()?;
        self.until_end(|reader| reader.next().filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').map(drop))
    }

    fn function_parameter(&mut self) -> Option<()> {
        if self.take(b"T") {
            return Some(());
        }
        while matches!(self.peek(), Some(b'r' | b'V' | b'K')) {
            self.next();
        }
        let _ = self.number();
        self.take(b"_").then_some(())
    }

    /// A name in a scope that depends on template parameters.
    fn scoped(&mut self) -> Option<()> {
        if self.take(b"N") {
            self.of_type()?;
            self.until_end(|reader| {
                reader.identifier()?;
                reader.optional_arguments()
            })?;
        } else if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.until_end(|reader| {
                reader.identifier()?;
                reader.optional_arguments()
            })?;
        } else {
            self.of_type()?;
        }
        if self.take(b"on") {
            self.operator()?;
        } else if self.take(b"dn") {
            return self.of_type();
        } else {
            self.identifier()?;
        }
        self.optional_arguments()
    }

    fn requirement(&mut self) -> Option<()> {
        match self.next()? {
            b'X' => {
                self.expression()?;
                let _ = self.take(b"N");
                if self.take(b"R") {
                    self.name()?;
                }
                Some(())
            }
            b'T' => self.of_type(),
            b'Q' => self.expression(),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "cpp_path_tests.rs"]
mod tests;
