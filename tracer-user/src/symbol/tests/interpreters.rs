//! Where interpreters are probed: CPython as far as it is there, small loops of the same shape, and what must be refused.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use iced_x86::{Decoder, DecoderOptions, FlowControl};

use super::damaged::Damage;
use super::{Program, compile, not_tested};
use crate::model::{
    FramePlace, InterpreterSite, InterpreterSites, InterpreterStyle, NoInterpreterSites, Witness, WitnessSite,
};
use crate::symbol::{ElfFile, Functions, SymbolError};

type Found = Result<InterpreterSites, NoInterpreterSites>;

fn find(bytes: &[u8], version: (u8, u8)) -> Result<Found, SymbolError> {
    let file = ElfFile::parse(bytes, Path::new("interpreter"))?;
    Ok(Functions::read(file)?.interpreter_sites(version))
}

fn sites(bytes: &[u8], version: (u8, u8)) -> Found {
    find(bytes, version).expect("an ELF file with whole symbol tables")
}

fn witness_sites(bytes: &[u8], version: (u8, u8)) -> Vec<WitnessSite> {
    let file = ElfFile::parse(bytes, Path::new("interpreter")).expect("an ELF file");
    let functions = Functions::read(file).expect("whole symbol tables");
    functions.witness_sites(version).expect("an interpreter that exports its loop")
}

/// The files that may hold an interpreter, with its version.
pub fn installed() -> Vec<(PathBuf, (u8, u8))> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv"));
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from).or(home);
    let versions = pyenv.and_then(|root| std::fs::read_dir(root.join("versions")).ok());
    let roots: Vec<PathBuf> =
        versions.into_iter().flatten().flatten().map(|entry| entry.path()).chain([PathBuf::from("/usr")]).collect();
    let mut files = Vec::new();
    for minor in 8..=15 {
        let library = format!("libpython3.{minor}.so.1.0");
        for root in &roots {
            let places = [
                root.join("lib").join(&library),
                root.join("lib/x86_64-linux-gnu").join(&library),
                root.join(format!("bin/python3.{minor}")),
            ];
            files.extend(places.into_iter().filter(|path| path.is_file()).map(|path| (path, (3, minor))));
        }
    }
    files
}

#[test]
fn installed_interpreters_are_probed_on_emulated_instructions() {
    let mut tested = 0;
    for (path, version) in installed() {
        let bytes = std::fs::read(&path).expect("the file is readable");
        let found = match sites(&bytes, version) {
            // A program that only starts the interpreter of a library.
            Err(NoInterpreterSites::NoHandlerTable) if bytes.len() < 1 << 20 => continue,
            found => found.unwrap_or_else(|problem| panic!("{}: {problem}", path.display())),
        };
        tested += 1;
        let whole_frames = version < (3, 11);
        assert_eq!(found.style == InterpreterStyle::WholeFrames, whole_frames, "{}", path.display());
        let all: Vec<&InterpreterSite> = found.entries.iter().chain(&found.returns).collect();
        assert!(all.iter().all(|site| site.emulated), "{}: {found:?}", path.display());
        let offsets: HashSet<_> = all.iter().map(|site| site.offset).collect();
        assert_eq!(offsets.len(), all.len(), "{}: {found:?}", path.display());
        let in_register = |site: &&InterpreterSite| matches!(site.frame, FramePlace::Register(_));
        assert!(found.entries.iter().all(|site| in_register(&site)), "{}: {found:?}", path.display());
        assert!(whole_frames || all.iter().all(in_register), "{}: {found:?}", path.display());
        let witnesses = witness_sites(&bytes, version);
        let unwinding: Vec<_> = witnesses.iter().filter(|site| site.witness == Witness::Unwinds).collect();
        assert_eq!(unwinding.len(), usize::from(!whole_frames), "{}: {witnesses:?}", path.display());
        assert!(unwinding.iter().all(|site| site.emulated), "{}: {witnesses:?}", path.display());
        let entry = if whole_frames { "_PyEval_EvalFrameDefault" } else { "RESUME" };
        assert!(found.entries.iter().any(|site| site.opcode == entry), "{}: {found:?}", path.display());
        assert!(found.returns.iter().any(|site| site.opcode == "RETURN_VALUE"), "{}: {found:?}", path.display());
        for other in (8..=15).map(|minor| (3, minor)).filter(|other| *other != version) {
            assert_eq!(
                sites(&bytes, other),
                Err(NoInterpreterSites::NoHandlerTable),
                "{} as {other:?}",
                path.display()
            );
        }
    }
    if tested == 0 {
        not_tested("no CPython of 3.8 to 3.15 is installed");
    }
}

