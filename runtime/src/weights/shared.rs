//! Bytes of one tensor that outlive the set they came from.
use super::{Storage, Weights};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// Bytes of a tensor, shared with the file that it lies in, or owned.
#[derive(Clone)]
pub struct Shared {
    storage: Storage,
    range: Range<usize>,
}

impl Shared {
    /// Bytes of our own.
    pub fn own(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Shared { storage: Arc::new(bytes), range }
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.range.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
    /// The bytes; `None` where the storage is no longer what it was on opening.
    pub fn bytes(&self) -> Option<&[u8]> {
        (*self.storage).as_ref().get(self.range.clone())
    }
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Shared({} bytes)", self.len())
    }
}

impl Weights {
    /// The bytes of a tensor as the file has them, without a copy; `None` where there is no such tensor.
    pub fn shared(&self, name: &str) -> Option<Shared> {
        let entry = self.entries.get(name)?;
        let storage = Arc::clone(&self.blocks[entry.block].storage);
        Some(Shared { storage, range: entry.start..entry.end })
    }
}
