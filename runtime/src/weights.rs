//! Named tensors read from safetensors and GGUF blocks, without copying them.
//!
//! A block is any storage that gives bytes (a `Vec<u8>`, a static slice, a memory map); one model may be spread over
//! several (shards). Everything is checked when a block is opened, so later access cannot go out of bounds.
//! [`crate::layout`] presents the same tensors, or rows of them, under other names.
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::gguf;
use crate::{Error, Result};
pub use names::Part;

mod base;
mod dtype;
pub(crate) mod header;
mod names;
mod number;
mod quant;
mod scales;
mod shared;

pub use base::Base;
pub use dtype::DType;
use header::Stored;
pub use shared::Shared;

/// Bytes shared between [`Weights`] and whoever else holds them.
pub type Storage = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// One tensor: little-endian elements in row-major order, borrowed from its block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Label of the file it came from.
    pub label: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// `dtype.bytes(product(shape))` bytes, of any alignment.
    pub bytes: &'a [u8],
    /// Factors of scaled fp8: none, one for all numbers, or one for each index of the first axis.
    pub scale: &'a [f32],
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// All elements as f32: exact for f32, f16, bf16 and fp8; `scale * q + minimum` in f32 for quantised and scaled ones.
    ///
    /// # Errors
    /// The host's memory has no room for them.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        Ok(self.scaled(self.dtype.decode(self.bytes)?, 0))
    }

    /// Accepts finite numbers only.
    ///
    /// # Errors
    /// The first NaN or infinity, with its place.
    pub fn check_finite(&self) -> Result<()> {
        // In half precision a number is none exactly where the exponent is all ones: no need to widen it.
        let words = || self.bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        let first = match self.dtype {
            DType::F16 => words().position(|w| w & 0x7c00 == 0x7c00),
            DType::BF16 => words().position(|w| w & 0x7f80 == 0x7f80),
            _ => self.to_f32()?.iter().position(|v| !v.is_finite()),
        };
        let Some(at) = first else { return Ok(()) };
        let value = self.to_f32()?.get(at).copied().unwrap_or(f32::NAN);
        let place = format!("{}: `{}`", self.label, self.name);
        Err(Error::not_finite(place, format!("{value} at number {at}"))
            .with_hint("The file is damaged, or was saved after its training had diverged."))
    }

    /// Rows `start..start + count` along the last axis as f32, decoding only these; `None` when there are not so many
    /// or rows do not consist of whole blocks.
    ///
    /// # Errors
    /// The host's memory has no room for them.
    pub fn rows(&self, start: usize, count: usize) -> Result<Option<Vec<f32>>> {
        let found = self.place_of(start, count);
        found.map(|(bytes, first)| Ok(self.scaled(self.dtype.decode(bytes)?, first))).transpose()
    }
    /// The bytes of such rows, and their first element.
    fn place_of(&self, start: usize, count: usize) -> Option<(&[u8], usize)> {
        let row = self.dtype.bytes(self.shape.last().copied().unwrap_or(1))?;
        let (from, length) = (start.checked_mul(row)?, count.checked_mul(row)?);
        let first = start.checked_mul(self.shape.last().copied().unwrap_or(1))?;
        Some((self.bytes.get(from..from.checked_add(length)?)?, first))
    }

    /// Elements from `first` on, times their factors.
    fn scaled(&self, mut values: Vec<f32>, first: usize) -> Vec<f32> {
        match *self.scale {
            [] => {}
            [scale] => values.iter_mut().for_each(|v| *v *= scale),
            ref scales => {
                let each = (self.elements() / scales.len()).max(1);
                for (i, v) in values.iter_mut().enumerate() {
                    *v *= scales.get((first + i) / each).copied().unwrap_or(1.0);
                }
            }
        }
        values
    }
}

/// One opened file.
#[derive(Clone)]
struct Block {
    label: String,
    storage: Storage,
    metadata: BTreeMap<String, String>,
}

