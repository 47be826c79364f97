//! Tuples, lists and dictionaries.

use super::error::ReadProblem;
use super::interpreter::Interpreter;
use super::type_facts::flag;
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Most items of a list or tuple that are read.
const ITEM_LIMIT: u64 = 1 << 20;
/// Most entries of a dictionary that are read.
const ENTRY_LIMIT: u64 = 1 << 21;

/// Offsets in `PySetObject` (CPython 3.8 to 3.15, Include/cpython/setobject.h): a mask for places in the table, and the table. A place
/// has a key and its hash.
const SET_USED: u32 = 24;
const SET_MASK: u32 = 32;
const SET_TABLE: u32 = 40;
/// The hash beside what stands for a key that was taken out (`dummy`, Objects/setobject.c); no key has this one.
const NO_HASH: u64 = u64::MAX;

/// What the entries of a dictionary look like (CPython 3.11 to 3.15, Include/internal/pycore_dict.h, `DictKeysKind`;
/// before, all are `General`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entries {
    /// Hash, key, value.
    General,
    /// Key, value: all keys are strings.
    Text,
}

/// A table of keys.
pub(super) struct Keys {
    kind: Entries,
    /// Address of the first entry.
    entries: u64,
    count: usize,
}

impl<M: Memory> Interpreter<M> {
    /// Items of a tuple, or of an instance of a subclass.
    ///
    /// # Errors
    /// It is no tuple, has more than a million items, or changed meanwhile.
    pub fn tuple_items(&self, tuple: RemoteAddress) -> Result<Vec<RemoteAddress>, ReadProblem> {
        self.first_tuple_items(tuple, usize::MAX)
    }

    /// The first items of a tuple, so many at most.
    ///
    /// # Errors
    /// As for [`Self::tuple_items`].
    pub fn first_tuple_items(&self, tuple: RemoteAddress, most: usize) -> Result<Vec<RemoteAddress>, ReadProblem> {
        self.expect_flag(tuple, flag::TUPLE, "tuple")?;
        let first = tuple.0.saturating_add(u64::from(self.layout.tuple.ob_item));
        self.items(tuple, first, "tuple", most)
    }

    /// Items of a list, or of an instance of a subclass.
    ///
    /// # Errors
    /// It is no list, has more than a million items, or changed meanwhile.
    pub fn list_items(&self, list: RemoteAddress) -> Result<Vec<RemoteAddress>, ReadProblem> {
        self.first_list_items(list, usize::MAX)
    }

    /// The first items of a list, so many at most.
    ///
    /// # Errors
    /// As for [`Self::list_items`].
    pub fn first_list_items(&self, list: RemoteAddress, most: usize) -> Result<Vec<RemoteAddress>, ReadProblem> {
        self.expect_flag(list, flag::LIST, "list")?;
        let first = self.pointer(list, self.layout.list.ob_item)?.map_or(0, |first| first.0);
        self.items(list, first, "list", most)
    }

    fn items(
        &self,
        object: RemoteAddress,
        first: u64,
        what: &'static str,
        most: usize,
    ) -> Result<Vec<RemoteAddress>, ReadProblem> {
        let count = self.count(object, self.layout.object.ob_size, what, ITEM_LIMIT)?.min(most);
        if count == 0 {
            return Ok(Vec::new());
        }
        let torn = ReadProblem::Torn { address: object, what };
        self.pointers_at(first, count)?.map(|item| item?.ok_or_else(|| torn.clone())).collect()
    }

    /// Items of a set or frozen set, in no order, so many places of its table at most.
    ///
    /// # Errors
    /// It is none, or changed meanwhile.
    pub(super) fn set_items(&self, set: RemoteAddress, most: u64) -> Result<Vec<RemoteAddress>, ReadProblem> {
        let kind = self.type_of(set)?;
        if ![self.types.set, self.types.frozen_set].contains(&kind) {
            return Err(ReadProblem::WrongType { address: set, expected: "set" });
        }
        let used = self.count(set, SET_USED, "set", ENTRY_LIMIT)?;
        let places = self.count(set, SET_MASK, "set", most)? + 1;
        let bytes = self.bytes_at(self.required(set, SET_TABLE, "set")?.0, places * 16)?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let (entries, _) = numbers.as_chunks::<2>();
        let entries = entries.iter().map(|[key, hash]| (u64::from_le_bytes(*key), u64::from_le_bytes(*hash)));
        let keys = entries.filter(|(key, hash)| *key != 0 && *hash != NO_HASH).map(|(key, _)| RemoteAddress(key));
        let keys: Vec<RemoteAddress> = keys.collect();
        if keys.len() == used { Ok(keys) } else { Err(ReadProblem::Torn { address: set, what: "set" }) }
    }

