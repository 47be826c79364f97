//! Many uprobes in one system call (Linux 6.6 and newer). The loader library of this version knows neither the attach
//! type nor the link, so the program is loaded and linked by `bpf(2)` here.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use aya::Ebpf;
use aya::maps::Map;
use aya_obj::Object;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type};

use super::error::{AttachError, is_about_privilege, load_failure};
use super::own_function;
use super::site::{Role, Site, scope_of};

/// `BPF_F_UPROBE_MULTI_RETURN` (include/uapi/linux/bpf.h, Linux 6.18).
const RETURN_PROBE: u32 = 1;

/// Calls that are made of the function of the first link: what a probe costs is known without another one.
const TRIAL_CALLS: u32 = 400;

/// Programs loaded for links of many uprobes.
pub struct MultiPrograms {
    programs: Vec<(Role, OwnedFd)>,
}

/// What a session has loaded for links of many uprobes.
pub struct ManyAtOnce {
    /// The programs of native functions.
    pub native: MultiPrograms,
    /// The program that a part of all Python calls passes, if it was wanted.
    pub witness: Option<MultiPrograms>,
    /// The program that exceptions pass, if it was wanted.
    pub exceptions: Option<MultiPrograms>,
    /// The link that has shown that the kernel makes such links. The kernel takes some ten milliseconds to take its probe away,
    /// and nobody has to wait for it.
    pub trial: OwnedFd,
    /// Nanoseconds that a program which does nothing takes at that probe.
    pub empty_probe_ns: f64,
}

/// What is loaded besides the programs of native functions.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadedBesides {
    /// The program that a part of all Python calls passes.
    pub witness: bool,
    /// The program that exceptions pass.
    pub exceptions: bool,
}

impl MultiPrograms {
    /// Loads the programs once more, for links of many uprobes, on the maps that `loaded` has made: all at the same time, because
    /// the verifier takes most of the time of an attach. `Ok(None)`: the kernel has no such links, which is found out by making one.
    ///
    /// # Errors
    /// The object does not parse or lacks a program (it was built wrongly), or such a link is not permitted.
    pub fn load(object: &[u8], loaded: &Ebpf, besides: LoadedBesides) -> Result<Option<ManyAtOnce>, AttachError> {
        const NATIVE: [(Role, &str); 3] =
            [(Role::Entry, "native_entry"), (Role::Exit, "native_exit"), (Role::Return, "native_return")];
        let witness = besides.witness.then_some((Role::Entry, "python_witness"));
        let exceptions = besides.exceptions.then_some((Role::Entry, "python_exception"));
        let tried = [(Role::Entry, "empty_entry")];
        let names: Vec<_> = NATIVE.into_iter().chain(tried).chain(witness).chain(exceptions).collect();
        let mut programs = match Self::load_named(object, &maps_of(loaded), &names)? {
            Loaded::Taken(programs) => programs.programs.into_iter(),
            Loaded::Refused(error) => {
                tracing::debug!(%error, "the kernel takes no uprobe_multi program");
                return Ok(None);
            }
        };
        let mut next = |count: usize| Self { programs: programs.by_ref().take(count).collect() };
        let (native, empty) = (next(NATIVE.len()), next(tried.len()));
        let Some(trial) = empty.tried()? else { return Ok(None) };
        let empty_probe_ns = own_function::time(own_function::EMULATED.call, TRIAL_CALLS);
        let (witness, exceptions) = (witness.map(|_| next(1)), exceptions.map(|_| next(1)));
        Ok(Some(ManyAtOnce { native, witness, exceptions, trial, empty_probe_ns }))
    }

    /// Likewise the programs that see every Python call, on a kernel that has such links: at entries and at exits.
    ///
    /// # Errors
    /// The object was built wrongly, or the kernel does not take the programs.
    pub fn load_frames(object: &[u8], loaded: &Ebpf) -> Result<Self, AttachError> {
        const NAMES: [(Role, &str); 2] = [(Role::Entry, "python_frame_entry"), (Role::Exit, "python_frame_return")];
        Self::load_named_on(object, loaded, &NAMES)
    }

    /// Likewise the program that exceptions pass. The ring buffer, which it does not use, may be somebody else's by then:
    /// `ring` is its descriptor.
    ///
    /// # Errors
    /// As [`Self::load_frames`].
    pub fn load_exceptions(object: &[u8], loaded: &Ebpf, ring: Option<BorrowedFd<'_>>) -> Result<Self, AttachError> {
        let mut maps = maps_of(loaded);
        maps.extend(ring.map(|ring| ("RECORDS", ring.as_raw_fd())));
        Self::load_named(object, &maps, &[(Role::Entry, "python_exception")])?.taken()
    }

