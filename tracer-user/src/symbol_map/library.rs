//! Where symbol maps come from: the program itself, a directory, files that the user names; and which one wins.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::model::SymbolMap;

use super::parse::{MAX_FILE_BYTES, parse, position, same_subject};
use super::problem::{MapError, MapErrors, MapProblem};

/// Directory whose `*.yaml` and `*.yml` files are loaded at every start.
pub const MAP_DIRECTORY: &str = "/etc/ml-tracer/symbols.d";

/// The maps that are part of the program: name in the source tree and text. Later ones win over earlier ones.
const BUILT_IN: [(&str, &str); 23] = [
    ("symbols/generic-c.yaml", include_str!("../../../symbols/generic-c.yaml")),
    ("symbols/generic-cpp.yaml", include_str!("../../../symbols/generic-cpp.yaml")),
    ("symbols/generic-rust.yaml", include_str!("../../../symbols/generic-rust.yaml")),
    ("symbols/xgboost.yaml", include_str!("../../../symbols/xgboost.yaml")),
    ("symbols/lightgbm.yaml", include_str!("../../../symbols/lightgbm.yaml")),
    ("symbols/opencv-ml.yaml", include_str!("../../../symbols/opencv-ml.yaml")),
    ("symbols/llama-cpp.yaml", include_str!("../../../symbols/llama-cpp.yaml")),
    ("symbols/scikit-learn.yaml", include_str!("../../../symbols/scikit-learn.yaml")),
    ("symbols/imbalanced-learn.yaml", include_str!("../../../symbols/imbalanced-learn.yaml")),
    ("symbols/xgboost-python.yaml", include_str!("../../../symbols/xgboost-python.yaml")),
    ("symbols/lightgbm-python.yaml", include_str!("../../../symbols/lightgbm-python.yaml")),
    ("symbols/catboost.yaml", include_str!("../../../symbols/catboost.yaml")),
    ("symbols/torch.yaml", include_str!("../../../symbols/torch.yaml")),
    ("symbols/statsmodels.yaml", include_str!("../../../symbols/statsmodels.yaml")),
    ("symbols/onnxruntime.yaml", include_str!("../../../symbols/onnxruntime.yaml")),
    ("symbols/prophet.yaml", include_str!("../../../symbols/prophet.yaml")),
    ("symbols/keras.yaml", include_str!("../../../symbols/keras.yaml")),
    ("symbols/spacy.yaml", include_str!("../../../symbols/spacy.yaml")),
    ("symbols/tokenizers.yaml", include_str!("../../../symbols/tokenizers.yaml")),
    ("symbols/transformers.yaml", include_str!("../../../symbols/transformers.yaml")),
    ("symbols/sentence-transformers.yaml", include_str!("../../../symbols/sentence-transformers.yaml")),
    ("symbols/llama-cpp-python.yaml", include_str!("../../../symbols/llama-cpp-python.yaml")),
    ("symbols/vllm.yaml", include_str!("../../../symbols/vllm.yaml")),
];

/// All maps in force, those that win last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MapSet {
    maps: Vec<SymbolMap>,
}

impl MapSet {
    /// The maps, in the order of precedence: of two that match the same function the later one wins.
    #[must_use]
    pub fn maps(&self) -> &[SymbolMap] {
        &self.maps
    }

    /// Adds the maps of one file. A map takes the place of an earlier one with the same library, language and module.
    pub fn add(&mut self, maps: Vec<SymbolMap>) {
        for map in maps {
            self.maps.retain(|other| !same_subject(other, &map));
            self.maps.push(map);
        }
    }
}

/// The maps that are part of the program.
#[must_use]
pub fn built_in() -> Vec<SymbolMap> {
    BUILT_IN
        .iter()
        .flat_map(|(name, text)| parse(text, Path::new(name), true).expect("a unit test parses every built-in map"))
        .collect()
}

/// Loads everything: the built-in maps, then the files of `directory` by name, then `user_files` in their order. A
/// directory that does not exist counts as empty.
///
/// # Errors
/// Everything that is wrong in any of the files.
pub fn load(user_files: &[PathBuf], directory: &Path) -> Result<MapSet, MapErrors> {
    let mut set = MapSet { maps: built_in() };
    let mut errors = Vec::new();
    let in_directory = files_in(directory).unwrap_or_else(|error| {
        errors.push(MapError::whole(directory, MapProblem::Unreadable(error)));
        Vec::new()
    });
    for file in in_directory.iter().chain(user_files) {
        match read_file(file) {
            Ok(maps) => set.add(maps),
            Err(MapErrors(found)) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(set) } else { Err(MapErrors(errors)) }
}

/// Reads one file of symbol maps; of a longer one not more than [`MAX_FILE_BYTES`] bytes.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn read_file(path: &Path) -> Result<Vec<SymbolMap>, MapErrors> {
    let bytes = read_bytes(path).map_err(|problem| MapError::whole(path, problem))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, path, false),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let position = Some(position(&String::from_utf8_lossy(good)));
            Err(MapError { file: path.to_owned(), position, problem: MapProblem::NotUtf8 }.into())
        }
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, MapProblem> {
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let metadata = fs::metadata(path).map_err(MapProblem::Unreadable)?;
    if !metadata.is_file() {
        return Err(MapProblem::NotAFile);
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(MapProblem::TooBig);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(MapProblem::Unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(MapProblem::Unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(MapProblem::TooBig);
    }
    Ok(bytes)
}

fn files_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // Editors leave hidden copies behind.
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
