//! Classes: names, bases and members.

use super::error::ReadProblem;
use super::interpreter::Interpreter;
use super::type_facts::flag;
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Most classes in one method resolution order.
const MRO_LIMIT: usize = 512;

/// A class as it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassView {
    /// Address of the type object.
    pub address: RemoteAddress,
    /// `__name__`.
    pub name: String,
    /// `__qualname__`, e.g. `Outer.Inner`.
    pub qualified_name: String,
    /// `__module__`; `builtins` for built-in types; empty if the class says none.
    pub module: String,
    /// `__mro__`, the class itself first.
    pub mro: Vec<RemoteAddress>,
    /// `__dict__`; `None` for the static built-in types from 3.12, which keep theirs elsewhere.
    pub dict: Option<RemoteAddress>,
    /// Whether it was made at run time: by a class statement, or by an extension through `PyType_FromSpec`.
    pub is_heap_type: bool,
}

impl ClassView {
    /// Module and qualified name, e.g. `sklearn.preprocessing._data.StandardScaler`.
    #[must_use]
    pub fn path(&self) -> String {
        if self.module.is_empty() {
            return self.qualified_name.clone();
        }
        format!("{}.{}", self.module, self.qualified_name)
    }
}

impl<M: Memory> Interpreter<M> {
    /// Whether an object is a class.
    ///
    /// # Errors
    /// There is no object there.
    pub fn is_class(&self, object: RemoteAddress) -> Result<bool, ReadProblem> {
        Ok(self.facts_of(object)?.1.has(flag::TYPE))
    }

    /// A class.
    ///
    /// # Errors
    /// It is none, is not complete, or changed meanwhile: its name is kept twice, its order begins with itself and ends
    /// with `object`, and what does not agree is torn.
    pub fn class(&self, class: RemoteAddress) -> Result<ClassView, ReadProblem> {
        self.expect_flag(class, flag::TYPE, "class")?;
        let facts = self.facts(class)?;
        let layout = &self.layout.class;
        let torn = || ReadProblem::Torn { address: class, what: "class" };
        let mro = self.mro(class)?;
        let dict = self.pointer(class, layout.tp_dict)?;
        let static_name = self.static_name(class)?;
        if !facts.has(flag::HEAP_TYPE) {
            // What stands before the last dot is the module (Objects/typeobject.c, type_module).
            let (module, name) = static_name.rsplit_once('.').unwrap_or(("builtins", &static_name));
            return Ok(ClassView {
                address: class,
                name: name.to_owned(),
                qualified_name: name.to_owned(),
                module: module.to_owned(),
                mro,
                dict,
                is_heap_type: false,
            });
        }
        let name = self.text(self.required(class, layout.ht_name, "class")?)?;
        let qualified_name = self.text(self.required(class, layout.ht_qualname, "class")?)?;
        if !static_name.ends_with(&name) {
            return Err(torn());
        }
        let members = dict.ok_or_else(torn)?;
        let module = match self.dict_value(members, "__module__")? {
            // It may be a property of a metaclass's making.
            Some(module) if self.facts_of(module)?.1.has(flag::TEXT) => self.text(module)?,
            _ => String::new(),
        };
        Ok(ClassView { address: class, name, qualified_name, module, mro, dict, is_heap_type: true })
    }

    /// `tp_name` of a type.
    pub(super) fn static_name(&self, class: RemoteAddress) -> Result<String, ReadProblem> {
        self.c_text(RemoteAddress(self.u64(class, self.layout.class.tp_name)?))
    }

    /// `__mro__` of a class, the class itself first.
    ///
    /// # Errors
    /// As for [`Self::class`].
    pub fn mro(&self, class: RemoteAddress) -> Result<Vec<RemoteAddress>, ReadProblem> {
        let torn = || ReadProblem::Torn { address: class, what: "method resolution order" };
        let order = self.tuple_items(self.required(class, self.layout.class.tp_mro, "class")?)?;
        if order.len() > MRO_LIMIT {
            let (size, limit) = (order.len() as u64, MRO_LIMIT as u64);
            return Err(ReadProblem::TooLarge { address: class, what: "method resolution order", size, limit });
        }
        if order.first() != Some(&class) {
            return Err(torn());
        }
        for base in &order {
            if !self.facts_of(*base)?.1.has(flag::TYPE) {
                return Err(torn());
            }
        }
        Ok(order)
    }
}
