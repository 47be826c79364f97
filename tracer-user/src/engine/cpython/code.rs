//! Code objects: names, source, variables, and where the receiver of a call is.

use super::error::ReadProblem;
use super::interpreter::Interpreter;
use super::layout::{FrameSize, Slots};
use super::type_facts::flag;
use crate::memory::Memory;
use crate::model::{Receiver, RemoteAddress};

/// Bits of `co_flags`, the same in CPython 3.8 to 3.15 (Include/cpython/code.h, `CO_*`).
mod code_flag {
    pub const VARIABLE_ARGUMENTS: u32 = 0x4;
    /// `CO_GENERATOR`, `CO_COROUTINE`, `CO_ITERABLE_COROUTINE`, `CO_ASYNC_GENERATOR`.
    pub const RESUMED: u32 = 0x20 | 0x80 | 0x100 | 0x200;
}

/// Bits of the kind of a slot, from 3.11 (Include/internal/pycore_code.h, `CO_FAST_*`).
mod slot_bit {
    pub const LOCAL: u8 = 0x20;
    pub const CELL: u8 = 0x40;
    pub const FREE: u8 = 0x80;
}

/// Most slots of a frame that are believed; the compiler of CPython allows 2^15 in practice.
const SLOT_LIMIT: u32 = 1 << 16;
/// Largest value stack that is believed, words.
const STACK_LIMIT: u32 = 1 << 20;
/// Bytes of a pointer.
const POINTER: u32 = 8;

/// A code object as it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeView {
    /// Its address.
    pub address: RemoteAddress,
    /// `co_name`.
    pub name: String,
    /// `co_qualname`, from 3.11.
    pub qualified_name: Option<String>,
    /// `co_filename`.
    pub file: String,
    /// `co_firstlineno`.
    pub first_line: u32,
    /// `co_flags`.
    pub flags: u32,
    /// `co_argcount`: positional arguments, without `*args`.
    pub argument_count: u32,
    /// `co_kwonlyargcount`.
    pub keyword_only_count: u32,
    /// Slots of a frame, in their order: arguments first.
    pub variables: Vec<Variable>,
    /// Bytes that a frame takes on the data stack; 0 to 3.10, whose frames are on the heap.
    pub frame_bytes: u32,
    /// Where the first argument of a call is: `self`, if the function is a method.
    pub receiver: Receiver,
    /// Offset of its slot from the first one, bytes.
    pub receiver_offset: u32,
    /// Where the argument after it is, and the number of its slot; [`Receiver::FirstOfTuple`] if it is the first of `*args`.
    pub argument: Option<(Receiver, u32)>,
}

/// A slot of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: SlotKind,
}

/// What a slot of a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotKind {
    /// A local variable.
    Local,
    /// A cell for a local variable that a closure inside uses.
    Cell,
    /// A cell of a function around this one.
    Free,
}

impl CodeView {
    /// Whether a call only makes a generator or a coroutine, whose frame outlives it.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.flags & code_flag::RESUMED != 0
    }

    /// Names of the positional arguments, without `*args`.
    pub fn positional_arguments(&self) -> impl Iterator<Item = &str> {
        let count = usize::try_from(self.argument_count).unwrap_or(usize::MAX);
        self.variables.iter().take(count).map(|variable| variable.name.as_str())
    }
}

impl<M: Memory> Interpreter<M> {
    /// A code object.
    ///
    /// # Errors
    /// It is none (`WrongType`), or is not as it can be.
    pub fn code(&self, object: RemoteAddress) -> Result<CodeView, ReadProblem> {
        self.expect_type(object, self.types.code, "code")?;
        let layout = &self.layout.code;
        let torn = || ReadProblem::Torn { address: object, what: "code" };
        let text = |offset| self.text(self.required(object, offset, "code")?);
        let argument_count = self.u32(object, layout.co_argcount)?;
        let keyword_only_count = self.u32(object, layout.co_kwonlyargcount)?;
        let flags = self.u32(object, layout.co_flags)?;
        let stack_size = self.u32(object, layout.co_stacksize)?;
        let variables = self.variables(object)?;
        let slots = u32::try_from(variables.len()).map_err(|_| torn())?;
        let named = argument_count.checked_add(keyword_only_count).ok_or_else(torn)?;
        if named > slots || slots > SLOT_LIMIT || stack_size > STACK_LIMIT {
            return Err(torn());
        }
        let frame_words = match layout.frame_size {
            None => 0,
            Some(FrameSize::BeyondSlotsAndStack(beyond)) => slots + stack_size + beyond,
            Some(FrameSize::Field(offset)) => self.u32(object, offset)?,
        };
        if layout.frame_size.is_some() && !(slots + stack_size..STACK_LIMIT * 2).contains(&frame_words) {
            return Err(torn());
        }
        // `*args` follows the keyword-only arguments.
        let first = if argument_count > 0 { 0 } else { named };
        let (receiver, slot) = match self.argument(object, &variables, first)? {
            (Receiver::Local, slot) if argument_count == 0 && flags & code_flag::VARIABLE_ARGUMENTS != 0 => {
                (Receiver::FirstOfTuple, slot)
            }
            found if argument_count > 0 => found,
            _ => (Receiver::None, 0),
        };
        let has_variable = flags & code_flag::VARIABLE_ARGUMENTS != 0;
        let argument = match (argument_count, has_variable) {
            (2.., _) => Some(self.argument(object, &variables, 1)?).filter(|(kind, _)| *kind == Receiver::Local),
            (1, true) => {
                let found = Some(self.argument(object, &variables, named)?);
                found.filter(|(kind, _)| *kind == Receiver::Local).map(|(_, slot)| (Receiver::FirstOfTuple, slot))
            }
            _ => None,
        };
        Ok(CodeView {
            address: object,
            name: text(layout.co_name)?,
            qualified_name: layout.co_qualname.map(text).transpose()?,
            file: text(layout.co_filename)?,
            first_line: self.u32(object, layout.co_firstlineno)?,
            flags,
            argument_count,
            keyword_only_count,
            variables,
            frame_bytes: frame_words * POINTER,
            receiver,
            receiver_offset: slot * POINTER,
            argument,
        })
    }

