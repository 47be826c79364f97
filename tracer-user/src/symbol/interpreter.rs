//! Where a CPython interpreter is probed so that every Python call is seen.

use std::collections::BTreeMap;

use iced_x86::{FastFormatter, Instruction};
use object::read::ReadRef;

use super::disassembly;
use super::handler_sites::{Handler, sites};
use super::handler_table::HandlerTable;
use super::opcodes::VersionOpcodes;
use super::resolve::Functions;
use super::unwinding_site;
use crate::model::{
    FramePlace, InterpreterSite, InterpreterSites, InterpreterStyle, NoInterpreterSites, SkipReason, Witness,
    WitnessSite,
};

/// The function that runs bytecode (`Python/ceval.c`), exported by every version.
const EVALUATION_FUNCTION: &str = "_PyEval_EvalFrameDefault";

/// The function that adds a frame to the traceback of the exception that passes through it (`Python/traceback.c`),
/// exported by every version.
const TRACEBACK_FUNCTION: &str = "PyTraceBack_Here";

/// The function that gives memory to an object of a class (`Objects/typeobject.c`), exported by every version.
const OBJECT_FUNCTION: &str = "PyType_GenericAlloc";

/// The functions that give the interpreter's lock away and take it again, that a thread begins with (`Python/ceval.c`), and the one that
/// it ends with (`Python/pystate.c`), exported by every version. The argument of the last three is the thread state. And functions that C code of
/// numerical libraries calls a few times in each method, and a web framework hardly ever (`Objects/dictobject.c`, `Objects/call.c`,
/// `Python/context.c`).
const WITNESS_FUNCTIONS: [(&str, Witness); 7] = [
    ("PyEval_SaveThread", Witness::GivesLockAway),
    ("PyEval_RestoreThread", Witness::OfThread),
    ("PyEval_AcquireThread", Witness::OfThread),
    ("PyThreadState_Clear", Witness::ThreadEnds),
    ("PyDict_Copy", Witness::CopiesDictionary),
    ("PyObject_CallMethodObjArgs", Witness::CallsMethod),
    ("PyContextVar_Get", Witness::AsksContext),
];

/// Registers of the first arguments of a C function, as x86-64 instructions number them (System V ABI): `rdi`, `rsi`.
const ARGUMENTS: [u8; 2] = [7, 6];

