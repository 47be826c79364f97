//! The modules of a process go in; where OpenTelemetry's SDK keeps the current span of each thread comes out.

use super::super::{Interpreter, ReadProblem};
use super::modules::{self, Module};
use crate::memory::Memory;
use crate::model::{CurrentSpanLayout, RemoteAddress};

/// What holds the context variable of the SDK: the runtime context of opentelemetry-api, and in that
/// (`ContextVarsRuntimeContext`, opentelemetry/context/contextvars_context.py) the variable.
const RUNTIME_CONTEXT: (&str, &str, &str) = ("opentelemetry.context", "_RUNTIME_CONTEXT", "_current_context");
/// What the current span is kept under in the value of that.
const SPAN_KEY: (&str, &str) = ("opentelemetry.trace.propagation", "_SPAN_KEY");
/// A span that is there from the start, and has the attribute that every span keeps its ids in.
const INVALID_SPAN: (&str, &str, &str) = ("opentelemetry.trace.span", "INVALID_SPAN", "_context");
/// The kinds of spans.
const SPAN_KIND: (&str, &str, &str) = ("opentelemetry.trace", "SpanKind", "SERVER");
/// The class of the SDK's own spans.
const SPAN: (&str, &str) = ("opentelemetry.sdk.trace", "_Span");

/// In a context variable (`PyContextVar`, Include/internal/pycore_context.h, CPython 3.8 to 3.15): its hash.
const VARIABLE_HASH: u32 = 56;

/// How the current span of a thread is read; `None`: there is no SDK, or no span of it can be read.
pub(super) fn of<M: Memory>(interpreter: &Interpreter<M>, modules: &[Module]) -> Option<CurrentSpanLayout> {
    // Nearly all processes have none of it: then this is all that is done.
    let (module, variable, attribute) = RUNTIME_CONTEXT;
    let context = modules::variable(interpreter, modules, module, variable)?;
    let read = || -> Result<Option<CurrentSpanLayout>, ReadProblem> {
        let Some(variable) = interpreter.instance_attribute(context, attribute)? else { return Ok(None) };
        let (module, invalid, name) = INVALID_SPAN;
        let (Some(span_key), Some(invalid)) = (
            modules::variable(interpreter, modules, SPAN_KEY.0, SPAN_KEY.1),
            modules::variable(interpreter, modules, module, invalid),
        ) else {
            return Ok(None);
        };
        let names = interpreter.attribute_names(interpreter.type_of(invalid)?)?;
        let Some(context_name) = named(&names, name) else { return Ok(None) };
        let hash = interpreter.u64(variable, VARIABLE_HASH)?;
        let mut layout = interpreter.current_span_layout();
        layout.variable = variable.0;
        layout.span_key = span_key.0;
        layout.context_name = context_name.0;
        layout.hash = folded(hash);
        // What else is read of a span is known once there was one.
        let (module, kind, member) = SPAN_KIND;
        if let Some(kind) = modules::variable(interpreter, modules, module, kind) {
            layout.server_kind = member_of(interpreter, kind, member)?.unwrap_or_default().0;
        }
        if let Some(span) = modules::variable(interpreter, modules, SPAN.0, SPAN.1) {
            let names = interpreter.attribute_names(span)?;
            let address = |name: &str| named(&names, name).unwrap_or_default().0;
            layout.kind_name = address("_kind");
            layout.parent_name = address("_parent");
            layout.start_name = address("_start_time");
        }
        Ok(Some(layout))
    };
    interpreter.retrying(|_| read()).ok().flatten()
}

/// A member of an enumeration.
fn member_of<M: Memory>(
    interpreter: &Interpreter<M>,
    enumeration: RemoteAddress,
    member: &str,
) -> Result<Option<RemoteAddress>, ReadProblem> {
    let Some(attributes) = interpreter.class(enumeration)?.dict else { return Ok(None) };
    let Some(members) = interpreter.dict_value(attributes, "_member_map_")? else { return Ok(None) };
    interpreter.dict_value(members, member)
}

fn named(names: &[(String, RemoteAddress)], name: &str) -> Option<RemoteAddress> {
    names.iter().find(|(known, _)| known == name).map(|(_, address)| *address)
}

/// The hash of a variable as mappings of contexts take it (`hamt_hash`, Python/hamt.c, CPython 3.8 to 3.15).
fn folded(hash: u64) -> u32 {
    match hash as u32 ^ (hash >> 32) as u32 {
        u32::MAX => u32::MAX - 1,
        folded => folded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_folded_as_the_interpreter_does_it() {
        assert_eq!(folded(0x1234_5678_0000_0001), 0x1234_5679);
        assert_eq!(folded(0xffff_ffff_0000_0000), 0xffff_fffe, "-1 stands for an error");
    }
}
