//! Where things are in the source tree.

use std::path::{Path, PathBuf};

/// The root of the workspace.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}

/// Where built targets go.
#[must_use]
pub fn built_targets() -> PathBuf {
    root().join("target/targets")
}

/// A file of `tests/`.
#[must_use]
pub fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The program under test: `ML_TRACER`, or the release build of the workspace.
#[must_use]
pub fn ml_tracer() -> PathBuf {
    std::env::var_os("ML_TRACER").map_or_else(|| root().join("target/release/ml-tracer"), PathBuf::from)
}

/// A file of a Python environment that `cargo xtask test` makes from `tests/requirements/NAME.txt`.
#[must_use]
pub fn python_environment(name: &str, path: &str) -> PathBuf {
    root().join("target/venv").join(name).join(path)
}
