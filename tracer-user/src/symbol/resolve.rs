//! A candidate to a function with everything that a probe needs, or the reason why it cannot be probed.

use std::cell::OnceCell;

use object::read::ReadRef;

use super::code::{Code, is_direct_jump};
use super::disassembly;
use super::elf_file::ElfFile;
use super::entry;
use super::error::SymbolError;
use super::exits::{self, Exit, ExitKind};
use super::function_table::{Candidate, Found, FunctionTable};
use super::future_maker;
use super::image::Image;
use super::runtime_sign::{self, Runtime};
use super::suffix;
use super::thunk;
use super::unsized_code;
use super::unwind_proof::Proofs;
use crate::model::{
    FileOffset, FunctionName, ObjectLocation, ResolvedFunction, ReturnMethod, ReturnSite, SkipReason, VirtualAddress,
};

/// The functions of one file.
pub struct Functions<'data, R: ReadRef<'data>> {
    pub(super) image: Image<'data, R>,
    proofs: Proofs,
    runtime: OnceCell<Option<Runtime>>,
}

impl<'data, R: ReadRef<'data>> Functions<'data, R> {
    /// Reads the symbol tables of a file.
    ///
    /// # Errors
    /// Where a table does not lie within the file, or is larger than any real one.
    pub fn read(file: ElfFile<'data, R>) -> Result<Self, SymbolError> {
        let functions = FunctionTable::read(&file)?;
        Ok(Self { image: Image::new(file, functions), proofs: Proofs::default(), runtime: OnceCell::new() })
    }

    /// Whether the file is a program of whose functions only those that it exports have symbols.
    pub fn is_stripped_program(&self) -> bool {
        self.image.file.is_stripped_program()
    }

    /// The functions that are asked for. `may_match` is a quick test that is asked of every function symbol as the file has
    /// it; those that pass are demangled, and `rank` decides: a name without one is not asked for, and where there is too
    /// much the smaller comes first.
    pub fn find(&self, may_match: impl Fn(&str) -> bool, rank: impl Fn(&FunctionName) -> Option<u8>) -> Found {
        self.image.functions.find(may_match, rank)
    }

    /// Decodes a candidate and finds where its probes go. Its object is left unknown: see `locate_objects`.
    ///
    /// # Errors
    /// The reason why it cannot be probed.
    pub fn resolve(&self, candidate: &Candidate) -> Result<ResolvedFunction, SkipReason> {
        if !self.image.file.is_x86_64() {
            return Err(SkipReason::ForeignArchitecture);
        }
        if candidate.indirect {
            return Err(SkipReason::IndirectFunction);
        }
        if let Some(symbol) = &candidate.part_of {
            return Err(SkipReason::PartOf { symbol: symbol.clone() });
        }
        if candidate.makes_coroutine {
            return Err(SkipReason::MakesCoroutine);
        }
        let address = candidate.address.0;
        if self.runtime() == Some(Runtime::Go) && self.is_go_code(address) {
            return Err(SkipReason::MovingStack { runtime: "Go".to_owned() });
        }
        let stated = self.image.size_of(address, candidate.size);
        let size = stated.or_else(|| unsized_code::size(&self.image, address)).ok_or(SkipReason::NoCode)?;
        let bases = base_symbols(candidate);
        let code = disassembly::decode(&self.image, address, size, &bases)?;
        let exits = exits::find(&self.image, &code)?;
        if let Some(behind) = &candidate.behind_thunk
            && thunk::goes_on_to(&self.image, &code, &exits, behind)
        {
            return Err(SkipReason::JumpThunk);
        }
        if future_maker::is_one(&self.image, candidate, &code) {
            return Err(SkipReason::MakesCoroutine);
        }
        if exits.is_empty() {
            return Err(SkipReason::NoReturnSite);
        }
        let entry = entry::find(&self.image, &code, &exits)?;
        // What was measured, not stated, is no proof.
        let proof = stated.and_then(|_| self.proofs.of(&self.image, address, &code, &exits));
        let proof = proof.filter(|_| entry.stack_delta == 0 && self.runtime().is_none());
        let sites = self.return_sites(&code, &exits, entry.offset);
        let returns = match proof {
            // Without sites, kernels whose trampoline is not safe to use go without this function.
            Some(proof) => ReturnMethod::Uretprobe { proof, sites: sites.unwrap_or_default() },
            None => ReturnMethod::ReturnSites { sites: sites? },
        };
        let (name, others) = candidate.names.split_first().ok_or(SkipReason::NoCode)?;
        let mut aliases: Vec<String> = others.iter().map(|name| name.symbol.clone()).collect();
        aliases.extend(candidate.aliases.iter().cloned());
        Ok(ResolvedFunction {
            name: name.clone(),
            aliases,
            address: candidate.address,
            size,
            entry,
            returns,
            object: ObjectLocation::None,
        })
    }

    /// The function that a candidate only jumps to, if that is why it is not probed: its calls are calls of that one, for which
    /// compilers write such a jump where two functions have the same code.
    pub fn same_code_behind(&self, candidate: &Candidate, reason: &SkipReason) -> Option<VirtualAddress> {
        if *reason != SkipReason::JumpThunk || candidate.behind_thunk.is_some() {
            return None;
        }
        let size = self.image.size_of(candidate.address.0, candidate.size)?;
        let code = disassembly::decode(&self.image, candidate.address.0, size, &[]).ok()?;
        let jump = code.instructions().find(|instruction| is_direct_jump(instruction))?;
        Some(VirtualAddress(jump.near_branch_target()))
    }

    /// What is known of the runtime that the file's code runs under. A file whose symbols cannot be read again is taken for
    /// the worst.
    fn runtime(&self) -> Option<Runtime> {
        *self.runtime.get_or_init(|| runtime_sign::find(&self.image.file).unwrap_or(Some(Runtime::Other)))
    }

    /// Whether an address lies in what Go's own linker has put together; code in C lies behind it.
    fn is_go_code(&self, address: u64) -> bool {
        let of = |symbol| self.image.functions.address_of(symbol);
        match (of("runtime.text"), of("runtime.etext")) {
            (Some(start), Some(end)) => (start..end).contains(&address),
            _ => false,
        }
    }

    fn return_sites(
        &self,
        code: &Code<'data>,
        exits: &[Exit],
        entry: FileOffset,
    ) -> Result<Vec<ReturnSite>, SkipReason> {
        exits
            .iter()
            .map(|exit| {
                let offset = entry::exit_offset(&self.image, code, exit)?;
                if offset == entry {
                    return Err(SkipReason::ForbiddenInstruction { address: VirtualAddress(exit.address) });
                }
                let condition = match exit.kind {
                    ExitKind::ConditionalTailJump(condition) => Some(condition),
                    ExitKind::Return | ExitKind::TailJump => None,
                };
                Ok(ReturnSite { offset, condition, tail_jump: exit.kind != ExitKind::Return })
            })
            .collect()
    }
}

/// The symbols of a candidate without the suffixes of copies: its cold part is called after one of them.
fn base_symbols(candidate: &Candidate) -> Vec<&str> {
    let names = candidate.names.iter().map(|name| name.symbol.as_str());
    suffix::bases(names.chain(candidate.aliases.iter().map(String::as_str)))
}
