//! Variables of a program that runs: found in its file, and in the process.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use procfs::process::{MMPermissions, MMapPath, Process};

use super::compile;
use crate::model::{FileOffset, Mapping, RemoteAddress};
use crate::symbol::ElfFile;

const SOURCE: &str = r#"
#include <stdio.h>
int exported = 5;
static int local = 6;
int unset __attribute__((section(".place"))) = 7;
int main(void) {
    printf("%lu %lu %lu\n", (unsigned long)&exported, (unsigned long)&local, (unsigned long)&unset);
    fflush(stdout);
    return getchar();
}
"#;

fn executable_mappings(pid: u32, path: &Path) -> Vec<Mapping> {
    let process = Process::new(i32::try_from(pid).expect("a process id")).expect("it runs");
    let maps = process.maps().expect("it can be looked at");
    let of_file = maps.into_iter().filter(|map| matches!(&map.pathname, MMapPath::Path(found) if found == path));
    of_file
        .filter(|map| map.perms.contains(MMPermissions::EXECUTE))
        .map(|map| Mapping {
            start: RemoteAddress(map.address.0),
            end: RemoteAddress(map.address.1),
            offset: FileOffset(map.offset),
        })
        .collect()
}

#[test]
fn variables_are_found_where_the_program_has_them() {
    for options in [
        ["-pie", "-fPIE", "-rdynamic"],
        ["-no-pie", "-fno-pie", "-rdynamic"],
        // Code and data share a segment.
        ["-Wl,-z,noseparate-code", "-fPIE", "-rdynamic"],
        ["-Wl,-Ttext-segment=0x10000000", "-no-pie", "-rdynamic"],
    ] {
        let Some(program) = compile("cc", "c", SOURCE, &options) else { return };
        let mut process =
            Command::new(&program.path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let mappings = executable_mappings(process.id(), &program.path);
        drop(process.stdin.take());
        process.wait().expect("it ends");
        let said: Vec<RemoteAddress> =
            line.split_whitespace().map(|word| RemoteAddress(word.parse().expect("a number"))).collect();

        let bytes = program.bytes();
        let file = ElfFile::parse(bytes.as_slice(), &program.path).expect("it is ELF");
        let loaded = file.executable().loaded_at(&mappings).unwrap_or_else(|| panic!("{options:?}: {mappings:?}"));
        let exported = file.variables(&["exported", "local", "stdout_or_none"], false).expect("symbols");
        assert_eq!(exported.keys().copied().collect::<Vec<_>>(), ["exported"]);
        let all = file.variables(&["exported", "local"], true).expect("symbols");
        assert_eq!(loaded.address(all["exported"]), said[0], "{options:?}");
        assert_eq!(loaded.address(all["local"]), said[1], "{options:?}");
        let section = file.section_address(".place").expect("it is mapped");
        assert_eq!(loaded.address(section), said[2], "{options:?}");
        assert_eq!(file.section_address(".comment"), None, "it is not mapped");
        assert_eq!(file.executable().loaded_at(&[]), None);
    }
}
