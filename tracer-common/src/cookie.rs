//! The 64-bit value that a probe hands to its program: which function, which process, and how to read the site.

/// What the program of one probe has to know, packed so that no map look-up is needed.
///
/// Layout, from bit 0: function 24, process slot 16, object 2, nests 1, captures 1, site 8 (entry: stack delta in units of
/// 8 bytes; exit: [`ExitSite`]), unused 12. The tables have fewer slots than the cookie could name, see
/// [`crate::limits::MAX_PROCESSES`] and [`crate::limits::MAX_FUNCTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Cookie(pub u64);

/// Where the object (`this`, a handle) of a call is when the call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectLocation {
    /// The function has no object, or it is not known where the object is.
    None = 0,
    /// First integer argument (`rdi` on x86-64).
    FirstArgument = 1,
    /// Second integer argument (`rsi`): the first one is the address of the returned value.
    SecondArgument = 2,
}

/// How an exit probe tells that the function is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitSite {
    /// At a `ret`.
    Instruction,
    /// At an unconditional jump out of the function.
    Jump,
    /// At a conditional jump out of the function; the number is the low four bits of the x86 opcode (0 = `jo` .. 15 = `jg`).
    ConditionalJump(u8),
    /// In the kernel's return trampoline (uretprobe): the return address has been popped already.
    Trampoline,
}

const FUNCTION_BITS: u32 = 24;
const PROCESS_SHIFT: u32 = 24;
const PROCESS_BITS: u32 = 16;
const OBJECT_SHIFT: u32 = PROCESS_SHIFT + PROCESS_BITS;
const NESTS_BIT: u64 = 1 << 42;
const CAPTURES_BIT: u64 = 1 << 43;
const SITE_SHIFT: u32 = 44;
const SITE_TRAMPOLINE: u64 = 1;
const SITE_JUMP: u64 = 2;
const SITE_CONDITIONAL: u64 = 0x10;
/// In the place of the function, above the number of a register.
const IS_COPY: u32 = 0x10;

impl Cookie {
    /// Cookie of an entry probe. `stack_delta` is how many bytes the stack pointer is below its value at the first
    /// instruction (a multiple of 8, at most 2040).
    #[must_use]
    pub const fn entry(
        function: u32,
        process_slot: u16,
        object: ObjectLocation,
        nests: bool,
        captures: bool,
        stack_delta: u16,
    ) -> Self {
        let mut bits = Self::base(function, process_slot);
        bits |= (object as u64) << OBJECT_SHIFT;
        if nests {
            bits |= NESTS_BIT;
        }
        if captures {
            bits |= CAPTURES_BIT;
        }
        bits |= ((stack_delta / 8) as u64 & 0xff) << SITE_SHIFT;
        Self(bits)
    }

    /// Cookie of an exit probe.
    #[must_use]
    pub const fn exit(function: u32, process_slot: u16, site: ExitSite) -> Self {
        let site = match site {
            ExitSite::Instruction => 0,
            ExitSite::Jump => SITE_JUMP,
            ExitSite::Trampoline => SITE_TRAMPOLINE,
            ExitSite::ConditionalJump(condition) => SITE_CONDITIONAL | (condition as u64 & 0xf),
        };
        Self(Self::base(function, process_slot) | site << SITE_SHIFT)
    }

    /// Cookie of a probe inside an interpreter: `place` says where the frame is at the hit, and `condition`, as in
    /// [`ExitSite::ConditionalJump`], on which jump the probe sits, if on one.
    #[must_use]
    pub const fn interpreter(place: u32, process_slot: u16, condition: Option<u8>) -> Self {
        let site = match condition {
            Some(condition) => SITE_CONDITIONAL | (condition as u64 & 0xf),
            None => 0,
        };
        Self(Self::base(place, process_slot) | site << SITE_SHIFT)
    }

    const fn base(function: u32, process_slot: u16) -> u64 {
        (function as u64 & ((1 << FUNCTION_BITS) - 1)) | (process_slot as u64) << PROCESS_SHIFT
    }

    /// Cookie of a place that a new context passes: the register that it is in, and whether it is a copy.
    #[must_use]
    pub const fn new_context(register: u8, is_copy: bool, process_slot: u16) -> Self {
        let place = (register & 0xf) as u32 | if is_copy { IS_COPY } else { 0 };
        Self(Self::base(place, process_slot))
    }

    /// Whether the context that passes is a copy of another one.
    #[must_use]
    #[inline(always)]
    pub const fn is_copy(self) -> bool {
        self.place() & IS_COPY != 0
    }

    /// Where the frame is, for a probe inside an interpreter.
    #[must_use]
    #[inline(always)]
    pub const fn place(self) -> u32 {
        self.function()
    }

    /// Number of the function.
    #[must_use]
    #[inline(always)]
    pub const fn function(self) -> u32 {
        (self.0 & ((1 << FUNCTION_BITS) - 1)) as u32
    }

    /// Slot of the process in the process map.
    #[must_use]
    #[inline(always)]
    pub const fn process_slot(self) -> u32 {
        (self.0 >> PROCESS_SHIFT & 0xffff) as u32
    }

