//! What the kernel does with a probe on an instruction: emulate it, single-step it, or refuse it.
//!
//! Source: Linux `arch/x86/kernel/uprobes.c` (`uprobe_init_insn`, `branch_setup_xol_ops`, `push_setup_xol_ops`; 3.17 to 6.18),
//! held against what 6.18 does with each form.

/// How a probed instruction is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Execution {
    /// By the kernel itself, without leaving the trap: cheap.
    Emulated,
    /// Out of line with a second trap.
    SingleStepped,
    /// Not at all: the kernel takes no probe here.
    Refused,
}

/// The instruction after its prefixes.
struct Opcode<'bytes> {
    prefixes: &'bytes [u8],
    rex: Option<u8>,
    /// First opcode byte; for VEX and EVEX instructions the one after the prefix, as the kernel's decoder sees it.
    first: u8,
    second: Option<u8>,
    vector: bool,
}

/// What happens to a probe on the instruction that these bytes are, no more and no less.
pub(super) fn execution(instruction: &[u8]) -> Execution {
    let Some(opcode) = Opcode::parse(instruction) else { return Execution::Refused };
    if opcode.prefixes.iter().any(|prefix| matches!(prefix, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0)) {
        return Execution::Refused;
    }
    if opcode.is_refused() {
        return Execution::Refused;
    }
    if opcode.vector {
        return Execution::SingleStepped;
    }
    let wide = !opcode.prefixes.contains(&0x66);
    match (opcode.first, opcode.second) {
        (0x90, _) | (0x0f, Some(0x1f)) => Execution::Emulated,
        (0xeb | 0xe9 | 0xe8 | 0x70..=0x7f, _) | (0x0f, Some(0x80..=0x8f)) if wide => Execution::Emulated,
        // The kernel refuses, rather than steps, branches with an operand size prefix.
        (0xeb | 0xe9 | 0xe8 | 0x70..=0x7f, _) | (0x0f, Some(0x80..=0x8f)) => Execution::Refused,
        (0x50..=0x57, _) if opcode.prefixes.is_empty() && matches!(opcode.rex, None | Some(0x41)) => {
            Execution::Emulated
        }
        _ => Execution::SingleStepped,
    }
}

impl<'bytes> Opcode<'bytes> {
    fn parse(bytes: &'bytes [u8]) -> Option<Self> {
        let is_prefix =
            |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3);
        let count = bytes.iter().take_while(|byte| is_prefix(byte)).count();
        let (prefixes, mut rest) = bytes.split_at_checked(count)?;
        let mut rex = None;
        if let [byte @ 0x40..=0x4f, tail @ ..] = rest {
            rex = Some(*byte);
            rest = tail;
        }
        let vector_prefix = match rest.first()? {
            0xc5 => 2,
            0xc4 => 3,
            0x62 => 4,
            _ => 0,
        };
        let first = *rest.get(vector_prefix)?;
        Some(Self { prefixes, rex, first, second: rest.get(vector_prefix + 1).copied(), vector: vector_prefix > 0 })
    }

    fn is_refused(&self) -> bool {
        match self.first {
            0x0f if !self.vector => !matches!(self.second, Some(second) if Self::is_good_second(second)),
            // pop %ss and mov to %ss keep traps off for one instruction.
            0x8e if !self.vector => self.second.is_some_and(|modrm| modrm >> 3 & 7 == 2),
            first => matches!(first,
                0x06 | 0x07 | 0x0e | 0x16 | 0x17 | 0x1e | 0x1f | 0x27 | 0x2f | 0x37 | 0x3f | 0x60..=0x62
                | 0x6c..=0x6f | 0x82 | 0x9a | 0xcc..=0xcf | 0xd4..=0xd6 | 0xe4..=0xe7 | 0xea | 0xec..=0xef
                | 0xf1 | 0xf4 | 0xfa | 0xfb),
        }
    }

    /// The kernel's table of opcodes after `0f`. Kernels take probes on the others too, because of a set bit for `0f` itself;
    /// they are system instructions, on which no probe is wanted.
    fn is_good_second(second: u8) -> bool {
        !matches!(second, 0x00 | 0x01 | 0x05..=0x09 | 0x0b | 0x30 | 0x34 | 0x35 | 0x37 | 0x78 | 0x79 | 0xae)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_first_instructions() {
        for (bytes, expected) in [
            (&[0x55][..], Execution::Emulated),                    // push %rbp
            (&[0x41, 0x57], Execution::Emulated),                  // push %r15
            (&[0x40, 0x55], Execution::SingleStepped),             // push %rbp with an idle prefix
            (&[0x90], Execution::Emulated),                        // nop
            (&[0x66, 0x90], Execution::Emulated),                  // xchg %ax,%ax
            (&[0x0f, 0x1f, 0x44, 0, 0], Execution::Emulated),      // nopl 0(%rax,%rax)
            (&[0xf3, 0x0f, 0x1e, 0xfa], Execution::SingleStepped), // endbr64
            (&[0x48, 0x83, 0xec, 0x18], Execution::SingleStepped), // sub $24,%rsp
            (&[0x74, 0x10], Execution::Emulated),                  // je
            (&[0x0f, 0x84, 0, 0, 0, 0], Execution::Emulated),      // je
            (&[0xe8, 0, 0, 0, 0], Execution::Emulated),            // call
            (&[0xc3], Execution::SingleStepped),                   // ret
            (&[0xf3, 0xc3], Execution::SingleStepped),             // repz ret
            (&[0xff, 0x25, 0, 0, 0, 0], Execution::SingleStepped), // jmp *0(%rip)
        ] {
            assert_eq!(execution(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_the_kernel_refuses() {
        for bytes in [
            &[0xf0, 0x48, 0x0f, 0xb1, 0x0f][..], // lock cmpxchg
            &[0x3e, 0xff, 0xe0],                 // notrack jmp *%rax
            &[0x2e, 0xe9, 0, 0, 0, 0],           // cs jmp
            &[0x66, 0xe9, 0, 0],                 // jmpw
            &[0x0f, 0x05],                       // syscall
            &[0x0f, 0x0b],                       // ud2
            &[0xcc],                             // int3
            &[0xf4],                             // hlt
            &[0xec],                             // in
            &[0xc5, 0xf9, 0xef, 0xc0],           // vpxor: the kernel takes its opcode for `out`
            &[],
        ] {
            assert_eq!(execution(bytes), Execution::Refused, "{bytes:02x?}");
        }
        assert_eq!(execution(&[0xc5, 0xf8, 0x57, 0xc0]), Execution::SingleStepped); // vxorps
    }
}
