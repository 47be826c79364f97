//! Many uprobes in one system call (Linux 6.6 and newer). The loader library of this version knows neither the attach
//! type nor the link, so the program is loaded and linked by `bpf(2)` here.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use aya::Ebpf;
use aya::maps::Map;
use aya_obj::Object;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type};

use super::error::AttachError;
use super::placement::scope_of;

/// `BPF_F_UPROBE_MULTI_RETURN` (include/uapi/linux/bpf.h, Linux 6.18).
const RETURN_PROBE: u32 = 1;

/// Programs loaded for links of many uprobes.
pub struct MultiPrograms {
    entry: OwnedFd,
    exit: OwnedFd,
    returned: OwnedFd,
}

/// Which of the programs a link runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// At the beginning of a function.
    Entry,
    /// At an instruction that leaves a function.
    Exit,
    /// In the return trampoline.
    Return,
}

/// One probe of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Offset of the instruction in the file.
    pub offset: u64,
    /// What the program gets to know.
    pub cookie: u64,
}

impl MultiPrograms {
    /// Loads the programs once more, for links of many uprobes, on the maps that `loaded` has made. `Ok(None)`: the
    /// kernel does not know such programs.
    ///
    /// # Errors
    /// The object does not parse or lacks a program: it was built wrongly.
    pub fn load(object: &[u8], loaded: &Ebpf) -> Result<Option<Self>, AttachError> {
        Self::load_named(object, loaded, ["native_entry", "native_exit", "native_return"])
    }

    /// Likewise the programs that see every Python call: at entries and at exits.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_python(object: &[u8], loaded: &Ebpf) -> Result<Option<Self>, AttachError> {
        Self::load_named(object, loaded, ["python_frame_entry", "python_frame_return", "floor_return"])
    }

    /// Likewise with programs that do nothing.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_floor(object: &[u8], loaded: &Ebpf) -> Result<Option<Self>, AttachError> {
        Self::load_named(object, loaded, ["floor_entry", "floor_entry", "floor_return"])
    }

    fn load_named(
        object: &[u8],
        loaded: &Ebpf,
        [entry, exit, returned]: [&'static str; 3],
    ) -> Result<Option<Self>, AttachError> {
        let load_error = |problem: &dyn std::fmt::Display| AttachError::Load { problem: problem.to_string() };
        let mut parsed = Object::parse(object).map_err(|error| load_error(&error))?;
        let types = load_type_information(&mut parsed);
        let text_sections: HashSet<usize> = parsed.functions.keys().map(|(section, _)| *section).collect();
        let definitions = std::mem::take(&mut parsed.maps);
        let maps: Vec<_> =
            loaded.maps().filter_map(|(name, map)| Some((name, descriptor(map)?, definitions.get(name)?))).collect();
        parsed.relocate_maps(maps.into_iter(), &text_sections).map_err(|error| load_error(&error))?;
        parsed.relocate_calls(&text_sections).map_err(|error| load_error(&error))?;
        parsed.sanitize_functions(aya::features());
        let load = |name: &'static str| load_program(&parsed, name, types.as_ref());
        // The verifier takes most of the time of an attach.
        let [entry, exit, returned] = std::thread::scope(|scope| {
            [entry, exit, returned]
                .map(|name| scope.spawn(move || load(name)))
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let (Some(entry), Some(exit), Some(returned)) = (entry?, exit?, returned?) else {
            return Ok(None);
        };
        Ok(Some(Self { entry, exit, returned }))
    }

    /// Places one program at many sites of a file, for one process. Dropping the link takes the probes away.
    ///
    /// # Errors
    /// What the kernel answered; no probe is placed then.
    pub fn link(&self, role: Role, path: &Path, process: u32, sites: &[Site]) -> io::Result<OwnedFd> {
        use std::os::unix::ffi::OsStrExt as _;
        let program = match role {
            Role::Entry => &self.entry,
            Role::Exit => &self.exit,
            Role::Return => &self.returned,
        };
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

fn load_program(object: &Object, name: &'static str, types: Option<&OwnedFd>) -> Result<Option<OwnedFd>, AttachError> {
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
    match unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) } {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(error) => {
            tracing::debug!(program = name, %error, "the kernel takes no uprobe_multi program");
            Ok(None)
        }
    }
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