    /// Likewise other programs, by their names.
    ///
    /// # Errors
    /// As [`Self::load_frames`].
    pub fn load_named_on(object: &[u8], loaded: &Ebpf, names: &[(Role, &'static str)]) -> Result<Self, AttachError> {
        Self::load_named(object, &maps_of(loaded), names)?.taken()
    }

    /// Likewise programs that do nothing.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_empty(object: &[u8], loaded: &Ebpf) -> Result<Option<Self>, AttachError> {
        const NAMES: [(Role, &str); 2] = [(Role::Entry, "empty_entry"), (Role::Return, "empty_return")];
        match Self::load_named(object, &maps_of(loaded), &NAMES)? {
            // The trial is on a function that is to be measured.
            Loaded::Taken(programs) => Ok(programs.tried()?.map(drop).map(|()| programs)),
            Loaded::Refused(_) => Ok(None),
        }
    }

    fn load_named(
        object: &[u8],
        maps: &[(&str, RawFd)],
        names: &[(Role, &'static str)],
    ) -> Result<Loaded, AttachError> {
        let load_error = |problem: &dyn std::fmt::Display| AttachError::Load { problem: problem.to_string() };
        let mut parsed = Object::parse(object).map_err(|error| load_error(&error))?;
        let types = load_type_information(&mut parsed);
        let text_sections: HashSet<usize> = parsed.functions.keys().map(|(section, _)| *section).collect();
        let definitions = std::mem::take(&mut parsed.maps);
        let maps: Vec<_> = maps.iter().filter_map(|(name, map)| Some((*name, *map, definitions.get(*name)?))).collect();
        parsed.relocate_maps(maps.into_iter(), &text_sections).map_err(|error| load_error(&error))?;
        parsed.relocate_calls(&text_sections).map_err(|error| load_error(&error))?;
        parsed.sanitize_functions(aya::features());
        let load = |name: &'static str| load_program(&parsed, name, types.as_ref());
        // The verifier takes most of the time of an attach.
        let loaded: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = names.iter().map(|(role, name)| (*role, scope.spawn(|| load(name)))).collect();
            let ended = threads.into_iter().map(|(role, thread)| (role, thread.join()));
            ended.map(|(role, ended)| (role, ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))).collect()
        });
        let mut programs = Vec::new();
        for (role, program) in loaded {
            match program? {
                Ok(program) => programs.push((role, program)),
                Err(error) => return Ok(Loaded::Refused(error)),
            }
        }
        Ok(Loaded::Taken(Self { programs }))
    }

    /// A link of the program at entries, on a function of this very program that nobody else calls; `None` if the kernel makes none:
    /// kernels before 6.6 take the programs as well, and refuse the link.
    fn tried(&self) -> Result<Option<OwnedFd>, AttachError> {
        let Some(offset) = own_function::EMULATED.offset() else {
            tracing::debug!("our own executable could not be found in memory: no uprobe_multi link was tried");
            return Ok(None);
        };
        let site = Site { offset, cookie: 0 };
        match self.link(Role::Entry, Path::new(own_function::FILE), std::process::id(), &[site]) {
            Ok(link) => Ok(Some(link)),
            Err(error) if is_about_privilege(&error) => Err(AttachError::not_permitted("a uprobe_multi link", &error)),
            Err(error) => {
                tracing::debug!(%error, "the kernel makes no uprobe_multi link");
                Ok(None)
            }
        }
    }

