//! A hash for keys that are small integers handed out by the kernel.

use std::hash::{BuildHasherDefault, Hasher};

use super::identity::finalize;

/// Hash state for [`IntegerHasher`]. The tables it serves are bounded and their keys (thread, process and function
/// numbers) are not chosen by the traced program, so resistance against crafted keys would be paid for nothing.
pub type IntegerState = BuildHasherDefault<IntegerHasher>;

/// Mixes each integer written to it into 64 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct IntegerHasher(u64);

impl Hasher for IntegerHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = finalize(self.0 ^ value);
    }
}
