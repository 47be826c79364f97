//! The JSON Schema of a symbol map document, for editors; made from the very types that the YAML is read into.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::document::Document;

/// The JSON Schema (draft 7, which editors know best) of one document of a symbol map; committed as
/// `symbols/schema.json`.
#[must_use]
pub fn json_schema() -> Value {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<Document>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_the_one_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../symbols/schema.json");
        let generated = serde_json::to_string_pretty(&json_schema()).expect("a JSON value") + "\n";
        if std::env::var_os("ML_TRACER_WRITE_SCHEMA").is_some() {
            std::fs::write(path, &generated).expect("symbols/ is writable");
        }
        let committed = std::fs::read_to_string(path).expect("symbols/schema.json is there");
        assert_eq!(
            committed, generated,
            "symbols/schema.json is stale; run this test with ML_TRACER_WRITE_SCHEMA=1 to write it"
        );
    }
}
