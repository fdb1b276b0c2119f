//! Named tensors read from safetensors blocks, without copying them.
//!
//! A block is any storage that gives bytes (a `Vec<u8>`, a static slice, a memory map); one model may be spread over
//! several (shards). Everything is checked when a block is opened, so later access cannot go out of bounds.
mod names;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::{Error, Result};
pub use names::Part;

/// Bytes shared between [`Weights`] and whoever else holds them.
pub type Storage = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Largest header that is parsed, in bytes (the limit of the safetensors format itself).
const MAX_HEADER: usize = 100_000_000;

/// Element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }
}

impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
        })
    }
}

/// One tensor: little-endian elements in row-major order, borrowed from its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Label of the file it came from.
    pub label: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// `product(shape) * dtype.size()` bytes, of any alignment.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// All elements as f32 (exact for every [`DType`]).
    pub fn to_f32(&self) -> Vec<f32> {
        let halves = |convert: fn(u16) -> f32| {
            let pairs = self.bytes.chunks_exact(2);
            pairs.map(|b| convert(u16::from_le_bytes([b[0], b[1]]))).collect()
        };
        match self.dtype {
            DType::F32 => {
                let words = self.bytes.chunks_exact(4);
                words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            DType::F16 => halves(|bits| f16::from_bits(bits).to_f32()),
            DType::BF16 => halves(|bits| bf16::from_bits(bits).to_f32()),
        }
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
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
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
    /// A block that is truncated, has surplus bytes or a malformed header, and a tensor name found in two blocks.
    pub fn from_blocks(blocks: Vec<(String, Storage)>) -> Result<Self> {
        let mut weights = Weights { blocks: Vec::with_capacity(blocks.len()), entries: BTreeMap::new() };
        for (label, storage) in blocks {
            weights.open(label, storage)?;
        }
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
        let (data_start, header) = read_header(&label, bytes)?;
        let block = self.blocks.len();
        for (name, info) in header.tensors() {
            // The header was validated to cover exactly the bytes after it, so these sums are in bounds.
            let (start, end) = (data_start + info.data_offsets.0, data_start + info.data_offsets.1);
            let entry = Entry { block, dtype: info.dtype, shape: info.shape.clone(), start, end };
            if let Some(first) = self.entries.get(&name) {
                let place = format!("{label}: `{name}`");
                let first = self.blocks.get(first.block).map_or(label.as_str(), |b| b.label.as_str());
                return Err(Error::bad(place, "a name used once", format!("the same name in {first}"))
                    .with_hint("Remove the stale shard."));
            }
            self.entries.insert(name, entry);
        }
        let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        self.blocks.push(Block { label, storage, metadata });
        Ok(())
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// No such name (the nearest existing one is suggested), or an element type other than f32, f16 and bf16.
    pub fn get(&self, name: &str) -> Result<TensorView<'_>> {
        let Some((name, entry)) = self.entries.get_key_value(name) else {
            let error = Error::missing(self.label(), format!("tensor `{name}`"));
            return Err(match self.nearest(name) {
                Some(near) => error.with_hint(&format!("The nearest name there is `{near}`.")),
                None => error.with_hint("The file holds no tensors."),
            });
        };
        let block = &self.blocks[entry.block];
        let place = || format!("{}: `{name}`", block.label);
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(Error::bad(place(), "element type f32, f16 or bf16", format!("{other:?}"))
                    .with_hint("Convert the checkpoint to one of these."));
            }
        };
        // A storage that changes its length between calls ends here and not in a panic.
        let bytes = (*block.storage).as_ref().get(entry.start..entry.end);
        let bytes =
            bytes.ok_or_else(|| Error::bad(place(), "the bytes seen on opening", "a storage that shrank"))?;
        Ok(TensorView { name, label: &block.label, dtype, shape: &entry.shape, bytes })
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
        let place = format!("{}: `{name}`", view.label);
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
        let labels: Vec<&str> = self.blocks.iter().map(|b| b.label.as_str()).collect();
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

/// Parses and validates the header of one block. Returns where its data starts.
fn read_header(label: &str, bytes: &[u8]) -> Result<(usize, Metadata)> {
    let expected = "a safetensors file";
    let hint = "Is the file complete? Download it again.";
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::bad(label, expected, format!("only {} bytes in all", bytes.len())).with_hint(hint));
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&n| n <= MAX_HEADER);
    let Some(length) = length else {
        return Err(Error::bad(label, expected, "no valid header length in its first 8 bytes")
            .with_hint("Pickle (.bin, .ckpt, .pt) files are not read; convert them to safetensors."));
    };
    let Some((header, data)) = rest.split_at_checked(length) else {
        let found = format!("{} bytes", rest.len());
        return Err(Error::bad(label, format!("a header of {length} bytes"), found).with_hint(hint));
    };
    // This also checks that offsets are gapless, ordered and as long as shape and type demand.
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|e| Error::bad(label, "a valid safetensors header", e.to_string()).with_hint(hint))?;
    if metadata.data_len() != data.len() {
        let found = format!("{} bytes of tensor data", data.len());
        let expected = format!("{} bytes of tensor data", metadata.data_len());
        return Err(Error::bad(label, expected, found).with_hint(hint));
    }
    Ok((8 + length, metadata))
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
mod tests {
    use super::*;
    use alloc::vec;

