//! Environment variables, read through a function so that tests need not change the environment.

/// Looks up an environment variable of the tracer.
pub type Environment<'lookup> = &'lookup dyn Fn(&str) -> Option<String>;

/// The variable, unless it is empty: the OpenTelemetry specification takes an empty value for an unset one.
pub fn set(environment: Environment<'_>, name: &str) -> Option<String> {
    environment(name).filter(|value| !value.is_empty())
}

/// Reads `key=value,key=value` with percent-encoded keys and values; `None` if any part is malformed.
/// Source: OpenTelemetry specification, "Specifying resource information via an environment variable" (W3C Baggage).
pub fn parse_pairs(list: &str) -> Option<Vec<(String, String)>> {
    let pairs = list.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let name = percent_decode(name.trim())?;
            (!name.is_empty()).then_some(())?;
            Some((name, percent_decode(value.trim())?))
        })
        .collect()
}

fn percent_decode(encoded: &str) -> Option<String> {
    let mut bytes = encoded.bytes();
    let mut decoded = Vec::with_capacity(encoded.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            _ => byte,
        });
    }
    String::from_utf8(decoded).ok()
}
