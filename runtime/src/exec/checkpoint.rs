//! Checkpoint tensors to leaves, on the device or, where they are streamed, on the host: there a tensor that the file has as the device wants
//! it stays in the (mapped) file, and only what is converted, quantised or put in another order is a copy.
use super::{Executor, Home, LeafData, keeps};
use crate::room::{room, short};
use crate::weights::{Shared, TensorView, Weights};
use crate::{Error, Result};
use alloc::{borrow::Cow, format, vec::Vec};
use pentimento_wgsl::Stored;

/// Sets a leaf from a checkpoint tensor. With `packs`, one in half precision or in blocks stays so where the executor keeps it, and one in
/// fp8 becomes f16, exactly.
pub(crate) fn set_tensor(exec: &mut dyn Executor, name: &str, t: &TensorView<'_>, packs: bool) -> Result<()> {
    set(exec, name, t, packs, None)
}

/// As [`set_tensor`]. A leaf that is streamed shares the tensor's bytes with `file`, which has it.
pub(super) fn set(
    exec: &mut dyn Executor,
    name: &str,
    t: &TensorView<'_>,
    packs: bool,
    file: Option<&Weights>,
) -> Result<()> {
    let home = if file.is_some() { Home::Host } else { Home::Device };
    let found = t.dtype.stored().unwrap_or(Stored::F16);
    let stays = packs && t.scale.is_empty() && found.packed() && keeps(exec.caps(), t.shape, found);
    let (stored, len) = (if stays { found } else { Stored::F32 }, t.elements());
    if exec.declare(name, stored, len, home)? {
        return Ok(());
    }
    t.check_finite()?;
    if !stays {
        return floats(exec, name, &t.to_f32()?, home);
    }
    if t.dtype.stored().is_none() {
        let mut halves = room(2 * len, format!("`{name}` in half precision"))?;
        halves.extend(t.to_f32()?.into_iter().flat_map(|v| half::f16::from_f32(v).to_le_bytes()));
        return bytes(exec, name, (stored, len), halves, home);
    }
    match (file, on_device(name, stored, t.bytes)?) {
        (None, _) => exec.set_leaf(name, LeafData::Packed(stored, t.bytes)),
        (Some(_), Cow::Owned(own)) => exec.set_streamed(name, stored, len, Shared::own(own)),
        (Some(file), Cow::Borrowed(_)) => {
            let shared = file.shared(t.name).ok_or_else(|| Error::missing("checkpoint", name))?;
            exec.set_streamed(name, stored, len, shared)
        }
    }
}

/// A file's bytes as they lie on the device.
pub(super) fn on_device<'a>(name: &str, stored: Stored, file: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    stored.to_device(file).map_err(|_| short(file.len(), format!("`{name}` as the device has it")))
}

/// Sets a leaf of `len` numbers from bytes as a file would have them.
pub(super) fn bytes(
    exec: &mut dyn Executor,
    name: &str,
    (stored, len): (Stored, usize),
    bytes: Vec<u8>,
    home: Home,
) -> Result<()> {
    match home {
        Home::Device => exec.set_leaf(name, LeafData::Packed(stored, &bytes)),
        Home::Host => {
            let own = match on_device(name, stored, &bytes)? {
                Cow::Owned(own) => own,
                Cow::Borrowed(_) => bytes,
            };
            exec.set_streamed(name, stored, len, Shared::own(own))
        }
    }
}

/// Sets a leaf from numbers.
pub(super) fn floats(exec: &mut dyn Executor, name: &str, values: &[f32], home: Home) -> Result<()> {
    match home {
        Home::Device => exec.set_leaf(name, LeafData::F32(values)),
        Home::Host => {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            exec.set_streamed(name, Stored::F32, values.len(), Shared::own(bytes))
        }
    }
}

/// A file that a streamed weight was mapped from has changed.
pub(super) fn changed(name: &str) -> Error {
    Error::bad(format!("`{name}`"), "the bytes seen on opening", "a file that was changed meanwhile")
        .with_hint("Leave a model's files alone while it is in use.")
}
