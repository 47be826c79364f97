//! What the programs in the kernel need to read frames.

use super::error::ReadProblem;
use super::interpreter::Interpreter;
use super::layout::{Attributes, FrameSize, Layout, Slots};
use crate::memory::Memory;
use crate::model::{AttributeForm, CurrentSpanLayout, EntryMark, PythonLayout, RemoteAddress};

impl<M: Memory> Interpreter<M> {
    /// Offsets and addresses for the programs.
    ///
    /// # Errors
    /// The interpreter cannot be read.
    pub fn kernel_layout(&self) -> Result<PythonLayout, ReadProblem> {
        let layout = &self.layout;
        let (thread, frame) = (&layout.thread, &layout.frame);
        let (code_frame_words, frame_words_beyond) = match layout.code.frame_size {
            Some(FrameSize::Field(offset)) => (offset, 0),
            Some(FrameSize::BeyondSlotsAndStack(words)) => (0, words),
            None => (0, 0),
        };
        let code_slots = match layout.code.slots {
            Slots::Unified { co_nlocalsplus, .. } => co_nlocalsplus,
            Slots::Separate { .. } => 0,
        };
        Ok(PythonLayout {
            current_thread: self.current_thread_word()?.0,
            pointer_mask: frame.pointer_mask,
            style: frame.style.number(),
            exits_are_prompt: u32::from(frame.exits_are_prompt),
            thread_frame: thread.frame,
            cframe_frame: thread.cframe_current_frame.unwrap_or_default(),
            thread_datastack_top: thread.datastack_top.unwrap_or_default(),
            thread_datastack_chunk: thread.datastack_chunk.unwrap_or_default(),
            chunk_size: thread.chunk_size.unwrap_or_default(),
            code_frame_words,
            code_slots,
            code_stack_depth: layout.code.co_stacksize,
            frame_words_beyond,
            thread_exception: thread.exception,
            exception_is_type: u32::from(thread.exception_is_type),
            frame_code: frame.code,
            frame_function: frame.function.unwrap_or_default(),
            frame_previous: frame.previous,
            frame_locals: frame.localsplus,
            frame_object_frame: frame.f_frame.unwrap_or_default(),
            exceptions_are_seen: 0,
            frame_value_stack: frame.f_valuestack.unwrap_or_default(),
            frame_last_instruction: frame.f_lasti.unwrap_or_default(),
            object_type: layout.object.ob_type,
            function_code: layout.function.func_code,
            method_function: layout.method.im_func,
            cell_content: layout.cell.ob_ref,
            tuple_items: layout.tuple.ob_item,
            exception_traceback: thread.exception_traceback,
            traceback_frame: thread.tb_frame,
            tuple_type: self.types.tuple.0,
            function_type: self.types.function.0,
            frame_instruction: frame.instruction.unwrap_or_default(),
            frame_entry: frame.entry.map(|entry| entry.offset()).unwrap_or_default(),
            entry_mark: frame.entry.map_or(EntryMark::Always, |entry| entry.mark()) as u32,
            witnesses: 0,
            code_instructions: layout.code.co_code_adaptive.unwrap_or_default(),
            thread_context: thread.context,
            context_entered: thread.ctx_entered,
            thread_pointer: thread.thread_id,
            thread_next: thread.next,
            reserved: 0,
            threads: after(self.state, self.layout.interpreter.threads_head).0,
            cell_type: self.types.cell.unwrap_or_default().0,
            array_type: 0,
        })
    }

    /// How the current span of an SDK is read, but for where it is.
    pub(super) fn current_span_layout(&self) -> CurrentSpanLayout {
        let Layout { dictionary, keys, class, .. } = &self.layout;
        let back = |offset: i32| offset.unsigned_abs();
        let (form, values_before, dictionary_before) = match self.layout.attributes {
            Attributes::Dictionary => (AttributeForm::Dictionary, 0, 0),
            Attributes::ValuesPointer { values, managed_dictionary } => {
                (AttributeForm::ValuesPointer, back(values), back(managed_dictionary))
            }
            Attributes::TaggedPointer { managed_dictionary } => {
                (AttributeForm::TaggedPointer, 0, back(managed_dictionary))
            }
            Attributes::InlineValues { managed_dictionary } => {
                (AttributeForm::InlineValues, 0, back(managed_dictionary))
            }
        };
        CurrentSpanLayout {
            thread_context: self.layout.thread.context,
            dictionary_keys: dictionary.ma_keys,
            dictionary_values: dictionary.ma_values,
            values_items: dictionary.values_items,
            values_valid: dictionary.values_valid.unwrap_or_default(),
            keys_entries: keys.dk_nentries,
            keys_indices: keys.dk_indices,
            keys_log2_index_bytes: keys.dk_log2_index_bytes.unwrap_or_default(),
            keys_size: keys.dk_size.unwrap_or_default(),
            keys_kind: keys.dk_kind.unwrap_or_default(),
            attribute_form: form as u32,
            values_before,
            dictionary_before,
            type_name: class.tp_name,
            type_basic_size: class.tp_basicsize,
            type_flags: class.tp_flags,
            type_dictionary_offset: class.tp_dictoffset,
            type_cached_keys: class.ht_cached_keys,
            object_type: self.layout.object.ob_type,
            tuple_items: self.layout.tuple.ob_item,
            digits_shift: if self.version() >= (3, 12, 0) { 3 } else { 0 },
            ..CurrentSpanLayout::default()
        }
    }

    /// Address of the pointer to the thread that runs Python code now. To 3.11 the runtime keeps it
    /// (`gilstate.tstate_current`). From 3.12 each thread knows only itself, but the GIL remembers who took it last: a
    /// thread runs Python code only after take_gil() (Python/ceval_gil.c, CPython 3.12 to 3.15) has put it there.
    fn current_thread_word(&self) -> Result<RemoteAddress, ReadProblem> {
        let torn = ReadProblem::Torn { address: self.state, what: "interpreter's GIL" };
        let interpreter = &self.layout.interpreter;
        match (self.layout.runtime.tstate_current, interpreter.ceval_gil, interpreter.last_holder) {
            (Some(offset), ..) => Ok(after(self.runtime, offset)),
            (None, Some(gil), Some(last_holder)) => Ok(after(self.pointer(self.state, gil)?.ok_or(torn)?, last_holder)),
            _ => Err(torn),
        }
    }
}

fn after(base: RemoteAddress, offset: u32) -> RemoteAddress {
    RemoteAddress(base.0.saturating_add(u64::from(offset)))
}