/// Where a tensor lies: `start..end` of block `block`.
#[derive(Debug, Clone)]
struct Entry {
    block: usize,
    dtype: Stored,
    shape: Vec<usize>,
    start: usize,
    end: usize,
    /// As [`TensorView::scale`].
    scale: Vec<f32>,
    /// Its name in the file, where it is presented under another.
    source: Option<String>,
}

/// A read-only map from tensor name to tensor. Cloning is cheap in bytes: storage is shared.
#[derive(Clone)]
pub struct Weights {
    blocks: Vec<Block>,
    entries: BTreeMap<String, Entry>,
}

impl core::fmt::Debug for Weights {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Weights({}, {} tensors)", self.label(), self.len())
    }
}

impl Weights {
    /// Opens safetensors blocks as one set of tensors; each label names its file in errors.
    ///
    /// # Errors
    /// A block that is truncated, has surplus bytes or a malformed header, and a tensor name found in two blocks; factors of
    /// scaled fp8 that cannot be applied, and parts of other quantisations.
    pub fn from_blocks(blocks: Vec<(String, Storage)>) -> Result<Self> {
        let mut weights = Weights { blocks: Vec::with_capacity(blocks.len()), entries: BTreeMap::new() };
        for (label, storage) in blocks {
            weights.open(label, storage)?;
        }
        scales::fold(&mut weights)?;
        Ok(weights)
    }

    /// Opens one block of owned or static bytes.
    ///
    /// # Errors
    /// As [`Weights::from_blocks`].
    pub fn from_bytes<B>(label: impl Into<String>, bytes: B) -> Result<Self>
    where
        B: AsRef<[u8]> + Send + Sync + 'static,
    {
        let storage: Storage = Arc::new(bytes);
        Self::from_blocks(alloc::vec![(label.into(), storage)])
    }

    fn open(&mut self, label: String, storage: Storage) -> Result<()> {
        let bytes: &[u8] = (*storage).as_ref();
        let header = if gguf::is_gguf(bytes) {
            gguf::header(&label, bytes)?
        } else {
            header::safetensors(&label, bytes)?
        };
        self.blocks.push(Block { label, storage, metadata: header.metadata });
        let block = self.blocks.len() - 1;
        for found in header.tensors {
            let header::Found { name, dtype, shape, start, end } = found;
            self.insert(name, Entry { block, dtype, shape, start, end, scale: Vec::new(), source: None })?;
        }
        Ok(())
    }

    /// Adds an entry whose name must be new.
    fn insert(&mut self, name: String, entry: Entry) -> Result<()> {
        if let Some(first) = self.entries.get(&name) {
            let twice = format!("the same name in {}", self.blocks[first.block].label);
            return Err(Error::bad(self.place(&name, &entry), "a name used once", twice)
                .with_hint("Remove the stale shard or tensor."));
        }
        self.entries.insert(name, entry);
        Ok(())
    }

    /// File and tensor, for errors.
    fn place(&self, name: &str, entry: &Entry) -> String {
        let label = &self.blocks[entry.block].label;
        match &entry.source {
            Some(source) => format!("{label}: `{source}` (as `{name}`)"),
            None => format!("{label}: `{name}`"),
        }
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// No such name (the nearest existing one is suggested), or an element type that is not a [`DType`].
    pub fn get(&self, name: &str) -> Result<TensorView<'_>> {
        let Some((name, entry)) = self.entries.get_key_value(name) else {
            let error = Error::missing(self.label(), format!("tensor `{name}`"));
            return Err(match self.nearest(name) {
                Some(near) => error.with_hint(&format!("The nearest name there is `{near}`.")),
                None => error.with_hint("The file holds no tensors."),
            });
        };
        let block = &self.blocks[entry.block];
        let dtype = match &entry.dtype {
            Stored::Known(dtype) => *dtype,
            Stored::Other(other) => {
                let known = "element type f32, f16, bf16, fp8 or a supported GGUF one";
                return Err(Error::bad(self.place(name, entry), known, other.as_str())
                    .with_hint("Convert the checkpoint to one of these."));
            }
        };
        let bytes = self.bytes(name).ok_or_else(|| self.changed(name, entry))?;
        let Entry { shape, scale, .. } = entry;
        Ok(TensorView { name, label: &block.label, dtype, shape, bytes, scale })
    }

