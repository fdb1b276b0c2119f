//! What a file says about its tensors, whatever its format; and how safetensors says it.
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::DType;
use crate::{Error, Result, shown};

/// Largest header that is parsed, in bytes (the limit of the safetensors format itself).
const MAX_HEADER: usize = 100_000_000;
/// Most tensors of a file, bytes of a name, dimensions of a tensor: ten times what any published model has. They keep the
/// memory that a header takes near its own size.
pub(crate) const MAX_TENSORS: usize = 1 << 16;
pub(crate) const MAX_NAME: usize = 1 << 16;
const MAX_DIMENSIONS: usize = 8;

/// An element type as stored: one that is decoded, or the name of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    Known(DType),
    Other(String),
}

/// One tensor of a file: bytes `start..end` of the whole file, which lie inside it and fit type and shape.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub name: String,
    pub dtype: Stored,
    pub shape: Vec<usize>,
    pub start: usize,
    pub end: usize,
}

/// Tensors and metadata of a file.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub tensors: Vec<Found>,
    pub metadata: BTreeMap<String, String>,
}

/// The number of elements of a shape, where a file of `bytes` bytes can hold so many: no stored type takes less than a bit for
/// an element. Sides of zero count as one here, so that no product of some of the sides is larger.
pub(crate) fn elements(shape: &[usize], bytes: usize) -> Option<usize> {
    let most = bytes.saturating_mul(8).max(1 << 31);
    let product = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side.max(1)));
    product.filter(|&n| n <= most).map(|n| if shape.contains(&0) { 0 } else { n })
}

/// Parses and validates the header of a safetensors file.
pub(crate) fn safetensors(label: &str, bytes: &[u8]) -> Result<Header> {
    let expected = "a safetensors or GGUF file";
    let hint = "Is the file complete? Download it again.";
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::bad(label, expected, format!("only {} bytes in all", bytes.len())).with_hint(hint));
    };
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::bad(label, expected, "a git-lfs pointer, which only names the file")
            .with_hint("Fetch the file itself: `git lfs pull`, or download it."));
    }
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&n| n <= MAX_HEADER);
    let Some(length) = length else {
        // Only here: a valid length may begin with the same byte.
        if bytes.trim_ascii_start().starts_with(b"<") {
            return Err(
                Error::bad(label, expected, "a web page").with_hint("Download the file again, signed in.")
            );
        }
        return Err(Error::bad(label, expected, "no valid header length in its first 8 bytes")
            .with_hint("Pickle (.bin, .ckpt, .pt) files are not read; convert them to safetensors."));
    };
    let Some((header, data)) = rest.split_at_checked(length) else {
        let found = format!("{} bytes", rest.len());
        return Err(Error::bad(label, format!("a header of {length} bytes"), found).with_hint(hint));
    };
    let malformed =
        |e: serde_json::Error| Error::bad(label, "a valid safetensors header", e.to_string()).with_hint(hint);
    let mut json = serde_json::Deserializer::from_slice(header);
    let mut header = json.deserialize_map(Entries).map_err(malformed)?;
    json.end().map_err(malformed)?;
    check(label, &mut header.tensors, data.len())?;
    for tensor in &mut header.tensors {
        tensor.start += 8 + length; // within the file, as the check has seen
        tensor.end += 8 + length;
    }
    Ok(header)
}

/// Tensors lie one after another without gaps, fill the data and are as long as shape and type demand.
fn check(label: &str, tensors: &mut [Found], data: usize) -> Result<()> {
    tensors.sort_by_key(|t| (t.start, t.end));
    let mut at = 0;
    for t in &*tensors {
        let place = || format!("{label}: `{}`", shown(&t.name));
        let found = || format!("{} to {}", t.start, t.end);
        if t.start != at || t.end < t.start {
            return Err(Error::bad(place(), format!("data that begin at byte {at}"), found()));
        }
        at = t.end;
        let elements = elements(&t.shape, data).ok_or_else(|| {
            Error::bad(place(), format!("a shape that {data} bytes can hold"), format!("{:?}", t.shape))
        })?;
        let bits = match &t.dtype {
            Stored::Known(dtype) => 8 * dtype.block().1,
            Stored::Other(name) => bits(name).ok_or_else(|| {
                Error::bad(place(), "an element type of the safetensors format", name.as_str())
            })?,
        };
        let bytes = elements.checked_mul(bits).filter(|n| n.is_multiple_of(8)).map(|n| n / 8);
        if bytes != Some(t.end - t.start) {
            let expected = bytes.map_or("whole bytes".to_string(), |n| format!("{n} bytes"));
            return Err(Error::bad(place(), format!("{expected} for shape {:?}", t.shape), found()));
        }
    }
    if at != data {
        let expected = format!("{at} bytes of tensor data");
        return Err(Error::bad(label, expected, format!("{data} bytes of tensor data"))
            .with_hint("Is the file complete? Download it again."));
    }
    Ok(())
}

