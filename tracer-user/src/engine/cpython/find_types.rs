//! Finds the built-in types in the interpreter's own modules.

use super::builtin_types::BuiltinTypes;
use super::error::ReadProblem;
use super::interpreter::Interpreter;
use super::interpreter_file::{CELL_TYPE, InterpreterAddresses, METHOD_TYPE};
use crate::memory::Memory;
use crate::model::RemoteAddress;

impl<M: Memory> Interpreter<M> {
    /// Finds the types. Each is checked: it must be a type and have its name.
    pub(super) fn find_types(&self, addresses: &InterpreterAddresses) -> Result<BuiltinTypes, ReadProblem> {
        let modules = self.modules()?;
        let module = |name: &str| modules.iter().find(|(found, _)| found == name).map(|(_, dict)| *dict);
        let missing = |what| ReadProblem::Torn { address: self.state, what };
        let builtins = module("builtins").ok_or(missing("module builtins"))?;
        let members = self.named(self.dict_entries(builtins)?)?;
        let builtin = |name: &'static str| {
            let found = members.iter().find(|(member, _)| member == name).map(|(_, value)| *value);
            let found = found.ok_or(missing("built-in type"))?;
            if self.is_type_named(found, name)? { Ok(found) } else { Err(missing("built-in type")) }
        };
        // importlib is written in Python and part of every interpreter.
        let importlib = module("_frozen_importlib").ok_or(missing("module _frozen_importlib"))?;
        let function = self.dict_value(importlib, "_find_spec")?.ok_or(missing("function of importlib"))?;
        let function_type = self.type_of(function)?;
        let code_type = self.type_of(self.required(function, self.layout.function.func_code, "function")?)?;
        if !self.is_type_named(function_type, "function")? || !self.is_type_named(code_type, "code")? {
            return Err(missing("function of importlib"));
        }
        let elsewhere = |symbol: &str, module_name: &str, attribute: &str, name: &str| {
            let by_symbol = addresses.types.get(symbol).copied();
            let by_module = || self.dict_value(module(module_name)?, attribute).ok().flatten();
            let is_right = |class: &RemoteAddress| self.is_type_named(*class, name).unwrap_or(false);
            by_symbol.filter(is_right).or_else(|| by_module().filter(is_right))
        };
        Ok(BuiltinTypes {
            class: builtin("type")?,
            object: builtin("object")?,
            module: self.module_type()?,
            text: builtin("str")?,
            bytes: builtin("bytes")?,
            integer: builtin("int")?,
            tuple: builtin("tuple")?,
            list: builtin("list")?,
            dict: builtin("dict")?,
            set: builtin("set")?,
            frozen_set: builtin("frozenset")?,
            property: builtin("property")?,
            static_method: builtin("staticmethod")?,
            class_method: builtin("classmethod")?,
            function: function_type,
            code: code_type,
            method: elsewhere(METHOD_TYPE, "types", "MethodType", "method"),
            cell: elsewhere(CELL_TYPE, "types", "CellType", "cell"),
            partial: elsewhere("", "functools", "partial", "functools.partial"),
        })
    }

    /// Whether an object is a type with this `tp_name`.
    fn is_type_named(&self, class: RemoteAddress, name: &str) -> Result<bool, ReadProblem> {
        Ok(self.is_class(class)? && self.static_name(class)? == name)
    }
}