    /// Keys and values of a dictionary, or of an instance of a subclass, in the order in which the keys were added.
    ///
    /// # Errors
    /// It is no dictionary, has more than two million entries, or changed meanwhile: the entries found are then not as
    /// many as it says it has.
    pub fn dict_entries(&self, dictionary: RemoteAddress) -> Result<Vec<(RemoteAddress, RemoteAddress)>, ReadProblem> {
        self.first_dict_entries(dictionary, usize::MAX)
    }

    /// The keys that were added first and their values, so many at most.
    ///
    /// # Errors
    /// As for [`Self::dict_entries`].
    pub fn first_dict_entries(
        &self,
        dictionary: RemoteAddress,
        most: usize,
    ) -> Result<Vec<(RemoteAddress, RemoteAddress)>, ReadProblem> {
        self.expect_flag(dictionary, flag::DICTIONARY, "dictionary")?;
        let torn = || ReadProblem::Torn { address: dictionary, what: "dictionary" };
        let layout = &self.layout.dictionary;
        let used = self.count(dictionary, layout.ma_used, "dictionary", ENTRY_LIMIT)?;
        let keys = self.required(dictionary, layout.ma_keys, "dictionary")?;
        let mut keys = self.keys(keys)?;
        let is_cut = keys.count > most;
        keys.count = keys.count.min(most);
        let entries = match self.pointer(dictionary, layout.ma_values)? {
            None => self.combined_entries(&keys)?,
            Some(values) => self.split_entries(&keys, values)?,
        };
        if is_cut || entries.len() == used { Ok(entries) } else { Err(torn()) }
    }

