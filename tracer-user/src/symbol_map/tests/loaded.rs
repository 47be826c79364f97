//! Files, the directory, and which map wins.

use std::fs::{self, File};
use std::path::PathBuf;

use super::*;
use crate::symbol_map::{built_in, load, read_file};

fn write(directory: &tempfile::TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).expect("a file in a fresh directory");
    path
}

#[test]
fn later_maps_take_the_place_of_earlier_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let map = |methods: &str, module: &str| {
        format!("schema: ml-tracer/v1\nlibrary: mine\nlanguage: cpp\n{module}methods: [{methods}]\n")
    };
    write(&directory, "20.yaml", map("b", ""));
    write(&directory, "10.yml", map("a", "") + "---\n" + &map("x", "module: libx.so\n"));
    write(&directory, ".hidden.yaml", "nonsense");
    write(&directory, "notes.txt", "nonsense");
    let set = load(&[], directory.path()).expect("good maps");
    let mine: Vec<&SymbolMap> = set.maps().iter().skip(built_in().len()).collect();
    assert_eq!(mine.len(), 2);
    assert_eq!((mine[0].module.as_deref(), mine[0].methods.as_slice()), (Some("libx.so"), &["x".into()][..]));
    assert_eq!(mine[1].methods, ["b"]);

    let named = tempfile::tempdir().expect("a directory");
    let file = write(&named, "m.yaml", map("c", ""));
    let set = load(&[file], directory.path()).expect("good maps");
    assert_eq!(set.maps().last().expect("maps").methods, ["c"]);
    assert_eq!(set.maps().len(), built_in().len() + 2);
}

#[test]
fn a_built_in_map_can_be_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let off = "schema: ml-tracer/v1\nlibrary: xgboost\nlanguage: cpp\nmodule: libxgboost.so*\nfunctions: []\n";
    let file = write(&directory, "off.yaml", off);
    let set = load(&[file], Path::new("/nonexistent/ml-tracer")).expect("good maps");
    assert_eq!(set.maps().len(), built_in().len());
    assert!(set.maps().iter().any(|map| map.library == "xgboost" && map.functions.is_empty()));
}

#[test]
fn the_optional_maps_are_good_and_stand_beside_the_built_in_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../symbols/optional");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let maps = read_file(&file).unwrap_or_else(|errors| panic!("{errors}"));
        let set = load(std::slice::from_ref(&file), Path::new("/nonexistent/ml-tracer")).expect("good maps");
        assert_eq!(set.maps().len(), built_in().len() + maps.len(), "{}", file.display());
    }
}

#[test]
fn mistakes_of_all_files_are_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = write(&directory, "a.yaml", "x: 1\n");
    let second = write(&directory, "b.yaml", "");
    let MapErrors(errors) =
        load(std::slice::from_ref(&second), directory.path()).expect_err("two bad files, one of them twice");
    let files: Vec<PathBuf> = errors.iter().map(|error| error.file.clone()).collect();
    assert_eq!(files, [first, second.clone(), second]);
}

#[test]
fn what_is_no_text_file_is_refused_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let says = |path: &Path| read_file(path).expect_err("refused").to_string();

    let big = directory.path().join("big.yaml");
    File::create(&big).and_then(|file| file.set_len(100 << 20)).expect("a sparse file");
    assert!(says(&big).ends_with(
        "big.yaml: is longer than 1024 KiB, which no symbol map is; split it, or check that it is the right file"
    ));
    assert!(says(directory.path()).ends_with("is not a regular file; name a YAML file"));
    assert!(says(Path::new("/dev/zero")).contains("is not a regular file"));
    assert!(says(&directory.path().join("none.yaml")).contains("cannot read the symbol map: No such file"));

    let latin = write(&directory, "latin.yaml", b"schema: ml-tracer/v1\nlibrary: caf\xe9\n");
    assert!(says(&latin).ends_with("latin.yaml:2:13: this byte is not UTF-8; save the file as UTF-8 text"));
    let wide = write(&directory, "wide.yaml", b"\xff\xfes\0c\0h\0");
    assert!(says(&wide).contains("wide.yaml:1:1: this byte is not UTF-8"));
}