    /// Places one program at many sites of a file, for one process. Dropping the link takes the probes away.
    ///
    /// # Errors
    /// What the kernel answered; no probe is placed then.
    pub fn link(&self, role: Role, path: &Path, process: u32, sites: &[Site]) -> io::Result<OwnedFd> {
        use std::os::unix::ffi::OsStrExt as _;
        let (_, program) = self
            .programs
            .iter()
            .find(|(known, _)| *known == role)
            .ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        let path = CString::new(path.as_os_str().as_bytes())?;
        let offsets: Vec<u64> = sites.iter().map(|site| site.offset).collect();
        let cookies: Vec<u64> = sites.iter().map(|site| site.cookie).collect();
        let count = u32::try_from(sites.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: an all-zero `bpf_attr` is a value of every member of the union.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
        attributes.link_create.attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
        // SAFETY: the member that belongs to the attach type; plain integers.
        let request = unsafe { &mut attributes.link_create.__bindgen_anon_3.uprobe_multi };
        request.path = path.as_ptr() as u64;
        request.offsets = offsets.as_ptr() as u64;
        request.cookies = cookies.as_ptr() as u64;
        request.cnt = count;
        request.flags = if role == Role::Return { RETURN_PROBE } else { 0 };
        request.pid = scope_of(process);
        // SAFETY: the pointers in the request outlive the call and hold `count` elements each.
        unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
    }
}

/// What the kernel said to programs for links of many uprobes.
enum Loaded {
    Taken(MultiPrograms),
    Refused(io::Error),
}

impl Loaded {
    /// The programs, where the kernel is known to make links of them.
    fn taken(self) -> Result<MultiPrograms, AttachError> {
        match self {
            Self::Taken(programs) => Ok(programs),
            Self::Refused(error) => Err(load_failure(&error)),
        }
    }
}

/// The maps that the programs share, by their names.
fn maps_of(loaded: &Ebpf) -> Vec<(&str, RawFd)> {
    loaded.maps().filter_map(|(name, map)| Some((name, descriptor(map)?))).collect()
}

/// Loads the type information of the object. With it the verifier knows which functions are global and looks at each of
/// them once; without it the programs would take it a hundred times as long. `None` where the kernel takes none.
fn load_type_information(object: &mut Object) -> Option<OwnedFd> {
    let btf = object.fixup_and_sanitize_btf(aya::features().btf()?).ok()??;
    let bytes = btf.to_bytes();
    // SAFETY: an all-zero `bpf_attr` is a value of every member of the union.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that belongs to BPF_BTF_LOAD; plain integers.
    let request = unsafe { &mut attributes.__bindgen_anon_7 };
    request.btf = bytes.as_ptr() as u64;
    request.btf_size = u32::try_from(bytes.len()).ok()?;
    // SAFETY: the pointer in the request outlives the call, and the size is that of the bytes.
    unsafe { bpf(bpf_cmd::BPF_BTF_LOAD, &mut attributes) }
        .inspect_err(|error| tracing::debug!(%error, "the kernel takes no type information"))
        .ok()
}

/// Loads one program; the inner error is the kernel's.
fn load_program(
    object: &Object,
    name: &'static str,
    types: Option<&OwnedFd>,
) -> Result<io::Result<OwnedFd>, AttachError> {
    let program = object.programs.get(name).ok_or(AttachError::Incomplete { name })?;
    let function = object.functions.get(&program.function_key()).ok_or(AttachError::Incomplete { name })?;
    let instructions = &function.instructions;
    // SAFETY: an all-zero `bpf_attr` is a value of every member of the union.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that belongs to BPF_PROG_LOAD; plain integers.
    let request = unsafe { &mut attributes.__bindgen_anon_3 };
    request.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
    request.expected_attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
    request.insns = instructions.as_ptr() as u64;
    request.insn_cnt = instructions.len() as u32;
    request.license = c"Dual MIT/GPL".as_ptr() as u64;
    let function_types = function.func_info.func_info_bytes();
    if let Some(types) = types {
        request.prog_btf_fd = types.as_raw_fd().cast_unsigned();
        request.func_info = function_types.as_ptr() as u64;
        request.func_info_cnt = function.func_info.len() as u32;
        request.func_info_rec_size = function.func_info_rec_size as u32;
    }
    for (slot, byte) in request.prog_name.iter_mut().zip(name.bytes().take(15)) {
        *slot = byte.cast_signed();
    }
    // SAFETY: the pointers in the request outlive the call; `insn_cnt` is the length of the instructions.
    Ok(unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) })
}

/// A program that does nothing, to be called at events.
///
/// # Errors
/// The kernel does not take it: not permitted.
pub fn load_nothing() -> io::Result<OwnedFd> {
    // `r0 = 0`, `exit` (include/uapi/linux/bpf.h: BPF_ALU64 | BPF_MOV, BPF_JMP | BPF_EXIT).
    const INSTRUCTIONS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    // SAFETY: an all-zero `bpf_attr` is a value of every member of the union.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that belongs to BPF_PROG_LOAD; plain integers.
    let request = unsafe { &mut attributes.__bindgen_anon_3 };
    request.prog_type = bpf_prog_type::BPF_PROG_TYPE_PERF_EVENT as u32;
    request.insns = INSTRUCTIONS.as_ptr() as u64;
    request.insn_cnt = INSTRUCTIONS.len() as u32;
    request.license = c"Dual MIT/GPL".as_ptr() as u64;
    // SAFETY: the pointers in the request outlive the call; `insn_cnt` is the number of the instructions.
    unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }
}

/// # Safety
/// Every pointer in `attributes` must be valid for what the command reads or writes.
unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: promised by the caller; the size is that of the union.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_mut(attributes), size_of::<bpf_attr>())
    };
    match RawFd::try_from(result) {
        // SAFETY: both commands used here return a new file descriptor that nothing else owns.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// File descriptor of a map, for the kinds that the programs use.
fn descriptor(map: &Map) -> Option<RawFd> {
    use std::os::fd::AsFd as _;
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::PerfEventArray(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}