    /// A safetensors file from a literal header and data.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn sample() -> Vec<u8> {
        let header = r#"{"__metadata__":{"format":"pt"},
            "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "b.weight":{"dtype":"F16","shape":[1,2],"data_offsets":[8,12]},
            "c":{"dtype":"BF16","shape":[],"data_offsets":[12,14]},
            "d":{"dtype":"I64","shape":[0,3],"data_offsets":[14,14]}}"#;
        let mut data = vec![];
        data.extend(1.5f32.to_le_bytes());
        data.extend((-2.0f32).to_le_bytes());
        data.extend(f16::from_f32(0.5).to_le_bytes());
        data.extend(f16::from_f32(65504.0).to_le_bytes());
        data.extend(bf16::from_f32(-3.0).to_le_bytes());
        file(header, &data)
    }

    fn message<T>(result: Result<T>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn reads_the_three_types() {
        let w = Weights::from_bytes("m.safetensors", sample()).unwrap();
        assert_eq!((w.len(), w.total_bytes()), (4, 14));
        assert_eq!(w.get("a").unwrap().to_f32(), [1.5, -2.0]);
        let b = w.expect("b.weight", &[1, 2]).unwrap();
        assert_eq!((b.to_f32(), b.dtype, b.elements()), (vec![0.5, 65504.0], DType::F16, 2));
        let c = w.expect("c", &[]).unwrap();
        assert_eq!((c.to_f32(), c.shape.len(), c.label), (vec![-3.0], 0, "m.safetensors"));
        assert_eq!(w.metadata("format"), Some("pt"));
        assert_eq!(w.names().collect::<Vec<_>>(), ["a", "b.weight", "c", "d"]);
    }

    #[test]
    fn foreign_types_fail_only_when_fetched() {
        let w = Weights::from_bytes("m.safetensors", sample()).unwrap();
        assert_eq!(w.shape("d"), Some(&[0, 3][..]));
        assert!(w.contains("d"));
        let text = message(w.get("d"));
        assert!(text.contains("`d`") && text.contains("I64") && text.contains("f16"), "{text}");
    }

    #[test]
    fn a_missing_name_suggests_the_nearest() {
        let w = Weights::from_bytes("m.safetensors", sample()).unwrap();
        let text = message(w.get("b.weights"));
        assert_eq!(text, "m.safetensors: missing tensor `b.weights`. The nearest name there is `b.weight`.");
        let empty = Weights::from_bytes("e", file("{}", &[])).unwrap();
        assert!(empty.is_empty() && message(empty.get("x")).contains("no tensors"));
    }

    #[test]
    fn a_wrong_shape_is_a_sentence() {
        let w = Weights::from_bytes("m.safetensors", sample()).unwrap();
        let text = message(w.expect("b.weight", &[2, 2]));
        assert!(
            text.starts_with("m.safetensors: `b.weight`: expected shape [2, 2], found [1, 2] f16."),
            "{text}"
        );
    }

    #[test]
    fn every_truncation_and_surplus_is_refused() {
        let whole = sample();
        for n in 0..whole.len() {
            let text = message(Weights::from_bytes("cut", whole[..n].to_vec()));
            assert!(text.starts_with("cut: expected"), "{n}: {text}");
        }
        let mut short = whole.clone();
        short.truncate(whole.len() - 3);
        let text = message(Weights::from_bytes("cut", short));
        assert!(text.contains("expected 14 bytes of tensor data, found 11 bytes"), "{text}");
        let mut long = whole.clone();
        long.push(0);
        assert!(message(Weights::from_bytes("long", long)).contains("found 15 bytes"));
    }

    #[test]
    fn malformed_headers_are_refused() {
        let huge = u64::MAX / 8;
        let overflow = format!(
            r#"{{"a":{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}},
                "b":{{"dtype":"U8","shape":[8],"data_offsets":[{huge},8]}}}}"#
        );
        for (header, data) in [
            ("not json", 0),
            ("[1]", 0),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4),
            (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4),
            (r#"{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}"#, 4),
            (r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0),
            (overflow.as_str(), 8),
        ] {
            let text = message(Weights::from_bytes("bad", file(header, &vec![0; data])));
            assert!(text.starts_with("bad: expected"), "{header}: {text}");
        }
        let mut pickle = vec![0x80, 2, b'}', b'q', 0, b'(', b'X', 9];
        pickle.resize(64, 7);
        assert!(message(Weights::from_bytes("w.bin", pickle)).contains("Pickle"));
    }

    #[test]
    fn shards_join_and_duplicates_are_refused() {
        let one = r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let two = r#"{"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let block = |label: &str, header: &str, v: f32| -> (String, Storage) {
            (label.to_string(), Arc::new(file(header, &v.to_le_bytes())))
        };
        let w = Weights::from_blocks(vec![block("1", one, 1.0), block("2", two, 2.0)]).unwrap();
        assert_eq!((w.get("y").unwrap().to_f32(), w.label().as_str()), (vec![2.0], "1, 2"));
        let text = message(Weights::from_blocks(vec![block("1", one, 1.0), block("2", one, 2.0)]));
        assert!(text.contains("2: `x`") && text.contains("same name in 1"), "{text}");
        assert_eq!(Weights::from_blocks(vec![]).unwrap().label(), "no file");
    }

    #[test]
    fn edit_distances() {
        for (a, b, d) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)] {
            assert_eq!(edit_distance(a.as_bytes(), b.as_bytes()), d);
        }
    }
}