    /// The value of a key of ASCII characters, `None` if the dictionary has none.
    ///
    /// # Errors
    /// As for [`Self::dict_entries`].
    pub fn dict_value(&self, dictionary: RemoteAddress, key: &str) -> Result<Option<RemoteAddress>, ReadProblem> {
        for (found, value) in self.dict_entries(dictionary)? {
            if self.text_is(found, key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Entries of a dictionary, or attributes of an object, whose keys are strings; others are left out.
    pub(super) fn named(
        &self,
        entries: Vec<(RemoteAddress, RemoteAddress)>,
    ) -> Result<Vec<(String, RemoteAddress)>, ReadProblem> {
        let mut named = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            match self.text(key) {
                Ok(name) => named.push((name, value)),
                Err(ReadProblem::WrongType { .. } | ReadProblem::TooLarge { .. }) => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(named)
    }

    /// Looks at a table of keys.
    pub(super) fn keys(&self, keys: RemoteAddress) -> Result<Keys, ReadProblem> {
        let layout = &self.layout.keys;
        let torn = || ReadProblem::Torn { address: keys, what: "table of keys" };
        let count = self.count(keys, layout.dk_nentries, "table of keys", ENTRY_LIMIT)?;
        let (slots, index_bytes, kind) =
            match (layout.dk_size, layout.dk_log2_size, layout.dk_log2_index_bytes, layout.dk_kind) {
                (Some(size), ..) => {
                    let slots = self.u64(keys, size)?;
                    // Objects/dictobject.c, DK_IXSIZE, CPython 3.8 to 3.10.
                    let width = match slots {
                        0..=0xff => 1,
                        0x100..=0xffff => 2,
                        0x1_0000..=0xffff_ffff => 4,
                        _ => 8,
                    };
                    (slots, slots.checked_mul(width), Entries::General)
                }
                (None, Some(log2_size), Some(log2_index_bytes), Some(kind)) => {
                    let power = |exponent: u8| 1_u64.checked_shl(u32::from(exponent));
                    let slots = power(self.u8(keys, log2_size)?).ok_or_else(torn)?;
                    let kind = match self.u8(keys, kind)? {
                        0 => Entries::General,
                        1 | 2 => Entries::Text,
                        _ => return Err(torn()),
                    };
                    (slots, power(self.u8(keys, log2_index_bytes)?), kind)
                }
                _ => return Err(torn()),
            };
        // At most two thirds of the slots are used (USABLE_FRACTION, Objects/dictobject.c).
        if slots > ENTRY_LIMIT * 4 || count as u64 > slots * 2 / 3 {
            return Err(torn());
        }
        let start = keys.0.checked_add(u64::from(layout.dk_indices));
        let entries = index_bytes.and_then(|bytes| start?.checked_add(bytes)).ok_or_else(torn)?;
        Ok(Keys { kind, entries, count })
    }

    /// Entries of a table that holds keys and values.
    fn combined_entries(&self, keys: &Keys) -> Result<Vec<(RemoteAddress, RemoteAddress)>, ReadProblem> {
        let numbers = keys.kind.numbers();
        let mut found = Vec::new();
        let mut pointers = self.entry_pointers(keys)?;
        for _ in 0..keys.count {
            if numbers == 3 {
                pointers.next();
            }
            // A deleted entry keeps neither key nor value.
            if let (Some(Some(key)), Some(Some(value))) = (pointers.next(), pointers.next()) {
                found.push((valid(key, keys)?, valid(value, keys)?));
            }
        }
        Ok(found)
    }

    /// Entries of a table of keys that several dictionaries share, and the values of one of them.
    pub(super) fn split_entries(
        &self,
        keys: &Keys,
        values: RemoteAddress,
    ) -> Result<Vec<(RemoteAddress, RemoteAddress)>, ReadProblem> {
        let numbers = keys.kind.numbers();
        let names = self.entry_pointers(keys)?.skip(numbers - 2).step_by(numbers);
        let first = values.0.saturating_add(u64::from(self.layout.dictionary.values_items));
        let mut found = Vec::new();
        for (name, value) in names.zip(self.pointers_at(first, keys.count)?) {
            if let (Some(name), Some(value)) = (name, value?) {
                found.push((valid(name, keys)?, value));
            }
        }
        Ok(found)
    }

    /// The keys of a table.
    pub(super) fn key_addresses(&self, keys: &Keys) -> Result<Vec<RemoteAddress>, ReadProblem> {
        let numbers = keys.kind.numbers();
        let names = self.entry_pointers(keys)?.skip(numbers - 2).step_by(numbers);
        names.flatten().map(|name| valid(name, keys)).collect()
    }

    /// All pointers of the entries of a table, not yet looked at: some are hashes.
    fn entry_pointers(&self, keys: &Keys) -> Result<impl Iterator<Item = Option<u64>> + use<M>, ReadProblem> {
        let length = keys.count.saturating_mul(keys.kind.numbers() * 8);
        let bytes = self.bytes_at(keys.entries, length)?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        Ok(numbers.into_iter().map(|number| (number != 0).then_some(number)))
    }

    /// A number of things, which is not negative.
    fn count(&self, object: RemoteAddress, offset: u32, what: &'static str, limit: u64) -> Result<usize, ReadProblem> {
        let size = self.u64(object, offset)?;
        let too_large = ReadProblem::TooLarge { address: object, what, size, limit };
        if size > limit { Err(too_large) } else { usize::try_from(size).map_err(|_| too_large) }
    }
}

impl Entries {
    /// Pointers and hashes of one entry.
    fn numbers(self) -> usize {
        match self {
            Self::General => 3,
            Self::Text => 2,
        }
    }
}

fn valid(number: u64, keys: &Keys) -> Result<RemoteAddress, ReadProblem> {
    let torn = ReadProblem::Torn { address: RemoteAddress(keys.entries), what: "entry of a dictionary" };
    if number.is_multiple_of(8) { Ok(RemoteAddress(number)) } else { Err(torn) }
}
