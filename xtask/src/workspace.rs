//! Where the parts of the workspace are.

use std::path::{Path, PathBuf};

/// Root directory of the workspace that this xtask was built from.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).expect("xtask is a folder of the workspace")
}