    /// The bytes of a tensor; `None` where there is no such tensor, or its storage is no longer what it was on opening.
    fn bytes(&self, name: &str) -> Option<&[u8]> {
        let entry = self.entries.get(name)?;
        (*self.blocks[entry.block].storage).as_ref().get(entry.start..entry.end)
    }

    /// A storage that shrinks between calls ends here and not in a panic.
    fn changed(&self, name: &str, entry: &Entry) -> Error {
        Error::bad(self.place(name, entry), "the bytes seen on opening", "a file that was changed meanwhile")
            .with_hint("Leave a model's files alone while it is in use.")
    }

    /// The tensor called `name`, which must have exactly this shape.
    ///
    /// # Errors
    /// As [`Weights::get`], and a shape mismatch.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        let view = self.get(name)?;
        if view.shape == shape {
            return Ok(view);
        }
        let place = self.entries.get(name).map(|entry| self.place(name, entry)).unwrap_or_default();
        Err(Error::bad(place, format!("shape {shape:?}"), format!("{:?} {}", view.shape, view.dtype))
            .with_hint("Does this checkpoint belong to this configuration?"))
    }

    /// Whether a tensor called `name` exists, whatever its element type.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of `name`, whatever its element type; `None` when there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// The element type of `name`, in words; `None` when there is no such tensor.
    pub fn type_name(&self, name: &str) -> Option<String> {
        self.entries.get(name).map(|e| match &e.dtype {
            Stored::Known(dtype) => dtype.to_string(),
            Stored::Other(other) => other.clone(),
        })
    }

    /// The name in the file of a tensor that is presented under another.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.source.as_deref()
    }

    /// All names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Total size of all tensors, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.entries.values().map(|e| (e.end - e.start) as u64).sum()
    }

    /// The file labels, joined by commas.
    pub fn label(&self) -> String {
        let mut labels: Vec<&str> = self.blocks.iter().map(|b| b.label.as_str()).collect();
        labels.dedup();
        if labels.is_empty() { "no file".to_string() } else { labels.join(", ") }
    }

    /// A `__metadata__` entry of the first block that has it.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.blocks.iter().find_map(|b| b.metadata.get(key)).map(String::as_str)
    }

    /// The existing name with the smallest edit distance to `name`.
    fn nearest(&self, name: &str) -> Option<&str> {
        let distance = |known: &&String| edit_distance(known.as_bytes(), name.as_bytes());
        self.entries.keys().min_by_key(distance).map(String::as_str)
    }
}

/// Presenting tensors under other names. A set made by [`Weights::view`] shares the blocks of its origin.
impl Weights {
    /// A set over the same blocks, without tensors yet.
    pub(crate) fn view(&self) -> Weights {
        Weights { blocks: self.blocks.clone(), entries: BTreeMap::new() }
    }

    /// The entry behind `source` of `from`, which this set was made from, as it will be presented.
    fn borrow(&self, from: &Weights, source: &str) -> Result<Entry> {
        let entry = from.entries.get(source).filter(|e| e.block < self.blocks.len());
        let entry = entry.ok_or_else(|| Error::missing(from.label(), format!("tensor `{source}`")))?;
        Ok(Entry { source: entry.source.clone().or_else(|| Some(source.to_string())), ..entry.clone() })
    }

