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
        let by_symbol = |symbol: &str, name: &str| {
            let is_right = |class: &RemoteAddress| self.is_type_named(*class, name).unwrap_or(false);
            addresses.types.get(symbol).copied().filter(is_right)
        };
        let types = BuiltinTypes {
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
            method: by_symbol(METHOD_TYPE, "method"),
            cell: by_symbol(CELL_TYPE, "cell"),
            partial: None,
        };
        Ok(self.with_imported_types(types, &modules))
    }

    /// Finds the types that a program imports, as far as they are not known: one that has just begun has not done so yet.
    pub(super) fn find_imported_types(&mut self) {
        let types = &self.types;
        if [types.method, types.cell, types.partial].contains(&None)
            && let Ok(modules) = self.modules()
        {
            self.types = self.with_imported_types(self.types.clone(), &modules);
        }
    }

    fn with_imported_types(&self, types: BuiltinTypes, modules: &[(String, RemoteAddress)]) -> BuiltinTypes {
        let imported = |module: &str, attribute: &str, name: &str| {
            let (_, dict) = modules.iter().find(|(found, _)| found == module)?;
            let class = self.dict_value(*dict, attribute).ok().flatten()?;
            self.is_type_named(class, name).is_ok_and(|is_it| is_it).then_some(class)
        };
        BuiltinTypes {
            method: types.method.or_else(|| imported("types", "MethodType", "method")),
            cell: types.cell.or_else(|| imported("types", "CellType", "cell")),
            partial: types.partial.or_else(|| imported("functools", "partial", "functools.partial")),
            ..types
        }
    }

    /// Whether an object is a type with this `tp_name`.
    fn is_type_named(&self, class: RemoteAddress, name: &str) -> Result<bool, ReadProblem> {
        Ok(self.is_class(class)? && self.static_name(class)? == name)
    }
}
