//! Attributes of objects: what `__dict__` shows, wherever the version keeps it.

use super::error::ReadProblem;
use super::interpreter::Interpreter;
use super::layout::Attributes;
use super::type_facts::{TypeFacts, flag};
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Most attributes of one object that are read: those that were set first.
const ATTRIBUTE_LIMIT: usize = 1 << 16;

impl<M: Memory> Interpreter<M> {
    /// Attributes of an object by name; none for an object without `__dict__`. Attributes in `__slots__` are not among
    /// them.
    ///
    /// # Errors
    /// There is no object, or it changed meanwhile.
    pub fn instance_attributes(&self, object: RemoteAddress) -> Result<Vec<(String, RemoteAddress)>, ReadProblem> {
        let entries = self.attribute_entries(object)?;
        self.named(entries)
    }

    /// One attribute of an object, of ASCII characters; `None` if its `__dict__` has none of this name.
    ///
    /// # Errors
    /// As for [`Self::instance_attributes`].
    pub fn instance_attribute(&self, object: RemoteAddress, name: &str) -> Result<Option<RemoteAddress>, ReadProblem> {
        for (key, value) in self.attribute_entries(object)? {
            if self.text_is(key, name)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The names of the attributes that objects of a class have had so far, and where these names are.
    ///
    /// # Errors
    /// It is no such class, or it changed meanwhile.
    pub(super) fn attribute_names(&self, class: RemoteAddress) -> Result<Vec<(String, RemoteAddress)>, ReadProblem> {
        let keys = self.required(class, self.layout.class.ht_cached_keys, "type with attributes in its instances")?;
        let names = self.key_addresses(&self.keys(keys)?)?;
        names.into_iter().map(|name| Ok((self.text(name)?, name))).collect()
    }

    fn attribute_entries(&self, object: RemoteAddress) -> Result<Vec<(RemoteAddress, RemoteAddress)>, ReadProblem> {
        let (class, facts) = self.facts_of(object)?;
        let dictionary = if facts.has(flag::MANAGED_DICTIONARY) && facts.has(flag::HEAP_TYPE) {
            match self.layout.attributes {
                Attributes::Dictionary => self.dictionary_at_offset(object, &facts)?,
                Attributes::ValuesPointer { values, managed_dictionary } => {
                    if let Some(values) = self.pointer_before(object, i64::from(values))? {
                        return self.values_of(class, values);
                    }
                    self.pointer_before(object, i64::from(managed_dictionary))?
                }
                Attributes::TaggedPointer { managed_dictionary } => {
                    let number = u64::from_le_bytes(self.array(object, i64::from(managed_dictionary))?);
                    if number & 1 == 1 {
                        return self.values_of(class, RemoteAddress(number.saturating_add(1)));
                    }
                    self.pointer_before(object, i64::from(managed_dictionary))?
                }
                Attributes::InlineValues { managed_dictionary } => {
                    let dictionary = self.pointer_before(object, i64::from(managed_dictionary))?;
                    let values = RemoteAddress(object.0.saturating_add(facts.basic_size));
                    let valid = self.layout.dictionary.values_valid.unwrap_or_default();
                    if dictionary.is_none() && facts.has(flag::INLINE_VALUES) && self.u8(values, valid)? != 0 {
                        return self.values_of(class, values);
                    }
                    dictionary
                }
            }
        } else {
            self.dictionary_at_offset(object, &facts)?
        };
        match dictionary {
            Some(dictionary) => self.first_dict_entries(dictionary, ATTRIBUTE_LIMIT),
            None => Ok(Vec::new()),
        }
    }

    /// Values of an object whose names its type holds.
    fn values_of(
        &self,
        class: RemoteAddress,
        values: RemoteAddress,
    ) -> Result<Vec<(RemoteAddress, RemoteAddress)>, ReadProblem> {
        let keys = self.required(class, self.layout.class.ht_cached_keys, "type with attributes in its instances")?;
        self.split_entries(&self.keys(keys)?, values)
    }

    /// The dictionary at `tp_dictoffset`; `None` if the type has none or the object has none yet.
    fn dictionary_at_offset(
        &self,
        object: RemoteAddress,
        facts: &TypeFacts,
    ) -> Result<Option<RemoteAddress>, ReadProblem> {
        let offset = match facts.dictionary_offset {
            0 => return Ok(None),
            offset if offset > 0 => offset,
            // Counted from the end of an object whose size varies (Objects/object.c, _PyObject_GetDictPtr). The number of
            // digits of an int is not its size from 3.12: subclasses of int are not looked into.
            _ if facts.has(flag::INTEGER) => return Ok(None),
            offset => {
                let torn = ReadProblem::Torn { address: object, what: "object" };
                let items = self.u64(object, self.layout.object.ob_size)?.cast_signed().unsigned_abs();
                let size = items.checked_mul(facts.item_size).and_then(|size| size.checked_add(facts.basic_size));
                let size = size.and_then(|size| size.checked_next_multiple_of(8)).ok_or_else(|| torn.clone())?;
                i64::try_from(size).ok().and_then(|size| size.checked_add(offset)).ok_or(torn)?
            }
        };
        self.pointer_before(object, offset)
    }
}
