//! Which registers an instruction writes, and what it does to the stack pointer.

use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// What an instruction does to the stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StackChange {
    /// Adds this many bytes to it (negative: the stack grows); 0 where it is left alone.
    By(i64),
    /// Sets it to something else.
    Unknown,
}

/// Registers that a called function leaves as they are.
const PRESERVED: [Register; 6] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

/// Whether a called function leaves a register as it is.
pub(super) fn is_preserved(register: Register) -> bool {
    PRESERVED.contains(&register)
}

/// The general-purpose registers, as 64-bit registers, that an instruction writes, or may write.
pub(super) fn written(instruction: &Instruction) -> impl Iterator<Item = Register> {
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(instruction).used_registers().to_vec();
    used.into_iter()
        .filter(|used| {
            matches!(
                used.access(),
                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            )
        })
        .map(|used| used.register().full_register())
        .filter(|register| register.is_gpr())
}

/// Whether an instruction writes, or may write, this many bytes or more to memory that is not addressed by the stack pointer.
pub(super) fn stores(instruction: &Instruction, bytes: usize) -> bool {
    let mut factory = InstructionInfoFactory::new();
    factory.info(instruction).used_memory().iter().any(|used| {
        let reads =
            matches!(used.access(), OpAccess::None | OpAccess::NoMemAccess | OpAccess::Read | OpAccess::CondRead);
        !reads && used.base() != Register::RSP && used.memory_size().size() >= bytes
    })
}

/// Whether an instruction is there for alignment or as a landing pad alone.
pub(super) fn does_nothing(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Endbr64 | Mnemonic::Nop)
}

/// What an instruction does to the stack pointer.
pub(super) fn stack_change(instruction: &Instruction) -> StackChange {
    let increment = instruction.stack_pointer_increment();
    if increment != 0 {
        let plain = matches!(instruction.code(), Code::Leaveq | Code::Leavew | Code::Enterq_imm16_imm8);
        return if plain { StackChange::Unknown } else { StackChange::By(i64::from(increment)) };
    }
    if !written(instruction).any(|register| register == Register::RSP) {
        return StackChange::By(0);
    }
    let immediate = || {
        let is_immediate = matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64);
        is_immediate.then(|| instruction.immediate(1) as i64)
    };
    let by = match instruction.code() {
        Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 => immediate().and_then(i64::checked_neg),
        Code::Add_rm64_imm8 | Code::Add_rm64_imm32 => immediate(),
        Code::Lea_r64_m
            if instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None =>
        {
            Some(instruction.memory_displacement64() as i64)
        }
        _ => None,
    };
    by.map_or(StackChange::Unknown, StackChange::By)
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::new(64, bytes, DecoderOptions::NONE).decode()
    }

    #[test]
    fn stack_changes() {
        for (bytes, expected) in [
            (&[0x55][..], StackChange::By(-8)),                      // push %rbp
            (&[0x48, 0x83, 0xec, 0x18], StackChange::By(-24)),       // sub $24,%rsp
            (&[0x48, 0x81, 0xc4, 0, 1, 0, 0], StackChange::By(256)), // add $256,%rsp
            (&[0x48, 0x8d, 0x64, 0x24, 0x08], StackChange::By(8)),   // lea 8(%rsp),%rsp
            (&[0x48, 0x8d, 0x64, 0x24, 0xf8], StackChange::By(-8)),  // lea -8(%rsp),%rsp
            (&[0x48, 0x83, 0xe4, 0xe0], StackChange::Unknown),       // and $-32,%rsp
            (&[0x48, 0x89, 0xec], StackChange::Unknown),             // mov %rbp,%rsp
            (&[0xc9], StackChange::Unknown),                         // leave
            (&[0x48, 0x89, 0xe5], StackChange::By(0)),               // mov %rsp,%rbp
        ] {
            assert_eq!(stack_change(&decode(bytes)), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn padding_in_all_its_forms() {
        for bytes in
            [&[0x90][..], &[0x66, 0x90], &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], &[0xf3, 0x0f, 0x1e, 0xfa]]
        {
            assert!(does_nothing(&decode(bytes)), "{bytes:02x?}");
        }
        assert!(!does_nothing(&decode(&[0x48, 0x89, 0xc0]))); // mov %rax,%rax
    }

    #[test]
    fn writes_count_whatever_their_width() {
        let zero_edi = decode(&[0x31, 0xff]); // xor %edi,%edi
        assert!(written(&zero_edi).any(|register| register == Register::RDI));
        let compare = decode(&[0x48, 0x39, 0xf7]); // cmp %rsi,%rdi
        assert_eq!(written(&compare).count(), 0);
    }
}
