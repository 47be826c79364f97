//! An array of numpy goes in; the Python objects that it holds come out.

use super::super::{Interpreter, ReadProblem};
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// `PyArrayObject_fields` (numpy 1.17 to 2.5, numpy/core/include/numpy/ndarraytypes.h), offsets in bytes.
const DATA: u64 = 16;
const DIMENSION_COUNT: u64 = 24;
const DIMENSIONS: u64 = 32;
const DESCRIPTION: u64 = 56;
const FLAGS: u64 = 64;
/// `PyArray_Descr.kind`, same file.
const KIND: u64 = 24;
/// Value of `kind` for arrays of Python objects.
const OBJECTS: u8 = b'O';
/// `NPY_ARRAY_C_CONTIGUOUS` or `NPY_ARRAY_F_CONTIGUOUS`.
const CONTIGUOUS: u32 = 1 | 2;
/// Most dimensions of an array that is read.
const DIMENSION_LIMIT: u32 = 8;

/// The first items of an array of objects, as they lie in memory, so many at most. Nothing for arrays of anything else, and for views with gaps.
///
/// # Errors
/// Its memory cannot be read.
pub(super) fn items<M: Memory>(
    interpreter: &Interpreter<M>,
    array: RemoteAddress,
    most: usize,
) -> Result<Vec<RemoteAddress>, ReadProblem> {
    let u64_at = |address: u64| -> Result<u64, ReadProblem> {
        let mut bytes = [0; 8];
        interpreter.memory().read(RemoteAddress(address), &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    let at = |offset: u64| array.0.wrapping_add(offset);
    let mut kind = [0];
    interpreter.memory().read(RemoteAddress(u64_at(at(DESCRIPTION))?.wrapping_add(KIND)), &mut kind)?;
    let dimension_count = u64_at(at(DIMENSION_COUNT))? as u32;
    let contiguous = u64_at(at(FLAGS))? as u32 & CONTIGUOUS != 0;
    if kind != [OBJECTS] || !contiguous || dimension_count > DIMENSION_LIMIT {
        return Ok(Vec::new());
    }
    let dimensions = u64_at(at(DIMENSIONS))?;
    let mut count: u64 = 1;
    for index in 0..u64::from(dimension_count) {
        count = count.saturating_mul(u64_at(dimensions.wrapping_add(index * 8))?);
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(most);
    let mut bytes = vec![0; count * 8];
    interpreter.memory().read(RemoteAddress(u64_at(at(DATA))?), &mut bytes)?;
    let (items, _) = bytes.as_chunks();
    let items = items.iter().map(|item| RemoteAddress(u64::from_le_bytes(*item)));
    Ok(items.filter(|item| item.0 != 0).collect())
}