/// A loop with the instruction numbers of 3.14, `before` in front of it.
fn source(before: &str, function: &str, handlers: &[(u8, &str)]) -> String {
    let is_unassigned = |number: u8| matches!(number, 121..=127 | 212..=233);
    let mut text = format!(
        "struct frame {{ void *code; struct frame *previous; long other[5]; unsigned char *instruction; long locals[4]; }};
        struct thread {{ volatile int breaker; struct frame *current; }};
        extern int slow(struct thread *, struct frame *, long);
        {before}
        long {function}(struct thread *thread, struct frame *frame, unsigned char *next) {{
        static void *const targets[256] = {{"
    );
    for number in 0..=255 {
        let target = if is_unassigned(number) { "unknown".to_owned() } else { format!("h{number}") };
        write!(text, "&&{target},").expect("a text grows");
    }
    text.push_str("};\n long sum = frame->locals[1];\n goto *targets[*next];\n");
    for number in (0..=255).filter(|number| !is_unassigned(*number)) {
        let of_number = handlers.iter().find(|(of, _)| *of == number);
        let body = of_number.map_or_else(|| format!("sum += {number} * sum;"), |(_, body)| (*body).to_owned());
        let text = &mut text;
        writeln!(text, "h{number}: frame->instruction = next; i{number}: next++; {body} goto *targets[*next];")
            .expect("a text grows");
    }
    text.push_str("unknown: return sum; }\n");
    text
}

const RESUME: (u8, &str) = (128, "if (thread->breaker) slow(thread, frame, sum);");
const RESUME_CHECK: (u8, &str) = (196, "if (thread->breaker) { next--; goto i128; }");
const INSTRUMENTED_RESUME: (u8, &str) = (245, "slow(thread, frame, sum);");
/// Like 3.13: the frame is no more the current one when the first emulated instruction comes.
const RETURN_VALUE: (u8, &str) =
    (35, "{ struct frame *old = frame; frame = old->previous; thread->current = frame; slow(thread, old, sum); }");
/// Goes on in the handler of RETURN_VALUE.
const INSTRUMENTED_RETURN_VALUE: (u8, &str) = (246, "if (slow(thread, frame, sum)) return -1; goto h35;");
const HANDLERS: [(u8, &str); 5] = [RESUME, RESUME_CHECK, INSTRUMENTED_RESUME, RETURN_VALUE, INSTRUMENTED_RETURN_VALUE];

const OPTIONS: [&str; 5] = ["-O2", "-fno-gcse", "-fno-crossjumping", "-fcf-protection=none", "-shared"];

fn library(source: &str) -> Option<Program> {
    compile("cc", "c", source, &[&OPTIONS[..], &["-fPIC"]].concat())
}

fn site<'found>(sites: &'found [InterpreterSite], opcode: &str) -> &'found InterpreterSite {
    sites.iter().find(|site| site.opcode == opcode).unwrap_or_else(|| panic!("{opcode} in {sites:?}"))
}

fn flow_at(bytes: &[u8], site: &InterpreterSite) -> FlowControl {
    let start = usize::try_from(site.offset.0).expect("a small file");
    Decoder::new(64, &bytes[start..], DecoderOptions::NONE).decode().flow_control()
}

#[test]
fn handlers_are_found_in_every_kind_of_file() {
    let source = source("", "_PyEval_EvalFrameDefault", &HANDLERS);
    let main = "__attribute__((noipa)) int slow(struct thread *t, struct frame *f, long s) { return 0; }
        int main(void) { return 0; }";
    for (options, source) in [
        (vec!["-fPIC"], source.clone()),
        (vec!["-fPIC", "-s"], source.clone()),
        (vec!["-fPIC", "-Wl,-z,pack-relative-relocs"], source.clone()),
        (vec!["-fno-pie", "-no-pie"], format!("{source}{main}")),
    ] {
        let is_library = options.contains(&"-fPIC");
        let general = if is_library { &OPTIONS[..] } else { &OPTIONS[..4] };
        let Some(program) = compile("cc", "c", &source, &[general, &options].concat()) else { return };
        let bytes = program.bytes();
        let found = sites(&bytes, (3, 14)).unwrap_or_else(|problem| panic!("{options:?}: {problem}"));
        let (resume, check) = (site(&found.entries, "RESUME"), site(&found.entries, "RESUME_CHECK"));
        assert_eq!(flow_at(&bytes, resume), FlowControl::ConditionalBranch, "{options:?}: {resume:?}");
        assert_eq!(flow_at(&bytes, check), FlowControl::ConditionalBranch, "{options:?}: {check:?}");
        assert_eq!(flow_at(&bytes, site(&found.entries, "INSTRUMENTED_RESUME")), FlowControl::Call);
        let returned = site(&found.returns, "RETURN_VALUE");
        assert_eq!(flow_at(&bytes, returned), FlowControl::Call, "{options:?}: {returned:?}");
        assert_eq!(returned.frame, FramePlace::Register(6), "the frame is the call's second argument: {returned:?}");
        assert!(found.entries.iter().chain(&found.returns).all(|site| site.emulated), "{found:?}");
    }
}

#[test]
fn a_call_that_passes_two_sites_counts_once() {
    let Some(program) = library(&source("", "_PyEval_EvalFrameDefault", &HANDLERS)) else { return };
    let bytes = program.bytes();
    let found = sites(&bytes, (3, 14)).expect("the handlers are found");
    assert_eq!(site(&found.entries, "RESUME").condition, None);
    let check = site(&found.entries, "RESUME_CHECK");
    let holds = if check.instruction.starts_with("jne") { 4 } else { 5 };
    assert_eq!(check.condition, Some(holds), "taken, it goes on to RESUME: {check:?}");
    assert_eq!(found.returns.len(), 1, "the other one goes on to RETURN_VALUE: {:?}", found.returns);
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let whole = source("", "_PyEval_EvalFrameDefault", &HANDLERS);
    let (_, second) = source("", "second", &HANDLERS)
        .split_once("slow(struct thread *, struct frame *, long);")
        .map_or_else(|| panic!("the second loop"), |(before, after)| (before.to_owned(), after.to_owned()));
    let Some(twice) = library(&format!("{whole}{second}")) else { return };
    assert_eq!(sites(&twice.bytes(), (3, 14)), Err(NoInterpreterSites::SeveralHandlerTables { count: 2 }));

    let mut separate = String::from("typedef int handler(void); static int unknown(void) { return -1; }\n");
    let names: Vec<String> = (0..=255_u8)
        .map(|number| if matches!(number, 121..=127 | 212..=233) { "unknown".to_owned() } else { format!("h{number}") })
        .collect();
    for name in names.iter().filter(|name| *name != "unknown") {
        writeln!(separate, "static int {name}(void) {{ return {}; }}", &name[1..]).expect("a text grows");
    }
    write!(separate, "handler *const table[256] = {{{}}};", names.join(",")).expect("a text grows");
    let Some(separate) = library(&separate) else { return };
    assert_eq!(sites(&separate.bytes(), (3, 14)), Err(NoInterpreterSites::SeparateHandlers));

    let Some(nothing) = library("int nothing(void) { return 0; }") else { return };
    assert_eq!(sites(&nothing.bytes(), (3, 14)), Err(NoInterpreterSites::NoHandlerTable));
    assert_eq!(sites(&nothing.bytes(), (3, 7)), Err(NoInterpreterSites::UnknownVersion { version: (3, 7) }));
}

#[test]
fn a_place_that_others_jump_to_is_not_used() {
    // Another instruction goes on behind the beginning of RETURN_VALUE: what comes after is not its own.
    let handlers = [
        RESUME,
        RESUME_CHECK,
        INSTRUMENTED_RESUME,
        RETURN_VALUE,
        (246, "slow(thread, frame, sum);"),
        (77, "if (sum > 7) { next--; frame->locals[0] = 3; goto i35; }"),
    ];
    // For size: otherwise the compiler copies the place rather than jump there.
    let options = [&OPTIONS[..], &["-fPIC", "-Os"]].concat();
    let source = source("", "_PyEval_EvalFrameDefault", &handlers);
    let Some(program) = compile("cc", "c", &source, &options) else { return };
    let found = sites(&program.bytes(), (3, 14)).expect("the handlers are found");
    let returned = site(&found.returns, "RETURN_VALUE");
    assert!(!returned.emulated && returned.frame == FramePlace::Current, "{returned:?}");
}

#[test]
fn damaged_interpreters_never_panic() {
    let Some(program) = library(&source("", "_PyEval_EvalFrameDefault", &HANDLERS)) else { return };
    let whole = program.bytes();
    let mut damage = Damage(0x2545_f491_4f6c_dd1d);
    let start = Instant::now();
    let mut refused = 0;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..=damage.below(12) {
            let at = damage.below(bytes.len());
            bytes[at] = damage.next().to_le_bytes()[0];
        }
        refused += usize::from(!matches!(find(&bytes, (3, 14)), Ok(Ok(_))));
    }
    assert!(refused > 0);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
