//! The embedded BPF object: its bytes, its programs and maps by name, and what it means when the kernel does not take them.

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfError, Pod};

use super::error::{AttachError, chain, is_about_privilege, kernel_error};

/// The object that `cargo xtask build-ebpf` makes; the build refuses a stale one.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/tracer.o");

/// A program of the object.
///
/// # Errors
/// There is none of this name and kind.
pub fn program<'ebpf, Kind>(ebpf: &'ebpf mut Ebpf, name: &'static str) -> Result<&'ebpf mut Kind, AttachError>
where
    &'ebpf mut Kind: TryFrom<&'ebpf mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(AttachError::Incomplete { name })?;
    program.try_into().map_err(|_| AttachError::Incomplete { name })
}

/// An array to write to.
///
/// # Errors
/// There is none of this name and kind.
pub fn array<'ebpf, Value: Pod>(
    ebpf: &'ebpf mut Ebpf,
    name: &'static str,
) -> Result<Array<&'ebpf mut MapData, Value>, AttachError> {
    let map = ebpf.map_mut(name).ok_or(AttachError::Incomplete { name })?;
    map.try_into().map_err(|error| map_error(name, &error))
}

/// A hash map to write to.
///
/// # Errors
/// There is none of this name and kind.
pub fn hash_map<'ebpf, Key: Pod, Value: Pod>(
    ebpf: &'ebpf mut Ebpf,
    name: &'static str,
) -> Result<HashMap<&'ebpf mut MapData, Key, Value>, AttachError> {
    let map = ebpf.map_mut(name).ok_or(AttachError::Incomplete { name })?;
    map.try_into().map_err(|error| map_error(name, &error))
}

/// A hash map to read.
///
/// # Errors
/// There is none of this name and kind.
pub fn hash_map_to_read<'ebpf, Key: Pod, Value: Pod>(
    ebpf: &'ebpf Ebpf,
    name: &'static str,
) -> Result<HashMap<&'ebpf MapData, Key, Value>, AttachError> {
    map(ebpf, name)?.try_into().map_err(|error| map_error(name, &error))
}

/// Numbers that each processor counts for itself.
///
/// # Errors
/// There are none of this name.
pub fn per_processor<'ebpf, Value: Pod>(
    ebpf: &'ebpf Ebpf,
    name: &'static str,
) -> Result<PerCpuArray<&'ebpf MapData, Value>, AttachError> {
    map(ebpf, name)?.try_into().map_err(|error| map_error(name, &error))
}

fn map<'ebpf>(ebpf: &'ebpf Ebpf, name: &'static str) -> Result<&'ebpf Map, AttachError> {
    ebpf.map(name).ok_or(AttachError::Incomplete { name })
}

/// The maps and programs could not be loaded.
pub fn load_error(error: &EbpfError) -> AttachError {
    classify(error, "the BPF maps and programs")
}

/// What the verifier says last, after its judgement.
const FIGURES: [&str; 3] = ["processed", "stack depth", "verification time"];

/// A program could not be loaded or attached.
pub fn program_error(error: &ProgramError) -> AttachError {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        // The verifier refuses with EACCES as well, but it says why.
        let log = verifier_log.to_string();
        if !log.trim().is_empty() {
            tracing::debug!(log, "the verifier's words");
            let is_figure = |line: &&str| FIGURES.iter().any(|figure| line.starts_with(figure));
            let last = log.lines().rev().find(|line| !is_figure(line)).unwrap_or_default();
            return AttachError::Load { problem: format!("{io_error}: the verifier says: {last}") };
        }
    }
    classify(error, "the BPF programs")
}

/// A map could not be read or written.
pub fn map_error(name: &'static str, error: &(dyn std::error::Error + 'static)) -> AttachError {
    AttachError::Map { name, problem: chain(error) }
}

/// A refusal for want of privilege, anywhere in the chain of causes, is told apart from a kernel that cannot.
fn classify(error: &(dyn std::error::Error + 'static), what: &str) -> AttachError {
    let source = kernel_error(error);
    if is_about_privilege(&source) {
        return AttachError::not_permitted(what, error);
    }
    if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return AttachError::NoDescriptor { what: what.to_owned() };
    }
    AttachError::Load { problem: chain(error) }
}