impl<'data, R: ReadRef<'data>> Functions<'data, R> {
    /// Finds where the interpreter in this file begins and ends Python calls. `version` is its major and minor version.
    ///
    /// # Errors
    /// The reason why it cannot be probed.
    pub fn interpreter_sites(&self, version: (u8, u8)) -> Result<InterpreterSites, NoInterpreterSites> {
        let opcodes = VersionOpcodes::of(version).ok_or(NoInterpreterSites::UnknownVersion { version })?;
        let in_code = |problem| NoInterpreterSites::Code { problem };
        if !self.image.file.is_x86_64() {
            return Err(in_code(SkipReason::ForeignArchitecture));
        }
        let table = HandlerTable::find(&self.image, opcodes)?;
        let (start, end) = table.interpreter_loop(&self.image)?;
        let code = disassembly::decode(&self.image, start, end - start, &[EVALUATION_FUNCTION]).map_err(in_code)?;
        let handlers = |wanted: &'static BTreeMap<String, u8>| -> Vec<Handler> {
            let handler = |(name, number): (&'static String, &u8)| {
                Some(Handler { opcode: name, address: table.handler(*number)? })
            };
            wanted.iter().filter_map(handler).collect()
        };
        let find = |wanted| sites(&self.image, &code, &handlers(wanted), opcodes.frame_instruction);
        let entries = match opcodes.style() {
            InterpreterStyle::WholeFrames => {
                let register = opcodes.frame_argument.and_then(|argument| ARGUMENTS.get(argument));
                vec![self.entry_of(EVALUATION_FUNCTION, register.copied())?]
            }
            InterpreterStyle::Opcodes => find(&opcodes.entries)?,
        };
        Ok(InterpreterSites { style: opcodes.style(), entries, returns: find(&opcodes.returns)? })
    }

    /// Where a part of all Python calls passes: those that C code makes, by which others are found (`python_chain` of the programs).
    /// Where C code waits or works without the interpreter's lock is told as well, which may take long, if the kernel emulates a
    /// probe there, and where threads end.
    ///
    /// # Errors
    /// The reason why calls through C cannot be probed.
    pub fn witness_sites(&self, version: (u8, u8)) -> Result<Vec<WitnessSite>, NoInterpreterSites> {
        let entering = if version < (3, 9) { Witness::EntersFirst } else { Witness::EntersSecond };
        let mut sites = vec![self.witness_of(EVALUATION_FUNCTION, entering)?];
        for (function, witness) in WITNESS_FUNCTIONS {
            // Threads begin and end seldom: there a step of the processor may be waited for.
            let is_seldom = matches!(function, "PyEval_AcquireThread" | "PyThreadState_Clear");
            let is_cheap = |site: &WitnessSite| site.emulated || is_seldom;
            sites.extend(self.witness_of(function, witness).ok().filter(is_cheap));
        }
        match self.unwinding_site(version) {
            Ok(site) => sites.extend(site),
            Err(problem) => tracing::debug!(%problem, "exceptions are seen wherever they pass"),
        }
        Ok(sites)
    }

    /// Where a frame is left by an exception, in interpreters that run many frames in one call of theirs.
    fn unwinding_site(&self, version: (u8, u8)) -> Result<Option<WitnessSite>, NoInterpreterSites> {
        let opcodes = VersionOpcodes::of(version).ok_or(NoInterpreterSites::UnknownVersion { version })?;
        if opcodes.style() == InterpreterStyle::WholeFrames {
            return Ok(None);
        }
        let in_code = |problem| NoInterpreterSites::Code { problem };
        let table = HandlerTable::find(&self.image, opcodes)?;
        let (start, end) = table.interpreter_loop(&self.image)?;
        let code = disassembly::decode(&self.image, start, end - start, &[EVALUATION_FUNCTION]).map_err(in_code)?;
        let Some(error) = opcodes.unassigned().next().and_then(|number| table.handler(number)) else { return Ok(None) };
        let found = unwinding_site::find(&self.image, &code, error).map_err(in_code)?;
        let site = |found: &Instruction| {
            let mut instruction = String::new();
            FastFormatter::new().format(found, &mut instruction);
            let offset = self.image.file.code_offset(found.ip())?;
            let function = EVALUATION_FUNCTION.to_owned();
            Some(WitnessSite { function, offset, emulated: true, instruction, witness: Witness::Unwinds })
        };
        Ok(found.and_then(site))
    }

    fn witness_of(&self, function: &str, witness: Witness) -> Result<WitnessSite, NoInterpreterSites> {
        let InterpreterSite { opcode, offset, emulated, instruction, .. } = self.entry_of(function, None)?;
        Ok(WitnessSite { function: opcode, offset, emulated, instruction, witness })
    }

    /// Where an exception passes through a Python frame: the entry of the function that adds the frame to the traceback.
    /// Its first argument is the frame object.
    ///
    /// # Errors
    /// The reason why it cannot be probed.
    pub fn exception_site(&self) -> Result<InterpreterSite, NoInterpreterSites> {
        self.entry_of(TRACEBACK_FUNCTION, Some(ARGUMENTS[0]))
    }

    /// Where an object is made: the entry of the function that gives it memory. Its first argument is the class.
    ///
    /// # Errors
    /// The reason why it cannot be probed.
    pub fn object_site(&self) -> Result<InterpreterSite, NoInterpreterSites> {
        self.entry_of(OBJECT_FUNCTION, None)
    }

    /// The entry of an exported function, with the register of the frame.
    fn entry_of(&self, name: &str, register: Option<u8>) -> Result<InterpreterSite, NoInterpreterSites> {
        let candidates = self.image.functions.find(|symbol| symbol == name, |_| Some(0)).candidates;
        let candidate = candidates.first().ok_or(NoInterpreterSites::NoEvaluationFunction)?;
        let function = self.resolve(candidate).map_err(|problem| NoInterpreterSites::Code { problem })?;
        Ok(InterpreterSite {
            opcode: name.to_owned(),
            offset: function.entry.offset,
            emulated: function.entry.emulated,
            instruction: function.entry.instruction,
            condition: None,
            frame: register.map_or(FramePlace::Current, FramePlace::Register),
        })
    }
}
