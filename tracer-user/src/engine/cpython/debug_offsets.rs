//! The offsets that CPython tells about itself: `_Py_DebugOffsets`, at the start of `_PyRuntime` from 3.13.

use super::error::InterpreterError;
use super::layout::Layout;
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// What the structure begins with (CPython 3.13, Include/internal/pycore_runtime.h, `_Py_Debug_Cookie`).
const COOKIE: &[u8; 8] = b"xdebugpy";
/// Largest offset that is believed; `PyInterpreterState` has 200 to 400 KB.
const OFFSET_LIMIT: u64 = 1 << 20;

/// Version by `_Py_DebugOffsets`, as `(major, minor, micro)`; `None` if the runtime does not begin with it.
pub(super) fn version<M: Memory>(memory: &M, runtime: RemoteAddress) -> Option<(u8, u8, u8)> {
    let mut bytes = [0; 16];
    memory.read(runtime, &mut bytes).ok()?;
    let (cookie, version) = bytes.split_first_chunk::<8>()?;
    let version = u64::from_le_bytes(version.try_into().ok()?);
    (cookie == COOKIE).then(|| version_of_hex(version))
}

/// Version by `PY_VERSION_HEX`: a byte each for major, minor and micro, then one for level and serial.
pub(super) fn version_of_hex(hex: u64) -> (u8, u8, u8) {
    let [_, micro, minor, major, ..] = hex.to_le_bytes();
    (major, minor, micro)
}

/// Puts what the runtime tells in the place of what the data file says.
///
/// # Errors
/// `FreeThreaded`, or `Unreadable` where the structure cannot be read or says what cannot be.
pub(super) fn apply<M: Memory>(layout: Layout, memory: &M, runtime: RemoteAddress) -> Result<Layout, InterpreterError> {
    let Some(offsets) = layout.debug_offsets.clone() else { return Ok(layout) };
    let read = |position: u32| {
        let mut bytes = [0; 8];
        memory.read(RemoteAddress(runtime.0.saturating_add(u64::from(position))), &mut bytes)?;
        Ok::<_, InterpreterError>(u64::from_le_bytes(bytes))
    };
    if read(offsets.free_threaded)? != 0 {
        return Err(InterpreterError::FreeThreaded);
    }
    let mut fields = serde_json::to_value(&layout).expect("a layout is plain data");
    for (path, position) in &offsets.fields {
        let value = read(*position)?;
        if value >= OFFSET_LIMIT {
            return Err(InterpreterError::Implausible { what: "an offset in _Py_DebugOffsets", value });
        }
        let field = fields.pointer_mut(&format!("/{}", path.replace('.', "/")));
        *field.expect("a unit test looks for every path") = value.into();
    }
    Ok(serde_json::from_value(fields).expect("only numbers were replaced, by numbers in range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Snapshot;

    /// A runtime whose every debug offset is the one of the data file, except those that `change` changes.
    fn runtime(layout: &Layout, change: impl Fn(&mut Vec<u8>)) -> Snapshot {
        let mut bytes = vec![0; 1024];
        bytes[..8].copy_from_slice(COOKIE);
        bytes[8..16].copy_from_slice(&0x030d_02f0_u64.to_le_bytes());
        let fields = serde_json::to_value(layout).expect("plain data");
        for (path, position) in &layout.debug_offsets.as_ref().expect("3.13").fields {
            let value = fields.pointer(&format!("/{}", path.replace('.', "/")));
            let value = value.and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("no number at {path}"));
            let position = *position as usize;
            bytes[position..position + 8].copy_from_slice(&value.to_le_bytes());
        }
        change(&mut bytes);
        Snapshot::new(serde_json::Value::Null, [(0x1000, bytes)])
    }

    #[test]
    fn every_field_has_its_place_in_the_layout() {
        for minor in [13, 14, 15] {
            let layout = Layout::of_version(3, minor).expect("a known version");
            let memory = runtime(&layout, |_| ());
            assert_eq!(version(&memory, RemoteAddress(0x1000)), Some((3, 13, 2)));
            assert_eq!(apply(layout.clone(), &memory, RemoteAddress(0x1000)).expect("plausible"), layout);
        }
    }

    #[test]
    fn what_the_runtime_tells_wins() {
        let layout = Layout::of_version(3, 13).expect("a known version");
        let memory = runtime(&layout, |bytes| bytes[40..48].copy_from_slice(&4711_u64.to_le_bytes()));
        let layout = apply(layout, &memory, RemoteAddress(0x1000)).expect("plausible");
        assert_eq!(layout.runtime.interpreters_head, 4711);
    }

    #[test]
    fn free_threaded_and_senseless_runtimes_are_refused() {
        let layout = Layout::of_version(3, 13).expect("a known version");
        let free = runtime(&layout, |bytes| bytes[16] = 1);
        assert!(matches!(apply(layout.clone(), &free, RemoteAddress(0x1000)), Err(InterpreterError::FreeThreaded)));
        let senseless = runtime(&layout, |bytes| bytes[64..72].fill(0xff));
        let error = apply(layout.clone(), &senseless, RemoteAddress(0x1000)).expect_err("too large");
        assert!(matches!(error, InterpreterError::Implausible { value: u64::MAX, .. }));
        assert!(apply(layout, &senseless, RemoteAddress(0x9000)).is_err(), "nothing is there");
        assert_eq!(version(&senseless, RemoteAddress(0x1008)), None);
    }
}
