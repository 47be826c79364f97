//! Where the kernel keeps the number of a task, its thread pointer and its stack, from its type information (Documentation/bpf/btf.rst, Linux 6.18).

use std::fs::File;
use std::io::{self, Read as _};

use memmap2::MmapMut;

/// The kernel's types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// `BTF_MAGIC`, in the byte order of x86-64.
const MAGIC: u16 = 0xeb9f;

/// Kinds of types (include/uapi/linux/btf.h): those that have members, and those that others are looked for in.
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// Members within members within members of a task.
const DEEPEST: usize = 4;

/// Offsets of what the programs read of a task; 0 where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskLayout {
    /// From the beginning of `struct task_struct` to its `pid`.
    pub number: u64,
    /// To its thread pointer, `thread.fsbase`.
    pub thread_pointer: u64,
    /// To its `mm`.
    pub memory: u64,
    /// From the beginning of `struct mm_struct` to `start_stack`.
    pub memory_stack: u64,
    /// From the beginning of a task to its `files`.
    pub files: u64,
    /// From the beginning of `struct files_struct` to its `fdt`.
    pub files_table: u64,
    /// From the beginning of `struct fdtable` to its `fd`.
    pub table_files: u64,
    /// From the beginning of `struct file` to its `f_flags`.
    pub file_flags: u64,
    /// What is read of sockets.
    pub sockets: SocketLayout,
}

/// Offsets of what the programs read of a socket; 0 where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketLayout {
    /// From the beginning of `struct file` to its `private_data`.
    pub file_private: u64,
    /// From the beginning of `struct sock` to its `sk_type`.
    pub kind: u64,
    /// To `skc_family` of its `__sk_common`, with which it begins.
    pub family: u64,
    /// To `skc_num` there.
    pub port: u64,
    /// To its `sk_socket`.
    pub socket: u64,
    /// From the beginning of `struct socket` to `i_ino` of the inode that is behind it in `struct socket_alloc`.
    pub inode: u64,
    /// From the beginning of `struct unix_sock` to its `addr`; 0 also where the kernel has no unix sockets of its own.
    pub unix_name: u64,
}

impl SocketLayout {
    /// Whether the kernel tells of everything that there is in each kernel.
    pub fn is_known(&self) -> bool {
        let Self { file_private, kind, family, port, socket, inode, unix_name: _ } = *self;
        [file_private, kind, family, port, socket, inode].iter().all(|offset| *offset != 0)
    }

    fn of(types: &Types<'_>) -> Self {
        let inode = || Some(types.offset_in("socket_alloc", "vfs_inode")? + types.offset_in("inode", "i_ino")?);
        Self {
            file_private: types.offset_in("file", "private_data").unwrap_or_default(),
            kind: types.offset_in("sock", "sk_type").unwrap_or_default(),
            family: types.offset_in("sock_common", "skc_family").unwrap_or_default(),
            port: types.offset_in("sock_common", "skc_num").unwrap_or_default(),
            socket: types.offset_in("sock", "sk_socket").unwrap_or_default(),
            inode: inode().unwrap_or_default(),
            unix_name: types.offset_in("unix_sock", "addr").unwrap_or_default(),
        }
    }
}

/// Reads the offsets.
pub fn task_layout() -> TaskLayout {
    let Ok(bytes) = read_aside() else { return TaskLayout::default() };
    let Some(types) = Types::parse(&bytes) else { return TaskLayout::default() };
    let thread_pointer =
        || Some(types.offset_in("task_struct", "thread")? + types.offset_in("thread_struct", "fsbase")?);
    TaskLayout {
        number: types.offset_in("task_struct", "pid").unwrap_or_default(),
        thread_pointer: thread_pointer().unwrap_or_default(),
        memory: types.offset_in("task_struct", "mm").unwrap_or_default(),
        memory_stack: types.offset_in("mm_struct", "start_stack").unwrap_or_default(),
        files: types.offset_in("task_struct", "files").unwrap_or_default(),
        files_table: types.offset_in("files_struct", "fdt").unwrap_or_default(),
        table_files: types.offset_in("fdtable", "fd").unwrap_or_default(),
        file_flags: types.offset_in("file", "f_flags").unwrap_or_default(),
        sockets: SocketLayout::of(&types),
    }
}

/// The file, in memory that goes back to the system at once: an allocator that has given out so much keeps more for itself
/// from then on.
fn read_aside() -> io::Result<MmapMut> {
    let mut file = File::open(TYPES)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = MmapMut::map_anon(length)?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Type information, as offsets into its bytes.
struct Types<'bytes> {
    types: &'bytes [u8],
    strings: &'bytes [u8],
    /// Where each type begins; the first one has number 1.
    positions: Vec<u32>,
}

