//! What a program will have mapped before its first instruction, found without running any of it.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use object::elf;
use object::read::elf::{ElfFile64, ProgramHeader as _};

use crate::model::Module;

/// A script's interpreter may be a script: so many times at most (`exec_binprm` in fs/exec.c, Linux 6.18).
const MOST_INTERPRETERS: usize = 5;

/// Bytes that the kernel reads of a script's first line (`BINPRM_BUF_SIZE` in include/uapi/linux/binfmts.h).
const FIRST_LINE: u64 = 256;

/// Finds a program as a shell would: a name with a slash as it is, others in `PATH`.
#[must_use]
pub fn find_program(name: &OsStr) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let path = Path::new(name);
    if path.components().count() > 1 {
        return Some(path.to_path_buf()).filter(runs);
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(name)).find(runs)
}

/// The program itself and the libraries that its loader will map; for a script those of the interpreter that its first line names. Where that cannot be
/// told: nothing, the watcher finds it once it runs.
#[must_use]
pub fn modules_at_start(program: &Path) -> Vec<Module> {
    let mut program = program.to_owned();
    for _ in 0..MOST_INTERPRETERS {
        let Some(interpreter) = interpreter_of(&program) else { break };
        program = interpreter;
    }
    let Ok(program) = program.canonicalize() else { return Vec::new() };
    if !begins_like_elf(&program) {
        return Vec::new();
    }
    let Some(loader) = loader_of(&program) else { return module(&program).into_iter().collect() };
    let mut modules: Vec<Module> = module(&program).into_iter().collect();
    // `ld.so --list` resolves the libraries as a start would, and runs nothing of the program.
    if let Ok(output) = Command::new(loader).arg("--list").arg(&program).output() {
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        modules.extend(listed.lines().filter_map(listed_path).filter_map(|path| module(&path)));
    }
    modules
}

/// The interpreter that a script's first line names, through `env` too, which looks for it in `PATH`.
fn interpreter_of(program: &Path) -> Option<PathBuf> {
    let mut begin = Vec::new();
    std::fs::File::open(program).ok()?.take(FIRST_LINE).read_to_end(&mut begin).ok()?;
    let line = begin.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(OsStr::from_bytes);
    let interpreter = Path::new(words.next()?);
    if interpreter.file_name() != Some(OsStr::new("env")) {
        return Some(interpreter.to_owned());
    }
    // Before the name `env` takes options, of which `-S` alone lets others follow, and variables.
    let is_name = |word: &&OsStr| !word.as_bytes().starts_with(b"-") && !word.as_bytes().contains(&b'=');
    find_program(words.find(is_name)?)
}

/// The path in a line like `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f...)`.
fn listed_path(line: &str) -> Option<PathBuf> {
    // The address is what follows last: file names may have blanks and brackets.
    let path = line.rsplit_once(" (0x").map_or(line, |(path, _)| path);
    let path = path.split_once(" => ").map_or(path, |(_, path)| path).trim();
    // A path may be relative to the folder that the program is started in: from LD_LIBRARY_PATH, or needed as such.
    path.contains('/').then(|| PathBuf::from(path))
}

fn begins_like_elf(program: &Path) -> bool {
    let mut magic = [0; elf::ELFMAG.len()];
    std::fs::File::open(program).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && magic == elf::ELFMAG
}

/// Path of the loader that the program names (`PT_INTERP`); `None` for a static program and for a script.
fn loader_of(program: &Path) -> Option<PathBuf> {
    let file = std::fs::File::open(program).ok()?;
    let cache = object::ReadCache::new(file);
    let elf_file: ElfFile64<'_, object::Endianness, _> = ElfFile64::parse(&cache).ok()?;
    let endian = elf_file.endian();
    let header = elf_file.elf_program_headers().iter().find(|header| header.p_type(endian) == elf::PT_INTERP)?;
    let bytes = header.data(endian, elf_file.data()).ok()?;
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    Some(PathBuf::from(text))
}

fn module(path: &Path) -> Option<Module> {
    let path = path.canonicalize().ok()?;
    let metadata = path.metadata().ok()?;
    let device = metadata.dev();
    let number = |value: u32| i32::try_from(value).unwrap_or(-1);
    Some(Module {
        access_path: path.clone(),
        path,
        device: (number(rustix::fs::major(device)), number(rustix::fs::minor(device))),
        inode: metadata.ino(),
        version: Some(super::modules::version(&metadata)),
        mappings: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_path_and_by_path() {
        let shell = find_program(OsStr::new("sh")).expect("there is always a shell");
        assert_eq!(find_program(shell.as_os_str()), Some(shell));
        assert_eq!(find_program(OsStr::new("no-such-program-anywhere")), None);
        assert_eq!(find_program(OsStr::new("/etc/passwd")), None, "not executable");
    }

    #[test]
    fn a_dynamic_program_comes_with_its_c_library() {
        let modules = modules_at_start(Path::new("/bin/ls"));
        assert!(modules.len() > 1);
        assert!(modules[0].path.ends_with("ls"));
        assert!(modules.iter().any(|module| module.file_name().starts_with("libc.so")));
    }

    #[test]
    fn a_script_runs_in_its_interpreter() {
        let directory = tempfile::tempdir().expect("a directory");
        let script = directory.path().join("script");
        let interpreter = |text: &str| {
            std::fs::write(&script, text).expect("written");
            modules_at_start(&script).first().map(|module| module.path.clone())
        };
        let shell = Path::new("/bin/sh").canonicalize().ok();
        for text in ["#!/bin/sh\nexit\n", "#! /bin/sh -e\n", "#!/usr/bin/env sh", "#!/usr/bin/env -S NAME=1 sh -e\n"] {
            assert_eq!(interpreter(text), shell, "{text}");
        }
        for text in ["", "\x7fEL", "#!", "#!/no/such/interpreter\n", "#!/usr/bin/env\n", "echo 7\n"] {
            assert_eq!(interpreter(text), None, "{text}");
        }
        let path = script.to_string_lossy().into_owned();
        assert_eq!(interpreter(&format!("#!{path}\n")), None, "it names itself");
    }

    #[test]
    fn loader_lists_are_read() {
        let line = "\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f0000000000)";
        assert_eq!(listed_path(line), Some(PathBuf::from("/lib/x86_64-linux-gnu/libm.so.6")));
        assert_eq!(
            listed_path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f0000000000)"),
            Some("/lib64/ld-linux-x86-64.so.2".into())
        );
        assert_eq!(listed_path("\t./libmodel.so (0x00007f0000000000)"), Some("./libmodel.so".into()));
        let named = "\tlibmodel.so => plug ins (new)/libmodel.so (0x00007f0000000000)";
        assert_eq!(listed_path(named), Some("plug ins (new)/libmodel.so".into()));
        assert_eq!(listed_path("\tlinux-vdso.so.1 (0x00007fff00000000)"), None);
        assert_eq!(listed_path("\tlibgone.so => not found"), None);
    }
}