    /// Number of the [`ObjectLocation`].
    #[must_use]
    #[inline(always)]
    pub const fn object(self) -> u64 {
        self.0 >> OBJECT_SHIFT & 3
    }

    /// Whether matching calls inside this one become spans of their own.
    #[must_use]
    #[inline(always)]
    pub const fn nests(self) -> bool {
        self.0 & NESTS_BIT != 0
    }

    /// Whether arguments are captured for this function.
    #[must_use]
    #[inline(always)]
    pub const fn captures(self) -> bool {
        self.0 & CAPTURES_BIT != 0
    }

    /// Bytes to add to the stack pointer at an entry probe to get its value at the first instruction.
    #[must_use]
    #[inline(always)]
    pub const fn stack_delta(self) -> u64 {
        (self.0 >> SITE_SHIFT & 0xff) * 8
    }

    /// Whether the exit probe runs in the return trampoline.
    #[must_use]
    #[inline(always)]
    pub const fn is_trampoline(self) -> bool {
        self.0 >> SITE_SHIFT & 0xff == SITE_TRAMPOLINE
    }

    /// Whether the exit probe sits on a jump into another function, conditional or not.
    #[must_use]
    #[inline(always)]
    pub const fn is_jump(self) -> bool {
        self.is_conditional() || self.0 >> SITE_SHIFT & 0xff == SITE_JUMP
    }

    /// Whether the probe, at an exit or inside an interpreter, sits on a conditional jump.
    #[must_use]
    #[inline(always)]
    pub const fn is_conditional(self) -> bool {
        self.0 >> SITE_SHIFT & SITE_CONDITIONAL != 0
    }

    /// Condition of the jump, the low four bits of its x86 opcode.
    #[must_use]
    #[inline(always)]
    pub const fn condition(self) -> u64 {
        self.0 >> SITE_SHIFT & 0xf
    }
}

/// Whether an x86-64 conditional jump is taken with these flags.
/// Source: Intel SDM volume 2, "Jcc"; bits CF 0, PF 2, ZF 6, SF 7, OF 11.
#[must_use]
#[inline(always)]
pub const fn jump_is_taken(condition: u64, flags: u64) -> bool {
    let carry = flags & 1 != 0;
    let parity = flags >> 2 & 1 != 0;
    let zero = flags >> 6 & 1 != 0;
    let sign = flags >> 7 & 1 != 0;
    let overflow = flags >> 11 & 1 != 0;
    let base = match condition >> 1 & 7 {
        0 => overflow,
        1 => carry,
        2 => zero,
        3 => carry || zero,
        4 => sign,
        5 => parity,
        6 => sign != overflow,
        _ => zero || sign != overflow,
    };
    base != (condition & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_cookie_keeps_every_field() {
        let cookie = Cookie::entry(0xab_cdef, 65_432, ObjectLocation::SecondArgument, true, false, 2040);
        assert_eq!(cookie.function(), 0xab_cdef);
        assert_eq!(cookie.process_slot(), 65_432);
        assert_eq!(cookie.object(), 2);
        assert!(cookie.nests());
        assert!(!cookie.captures());
        assert_eq!(cookie.stack_delta(), 2040);
    }

    #[test]
    fn exit_cookie_tells_its_site() {
        assert!(Cookie::exit(7, 1, ExitSite::Trampoline).is_trampoline());
        let jump = Cookie::exit(7, 1, ExitSite::ConditionalJump(15));
        assert!(jump.is_conditional() && !jump.is_trampoline());
        assert_eq!(jump.condition(), 15);
        assert!(jump.is_jump() && Cookie::exit(7, 1, ExitSite::Jump).is_jump());
        assert!(
            !Cookie::exit(7, 1, ExitSite::Jump).is_conditional() && !Cookie::exit(7, 1, ExitSite::Trampoline).is_jump()
        );
        let plain = Cookie::exit(7, 1, ExitSite::Instruction);
        assert!(!plain.is_conditional() && !plain.is_trampoline() && !plain.is_jump());
        assert_eq!(plain.function(), 7);
    }

    #[test]
    fn cookie_of_an_interpreter_tells_place_and_condition() {
        let jump = Cookie::interpreter(3, 65_535, Some(4));
        assert_eq!((jump.place(), jump.process_slot()), (3, 65_535));
        assert!(jump.is_conditional() && jump.condition() == 4);
        assert!(!Cookie::interpreter(3, 0, None).is_conditional());
    }

    #[test]
    fn conditions_follow_the_flags() {
        const ZERO: u64 = 1 << 6;
        const SIGN: u64 = 1 << 7;
        const OVERFLOW: u64 = 1 << 11;
        assert!(jump_is_taken(4, ZERO)); // je
        assert!(!jump_is_taken(5, ZERO)); // jne
        assert!(jump_is_taken(7, 0)); // ja
        assert!(!jump_is_taken(7, ZERO));
        assert!(jump_is_taken(12, SIGN)); // jl
        assert!(!jump_is_taken(12, SIGN | OVERFLOW));
        assert!(jump_is_taken(15, 0)); // jg
        assert!(!jump_is_taken(15, ZERO));
    }
}
