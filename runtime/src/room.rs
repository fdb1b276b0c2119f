//! Room in the host's memory for what files, programs and settings size: where there is none, that is an error and no abort.
use crate::{Error, Result};
use alloc::format;
use alloc::vec::Vec;

/// An empty list with room for `len` items. `what` they are: "numbers of `x`".
///
/// # Errors
/// [`Error::Memory`] of the host.
pub fn room<T>(len: usize, what: impl core::fmt::Display) -> Result<Vec<T>> {
    let mut list = Vec::new();
    match list.try_reserve_exact(len) {
        Ok(()) => Ok(list),
        Err(_) => Err(short(len.saturating_mul(size_of::<T>()), what)),
    }
}
/// A copy.
///
/// # Errors
/// As [`room`].
pub fn copied<T: Copy>(items: &[T], what: impl core::fmt::Display) -> Result<Vec<T>> {
    let mut list = room(items.len(), what)?;
    list.extend_from_slice(items);
    Ok(list)
}
/// So many bytes are not there.
pub(crate) fn short(bytes: usize, what: impl core::fmt::Display) -> Error {
    Error::Memory {
        device: "host".into(),
        reason: format!("{bytes} bytes for {what}"),
        hint: " Other programs may hold what is missing.".into(),
    }
}
