//! Functions, bound methods, and what else holds a callable.

use super::error::ReadProblem;
use super::interpreter::Interpreter;
use super::object::is_plausible;
use super::type_facts::flag;
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Bytes of a pointer.
const POINTER: u64 = 8;
/// Most fields of an object that are looked at.
const FIELD_LIMIT: u64 = 48;

/// A Python function as it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionView {
    /// Address of the function object.
    pub address: RemoteAddress,
    /// `__code__`.
    pub code: RemoteAddress,
    /// `__name__`.
    pub name: String,
    /// `__qualname__`.
    pub qualified_name: String,
    /// `__module__`; empty if it is no string.
    pub module: String,
    /// `__globals__`.
    pub globals: RemoteAddress,
    /// `__dict__`, where `functools.wraps` keeps `__wrapped__`; `None` while it is empty.
    pub dict: Option<RemoteAddress>,
    /// `__closure__`: a tuple of cells.
    pub closure: Option<RemoteAddress>,
}

/// A bound method as it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodView {
    /// `__func__`: any callable.
    pub function: RemoteAddress,
    /// `__self__`.
    pub receiver: RemoteAddress,
}

impl<M: Memory> Interpreter<M> {
    /// A Python function.
    ///
    /// # Errors
    /// It is none (`WrongType`), or changed meanwhile.
    pub fn function(&self, object: RemoteAddress) -> Result<FunctionView, ReadProblem> {
        self.expect_type(object, self.types.function, "Python function")?;
        let layout = &self.layout.function;
        let required = |offset| self.required(object, offset, "function");
        let code = required(layout.func_code)?;
        self.expect_type(code, self.types.code, "code")?;
        let module = match self.pointer(object, layout.func_module)? {
            Some(module) if self.facts_of(module)?.1.has(flag::TEXT) => self.text(module)?,
            _ => String::new(),
        };
        Ok(FunctionView {
            address: object,
            code,
            name: self.text(required(layout.func_name)?)?,
            qualified_name: self.text(required(layout.func_qualname)?)?,
            module,
            globals: required(layout.func_globals)?,
            dict: self.pointer(object, layout.func_dict)?,
            closure: self.pointer(object, layout.func_closure)?,
        })
    }

    /// A bound method.
    ///
    /// # Errors
    /// It is none (`WrongType`), or changed meanwhile.
    pub fn method(&self, object: RemoteAddress) -> Result<MethodView, ReadProblem> {
        let wrong = ReadProblem::WrongType { address: object, expected: "bound method" };
        let class = self.types.method.ok_or(wrong)?;
        self.expect_type(object, class, "bound method")?;
        let function = self.required(object, self.layout.method.im_func, "bound method")?;
        let receiver = self.required(object, self.layout.method.im_self, "bound method")?;
        Ok(MethodView { function, receiver })
    }

    /// What a cell of a closure holds; `None` if nothing yet.
    ///
    /// # Errors
    /// It is no cell (`WrongType`), or changed meanwhile.
    pub fn cell(&self, object: RemoteAddress) -> Result<Option<RemoteAddress>, ReadProblem> {
        let wrong = ReadProblem::WrongType { address: object, expected: "cell" };
        let class = self.types.cell.ok_or(wrong)?;
        self.expect_type(object, class, "cell")?;
        self.pointer(object, self.layout.cell.ob_ref)
    }

    /// The callable inside a `staticmethod`, `classmethod`, `property` (its getter) or `functools.partial`, or an
    /// instance of a subclass of one; `None` for any other object.
    ///
    /// # Errors
    /// There is no object, or it changed meanwhile.
    pub fn held_callable(&self, object: RemoteAddress) -> Result<Option<RemoteAddress>, ReadProblem> {
        let order = self.mro(self.type_of(object)?)?;
        let holders = [
            (Some(self.types.static_method), self.layout.static_method.callable),
            (Some(self.types.class_method), self.layout.class_method.callable),
            (Some(self.types.property), self.layout.property.callable),
            (self.types.partial, self.layout.partial.callable),
        ];
        let holder = holders.iter().find(|(class, _)| class.is_some_and(|class| order.contains(&class)));
        match holder {
            Some((_, offset)) => self.pointer(object, *offset),
            None => Ok(None),
        }
    }

    /// What the fields of an object point to, in the order of the fields: whatever a type written in C keeps, whether or not
    /// it shows it. Each is a place where an object may be; what is none of these is left out.
    ///
    /// # Errors
    /// There is no object, or it changed meanwhile.
    pub fn held_objects(&self, object: RemoteAddress) -> Result<Vec<RemoteAddress>, ReadProblem> {
        let (_, facts) = self.facts_of(object)?;
        let first = u64::from(self.layout.object.ob_type) + POINTER;
        let last = facts.basic_size.min(first + FIELD_LIMIT * POINTER);
        let bytes = self.bytes_at(object.0.saturating_add(first), last.saturating_sub(first) as usize)?;
        let (numbers, _) = bytes.as_chunks::<{ POINTER as usize }>();
        let numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
        Ok(numbers.filter(|number| is_plausible(*number)).map(RemoteAddress).collect())
    }
}