/// The type behind its name in safetensors.
fn stored(name: &str) -> Stored {
    match name {
        "F32" => Stored::Known(DType::F32),
        "F16" => Stored::Known(DType::F16),
        "BF16" => Stored::Known(DType::BF16),
        "F8_E4M3" => Stored::Known(DType::F8_E4M3),
        "F8_E5M2" => Stored::Known(DType::F8_E5M2),
        other => Stored::Other(shown(other).to_string()),
    }
}

/// Bits of an element of the types that are not read, where they are known.
fn bits(name: &str) -> Option<usize> {
    Some(match name {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E8M0" => 8,
        "I16" | "U16" => 16,
        "I32" | "U32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// The header's object, read in one pass: what exceeds a limit ends it before it takes memory.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> core::result::Result<Header, A::Error> {
        let mut header = Header::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                header.metadata = map.next_value::<Strings>()?.0;
                continue;
            }
            if name.len() > MAX_NAME || header.tensors.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!(
                    "more than {MAX_TENSORS} tensors or {MAX_NAME} bytes in a name"
                )));
            }
            let Info { dtype, shape, range } = map.next_value()?;
            let missing = |what| A::Error::custom(format!("`{}` without {what}", shown(&name)));
            let (start, end) = range.ok_or_else(|| missing("data_offsets"))?;
            let dtype = dtype.ok_or_else(|| missing("dtype"))?;
            let shape = shape.ok_or_else(|| missing("shape"))?;
            header.tensors.push(Found { name, dtype, shape, start, end });
        }
        Ok(header)
    }
}

/// At most [`MAX_TENSORS`] texts by name.
struct Strings(BTreeMap<String, String>);

impl<'de> serde::Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(d: D) -> core::result::Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Strings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {MAX_TENSORS} texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> core::result::Result<Strings, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some((key, text)) = map.next_entry()? {
                    if texts.len() == MAX_TENSORS {
                        return Err(A::Error::invalid_length(MAX_TENSORS + 1, &self));
                    }
                    texts.insert(key, text);
                }
                Ok(Strings(texts))
            }
        }
        d.deserialize_map(Texts)
    }
}

/// What is said of one tensor.
#[derive(Default)]
struct Info {
    dtype: Option<Stored>,
    shape: Option<Vec<usize>>,
    range: Option<(usize, usize)>,
}

impl<'de> serde::Deserialize<'de> for Info {
    fn deserialize<D: Deserializer<'de>>(d: D) -> core::result::Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Info;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("dtype, shape and data_offsets")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> core::result::Result<Info, A::Error> {
                let mut info = Info::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "dtype" => info.dtype = Some(stored(&map.next_value::<String>()?)),
                        "shape" => info.shape = Some(map.next_value::<Shape>()?.0),
                        "data_offsets" => info.range = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(info)
            }
        }
        d.deserialize_map(Fields)
    }
}

/// A list of at most [`MAX_DIMENSIONS`] sides.
struct Shape(Vec<usize>);

impl<'de> serde::Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(d: D) -> core::result::Result<Self, D::Error> {
        struct Sides;
        impl<'de> Visitor<'de> for Sides {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_DIMENSIONS} sides")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> core::result::Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(side) = seq.next_element()? {
                    if shape.len() == MAX_DIMENSIONS {
                        return Err(A::Error::invalid_length(MAX_DIMENSIONS + 1, &self));
                    }
                    shape.push(side);
                }
                Ok(Shape(shape))
            }
        }
        d.deserialize_seq(Sides)
    }
}