    /// Presents `source` as `name`, with ones cut off its shape's end down to `rank` axes (a 1 x 1 convolution as a
    /// matrix) or put before it (a table whose writer dropped them).
    ///
    /// # Errors
    /// A name that is taken.
    pub(crate) fn present(
        &mut self,
        name: String,
        from: &Weights,
        source: &str,
        rank: Option<usize>,
    ) -> Result<()> {
        let mut entry = self.borrow(from, source)?;
        if let Some(rank) = rank {
            while entry.shape.len() > rank && entry.shape.last() == Some(&1) {
                entry.shape.pop();
            }
            while entry.shape.len() < rank {
                entry.shape.insert(0, 1);
            }
        }
        if entry.source.as_ref() == Some(&name) {
            entry.source = None;
        }
        self.insert(name, entry)
    }

    /// Presents part `part` of `parts` equal ranges of rows of `source` as `name`.
    ///
    /// # Errors
    /// Rows that cannot be divided so; a name that is taken.
    pub(crate) fn present_part(
        &mut self,
        name: String,
        from: &Weights,
        source: &str,
        [part, parts]: [usize; 2],
    ) -> Result<()> {
        let mut entry = self.borrow(from, source)?;
        let rows = entry.shape.first().copied().unwrap_or(0);
        let size = (entry.end - entry.start) / parts.max(1);
        let whole = match &entry.dtype {
            Stored::Known(dtype) => {
                dtype.bytes(entry.shape.iter().product::<usize>() / parts.max(1)) == Some(size)
            }
            Stored::Other(_) => true,
        };
        if !whole || entry.shape.is_empty() || !rows.is_multiple_of(parts.max(1)) || part >= parts {
            let found = format!("{:?}", entry.shape);
            return Err(Error::bad(self.place(&name, &entry), format!("rows in {parts} equal parts"), found));
        }
        if let Some(rows) = entry.shape.first_mut() {
            *rows /= parts;
        }
        (entry.start, entry.end) = (entry.start + part * size, entry.start + (part + 1) * size);
        if entry.scale.len() > 1 {
            let each = entry.scale.len() / parts;
            entry.scale = entry.scale[part * each..][..each].to_vec();
        }
        self.insert(name, entry)
    }

    /// Presents `source` with its two halves of rows exchanged as `name`. Copies these bytes, nothing else does.
    ///
    /// # Errors
    /// As [`Weights::present_part`].
    pub(crate) fn present_swapped(&mut self, name: String, from: &Weights, source: &str) -> Result<()> {
        let mut halves = self.view();
        halves.present_part("0".into(), from, source, [0, 2])?;
        halves.present_part("1".into(), from, source, [1, 2])?;
        let mut entry = self.borrow(from, source)?;
        let part = |half: &str| {
            let entry = halves.entries.get(half)?;
            Some((halves.bytes(half)?, entry.scale.as_slice()))
        };
        let (Some((first, above)), Some((second, below))) = (part("0"), part("1")) else {
            return Err(self.changed(&name, &entry));
        };
        let swapped = [second, first].concat();
        if entry.scale.len() > 1 {
            entry.scale = [below, above].concat();
        }
        let label = self.blocks[entry.block].label.clone();
        (entry.start, entry.end) = (0, swapped.len());
        entry.block = self.own(label, swapped);
        self.insert(name, entry)
    }

    /// Adds a tensor of f32 that the file implies but does not hold.
    ///
    /// # Errors
    /// A name that is taken.
    pub(crate) fn add(&mut self, label: &str, name: &str, shape: &[usize], data: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        let (dtype, shape, end) = (Stored::Known(DType::F32), shape.to_vec(), bytes.len());
        let block = self.own(label.to_string(), bytes);
        self.insert(
            name.to_string(),
            Entry { block, dtype, shape, start: 0, end, scale: Vec::new(), source: None },
        )
    }

    /// A block of bytes of our own; returns its number.
    fn own(&mut self, label: String, bytes: Vec<u8>) -> usize {
        self.blocks.push(Block { label, storage: Arc::new(bytes), metadata: BTreeMap::new() });
        self.blocks.len() - 1
    }
}

/// Levenshtein distance over bytes; names longer than 256 bytes count as far away.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    if a.len() > 256 || b.len() > 256 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