impl<'bytes> Types<'bytes> {
    fn parse(bytes: &'bytes [u8]) -> Option<Self> {
        if bytes.get(..2)? != MAGIC.to_le_bytes() {
            return None;
        }
        let field = |position| word(bytes, position).map(|word| word as usize);
        let (header, type_offset, type_length) = (field(4)?, field(8)?, field(12)?);
        let (string_offset, string_length) = (field(16)?, field(20)?);
        let part = |offset: usize, length: usize| bytes.get(header.checked_add(offset)?..)?.get(..length);
        let (types, strings) = (part(type_offset, type_length)?, part(string_offset, string_length)?);
        let mut positions = Vec::new();
        let mut position = 0;
        while position < types.len() {
            positions.push(u32::try_from(position).ok()?);
            position += size_of_type(word(types, position + 4)?)?;
        }
        Some(Self { types, strings, positions })
    }

    fn offset_in(&self, structure: &str, member: &str) -> Option<u64> {
        let is_it = |position: &usize| {
            let kind = word(self.types, *position + 4).map(kind_of);
            kind == Some(STRUCT)
                && word(self.types, *position).and_then(|name| self.string(name)) == Some(structure.as_bytes())
        };
        let position = self.positions.iter().map(|position| *position as usize).find(is_it)?;
        self.member(position, member.as_bytes(), DEEPEST)
    }

    /// Offset of a member of the type at this position, also within members that have no name.
    fn member(&self, position: usize, wanted: &[u8], deepest: usize) -> Option<u64> {
        let information = word(self.types, position + 4)?;
        if !matches!(kind_of(information), STRUCT | UNION) || deepest == 0 {
            return None;
        }
        let has_bit_fields = information >> 31 == 1;
        (0..(information & 0xffff) as usize).find_map(|index| {
            let member = position + 12 + index * 12;
            let (name, kind, offset) =
                (word(self.types, member)?, word(self.types, member + 4)?, word(self.types, member + 8)?);
            // With bit fields the upper eight bits are the width.
            let bits = if has_bit_fields { offset & 0x00ff_ffff } else { offset };
            let name = self.string(name)?;
            if name == wanted {
                return Some(u64::from(bits / 8));
            }
            if !name.is_empty() {
                return None;
            }
            let inner = *self.positions.get((kind as usize).checked_sub(1)?)? as usize;
            Some(u64::from(bits / 8) + self.member(inner, wanted, deepest - 1)?)
        })
    }

    fn string(&self, offset: u32) -> Option<&'bytes [u8]> {
        self.strings.get(offset as usize..)?.split(|byte| *byte == 0).next()
    }
}

fn kind_of(information: u32) -> u32 {
    information >> 24 & 0x1f
}

/// Bytes of a type: three words and what its kind adds for each of its members.
fn size_of_type(information: u32) -> Option<usize> {
    let members = (information & 0xffff) as usize;
    let more = match kind_of(information) {
        // Pointers, forwards, typedefs, qualifiers, functions, floating point numbers and tags of types have none.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables and tags of declarations have one word; enumerations and parameters two for each.
        1 | 14 | 17 => 4,
        3 => 12,
        STRUCT | UNION | 15 | 19 => members * 12,
        6 | 13 => members * 8,
        _ => return None,
    };
    Some(12 + more)
}

fn word(bytes: &[u8], position: usize) -> Option<u32> {
    let word = bytes.get(position..position.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A structure with a member without a name, which has the number in it.
    fn types() -> Vec<u8> {
        let strings = b"\0task_struct\0flags\0pid\0";
        let words: &[u32] = &[
            // 1: int
            0,
            1 << 24,
            4,
            32,
            // 2: a structure without a name: flags, pid
            0,
            STRUCT << 24 | 2,
            8,
            13,
            1,
            0,
            19,
            1,
            32,
            // 3: task_struct: flags, and the one without a name at byte 8
            1,
            STRUCT << 24 | 2,
            16,
            13,
            1,
            0,
            0,
            2,
            64,
        ];
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let header = [0x0001_eb9f, 24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        header.iter().flat_map(|word| word.to_le_bytes()).chain(types).chain(*strings).collect()
    }

    #[test]
    fn members_are_found_within_members_without_a_name() {
        let bytes = types();
        let types = Types::parse(&bytes).expect("well formed");
        assert_eq!(types.offset_in("task_struct", "flags"), Some(0));
        assert_eq!(types.offset_in("task_struct", "pid"), Some(12));
        assert_eq!(types.offset_in("task_struct", "tgid"), None);
        for length in 0..bytes.len() {
            // Cut anywhere: nothing, and no panic.
            let _ = Types::parse(&bytes[..length]).and_then(|types| types.offset_in("task_struct", "pid"));
        }
    }

    #[test]
    fn this_kernel_tells_it() {
        if std::fs::exists(TYPES).unwrap_or(false) {
            let layout = task_layout();
            let TaskLayout {
                number,
                thread_pointer,
                memory,
                memory_stack,
                files,
                files_table,
                table_files,
                file_flags,
                sockets,
            } = layout;
            assert!(sockets.is_known() && sockets.unix_name > 0, "{layout:?}");
            for offset in [number, thread_pointer, memory, memory_stack, files, files_table, table_files, file_flags] {
                assert!(offset > 0 && offset < 1 << 14, "{layout:?}");
            }
        }
    }
}
