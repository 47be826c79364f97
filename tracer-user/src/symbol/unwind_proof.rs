//! Whether an exception or a cancelled thread can ever unwind through a function.

use std::cell::RefCell;
use std::collections::HashMap;

use iced_x86::FlowControl;
use object::read::ReadRef;

use super::code::Code;
use super::disassembly;
use super::exits::{self, Exit, ExitKind};
use super::image::Image;
use super::plain_frame;
use crate::model::UnwindProof;

/// Deepest chain of calls that is followed.
const DEPTH_LIMIT: usize = 8;
/// Most functions that are decoded for the proofs of one file.
const FUNCTION_LIMIT: usize = 4096;

/// The proofs found so far, by address; `None` while a proof is under way, so that a cycle proves nothing.
#[derive(Default)]
pub(super) struct Proofs(RefCell<HashMap<u64, Option<bool>>>);

impl Proofs {
    /// Why no unwinding can pass a function whose code and exits are known; `None` where that is not certain.
    pub fn of<'data, R: ReadRef<'data>>(
        &self,
        image: &Image<'data, R>,
        address: u64,
        code: &Code<'data>,
        exits: &[Exit],
    ) -> Option<UnwindProof> {
        self.0.borrow_mut().insert(address, None);
        let proof = self.prove(image, code, exits, DEPTH_LIMIT);
        self.0.borrow_mut().insert(address, Some(proof.is_some()));
        proof
    }

    fn prove<'data, R: ReadRef<'data>>(
        &self,
        image: &Image<'data, R>,
        code: &Code<'data>,
        exits: &[Exit],
        depth: usize,
    ) -> Option<UnwindProof> {
        // A tail jump runs another function in this one's stead, and a jump whose table was not read to its end might lead to
        // code that was not looked at.
        let is_decoded_whole = code.indirect_jumps.iter().all(|jump| code.tables.contains_key(&jump.ip()));
        if !is_decoded_whole || exits.iter().any(|exit| exit.kind != ExitKind::Return) || !plain_frame::is_plain(code) {
            return None;
        }
        let mut proof = UnwindProof::CallsNothing;
        for instruction in code.instructions() {
            match instruction.flow_control() {
                FlowControl::Call if instruction.is_call_near() => {
                    let target = instruction.near_branch_target();
                    if !self.is_proven(image, target, depth.checked_sub(1)?) {
                        return None;
                    }
                    proof = UnwindProof::CallsOnlyProven;
                }
                // Of the system calls, and what else leaves for the kernel, some are cancellation points.
                FlowControl::Call
                | FlowControl::IndirectCall
                | FlowControl::Interrupt
                | FlowControl::XbeginXabortXend => return None,
                _ => {}
            }
        }
        // A function with handlers and without calls was compiled for signal handlers that throw.
        let has_handlers = || code.bounds().any(|(start, _)| image.unwind().has_handlers(start));
        (proof != UnwindProof::CallsNothing || !has_handlers()).then_some(proof)
    }

    fn is_proven<'data, R: ReadRef<'data>>(&self, image: &Image<'data, R>, address: u64, depth: usize) -> bool {
        if let Some(known) = self.0.borrow().get(&address) {
            return known.unwrap_or(false);
        }
        if self.0.borrow().len() >= FUNCTION_LIMIT {
            return false;
        }
        self.0.borrow_mut().insert(address, None);
        let proven = self.prove_callee(image, address, depth).is_some();
        // Where the depth alone ended the search a shorter way may still prove it; forgetting costs little.
        if proven || depth > 0 {
            self.0.borrow_mut().insert(address, Some(proven));
        }
        proven
    }

    fn prove_callee<'data, R: ReadRef<'data>>(
        &self,
        image: &Image<'data, R>,
        address: u64,
        depth: usize,
    ) -> Option<UnwindProof> {
        let symbol_size = image.functions.at(address).iter().map(|entry| entry.size).max().unwrap_or(0);
        let size = image.size_of(address, symbol_size)?;
        let symbols = image.functions.base_symbols_at(address);
        let code = disassembly::decode(image, address, size, &symbols).ok()?;
        let exits = exits::find(image, &code).ok()?;
        self.prove(image, &code, &exits, depth)
    }
}