    /// Where an argument is: in its own slot, unless a closure uses it. To 3.10 the cell then has another slot
    /// (`co_cell2arg`), from 3.11 the slot itself holds the cell.
    fn argument(
        &self,
        code: RemoteAddress,
        variables: &[Variable],
        argument: u32,
    ) -> Result<(Receiver, u32), ReadProblem> {
        let torn = || ReadProblem::Torn { address: code, what: "code" };
        let index = usize::try_from(argument).map_err(|_| torn())?;
        let local = match variables.get(index).map(|variable| variable.kind) {
            Some(SlotKind::Local) => (Receiver::Local, argument),
            Some(SlotKind::Cell) => (Receiver::Cell, argument),
            _ => (Receiver::None, 0),
        };
        let Slots::Separate { co_cell2arg, co_nlocals, .. } = &self.layout.code.slots else { return Ok(local) };
        let Some(arguments) = self.pointer(code, *co_cell2arg)? else { return Ok(local) };
        let cells = variables.iter().filter(|variable| variable.kind == SlotKind::Cell).count();
        let bytes = self.bytes_at(arguments.0, cells * 8)?;
        let (arguments, _) = bytes.as_chunks::<8>();
        let cell = arguments.iter().position(|found| u64::from_le_bytes(*found) == u64::from(argument));
        let Some(cell) = cell else { return Ok(local) };
        let cell = u32::try_from(cell).map_err(|_| torn())?;
        let slot = self.u32(code, *co_nlocals)?.checked_add(cell).filter(|slot| *slot < SLOT_LIMIT);
        Ok((Receiver::Cell, slot.ok_or_else(torn)?))
    }

    fn variables(&self, code: RemoteAddress) -> Result<Vec<Variable>, ReadProblem> {
        let torn = || ReadProblem::Torn { address: code, what: "code" };
        let names = |offset| {
            let items = self.tuple_items(self.required(code, offset, "code")?)?;
            if items.len() as u64 > u64::from(SLOT_LIMIT) {
                return Err(torn());
            }
            items.into_iter().map(|name| self.text(name)).collect::<Result<Vec<String>, _>>()
        };
        match self.layout.code.slots {
            Slots::Separate { co_nlocals, co_varnames, co_cellvars, co_freevars, .. } => {
                let locals = names(co_varnames)?;
                if locals.len() as u64 != u64::from(self.u32(code, co_nlocals)?) {
                    return Err(torn());
                }
                let of_kind = |kind| move |name| Variable { name, kind };
                let locals = locals.into_iter().map(of_kind(SlotKind::Local));
                let cells = names(co_cellvars)?.into_iter().map(of_kind(SlotKind::Cell));
                Ok(locals.chain(cells).chain(names(co_freevars)?.into_iter().map(of_kind(SlotKind::Free))).collect())
            }
            Slots::Unified { co_nlocalsplus, co_localsplusnames, co_localspluskinds } => {
                let names = names(co_localsplusnames)?;
                let kinds = self.required(code, co_localspluskinds, "code")?;
                self.expect_flag(kinds, flag::BYTES, "bytes")?;
                let count = names.len() as u64;
                let is_sound = self.u64(kinds, self.layout.object.ob_size)? == count
                    && u64::from(self.u32(code, co_nlocalsplus)?) == count;
                if !is_sound {
                    return Err(torn());
                }
                let bits = self.bytes_at(kinds.0.saturating_add(u64::from(self.layout.bytes.ob_sval)), names.len())?;
                let kind = |bits: u8| match bits {
                    bits if bits & slot_bit::CELL != 0 => Ok(SlotKind::Cell),
                    bits if bits & slot_bit::FREE != 0 => Ok(SlotKind::Free),
                    bits if bits & slot_bit::LOCAL != 0 => Ok(SlotKind::Local),
                    _ => Err(torn()),
                };
                names.into_iter().zip(bits).map(|(name, bits)| Ok(Variable { name, kind: kind(bits)? })).collect()
            }
        }
    }
}
