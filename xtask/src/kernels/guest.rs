//! The system that is booted: a folder of this machine's files, packed as the kernel takes it (an uncompressed `cpio` archive).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::report::MARK;
use crate::provision::{output_of, run};
use crate::workspace;

/// The interpreter that is traced: the system's own.
const PYTHON: &str = "/usr/bin/python3";

/// Prints the files of the modules that the Python target needs.
const MODULES: &str = "import _socket, os, signal, sys, time, encodings.utf_8, encodings.latin_1\n\
    files = (getattr(module, '__file__', None) for module in list(sys.modules.values()))\n\
    print('\\n'.join(file for file in files if file and file.startswith('/')))";

/// Packs the system; gives the archive.
///
/// # Errors
/// When something that it needs is missing.
pub fn prepare() -> Result<PathBuf> {
    super::packages()?;
    let root = workspace::root();
    let folder = root.join("target/kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let target = folder.join("steady");
    let source = root.join("tests/targets/steady/main.cpp");
    run("c++ steady", Command::new("c++").args(["-O2", "-o"]).arg(&target).arg(source))?;
    let tracer = root.join("target/release/ml-tracer");
    let python = fs::canonicalize(PYTHON).with_context(|| format!("no {PYTHON}"))?;
    let setpriv = find("setpriv")?;

    let mut archive = Archive::default();
    for place in ["bin", "dev", "proc", "sys", "tmp", "targets"] {
        archive.folder(place);
    }
    archive.file("bin/busybox", &find("busybox")?)?;
    archive.file("bin/ml-tracer", &tracer)?;
    archive.file("bin/setpriv", &setpriv)?;
    archive.file("targets/steady", &target)?;
    for name in ["target.py", "server.py", "map.yaml"] {
        archive.file(&format!("targets/{name}"), &root.join("tests/targets/steady").join(name))?;
    }
    archive.as_here(&python)?;
    for program in [tracer.as_path(), &setpriv, &target, &python] {
        for library in libraries(program)? {
            archive.as_here(&library)?;
        }
    }
    let modules = output_of(Command::new(&python).args(["-I", "-S", "-c", MODULES]))?;
    for module in modules.lines() {
        archive.as_here(Path::new(module))?;
    }
    archive.text("init", &script(&python));
    let packed = folder.join("system.cpio");
    fs::write(&packed, archive.finish()).with_context(|| format!("cannot write {}", packed.display()))?;
    Ok(packed)
}

/// What the booted system does: tries everything, and says how each ended.
fn script(python: &Path) -> String {
    let python = python.display();
    let steps = [
        ("native", "/targets/steady".to_owned(), ""),
        ("watch", format!("{python} -S -E /targets/target.py"), "--python watch"),
        ("frames", format!("{python} -S -E /targets/target.py"), "--python frames"),
        ("requests", format!("{python} -S -E /targets/server.py"), "--requests sockets"),
    ];
    let mut text = format!(
        "#!/bin/busybox sh\n\
         export PATH=/bin NO_COLOR=1\n\
         /bin/busybox --install -s /bin 2>/dev/null; ifconfig lo 127.0.0.1 up\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null; mount -t tmpfs tmp /tmp\n\
         echo '{MARK}kernel' $(uname -r)\n\
         ml-tracer doctor; echo '{MARK}doctor' exit=$? spans=0 target=0\n\
         # Name of the step, command of the target, command before the tracer, options of the tracer.\n\
         step() {{\n\
           $2 >/tmp/$1.out 2>/dev/null & target=$!\n\
           until grep -q ready /tmp/$1.out; do usleep 100000; done; sleep 1\n\
           $3 ml-tracer attach --pid $target --duration 4s --map /targets/map.yaml --export jsonl=/tmp/$1.jsonl \\\n\
             --summary /tmp/$1.json $4 2>/tmp/$1.err; code=$?\n\
           cat /tmp/$1.err; kill -TERM $target; wait $target; ended=$?\n\
           spans=$(sed -n 's/.*ml-tracer: spans=\\([0-9]*\\) .*/\\1/p' /tmp/$1.err)\n\
           requests=$(sed -n 's/.*ml-tracer: \\([0-9]*\\) requests seen.*/\\1/p' /tmp/$1.err)\n\
           echo '{MARK}'$1 exit=$code spans=$((${{spans:-0}} + ${{requests:-0}})) target=$ended $(tail -1 /tmp/$1.err)\n\
         }}\n"
    );
    for (name, target, options) in steps {
        text.push_str(&format!("step {name} '{target}' '' '{options}'\n"));
    }
    let three = "-all,+bpf,+perfmon,+sys_ptrace";
    text.push_str(&format!(
        "step three /targets/steady '/bin/setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set={three} \
         --inh-caps={three} --ambient-caps={three}' ''\n"
    ));
    text.push_str(&format!("echo '{MARK}end'\npoweroff -f\n"));
    text
}

fn find(program: &str) -> Result<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file());
    fs::canonicalize(found.with_context(|| format!("no {program} on the path"))?).context("a program has a path")
}

/// The libraries of a program, its loader included, as `ldd` finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = output_of(Command::new("ldd").arg(program))?;
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// A `cpio` archive of the kind that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    there: BTreeSet<PathBuf>,
}

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    fn folder(&mut self, path: &str) {
        if self.there.insert(path.into()) {
            self.entry(path, FOLDER, &[]);
        }
    }

    /// A file at the place that it has on this machine.
    fn as_here(&mut self, file: &Path) -> Result<()> {
        let place = file.strip_prefix("/").unwrap_or(file).to_string_lossy().into_owned();
        self.file(&place, file)
    }

    fn file(&mut self, place: &str, from: &Path) -> Result<()> {
        if !self.there.insert(place.into()) {
            return Ok(());
        }
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let may_run = fs::metadata(from)?.permissions().mode() & 0o111 != 0;
        self.folders_above(place);
        self.entry(place, if may_run { PROGRAM } else { FILE }, &bytes);
        Ok(())
    }

    fn text(&mut self, place: &str, text: &str) {
        self.entry(place, PROGRAM, text.as_bytes());
    }

    fn folders_above(&mut self, place: &str) {
        for (index, _) in place.match_indices('/') {
            self.folder(&place[..index]);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        let number = self.there.len() as u32;
        let fields = [number, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0]
            .map(|it| format!("{it:08X}"));
        self.bytes.extend(format!("070701{}{path}\0", fields.concat()).bytes());
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.folders_above("usr/lib/file");
        archive.text("init", "hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("070701") && text.contains("usr\0") && text.contains("usr/lib\0"));
        let begins = text.find("init\0").expect("the script");
        // A header has 110 bytes; both it with the name and the content begin at multiples of four.
        assert_eq!((begins - 110) % 4, 0);
        assert_eq!(&text[begins + 6..begins + 11], "hello");
        assert!(text.contains("TRAILER!!!\0") && bytes.len() % 4 == 0);
    }
}
